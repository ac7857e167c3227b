//! Models and connections that misbehave.

use hob_agent::{Agent as _, AgentError, ModelFormat, StopReason, ToolStatus};
use serde_json::json;

use crate::support::host::text_of;
use crate::support::model::{Ending, Part, Reply, calls, says};
use crate::support::{Bench, FORMATS, prompt};

fn cut(text: &str) -> Reply {
    Reply::Stream(vec![Part::Text(text.to_owned())], Ending::Cut)
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again_in_all_four_formats() {
    for format in FORMATS {
        let mut bench = Bench::with(format, vec![cut("half an ans"), says("A whole one.")], |_| {}, Vec::new()).await;
        assert_eq!(bench.prompt("hello").await.stop_reason, StopReason::EndTurn, "{format:?}");
        let notices = bench.host.notices();
        assert_eq!(notices.len(), 1, "{format:?}: {notices:?}");
        assert!(notices[0].contains("broke off") && notices[0].ends_with("asking again, 1 of 3"), "{notices:?}");
        assert!(!bench.model.asked()[1].has("half an ans"), "{format:?}");
    }
}

#[tokio::test]
async fn a_call_that_breaks_off_is_withdrawn_and_never_run() {
    let begun =
        Reply::Stream(vec![Part::Call("shell".to_owned(), json!({"command": "touch ran"}).to_string())], Ending::Cut);
    let mut bench = Bench::new(vec![begun, says("Done.")]).await;
    bench.prompt("hello").await;
    let calls = bench.host.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].status, ToolStatus::Failed);
    assert!(!std::path::Path::new(hob_agent::Workspace::root(bench.workspace.as_ref())).join("ran").exists());
}

#[tokio::test]
async fn a_model_that_always_breaks_off_ends_the_turn_with_its_name() {
    let mut bench = Bench::new((0..9).map(|_| cut("half")).collect()).await;
    let error = bench.agent.prompt(prompt("hello"), &bench.host, bench.stop.clone()).await.expect_err("fails");
    assert!(matches!(&error, AgentError::Model { model, .. } if model == "scripted-1"), "{error}");
    assert_eq!(bench.model.asked().len(), 4);
}

#[tokio::test]
async fn a_refused_request_is_not_sent_again_since_the_gateway_retries() {
    for status in [429, 401, 500] {
        let refused = Reply::Refuse(status, r#"{"error":{"message":"slow down"}}"#.to_owned());
        let mut bench = Bench::new(vec![refused, says("never asked for")]).await;
        let error = bench.agent.prompt(prompt("hello"), &bench.host, bench.stop.clone()).await.expect_err("fails");
        assert_eq!(bench.model.asked().len(), 1);
        let said = error.to_string();
        assert!(said.contains(&status.to_string()) && said.contains("slow down"), "{said}");
    }
}

#[tokio::test]
async fn after_a_refused_request_the_next_turn_has_the_whole_conversation() {
    let refused = Reply::Refuse(503, "no".to_owned());
    let mut bench = Bench::new(vec![calls([("list", json!({}))]), refused, says("Done.")]).await;
    bench.agent.prompt(prompt("first words"), &bench.host, bench.stop.clone()).await.expect_err("fails");
    bench.prompt("second words").await;
    let asked = bench.model.asked();
    assert!(asked[2].has("first words") && asked[2].has("second words") && asked[2].has("[the folder is empty]"));
}

#[tokio::test]
async fn arguments_cut_by_the_output_limit_are_told_to_the_model() {
    for format in [ModelFormat::OpenAiChat, ModelFormat::OpenAiResponses, ModelFormat::Anthropic] {
        let cut = r#"{"path":"big.txt","content":"a very long te"#;
        let half = Reply::Stream(vec![Part::Call("write".to_owned(), cut.to_owned())], Ending::OutputLimit);
        let whole = calls([("write", json!({ "path": "big.txt", "content": "short" }))]);
        let mut bench = Bench::with(format, vec![half, whole, says("Done.")], |_| {}, Vec::new()).await;
        assert_eq!(bench.prompt("write").await.stop_reason, StopReason::EndTurn, "{format:?}");
        assert_eq!(bench.workspace.get("big.txt"), "short");
        let first = &bench.host.calls()[0];
        assert_eq!(first.status, ToolStatus::Failed);
        assert!(text_of(first).starts_with("the arguments are no JSON; perhaps they were cut."), "{}", text_of(first));
    }
}

#[tokio::test]
async fn words_cut_by_the_output_limit_are_continued_in_all_four_formats() {
    for format in FORMATS {
        let half = Reply::Stream(vec![Part::Text("The first half".to_owned())], Ending::OutputLimit);
        let mut bench = Bench::with(format, vec![half, says(" and the second.")], |_| {}, Vec::new()).await;
        assert_eq!(bench.prompt("tell").await.stop_reason, StopReason::EndTurn, "{format:?}");
        assert_eq!(bench.host.said(), "The first half and the second.");
        assert!(bench.model.asked()[1].has("reached the output limit"));
    }
}

#[tokio::test]
async fn an_empty_answer_is_asked_for_again_and_then_ends_the_turn() {
    let nothing = || Reply::Stream(Vec::new(), Ending::Done);
    let mut bench = Bench::new((0..5).map(|_| nothing()).collect()).await;
    assert_eq!(bench.prompt("hello").await.stop_reason, StopReason::EndTurn);
    assert_eq!(bench.model.asked().len(), 3);
    assert_eq!(bench.host.notices(), ["the model answered 3 times with nothing; the turn ends here"]);
}

#[tokio::test]
async fn unknown_tools_and_wrong_arguments_are_told_to_the_model() {
    let replies = vec![
        calls([("teleport", json!({})), ("read", json!({ "pfad": "a" })), ("read", json!({ "path": "missing.py" }))]),
        says("I see."),
    ];
    let mut bench = Bench::new(replies).await;
    bench.workspace.put("Missing.py", "");
    assert_eq!(bench.prompt("try").await.stop_reason, StopReason::EndTurn);
    let said: Vec<String> = bench.host.calls().iter().map(text_of).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    there is no tool of this name; there are read, list, search, edit, write, shell, shell_output, shell_kill, plan, ask, finish
    the arguments of read do not fit: missing field `path`. They are: path, start_line (optional), end_line (optional)
    there is no missing.py; in . there is Missing.py
    ");
    let told = &bench.model.asked()[1];
    assert!(told.has("there is no tool of this name") && told.has("there is no missing.py"));
}

#[tokio::test]
async fn the_same_failing_call_earns_a_hint_and_then_ends_the_turn() {
    let wrong = || calls([("edit", json!({ "path": "a", "old_text": "x", "new_text": "y" }))]);
    let mut bench = Bench::new((0..20).map(|_| wrong()).collect()).await;
    bench.workspace.put("a", "nothing of that\n");
    assert_eq!(bench.prompt("edit").await.stop_reason, StopReason::MaxTurnRequests);
    assert_eq!(bench.host.notices(), ["the same tool call failed 6 times in the same way; the turn ends here"]);
    let asked = bench.model.asked();
    assert_eq!(asked.len(), 6);
    assert!(!asked[2].has("Stop repeating it") && asked[3].has("Stop repeating it"));
}

#[tokio::test]
async fn finish_does_not_count_beside_a_call_that_failed() {
    let replies = vec![
        calls([("finish", json!({ "summary": "All is well." })), ("read", json!({ "path": "missing" }))]),
        calls([("finish", json!({ "summary": "The file is missing." }))]),
    ];
    let mut bench = Bench::new(replies).await;
    let end = bench.prompt("go").await;
    assert_eq!(end.summary.as_deref(), Some("The file is missing."));
    assert_eq!(bench.host.calls()[0].status, ToolStatus::Failed);
}

#[tokio::test]
async fn ids_of_calls_are_unique_whatever_the_provider_says() {
    // The server gives the same ID to the first call of each answer.
    let replies = vec![calls([("list", json!({}))]), calls([("list", json!({}))]), says("Done.")];
    let mut bench = Bench::new(replies).await;
    bench.prompt("look").await;
    assert_eq!(bench.host.calls().len(), 2);
}

#[tokio::test]
async fn a_silent_model_counts_as_cut() {
    let silent = || Reply::Stream(Vec::new(), Ending::Hang);
    let patience = std::time::Duration::from_millis(50);
    let replies = vec![silent(), says("Here I am.")];
    let mut bench =
        Bench::with(ModelFormat::OpenAiChat, replies, |config| config.model_patience = patience, Vec::new()).await;
    assert_eq!(bench.prompt("hello").await.stop_reason, StopReason::EndTurn);
    assert_eq!(bench.host.said(), "Here I am.");
}

#[tokio::test]
async fn a_boundless_index_of_a_call_does_not_end_the_server() {
    let piece = json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [{
        "index": u32::MAX, "id": "x", "type": "function", "function": { "name": "list", "arguments": "{}" },
    }] }, "finish_reason": "tool_calls" }] });
    let events = format!("data: {piece}\n\ndata: [DONE]\n\n");
    let mut bench = Bench::new(vec![Reply::Raw(events), says("Done.")]).await;
    assert_eq!(bench.prompt("look").await.stop_reason, StopReason::EndTurn);
    assert_eq!(text_of(&bench.host.calls()[0]), "[the folder is empty]");
}

#[tokio::test]
async fn events_that_make_no_sense_end_the_turn_with_a_clear_error_or_a_retry() {
    for nonsense in ["data: {\n\n", "data: [1,2]\n\n", "data: {\"choices\":7}\n\n", "\u{0}\u{1}\n\n", "data: null\n\n"]
    {
        for format in FORMATS {
            let replies = vec![Reply::Raw(nonsense.to_owned()), says("Done.")];
            let mut bench = Bench::with(format, replies, |_| {}, Vec::new()).await;
            let end = bench.agent.prompt(prompt("hello"), &bench.host, bench.stop.clone()).await;
            assert!(bench.host.said() == "Done." || end.is_err(), "{format:?} {nonsense:?}: {end:?}");
        }
    }
}

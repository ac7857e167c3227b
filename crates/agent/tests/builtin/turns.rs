//! What a turn does, as a participant sees it.

use std::time::{Duration, Instant};

use hob_agent::{Agent as _, ModelEndpoint, ModelFormat, StopReason, ToolContent, ToolKind, ToolStatus, Update};
use hob_scripted_model::{ScriptedModel, Scripts, Step};
use serde_json::json;

use crate::support::host::text_of;
use crate::support::model::{Ending, Part, Reply, calls, says};
use crate::support::workspace::is_gone;
use crate::support::{Bench, FORMATS, ada, prompt};

const BUG: &str = "def add(a, b):\n    return a - b\n";
const TEST: &str = "from calc import add\nassert add(2, 3) == 5\nprint('ok')\n";

fn fix_script() -> Vec<Reply> {
    let edit = json!({ "path": "calc.py", "old_text": "return a - b", "new_text": "return a + b" });
    vec![
        Reply::Stream(
            vec![
                Part::Thought("I should look first.".to_owned(), "sig-1".to_owned()),
                Part::Text("Looking at the code.".to_owned()),
                Part::Call("read".to_owned(), json!({ "path": "calc.py" }).to_string()),
                Part::Call("search".to_owned(), json!({ "pattern": "def add" }).to_string()),
            ],
            Ending::Done,
        ),
        calls([("edit", edit)]),
        calls([("shell", json!({ "command": "python3 test_calc.py" }))]),
        calls([("finish", json!({ "summary": "add subtracted; now it adds. The test passes." }))]),
    ]
}

async fn fix_in(format: ModelFormat) -> Bench {
    let mut bench = Bench::with(format, fix_script(), |_| {}, Vec::new()).await;
    bench.workspace.put("calc.py", BUG);
    bench.workspace.put("test_calc.py", TEST);
    let end = bench.prompt("Fix add in calc.py").await;
    assert_eq!(end.stop_reason, StopReason::EndTurn, "{format:?}: {}", bench.host.timeline());
    assert_eq!(end.summary.as_deref(), Some("add subtracted; now it adds. The test passes."));
    bench
}

#[tokio::test]
async fn a_bug_is_fixed_alike_in_all_four_formats() {
    for format in FORMATS {
        let bench = fix_in(format).await;
        assert_eq!(bench.workspace.get("calc.py"), "def add(a, b):\n    return a + b\n", "{format:?}");
        insta::allow_duplicates! { insta::assert_snapshot!(bench.host.timeline(), @r"
        thinks: I should look first.
        says: Looking at the code.
        read calc.py → Completed
        search def add → Completed
        edit calc.py → Completed
        python3 test_calc.py → Completed
        finish → Completed
        "); }
        let calls = bench.host.calls();
        assert_eq!(text_of(&calls[0]), "     1\tdef add(a, b):\n     2\t    return a - b\n");
        assert_eq!(text_of(&calls[1]), "calc.py:1:def add(a, b):");
        assert!(matches!(&calls[2].content[0], ToolContent::Diff { path, .. } if path == "calc.py"));
        assert_eq!(text_of(&calls[3]), "ok\n[exit 0]");
    }
}

/// The same with the stand-in that external agents are driven by, which checks each request.
#[tokio::test]
async fn the_scripted_model_drives_it_in_all_four_formats() {
    for format in FORMATS {
        let steps = [
            Step::Parallel(vec![
                Step::Read { path: "calc.py".to_owned() },
                Step::Search { pattern: "add".to_owned(), path: None },
                Step::List { path: ".".to_owned() },
            ]),
            Step::Plan { steps: vec!["fix add".to_owned()] },
            Step::Edit {
                path: "calc.py".to_owned(),
                old: "    return a - b".to_owned(),
                new: "    return a + b".to_owned(),
            },
            Step::Shell { command: "python3 test_calc.py".to_owned() },
            Step::Finish { summary: "Fixed.".to_owned() },
        ];
        let scripts = Scripts { key: Some("session-token".to_owned()), ..Scripts::new().script("fix", steps) };
        let model = ScriptedModel::start(scripts).await.expect("a free port");
        let endpoint = ModelEndpoint::at(&model.base_url(), "session-token", format);
        let mut bench = Bench::with(format, Vec::new(), |config| config.endpoint = endpoint, Vec::new()).await;
        bench.workspace.put("calc.py", BUG);
        bench.workspace.put("test_calc.py", TEST);
        let end = bench.prompt("Please: @@script:fix@@").await;
        assert_eq!(end.summary.as_deref(), Some("Fixed."), "{format:?}: {}", bench.host.timeline());
        assert_eq!(bench.workspace.get("calc.py"), "def add(a, b):\n    return a + b\n");
        assert!(bench.host.calls().iter().all(|call| call.status == ToolStatus::Completed), "{format:?}");
        assert_eq!(model.violations(), Vec::<String>::new(), "{format:?}");
        model.shutdown().await;
    }
}

#[tokio::test]
async fn each_request_is_authorised_for_the_session_and_carries_the_tools() {
    for format in FORMATS {
        let bench = fix_in(format).await;
        for asked in bench.model.asked() {
            assert!(asked.headers.iter().any(|header| header.contains("session-token")), "{:?}", asked.headers);
            for tool in ["read", "list", "search", "edit", "write", "shell", "plan", "ask", "finish"] {
                assert!(asked.has(&format!("\"name\":\"{tool}\"")), "{format:?} lacks {tool}");
            }
            if format != ModelFormat::Gemini {
                assert_eq!(asked.body["model"], "scripted-1");
            }
        }
    }
}

#[tokio::test]
async fn each_call_goes_back_with_its_result() {
    let bench = fix_in(ModelFormat::Anthropic).await;
    let messages = bench.model.asked()[3].body["messages"].clone();
    let messages = messages.as_array().expect("has messages");
    let ids = |role: &str, kind: &str, name: &str| -> Vec<String> {
        let blocks = messages.iter().filter(|message| message["role"] == role);
        let blocks = blocks.filter_map(|message| message["content"].as_array()).flatten();
        let ids = blocks.filter(|block| block["type"] == kind).filter_map(|block| block[name].as_str());
        ids.map(str::to_owned).collect()
    };
    let called = ids("assistant", "tool_use", "id");
    assert_eq!(called.len(), 4);
    assert_eq!(called, ids("user", "tool_result", "tool_use_id"));
}

#[tokio::test]
async fn thinking_goes_back_with_its_signature_within_the_turn_and_not_after_it() {
    for format in [ModelFormat::OpenAiResponses, ModelFormat::Anthropic, ModelFormat::Gemini] {
        let mut bench = fix_in(format).await;
        bench.model.then(says("As I said."));
        bench.prompt("And now?").await;
        let asked = bench.model.asked();
        assert_eq!(asked[1].body.to_string().matches("sig-1").count(), 1, "{format:?}: {}", asked[1].body);
        assert!(asked[3].has("sig-1") && !asked[4].has("sig-1"), "{format:?}");
    }
}

#[tokio::test]
async fn the_system_prompt_and_the_conversation_are_marked_for_the_cache() {
    let bench = fix_in(ModelFormat::Anthropic).await;
    let body = &bench.model.asked()[1].body;
    assert_eq!(body["system"][0]["cache_control"]["type"], "ephemeral");
    let last = body["messages"].as_array().and_then(|messages| messages.last()).expect("has messages");
    assert!(last.to_string().contains("cache_control"));
}

#[tokio::test]
async fn reading_calls_of_one_answer_run_at_the_same_time() {
    let read = json!({ "path": "a" });
    let mut bench =
        Bench::new(vec![calls([("read", read.clone()), ("read", read.clone()), ("list", json!({}))]), says("Done.")])
            .await;
    bench.workspace.put("a", "text\n");
    // None of them can end before all have begun.
    bench.workspace.not_ready();
    let workspace = std::sync::Arc::clone(&bench.workspace);
    let host = &bench.host;
    let turn = bench.agent.prompt(prompt("look"), host, bench.stop.clone());
    let gate = async {
        let begun = || host.calls().iter().filter(|call| call.status == ToolStatus::InProgress).count();
        host.until(|_| begun() == 3).await;
        workspace.become_ready();
    };
    let (end, ()) = tokio::join!(turn, gate);
    assert_eq!(end.expect("ends").stop_reason, StopReason::EndTurn);
    assert!(host.calls().iter().all(|call| call.status == ToolStatus::Completed));
}

#[tokio::test]
async fn what_reads_goes_on_while_the_workspace_is_closed_and_what_writes_waits() {
    let replies = vec![
        calls([("read", json!({ "path": "a" })), ("search", json!({ "pattern": "old" }))]),
        calls([("edit", json!({ "path": "a", "old_text": "old", "new_text": "new" }))]),
        says("Done."),
    ];
    let mut bench = Bench::new(replies).await;
    bench.workspace.put("a", "old\n");
    bench.workspace.close();
    let (workspace, host) = (std::sync::Arc::clone(&bench.workspace), &bench.host);
    let turn = bench.agent.prompt(prompt("change it"), host, bench.stop.clone());
    let sync = async {
        let edits = |update: &Update| matches!(update, Update::ToolCall(call) if call.kind == ToolKind::Edit && call.status == ToolStatus::InProgress);
        host.until(edits).await;
        workspace.put("a", "what the sync brought\nold\n");
        workspace.open();
    };
    let (end, ()) = tokio::join!(turn, sync);
    assert_eq!(end.expect("ends").stop_reason, StopReason::EndTurn);
    assert_eq!(workspace.get("a"), "what the sync brought\nnew\n");
    assert!(host.calls().iter().all(|call| call.status == ToolStatus::Completed));
}

#[tokio::test]
async fn writing_calls_of_one_answer_run_in_order() {
    let add = |line: &str| json!({ "command": format!("echo {line} >> log") });
    let replies = vec![calls([("shell", add("one")), ("shell", add("two")), ("shell", add("three"))]), says("Done.")];
    let mut bench = Bench::new(replies).await;
    bench.prompt("write").await;
    assert_eq!(bench.workspace.get("log"), "one\ntwo\nthree\n");
}

#[tokio::test]
async fn the_first_request_does_not_wait_for_the_sandbox() {
    let mut bench = Bench::new(vec![says("Hello.")]).await;
    bench.workspace.not_ready();
    let begun = Instant::now();
    let end = bench.prompt("hello").await;
    assert_eq!(end.stop_reason, StopReason::EndTurn);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(bench.host.said(), "Hello.");
}

#[tokio::test]
async fn a_stop_kills_the_whole_tree_of_a_running_command_within_a_second() {
    let command = "bash -c 'sleep 1000 & echo $! > pid; wait'; true";
    let mut bench = Bench::new(vec![calls([("shell", json!({ "command": format!("echo begun; {command}") }))])]).await;
    let stop = bench.stop.clone();
    let host = &bench.host;
    let turn = bench.agent.prompt(prompt("wait"), host, stop.clone());
    let stopping = async {
        host.until(|update| matches!(update, Update::ToolCall(call) if text_of(call).contains("begun"))).await;
        stop.cancel();
        Instant::now()
    };
    let (end, stopped_at) = tokio::join!(turn, stopping);
    assert_eq!(end.expect("ends").stop_reason, StopReason::Cancelled);
    assert!(stopped_at.elapsed() < Duration::from_secs(1), "{:?}", stopped_at.elapsed());
    assert!(is_gone(&bench.workspace.get("pid")));
    let calls = host.calls();
    assert_eq!(text_of(&calls[0]), "begun\n[stopped by a participant, with all it started]");
    assert_eq!(calls[0].status, ToolStatus::Failed);
}

#[tokio::test]
async fn a_stop_ends_an_answer_that_still_streams_and_the_next_turn_goes_on() {
    let hangs = Reply::Stream(vec![Part::Text("I begin".to_owned())], Ending::Hang);
    let mut bench = Bench::new(vec![hangs, says("Going on.")]).await;
    let stop = bench.stop.clone();
    let turn = bench.agent.prompt(prompt("go"), &bench.host, stop.clone());
    let stopping = async {
        bench.host.until(|update| matches!(update, Update::Message { .. })).await;
        stop.cancel();
    };
    let (end, ()) = tokio::join!(turn, stopping);
    assert_eq!(end.expect("ends").stop_reason, StopReason::Cancelled);
    bench.stop = tokio_util::sync::CancellationToken::new();
    assert_eq!(bench.prompt("go on").await.stop_reason, StopReason::EndTurn);
    assert!(bench.model.asked()[1].has("A participant stopped the work here."));
}

#[tokio::test]
async fn a_turn_ends_at_its_limit_of_requests() {
    let again = || calls([("list", json!({}))]);
    let mut bench = Bench::with(
        ModelFormat::OpenAiChat,
        (0..9).map(|_| again()).collect(),
        |config| config.max_requests_per_turn = 3,
        Vec::new(),
    )
    .await;
    assert_eq!(bench.prompt("loop").await.stop_reason, StopReason::MaxTurnRequests);
    assert_eq!(bench.model.asked().len(), 3);
    assert_eq!(bench.host.notices(), ["the limit of 3 model requests in one turn is reached"]);
}

#[tokio::test]
async fn prompts_of_several_people_say_whose_they_are() {
    let mut bench = Bench::new(vec![says("Yes."), says("Yes.")]).await;
    bench.prompt("one").await;
    let mut other = prompt("two");
    other.author.name = "Grace".to_owned();
    bench.agent.prompt(other, &bench.host, bench.stop.clone()).await.expect("ends");
    let asked = bench.model.asked();
    assert!(!asked[0].has(&ada().name));
    assert!(asked[1].has("Ada: one") && asked[1].has("Grace: two"));
}

#[tokio::test]
async fn another_model_can_be_named_for_one_turn() {
    let mut bench = Bench::new(vec![says("Yes."), says("Yes.")]).await;
    let mut other = prompt("one");
    other.model = Some("other-high".to_owned());
    bench.agent.prompt(other, &bench.host, bench.stop.clone()).await.expect("ends");
    bench.prompt("two").await;
    let models: Vec<_> = bench.model.asked().iter().map(|asked| asked.body["model"].clone()).collect();
    assert_eq!(models, ["other-high", "scripted-1"]);
}

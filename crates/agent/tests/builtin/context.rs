//! What the model knows: pictures, instructions, a window that fills, a conversation after a restart.

use bytes::Bytes;
use hob_agent::{Agent as _, Image, ModelFormat, PastTurn, StopReason, Update};
use serde_json::{Value, json};

use crate::support::model::{Reply, calls, says};
use crate::support::{Bench, FORMATS, ada, prompt};

#[tokio::test]
async fn a_picture_in_the_prompt_reaches_the_wire_in_all_four_formats() {
    for format in FORMATS {
        let mut bench = Bench::with(format, vec![says("A hob.")], |_| {}, Vec::new()).await;
        let mut asked = prompt("What is this?");
        asked.images = vec![Image { media_type: "image/png".to_owned(), bytes: Bytes::from_static(b"pixels") }];
        bench.agent.prompt(asked, &bench.host, bench.stop.clone()).await.expect("ends");
        let sent = &bench.model.asked()[0];
        assert!(sent.has("cGl4ZWxz") && sent.has("image/png"), "{format:?}: {}", sent.body);
    }
}

#[tokio::test]
async fn a_prompt_may_be_a_picture_alone_or_nothing_at_all() {
    let mut bench = Bench::with(ModelFormat::Anthropic, vec![says("A hob."), says("Yes?")], |_| {}, Vec::new()).await;
    let mut asked = prompt("");
    asked.images = vec![Image { media_type: "image/png".to_owned(), bytes: Bytes::from_static(b"pixels") }];
    bench.agent.prompt(asked, &bench.host, bench.stop.clone()).await.expect("ends");
    bench.prompt(" ").await;
    let sent = bench.model.asked();
    assert!(!sent[0].has(r#""text":"""#));
    assert!(sent[1].has("[a prompt without words]"));
}

#[tokio::test]
async fn instructions_are_sent_once() {
    let replies = vec![calls([("list", json!({}))]), says("Yes."), says("Yes.")];
    let mut bench = Bench::new(replies).await;
    bench.workspace.put("AGENTS.md", "Use tabs.");
    bench.prompt("hello").await;
    bench.prompt("again").await;
    for later in &bench.model.asked()[1..] {
        assert_eq!(later.body.to_string().matches("Use tabs.").count(), 1);
    }
}

#[tokio::test]
async fn instructions_of_a_cold_workspace_follow_with_the_first_results() {
    let mut bench = Bench::new(vec![calls([("read", json!({ "path": "a" }))]), says("Yes.")]).await;
    bench.workspace.put("AGENTS.md", "Use tabs.");
    bench.workspace.put("a", "text");
    bench.workspace.not_ready();
    let workspace = std::sync::Arc::clone(&bench.workspace);
    let turn = bench.agent.prompt(prompt("hello"), &bench.host, bench.stop.clone());
    let later = async {
        bench.model.until_asked(1).await;
        workspace.become_ready();
    };
    let (end, ()) = tokio::join!(turn, later);
    end.expect("ends");
    let asked = bench.model.asked();
    assert!(!asked[0].has("Use tabs.") && asked[1].has("Use tabs."));
}

#[tokio::test]
async fn nested_instructions_come_when_files_below_them_are_touched() {
    let replies = vec![
        calls([("read", json!({ "path": "web/src/a.ts" }))]),
        calls([("read", json!({ "path": "web/src/a.ts" }))]),
        says("Yes."),
    ];
    let mut bench = Bench::new(replies).await;
    bench.workspace.put("web/AGENTS.md", "No semicolons.");
    bench.workspace.put("server/AGENTS.md", "Never seen.");
    bench.workspace.put("web/src/a.ts", "let a\n");
    bench.prompt("hello").await;
    let asked = bench.model.asked();
    assert!(!asked[0].has("No semicolons.") && asked[1].has("No semicolons."));
    assert_eq!(asked[2].body.to_string().matches("No semicolons.").count(), 1);
    assert!(!asked[2].has("Never seen."));
}

/// A turn that reads a long file again and again, in a small window.
async fn full_window(summary: Reply) -> Bench {
    let read = || calls([("read", json!({ "path": "long.txt" }))]);
    let mut replies: Vec<Reply> = (0..3).map(|_| read()).collect();
    replies.push(summary);
    replies.push(says("Finished all the same."));
    let small = |config: &mut hob_agent::BuiltInConfig| {
        config.context_tokens = 14_000;
        config.max_output_tokens = 1_000;
    };
    let mut bench = Bench::with(ModelFormat::OpenAiChat, replies, small, Vec::new()).await;
    bench.workspace.put("long.txt", "some words that fill the window\n".repeat(400));
    bench.workspace.put("AGENTS.md", "Always say please.");
    let end = bench.prompt("Read the long file until you know it").await;
    assert_eq!(end.stop_reason, StopReason::EndTurn, "{}", bench.host.timeline());
    bench
}

#[tokio::test]
async fn a_full_window_is_compacted_and_the_turn_still_ends() {
    let bench = full_window(says("It read the long file.")).await;
    let compaction = bench.host.updates().into_iter().find_map(|update| match update {
        Update::Compaction { before_tokens, after_tokens, summary } => Some((before_tokens, after_tokens, summary)),
        _ => None,
    });
    let (before, after, summary) = compaction.expect("it was compacted");
    assert!(after < before, "{before} → {after}");
    assert_eq!(summary, "It read the long file.");
    let asked_to_summarise = &bench.model.asked()[3];
    assert!(asked_to_summarise.has("You summarise") && !asked_to_summarise.has("\"name\":\"shell\""));
    let asked = bench.model.asked();
    let last = asked.last().expect("was asked");
    assert!(last.has("Read the long file until you know it") && last.has("Always say please."));
    assert!(last.has("It read the long file."));
    assert!(last.body.to_string().len() < 14_000 * 4);
}

#[tokio::test]
async fn where_the_model_cannot_summarise_a_list_of_what_was_done_stands_in() {
    let bench = full_window(Reply::Refuse(500, "no".to_owned())).await;
    let notices = bench.host.notices();
    assert!(notices[0].starts_with("the model could not summarise earlier work (HTTP 500: no)"), "{notices:?}");
    assert!(bench.model.asked().last().expect("was asked").has("- files read: long.txt"));
}

#[tokio::test]
async fn a_conversation_that_the_provider_finds_too_long_is_compacted_and_sent_again() {
    let too_long =
        Reply::Refuse(400, r#"{"error":{"code":"context_length_exceeded","message":"too long"}}"#.to_owned());
    let read = || calls([("read", json!({ "path": "long.txt" }))]);
    let replies = vec![read(), read(), too_long, says("A summary."), says("Done.")];
    let mut bench = Bench::new(replies).await;
    bench.workspace.put("long.txt", "words\n".repeat(2_000));
    assert_eq!(bench.prompt("read").await.stop_reason, StopReason::EndTurn, "{}", bench.host.timeline());
    let asked = bench.model.asked();
    let length = |index: usize| asked[index].body.to_string().len();
    assert!(length(asked.len() - 1) < length(2), "{} then {}", length(2), length(asked.len() - 1));
}

#[tokio::test]
async fn a_prompt_of_ten_megabytes_is_shortened_to_the_window() {
    let mut bench = Bench::new(vec![says("That was long.")]).await;
    let text = format!("BEGIN {} END", "words ".repeat(10 * 1024 * 1024 / 6));
    assert_eq!(bench.prompt(&text).await.stop_reason, StopReason::EndTurn);
    let sent = bench.model.asked()[0].body.to_string();
    assert!(sent.len() < 128_000 * 4, "{}", sent.len());
    assert!(sent.contains("BEGIN") && sent.contains("bytes left out"));
    assert!(bench.host.updates().iter().any(|update| matches!(update, Update::Compaction { .. })));
}

#[tokio::test]
async fn how_full_the_window_is_follows_each_answer() {
    let mut bench = Bench::new(vec![calls([("list", json!({}))]), says("Done.")]).await;
    bench.prompt("look").await;
    let full = bench.host.updates().into_iter().filter_map(|update| match update {
        Update::Context { used_tokens, size_tokens: 128_000 } => Some(used_tokens),
        _ => None,
    });
    let counted = bench.model.asked().into_iter().map(|asked| asked.tokens() as u64 + 20);
    assert_eq!(full.collect::<Vec<_>>(), counted.collect::<Vec<_>>());
}

fn busy_script() -> Vec<Reply> {
    vec![
        calls([("read", json!({ "path": "a.py" })), ("read", json!({ "path": "none.py" }))]),
        calls([("edit", json!({ "path": "a.py", "old_text": "1", "new_text": "2" }))]),
        Reply::Stream(
            vec![crate::support::model::Part::Text("Half a wo".to_owned())],
            crate::support::model::Ending::Cut,
        ),
        Reply::Stream(
            vec![
                crate::support::model::Part::Text("Now I run it.".to_owned()),
                crate::support::model::Part::Call(
                    "shell".to_owned(),
                    json!({ "command": "cat a.py; exit 4" }).to_string(),
                ),
            ],
            crate::support::model::Ending::Done,
        ),
        Reply::Stream(
            vec![crate::support::model::Part::Text("I will write".to_owned())],
            crate::support::model::Ending::Cut,
        ),
        calls([("write", json!({ "path": "b.py", "content": "b\n" }))]),
        says("Done."),
        says("Here I am again."),
    ]
}

/// The messages of a request, without the system prompt: it names the workspace's folder.
fn messages(body: &Value) -> Value {
    let mut body = body.clone();
    for name in ["messages", "input", "contents"] {
        if let Some(messages) = body.get_mut(name) {
            let mut messages = messages.take();
            if let Some(list) = messages.as_array_mut() {
                list.retain(|message| message["role"] != "system");
            }
            return messages;
        }
    }
    Value::Null
}

#[tokio::test]
async fn after_a_restart_the_conversation_is_the_same() {
    for format in FORMATS {
        let mut bench = Bench::with(format, busy_script(), |_| {}, Vec::new()).await;
        bench.workspace.put("a.py", "print(1)\n");
        bench.prompt("make it 2").await;
        let log = bench.host.updates();
        bench.prompt("and then?").await;
        let went_on = messages(&bench.model.asked().last().expect("was asked").body);

        let past = PastTurn::from_updates(ada(), "make it 2".to_owned(), Vec::new(), &log);
        let mut restarted = Bench::with(format, vec![says("Here I am again.")], |_| {}, vec![past]).await;
        restarted.prompt("and then?").await;
        assert_eq!(messages(&restarted.model.asked()[0].body), went_on, "{format:?}");
    }
}

#[tokio::test]
async fn a_call_that_a_crash_interrupted_is_told_as_such() {
    let mut bench = Bench::new(vec![calls([("shell", json!({ "command": "echo hello" }))]), says("Done.")]).await;
    bench.prompt("go").await;
    let mut log = bench.host.updates();
    let running =
        |update: &Update| matches!(update, Update::ToolCall(call) if call.status == hob_agent::ToolStatus::InProgress);
    log.truncate(log.iter().position(running).expect("it ran") + 1);

    let past = PastTurn::from_updates(ada(), "go".to_owned(), Vec::new(), &log);
    let mut restarted = Bench::with(ModelFormat::OpenAiChat, vec![says("I see.")], |_| {}, vec![past]).await;
    restarted.prompt("what happened?").await;
    assert!(restarted.model.asked()[0].has("interrupted: the result is not known"));
}

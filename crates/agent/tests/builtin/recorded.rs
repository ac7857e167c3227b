//! Answers that real providers gave, read by the loop. See `recorded/README.md` for where they are from.

use hob_agent::{ModelFormat, StopReason};

use crate::support::Bench;
use crate::support::model::{Reply, says};

/// Plays a recorded answer, and gives the calls that the loop read in it with their arguments.
async fn read(format: ModelFormat, recorded: &str) -> String {
    let replies = vec![Reply::Raw(recorded.to_owned()), says("Done.")];
    let mut bench = Bench::with(format, replies, |_| {}, Vec::new()).await;
    let end = bench.prompt("go").await;
    assert_eq!(end.stop_reason, StopReason::EndTurn);
    assert_eq!(bench.host.notices(), Vec::<String>::new());
    let calls = bench.host.calls().into_iter().map(|call| format!("{} {}", call.name, call.input));
    calls.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn anthropic_messages() {
    let calls = read(ModelFormat::Anthropic, include_str!("recorded/anthropic-text-and-tools.txt")).await;
    insta::assert_snapshot!(calls, @r#"
    Read {"path":"libavcodec/h264_slice.c","offset":2300,"limit":120}
    Grep {"pattern":"current_slice","glob":"*.c"}
    "#);
    let calls = read(ModelFormat::Anthropic, include_str!("recorded/anthropic-thinking-and-tool.txt")).await;
    insta::assert_snapshot!(calls, @r#"get_weather {"city":"Cairo","country":"Egypt","unit":"C"}"#);
}

#[tokio::test]
async fn openai_responses() {
    let calls = read(ModelFormat::OpenAiResponses, include_str!("recorded/responses-three-tools.txt")).await;
    insta::assert_snapshot!(calls, @r#"
    get_weather {"city":"Paris","country":"France","unit":"C"}
    get_time {"timezone":"Europe/Paris"}
    get_currency {"from":"USD","to":"EUR","amount":100}
    "#);
}

#[tokio::test]
async fn openai_chat_completions() {
    let calls = read(ModelFormat::OpenAiChat, include_str!("recorded/chat-tool.txt")).await;
    insta::assert_snapshot!(calls, @r#"get_weather {"city":"Paris","country":"France","unit":"C"}"#);
    let calls = read(ModelFormat::OpenAiChat, include_str!("recorded/chat-tool-with-finish-reason.txt")).await;
    insta::assert_snapshot!(calls, @r#"get_weather {"city":"Paris","country":"France","unit":"C"}"#);
}

#[tokio::test]
async fn gemini() {
    let calls = read(ModelFormat::Gemini, include_str!("recorded/gemini-tool.txt")).await;
    insta::assert_snapshot!(calls, @r#"get_weather {"country":"Egypt","unit":"C","city":"Cairo"}"#);
}

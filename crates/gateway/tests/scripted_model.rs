//! Calls in every wire format against the scripted model: what it says that it was asked is what is measured.

mod support;

use hob_scripted_model::{ScriptedModel, Scripts, Step};
use support::{House, one_model};

/// Streams a greeting and compares what the gateway measured with what the provider counted.
async fn check(path: &str, body: &str) {
    let scripts = Scripts::new().script("greet", [Step::say("Hello from the script.")]);
    let provider = ScriptedModel::start(scripts).await.unwrap_or_else(|error| unreachable!("{error}"));
    let house = House::start(&one_model(provider.address(), ""), &[]).await;
    let _access = house.open("s1").await;
    let reply = house.post("s1", path, body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.body.contains("Hello"), "{reply:?}");
    let call = house.ledger.call().await;
    let asked = provider.requests().remove(0);
    assert!(call.usage_reported && call.input_tokens > 0 && call.output_tokens > 0, "{call:?}");
    assert_eq!(
        (call.input_tokens, call.output_tokens),
        (asked.usage.input_tokens, asked.usage.output_tokens),
        "{call:?}"
    );
    assert_eq!(asked.model, "upstream-m");
    assert!(provider.violations().is_empty(), "{:?}", provider.violations());
    provider.shutdown().await;
}

#[tokio::test]
async fn chat_completions() {
    check(
        "/openai/v1/chat/completions",
        r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"@@script:greet@@"}]}"#,
    )
    .await;
}

#[tokio::test]
async fn responses() {
    check(
        "/openai/v1/responses",
        r#"{"model":"m","stream":true,"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"@@script:greet@@"}]}]}"#,
    )
    .await;
}

#[tokio::test]
async fn messages() {
    check(
        "/anthropic/v1/messages",
        r#"{"model":"m","stream":true,"max_tokens":100,"messages":[{"role":"user","content":"@@script:greet@@"}]}"#,
    )
    .await;
}

#[tokio::test]
async fn generated_content() {
    check(
        "/gemini/v1beta/models/m:streamGenerateContent?alt=sse",
        r#"{"contents":[{"role":"user","parts":[{"text":"@@script:greet@@"}]}]}"#,
    )
    .await;
}

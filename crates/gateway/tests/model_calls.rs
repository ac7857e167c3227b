//! Model calls through a session's socket: what leaves, what comes back, what is measured.

mod support;

use std::sync::Arc;

use hob_gateway::{CallEnd, NoticeKind};
use support::{House, KEY, Provider, Step, answer, one_model, post, stream, stream_head, token, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

/// Makes one call and checks what was measured: tokens in, cached, out, and cost.
async fn check(path: &str, body: &str, answer: Vec<Step>, expect: (u64, u64, u64, u64)) -> Provider {
    let provider = Provider::start(vec![answer]).await;
    let house = House::with_provider(&provider).await;
    let access = house.open("s1").await;
    let reply = house.post("s1", path, body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let call = house.ledger.call().await;
    assert_eq!((call.input_tokens, call.cached_tokens, call.output_tokens, call.cost_micro_usd.unwrap_or(0)), expect);
    assert_eq!((call.session.as_str(), call.model.as_str(), call.provider.as_str()), ("s1", "m", "p"));
    assert_eq!((call.status, call.attempts, call.end, call.usage_reported), (200, 1, CallEnd::Answered, true));
    assert!(call.first_byte_ms <= call.elapsed_ms);
    let totals = access.close().await;
    assert_eq!((totals.model_calls, totals.output_tokens, totals.cost_micro_usd), (1, expect.2, expect.3));
    provider
}

#[tokio::test]
async fn a_streamed_chat_completion_is_metered_and_asks_for_usage() {
    let events = [
        r#"{"choices":[{"delta":{"content":"hi"}}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":10,"prompt_tokens_details":{"cached_tokens":60}}}"#,
        "[DONE]",
    ];
    let body = r#"{"model":"m","stream":true,"messages":[]}"#;
    let provider = check("/openai/v1/chat/completions", body, stream(&events), (100, 60, 10, 288)).await;
    let seen = &provider.seen()[0];
    assert!(seen.head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{}", seen.head);
    assert!(seen.head.contains(&format!("authorization: Bearer {KEY}")));
    assert!(!seen.head.contains("token-of"));
    assert_eq!(
        seen.body,
        r#"{"model":"upstream-m","stream":true,"messages":[],"stream_options":{"include_usage":true}}"#
    );
}

#[tokio::test]
async fn a_response_is_metered_by_its_completion() {
    let events = [
        r#"{"type":"response.created","response":{"usage":null}}"#,
        r#"{"type":"response.output_text.delta","delta":"hi"}"#,
        r#"{"type":"response.completed","response":{"output":[],"usage":{"input_tokens":20,"input_tokens_details":{"cached_tokens":0},"output_tokens":2}}}"#,
    ];
    check("/v1/responses", r#"{"model":"m","stream":true,"input":"x"}"#, stream(&events), (20, 0, 2, 90)).await;
}

#[tokio::test]
async fn a_message_is_metered_with_what_it_read_from_and_wrote_to_the_cache() {
    let events = [
        r#"{"type":"message_start","message":{"usage":{"input_tokens":10,"cache_creation_input_tokens":100,"cache_read_input_tokens":1000,"output_tokens":1}}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let body = r#"{"model":"m","stream":true,"max_tokens":5,"messages":[]}"#;
    let provider = check("/anthropic/v1/messages?beta=true", body, stream(&events), (1110, 1000, 7, 810)).await;
    let head = provider.seen()[0].head.clone();
    assert!(head.starts_with("POST /v1/messages?beta=true "), "{head}");
    assert!(head.contains(&format!("x-api-key: {KEY}")) && !head.contains("authorization"), "{head}");
}

#[tokio::test]
async fn generated_content_is_metered_and_the_token_in_the_query_stays_inside() {
    let provider = Provider::start(vec![stream(&[
        r#"{"candidates":[],"usageMetadata":{"promptTokenCount":50,"candidatesTokenCount":1}}"#,
        r#"{"candidates":[],"usageMetadata":{"promptTokenCount":50,"cachedContentTokenCount":10,"candidatesTokenCount":4,"thoughtsTokenCount":6}}"#,
    ])])
    .await;
    let house = House::with_provider(&provider).await;
    let _access = house.open("s1").await;
    let path = format!("/gemini/v1beta/models/m:streamGenerateContent?alt=sse&key={}", token("s1", 1));
    let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
    assert_eq!(house.raw("s1", &request).await.status, 200);
    let call = house.ledger.call().await;
    assert_eq!((call.input_tokens, call.cached_tokens, call.output_tokens), (50, 10, 10));
    let head = provider.seen()[0].head.clone();
    assert!(head.starts_with("POST /v1beta/models/upstream-m:streamGenerateContent?alt=sse "), "{head}");
    assert!(head.contains(&format!("x-goog-api-key: {KEY}")) && !head.contains("token-of"), "{head}");
}

#[tokio::test]
async fn a_whole_answer_is_metered_too() {
    let body = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    check("/v1/chat/completions", r#"{"model":"m"}"#, answer("200 OK", "", body), (1, 0, 1, 18)).await;
}

#[tokio::test]
async fn a_stream_is_passed_on_as_it_comes() {
    let go_on = Arc::new(Notify::new());
    let script = vec![
        stream_head(),
        Step::Send("data: first\n\n".into()),
        Step::Wait(Arc::clone(&go_on)),
        Step::Send("data: second\n\n".into()),
    ];
    let provider = Provider::start(vec![script]).await;
    let house = House::with_provider(&provider).await;
    let _access = house.open("s1").await;
    let mut client = house.connect("s1").await;
    client.write_all(post("/v1/messages", &token("s1", 1), r#"{"model":"m"}"#).as_bytes()).await.unwrap();
    let mut text = Vec::new();
    within(async {
        while !String::from_utf8_lossy(&text).contains("data: first\n\n") {
            client.read_buf(&mut text).await.unwrap();
        }
    })
    .await;
    // The provider waits for this: had the gateway held the first event back, the test would not get here.
    go_on.notify_one();
    within(client.read_to_end(&mut text)).await.unwrap();
    assert!(String::from_utf8_lossy(&text).contains("data: second\n\n"));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_call_and_is_metered() {
    let never = Arc::new(Notify::new());
    let usage = r#"data: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}"#;
    let script = vec![stream_head(), Step::Send(format!("{usage}\n\n")), Step::Wait(never)];
    let provider = Provider::start(vec![script]).await;
    let house = House::with_provider(&provider).await;
    let _access = house.open("s1").await;
    let mut client = house.connect("s1").await;
    client.write_all(post("/v1/messages", &token("s1", 1), r#"{"model":"m"}"#).as_bytes()).await.unwrap();
    let mut first = [0; 12];
    within(client.read_exact(&mut first)).await.unwrap();
    drop(client);
    let call = house.ledger.call().await;
    assert_eq!((call.end, call.status, call.input_tokens), (CallEnd::Aborted, 200, 9));
}

#[tokio::test]
async fn closing_the_access_cuts_a_call_in_flight() {
    let never = Arc::new(Notify::new());
    let provider =
        Provider::start(vec![vec![stream_head(), Step::Send("data: x\n\n".into()), Step::Wait(never)]]).await;
    let house = House::with_provider(&provider).await;
    let access = house.open("s1").await;
    // The built-in agent's way: the shared loopback port outlives the access, the call must not.
    let request = post("/v1/messages", &token("s1", 1), r#"{"model":"m"}"#).replace("close", "keep-alive");
    let calling = house.raw_tcp(&request);
    let closing = async {
        within(async {
            while provider.seen().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        access.close().await
    };
    let (_reply, totals) = tokio::join!(calling, closing);
    assert_eq!(house.ledger.call().await.end, CallEnd::Aborted);
    assert!(totals.model_calls <= 1);
    let late = house.raw_tcp(&post("/v1/messages", &token("s1", 1), r#"{"model":"m"}"#)).await;
    assert_eq!(late.status, 401);
}

#[tokio::test]
async fn failures_before_the_first_byte_are_tried_again_and_told() {
    let script = vec![
        answer("529 Overloaded", "retry-after-ms: 1\r\n", "{}"),
        vec![],
        answer("429 Too Many Requests", "retry-after: 0\r\n", "{}"),
        answer("200 OK", "", r#"{"usage":{"prompt_tokens":1,"completion_tokens":1}}"#),
    ];
    let provider = Provider::start(script).await;
    let house = House::with_provider(&provider).await;
    let _access = house.open("s1").await;
    let reply = house.post("s1", "/v1/chat/completions", r#"{"model":"m"}"#).await;
    assert_eq!(reply.status, 200);
    let entries = house.ledger.when(|entries| entries.calls.len() == 1).await;
    assert_eq!((entries.calls[0].attempts, entries.notices.len()), (4, 3));
    let NoticeKind::Retry { cause, wait_ms, .. } = &entries.notices[0].kind else {
        panic!("{entries:?}", entries = entries.notices)
    };
    assert_eq!((cause.as_str(), *wait_ms), ("the provider answered 529", 1));
    let bodies: Vec<String> = provider.seen().into_iter().map(|seen| seen.body).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "every attempt sends the same");
}

#[tokio::test]
async fn a_stream_that_begins_by_saying_that_it_is_overloaded_is_tried_again() {
    let overloaded = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    let script = vec![vec![stream_head(), Step::Send(overloaded.into())], stream(&[r#"{"type":"message_stop"}"#])];
    let provider = Provider::start(script).await;
    let house = House::with_provider(&provider).await;
    let _access = house.open("s1").await;
    let reply = house.post("s1", "/v1/messages", r#"{"model":"m"}"#).await;
    assert!(reply.status == 200 && reply.body.contains("message_stop") && !reply.body.contains("error"), "{reply:?}");
    assert_eq!(house.ledger.call().await.attempts, 2);
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_answer_ends_the_call() {
    let never = Arc::new(Notify::new());
    let provider = Provider::start(vec![vec![Step::Wait(never)]]).await;
    let house = House::with_provider(&provider).await;
    let _access = house.open("s1").await;
    let mut client = house.connect("s1").await;
    client.write_all(post("/v1/messages", &token("s1", 1), r#"{"model":"m"}"#).as_bytes()).await.unwrap();
    within(async {
        while provider.seen().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(client);
    let call = house.ledger.call().await;
    assert_eq!((call.end, call.status, call.attempts), (CallEnd::Aborted, 0, 1));
}

#[tokio::test]
async fn a_provider_that_never_answers_or_falls_silent_has_a_deadline() {
    let never = Arc::new(Notify::new());
    let mute = vec![Step::Wait(Arc::clone(&never))];
    let silent = vec![stream_head(), Step::Send("data: x\n\n".into()), Step::Wait(never)];
    let provider = Provider::start(vec![mute, silent]).await;
    let limits = "limits = { answer_head_ms = 50, answer_idle_ms = 50 }";
    let house = House::start(&one_model(provider.address, limits), &[]).await;
    let _access = house.open("s1").await;
    let reply = house.post("s1", "/v1/messages", r#"{"model":"m"}"#).await;
    assert!(reply.status == 504 && reply.body.contains("did not answer in time"), "{reply:?}");
    let reply = house.post("s1", "/v1/messages", r#"{"model":"m"}"#).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "data: x\n\n"));
    let calls = house.ledger.when(|entries| entries.calls.len() == 2).await.calls;
    assert_eq!((calls[0].end, calls[1].end), (CallEnd::Failed, CallEnd::Failed));
}

#[tokio::test]
async fn a_compressed_request_is_refused_with_its_reason() {
    let provider = Provider::start(vec![answer("200 OK", "", "{}")]).await;
    let house = House::with_provider(&provider).await;
    let _access = house.open("s1").await;
    let request = post("/v1/messages", &token("s1", 1), r#"{"model":"m"}"#);
    let reply = house.raw("s1", &request.replace("host: ", "content-encoding: zstd\r\nhost: ")).await;
    assert!(reply.status == 415 && reply.body.contains("compressed"), "{reply:?}");
}

#[tokio::test]
async fn a_failing_provider_is_replaced_by_the_next_that_speaks_the_format() {
    let broken = Provider::start(vec![answer("503 Service Unavailable", "", r#"{"error":"down"}"#)]).await;
    let whole = Provider::start(vec![answer("200 OK", "", r#"{"usage":{"input_tokens":1,"output_tokens":1}}"#)]).await;
    let config = format!(
        r#"
        retry = {{ attempts_max = 2, wait_ms = 0 }}
        providers = [
            {{ name = "one", kind = "anthropic", base_url = "http://{}", key = "KEY" }},
            {{ name = "two", kind = "openai", base_url = "http://{}", key = "KEY" }},
            {{ name = "three", kind = "anthropic", base_url = "http://{}", key = "env:HOB_TEST_NOT_SET" }},
            {{ name = "four", kind = "anthropic", base_url = "http://{}" }},
        ]
        models = [
            {{ id = "a", provider = "one", fallback = ["b", "c", "d"] }},
            {{ id = "b", provider = "two" }},
            {{ id = "c", provider = "three" }},
            {{ id = "d", provider = "four" }},
        ]
        "#,
        broken.address, whole.address, whole.address, whole.address
    );
    let house = House::start(&config, &[]).await;
    let _access = house.open("s1").await;
    assert_eq!(house.post("s1", "/v1/messages", r#"{"model":"a"}"#).await.status, 200);
    let entries = house.ledger.when(|entries| entries.calls.len() == 1).await;
    assert_eq!((entries.calls[0].model.as_str(), entries.calls[0].attempts), ("d", 4));
    let told: Vec<String> = entries.notices.iter().map(|notice| notice.kind.to_string()).collect();
    assert_eq!(told[1], "a failed (the provider answered 503); going on with c");
    assert!(told[2].starts_with("c failed (the environment variable HOB_TEST_NOT_SET is not set"), "{told:?}");
    // Without a key no credential at all is sent.
    assert!(!whole.seen()[0].head.contains("x-api-key"));
}

#[tokio::test]
async fn a_providers_last_word_is_passed_on_when_nothing_helps() {
    let provider = Provider::start(vec![answer("503 Service Unavailable", "", r#"{"error":"down"}"#)]).await;
    let house = House::with_provider(&provider).await;
    let _access = house.open("s1").await;
    let reply = house.post("s1", "/v1/messages", r#"{"model":"m"}"#).await;
    assert_eq!((reply.status, reply.body.as_str()), (503, r#"{"error":"down"}"#));
    assert_eq!(provider.seen().len(), 4);
    let call = house.ledger.call().await;
    assert_eq!(
        (call.status, call.end, call.usage_reported, call.cost_micro_usd),
        (503, CallEnd::Answered, false, None)
    );
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_a_clear_error() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let house = House::start(&one_model(nobody, ""), &[]).await;
    let _access = house.open("s1").await;
    let reply = house.post("s1", "/v1/messages", r#"{"model":"m"}"#).await;
    assert_eq!(reply.status, 502);
    assert!(reply.body.contains("no connection to the provider") && reply.body.contains("refused"), "{}", reply.body);
    assert!(reply.head.contains("x-should-retry: false"));
    let call = house.ledger.call().await;
    assert_eq!((call.status, call.attempts, call.end), (0, 4, CallEnd::Failed));
}

#[tokio::test]
async fn models_are_resolved_listed_and_refused_by_name() {
    let provider = Provider::start(vec![answer("200 OK", "", "{}")]).await;
    let config = format!(
        r#"
        providers = [{{ name = "p", kind = "anthropic", base_url = "http://{}" }}]
        models = [{{ id = "m", provider = "p", context_tokens = 1000 }}]
        "#,
        provider.address
    );
    let house = House::start(&config, &[]).await;
    let _access = house.open("lenient").await;
    let mut spec = house.spec("strict", 1);
    spec.unknown_model = hob_gateway::UnknownModel::Refuse;
    let _strict = house.gateway.open(spec).await.unwrap();

    assert_eq!(house.post("lenient", "/v1/messages", r#"{"model":"some-model-of-2031"}"#).await.status, 200);
    let refused = house.post("strict", "/v1/messages", r#"{"model":"some-model-of-2031"}"#).await;
    assert_eq!(refused.status, 404);
    assert!(refused.body.contains("there is: m"), "{}", refused.body);
    let mismatch = house.post("strict", "/v1/chat/completions", r#"{"model":"m"}"#).await;
    assert_eq!(mismatch.status, 400);
    assert!(mismatch.body.contains("does not speak chat completions"), "{}", mismatch.body);

    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\nconnection: close\r\n\r\n", token("strict", 1))
    };
    let list = house.raw("strict", &get("/v1/models")).await;
    assert!(list.body.contains(r#""id":"m""#) && list.body.contains(r#""object":"list""#), "{}", list.body);
    let list = house.raw("strict", &get("/gemini/v1beta/models")).await;
    assert!(
        list.body.contains(r#""name":"models/m""#) && list.body.contains(r#""inputTokenLimit":1000"#),
        "{}",
        list.body
    );
    let nowhere = house.raw("strict", &get("/api/telemetry")).await;
    assert_eq!(nowhere.status, 404);
}

#[tokio::test]
async fn counting_tokens_costs_nothing_and_is_not_metered_as_a_call() {
    let provider = Provider::start(vec![answer("200 OK", "", r#"{"input_tokens":7}"#)]).await;
    let house = House::with_provider(&provider).await;
    let access = house.open("s1").await;
    let reply = house.post("s1", "/v1/messages/count_tokens", r#"{"model":"m"}"#).await;
    assert_eq!(reply.body, r#"{"input_tokens":7}"#);
    assert_eq!(access.close().await.model_calls, 0);
    assert!(house.ledger.now().calls.is_empty());
}

//! The server over its wire formats, as an agent would use it.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use hob_scripted_model::{Fault, Running, ScriptedModel, Scripts, Step, Wire};
use serde_json::{Value, json};

fn client() -> reqwest::Client {
    // Requests stay on the loopback, but the client wants a provider of TLS at hand.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

async fn start(scripts: Scripts) -> Running {
    ScriptedModel::start(scripts).await.expect("a free port")
}

fn fix() -> Scripts {
    Scripts::new().script(
        "fix",
        [
            Step::Parallel(vec![Step::think("Look first."), Step::say("Let me look."), Step::shell("cat it")]),
            Step::finish("All is well."),
        ],
    )
}

/// A request in each format: the prompt, one tool `shell`.
fn request(wire: Wire, stream: bool, prompt: &str) -> (String, Value) {
    let schema = json!({"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]});
    match wire {
        Wire::Chat => (
            "/v1/chat/completions".into(),
            json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": prompt}],
                   "tools": [{"type": "function", "function": {"name": "shell", "parameters": schema}}]}),
        ),
        Wire::Responses => (
            "/v1/responses".into(),
            json!({"model": "m", "stream": stream, "instructions": "be good",
                   "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": prompt}]}],
                   "tools": [{"type": "function", "name": "shell", "parameters": schema}]}),
        ),
        Wire::Anthropic => (
            "/v1/messages".into(),
            json!({"model": "m", "stream": stream, "max_tokens": 100, "messages": [{"role": "user", "content": prompt}],
                   "tools": [{"name": "shell", "input_schema": schema}]}),
        ),
        Wire::Gemini => (
            format!("/v1beta/models/m:{}", if stream { "streamGenerateContent?alt=sse" } else { "generateContent" }),
            json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}],
                   "tools": [{"functionDeclarations": [{"name": "shell", "parametersJsonSchema": schema}]}]}),
        ),
    }
}

async fn post(model: &Running, path: &str, body: &Value) -> reqwest::Response {
    client().post(format!("{}{path}", model.base_url())).json(body).send().await.expect("an answer")
}

/// The data of server-sent events, but for `[DONE]`.
fn events(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    lines.map(|data| serde_json::from_str(data).expect("JSON")).collect()
}

fn joined(events: &[Value], pointer: &str) -> String {
    events.iter().filter_map(|event| event.pointer(pointer)?.as_str()).collect()
}

#[tokio::test]
async fn every_format_streams_thoughts_words_and_calls() {
    let model = start(fix()).await;
    for wire in [Wire::Chat, Wire::Responses, Wire::Anthropic, Wire::Gemini] {
        let (path, body) = request(wire, true, "@@script:fix@@ please");
        let response = post(&model, &path, &body).await;
        assert_eq!(response.headers()["x-scripted-model"], "this is no real model");
        let events = events(&response.text().await.expect("text"));
        let (thought, text, arguments) = match wire {
            Wire::Chat => (
                "/choices/0/delta/reasoning_content",
                "/choices/0/delta/content",
                "/choices/0/delta/tool_calls/0/function/arguments",
            ),
            Wire::Responses => ("/delta", "/delta", "/delta"),
            Wire::Anthropic => ("/delta/thinking", "/delta/text", "/delta/partial_json"),
            Wire::Gemini => {
                ("/candidates/0/content/parts/0/text", "/candidates/0/content/parts/0/text", "/candidates/0/x")
            }
        };
        assert!(joined(&events, thought).contains("Look first."), "{wire:?}");
        assert!(joined(&events, text).contains("Let me look."), "{wire:?}");
        if wire == Wire::Gemini {
            let call = &events.last().expect("one")["candidates"][0]["content"]["parts"][0]["functionCall"];
            assert_eq!(call["args"], json!({"command": "cat it"}));
        } else {
            assert!(joined(&events, arguments).contains(r#"{"command":"cat it"}"#), "{wire:?}");
        }
    }
    assert_eq!(model.violations(), Vec::<String>::new());
    model.shutdown().await;
}

#[tokio::test]
async fn the_whole_answer_says_the_same_and_the_result_leads_to_the_next_step() {
    let model = start(fix()).await;
    let (path, mut body) = request(Wire::Chat, false, "@@script:fix@@");
    let answer: Value = post(&model, &path, &body).await.json().await.expect("JSON");
    let message = answer["choices"][0]["message"].clone();
    let call = &message["tool_calls"][0];
    assert_eq!(call["function"]["arguments"], r#"{"command":"cat it"}"#);
    let result = json!({"role": "tool", "tool_call_id": call["id"], "content": "it"});
    let messages = body["messages"].as_array_mut().expect("a list");
    messages.extend([message, result]);
    let answer: Value = post(&model, &path, &body).await.json().await.expect("JSON");
    assert_eq!(answer["choices"][0]["message"]["content"], "All is well.");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");

    let (path, mut body) = request(Wire::Anthropic, false, "@@script:fix@@");
    let answer: Value = post(&model, &path, &body).await.json().await.expect("JSON");
    let id = &answer["content"][2]["id"];
    let result = json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "it"}]});
    let messages = body["messages"].as_array_mut().expect("a list");
    messages.extend([json!({"role": "assistant", "content": answer["content"]}), result]);
    let answer: Value = post(&model, &path, &body).await.json().await.expect("JSON");
    assert_eq!(answer["content"][0]["text"], "All is well.");

    let steps: Vec<usize> = model.requests().iter().map(|request| request.step).collect();
    assert_eq!(steps, [0, 1, 0, 1]);
    assert_eq!(model.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_provider_would_refuse_is_a_violation() {
    let scripts = Scripts { models: vec!["right".into()], key: Some("k".into()), ..fix() };
    let model = start(scripts).await;
    let (path, mut body) = request(Wire::Chat, false, "@@script:fix@@ ghp_0123456789abcdefghij");
    body["messages"].as_array_mut().expect("a list").extend([
        json!({"role": "tool", "tool_call_id": "nobody", "content": ""}),
        json!({"role": "king", "content": ""}),
    ]);
    assert_eq!(post(&model, &path, &body).await.status(), 401);
    let violations = model.violations().join("\n");
    for part in ["the model m", "belongs to no call", "unknown role \"king\"", "credential (ghp_", "a wrong one"] {
        assert!(violations.contains(part), "{part} is not in {violations}");
    }
    let shown = client().get(format!("{}/__violations", model.base_url())).send().await.expect("an answer");
    assert_eq!(shown.json::<Vec<String>>().await.expect("JSON").len(), 5);
}

#[tokio::test]
async fn faults_happen_and_the_same_request_then_goes_on() {
    let faults = [
        Step::status(429, Some(7)),
        Step::Fault(Fault::BadJson { times: 1 }),
        Step::Fault(Fault::CutStream { after_bytes: 100, times: 1 }),
        Step::Slow { ms_per_chunk: 1 },
        Step::Repeat { text: "0123456789".into(), bytes: 1_000 },
    ];
    let model = start(Scripts::new().script("bad", faults)).await;
    let (path, body) = request(Wire::Chat, true, "@@script:bad@@");
    let first = post(&model, &path, &body).await;
    assert_eq!((first.status().as_u16(), &first.headers()["retry-after"]), (429, &"7".parse().expect("a header")));
    assert!(post(&model, &path, &body).await.text().await.expect("text").contains("broken"));
    assert!(post(&model, &path, &body).await.text().await.is_err(), "the stream is cut");
    let last = post(&model, &path, &body).await.text().await.expect("text");
    assert_eq!(joined(&events(&last), "/choices/0/delta/content").len(), 1_000);
}

#[tokio::test]
async fn a_title_is_short_and_plays_no_step() {
    let model = start(fix()).await;
    let body = json!({"model": "m", "messages": [
        {"role": "system", "content": "You write a title for a conversation."},
        {"role": "user", "content": "@@script:fix@@"}]});
    let answer: Value = post(&model, "/v1/chat/completions", &body).await.json().await.expect("JSON");
    assert_eq!(answer["choices"][0]["message"]["content"], "Scripted work");
    assert_eq!(model.requests()[0].script, None);
}

#[tokio::test]
async fn many_conversations_at_once_do_not_disturb_each_other() {
    let model = start(fix()).await;
    let (path, body) = request(Wire::Responses, false, "@@script:fix@@");
    let answers = futures_util::future::join_all((0..64).map(|_| post(&model, &path, &body))).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert!(model.requests().iter().all(|request| request.step == 0));
}

#[test]
fn the_program_says_what_it_is_and_exits_with_3_after_a_violation() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(br#"{"scripts": [{"name": "hello", "steps": [{"say": "Hello."}]}]}"#).expect("written");
    let mut program = Command::new(env!("CARGO_BIN_EXE_scripted-model"))
        .arg("--script")
        .arg(file.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut url = String::new();
    let stdout = program.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut url).expect("a line");
    let body = r#"{"model": "m", "messages": [{"role": "user", "content": "nobody knows this"}]}"#;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let sent = client().post(format!("{}/v1/chat/completions", url.trim())).body(body);
    runtime.block_on(sent.send()).expect("an answer");
    let kill = Command::new("kill").arg(program.id().to_string()).status().expect("kill runs");
    assert!(kill.success());
    let output = program.wait_with_output().expect("it ends");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("no real model") && said.contains("no script matches"), "{said}");
}

#[test]
fn the_readme_s_script_is_understood() {
    let readme = include_str!("../README.md");
    let json = readme.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let scripts = Scripts::from_json(json).expect("it is right");
    assert_eq!(scripts.scripts[0].steps.len(), 4);
    assert!(matches!(&scripts.scripts[0].steps[0], Step::Parallel(steps) if steps.len() == 3));
    assert!(Scripts::from_json(r#"{"scripts": [{"name": "x", "steps": [{"dance": {}}]}]}"#).is_err());
}

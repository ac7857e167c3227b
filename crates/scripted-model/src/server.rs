//! The HTTP server: takes requests, has them checked and played, and delivers the answers with their faults.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::check;
use crate::conversation::Conversation;
use crate::play::{self, Played};
use crate::record::{Record, Recorded, Usage};
use crate::script::{Fault, Scripts};
use crate::wire::{self, Answer, Wire};

/// A request may be this long: a million tokens and pictures.
const BODY_BYTES_MAX: usize = 64 << 20;

/// The stand-in for a model.
#[derive(Debug)]
pub struct ScriptedModel;

/// A server that runs. Dropping it stops it; [`shutdown`](Running::shutdown) also waits.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    scripts: Scripts,
    record: Record,
    stop: CancellationToken,
}

impl ScriptedModel {
    /// Starts a server on a free port of 127.0.0.1.
    pub async fn start(scripts: Scripts) -> io::Result<Running> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), scripts).await
    }

    /// Starts a server on an address.
    pub async fn start_on(address: SocketAddr, scripts: Scripts) -> io::Result<Running> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared { scripts, record: Record::default(), stop: stop.clone() });
        let routes = Router::new()
            .fallback(any(handle))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(Arc::clone(&shared));
        let tasks = TaskTracker::new();
        let serving = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
        tasks.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!("failed to serve the scripted model: {error}");
            }
        });
        tasks.close();
        Ok(Running { address, shared, stop, tasks })
    }
}

impl Running {
    /// Where it listens, such as `http://127.0.0.1:41234`. OpenAI and Anthropic clients want `/v1` after it.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far, oldest first; the last 2,000 of them.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.record.requests()
    }

    /// What was wrong with the requests so far: calls without results, unknown roles, a model that is not offered,
    /// a wrong key, what looks like a credential, a prompt that no script matches.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.record.violations()
    }

    /// Stops it and waits, at most five seconds, until its connections are closed.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await.is_err() {
            tracing::warn!("connections to the scripted model were still open when it ended");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut response = match route(&method, uri.path()) {
        Route::Models => axum::Json(models(&shared.scripts)).into_response(),
        Route::Violations => axum::Json(json!(shared.record.violations())).into_response(),
        Route::Requests => axum::Json(json!(shared.record.requests())).into_response(),
        Route::Healthy => "this is no real model\n".into_response(),
        Route::Count(wire) => axum::Json(count(wire, &body)).into_response(),
        Route::Generate(wire) => generate(&shared, wire, &uri, &headers, &body).await,
        Route::Unknown => {
            let message = format!("the scripted model knows no {method} {}", uri.path());
            (StatusCode::NOT_FOUND, axum::Json(Wire::Chat.error(404, &message))).into_response()
        }
    };
    let (name, value) = (HeaderName::from_static(crate::HEADER), HeaderValue::from_static(crate::HEADER_VALUE));
    response.headers_mut().insert(name, value);
    response
}

/// What a path asks for.
#[derive(Debug, PartialEq)]
enum Route {
    Generate(Wire),
    Count(Wire),
    Models,
    Violations,
    Requests,
    Healthy,
    Unknown,
}

/// Only the path's end counts, so that any base URL works.
fn route(method: &Method, path: &str) -> Route {
    let ends = |end: &str| path.ends_with(end);
    match *method {
        Method::POST if ends("/chat/completions") => Route::Generate(Wire::Chat),
        Method::POST if ends("/responses") => Route::Generate(Wire::Responses),
        Method::POST if ends("/messages") => Route::Generate(Wire::Anthropic),
        Method::POST if ends(":generateContent") || ends(":streamGenerateContent") => Route::Generate(Wire::Gemini),
        Method::POST if ends("/messages/count_tokens") => Route::Count(Wire::Anthropic),
        Method::POST if ends(":countTokens") => Route::Count(Wire::Gemini),
        Method::GET if ends("/models") => Route::Models,
        Method::GET if ends("/__violations") => Route::Violations,
        Method::GET if ends("/__requests") => Route::Requests,
        Method::GET | Method::HEAD if path == "/" || ends("/healthz") => Route::Healthy,
        _ => Route::Unknown,
    }
}

/// A list of models that is right for OpenAI, Anthropic and Gemini clients at once.
fn models(scripts: &Scripts) -> Value {
    let names: Vec<&str> = match scripts.models.as_slice() {
        [] => vec![crate::MODEL],
        names => names.iter().map(String::as_str).collect(),
    };
    let list: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({"id": name, "object": "model", "type": "model", "created": 0, "owned_by": crate::HEADER_VALUE,
                   "display_name": format!("{name} (no real model)"), "created_at": "1970-01-01T00:00:00Z"})
        })
        .collect();
    let gemini: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({"name": format!("models/{name}"), "displayName": format!("{name} (no real model)"),
                   "supportedGenerationMethods": ["generateContent", "countTokens"]})
        })
        .collect();
    json!({"object": "list", "data": list, "models": gemini, "has_more": false})
}

fn count(wire: Wire, body: &[u8]) -> Value {
    let tokens = body.len() / 4 + 1;
    match wire {
        Wire::Gemini => json!({"totalTokens": tokens}),
        _ => json!({"input_tokens": tokens}),
    }
}

async fn generate(shared: &Shared, wire: Wire, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Response {
    let request: Value = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return failure(wire, 400, &format!("the request is no JSON: {error}"), None),
    };
    let mut conversation = wire.read(&request);
    if wire == Wire::Gemini {
        read_gemini_path(uri.path(), &mut conversation);
    }
    let mut problems = check::problems(&conversation, &request, &shared.scripts);
    let key = key(headers, uri);
    let refused = shared.scripts.key.is_some() && key != shared.scripts.key;
    if refused {
        problems.push("it carries no key, or a wrong one".into());
    }
    let played = play::play(&conversation, &shared.scripts, |fingerprint| shared.record.count_fault(fingerprint));
    problems.extend(played.problems.iter().cloned());
    let usage = wire::usage(body.len(), &played.reply);
    let status = match &played.fault {
        _ if refused => 401,
        Some(Fault::Status { code, .. }) => *code,
        _ => 200,
    };
    let recorded = Recorded {
        number: 0,
        path: uri.path().to_owned(),
        wire,
        model: conversation.model.clone(),
        stream: conversation.stream,
        key,
        script: played.script.clone(),
        step: played.step,
        status,
        usage: if status == 200 { usage } else { Usage::default() },
        tools: conversation.tools.iter().map(|tool| tool.name.clone()).collect(),
        body: request.clone(),
    };
    shared.record.add(recorded, problems);
    if refused {
        return failure(wire, 401, "wrong key", None);
    }
    let answer = Answer { reply: &played.reply, model: &conversation.model, usage, request: &request };
    deliver(shared, wire, conversation.stream, &played, &answer).await
}

async fn deliver(shared: &Shared, wire: Wire, stream: bool, played: &Played, answer: &Answer<'_>) -> Response {
    let mut cut = None;
    match &played.fault {
        Some(Fault::Status { code, retry_after, .. }) => {
            return failure(wire, *code, "the script wants this request to fail", *retry_after);
        }
        Some(Fault::BadJson { .. }) => {
            return (content_type(stream), if stream { "data: {\"broken\": \n\n" } else { "{\"broken\": " })
                .into_response();
        }
        Some(Fault::Hang { seconds, .. }) => {
            let silence = Duration::try_from_secs_f64(*seconds).unwrap_or(Duration::MAX);
            tokio::select! {
                () = tokio::time::sleep(silence) => {}
                () = shared.stop.cancelled() => {}
            }
        }
        Some(Fault::CutStream { after_bytes, .. }) => cut = Some(*after_bytes),
        None => {}
    }
    let chunks = if stream { wire.events(answer) } else { vec![wire.whole(answer).to_string()] };
    let chunks = match cut {
        Some(bytes) => cut_after(&chunks, bytes),
        None => chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk))).collect(),
    };
    let (wait, stop) = (played.wait_per_chunk, shared.stop.clone());
    let body = futures_util::stream::iter(chunks).then(move |chunk| {
        let stop = stop.clone();
        async move {
            if !wait.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => {}
                }
            }
            chunk
        }
    });
    (content_type(stream), Body::from_stream(body)).into_response()
}

/// The first `bytes` bytes, then an error, which breaks the connection.
fn cut_after(chunks: &[String], bytes: usize) -> Vec<io::Result<Bytes>> {
    let mut all = chunks.concat().into_bytes();
    all.truncate(bytes);
    vec![Ok(Bytes::from(all)), Err(io::Error::other("the script cuts the stream"))]
}

fn content_type(stream: bool) -> [(HeaderName, &'static str); 1] {
    [(header::CONTENT_TYPE, if stream { "text/event-stream" } else { "application/json" })]
}

fn failure(wire: Wire, status: u16, message: &str, retry_after: Option<u64>) -> Response {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (code, axum::Json(wire.error(status, message))).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// `…/models/{model}:{what}` names the model and says whether to stream.
fn read_gemini_path(path: &str, conversation: &mut Conversation) {
    if let Some((model, what)) = path.rsplit('/').next().and_then(|last| last.split_once(':')) {
        model.clone_into(&mut conversation.model);
        conversation.stream = what == "streamGenerateContent";
    }
}

/// The API key, wherever the format puts it.
fn key(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
    let in_query = || uri.query()?.split('&').find_map(|pair| pair.strip_prefix("key=").map(str::to_owned));
    header("x-api-key").or_else(|| header("x-goog-api-key")).or(bearer).or_else(in_query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_path_counts() {
        let post = |path: &str| route(&Method::POST, path);
        assert_eq!(post("/any/where/v1/chat/completions"), Route::Generate(Wire::Chat));
        assert_eq!(post("/v1/messages"), Route::Generate(Wire::Anthropic));
        assert_eq!(post("/v1/messages/count_tokens"), Route::Count(Wire::Anthropic));
        assert_eq!(post("/v1beta/models/x:streamGenerateContent"), Route::Generate(Wire::Gemini));
        assert_eq!(post("/v1/embeddings"), Route::Unknown);
        assert_eq!(route(&Method::GET, "/v1/models"), Route::Models);
    }
}

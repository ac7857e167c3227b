//! Sends a model call to providers: with their key, again after failures, and to the next model after too many.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use reqwest::Url;
use thiserror::Error;
use tokio::time::timeout;

use crate::answer::{Body, model_problem};
use crate::config::{Provider, WireFormat};
use crate::gateway::Shared;
use crate::headers::strip_hop_by_hop;
use crate::key::{KeyError, Secret};
use crate::meter::{CallEnd, NoticeKind};
use crate::model::Candidate;
use crate::model::call::Call;
use crate::model::passage::{Bytestream, Passage};
use crate::model::request::ModelRequest;
use crate::model::retry::{Next, Outcome, decide, retry_after};
use crate::model::route::CallRoute;
use crate::model::scrub::Scrubber;
use crate::model::tap::Tap;

/// How long the first byte of a body is waited for before the head is passed on without it. Until then a connection
/// that breaks can still be tried again.
const FIRST_BYTE_WAIT: Duration = Duration::from_secs(2);

/// The status by which Anthropic says that it is overloaded, and the error by which a stream says so.
const OVERLOADED: u16 = 529;
const OVERLOADED_ERROR: &[u8] = b"\"overloaded_error\"";

/// Headers from inside that never leave: credentials of any provider, and what says where the call comes from.
const INSIDE_ONLY: [HeaderName; 11] = [
    header::AUTHORIZATION,
    header::HOST,
    header::CONTENT_LENGTH,
    header::COOKIE,
    header::EXPECT,
    header::FORWARDED,
    // An answer that is compressed could neither be metered nor scrubbed.
    header::ACCEPT_ENCODING,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-forwarded-for"),
];

/// An answer whose head, and perhaps first chunk, is here.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    first: Option<Bytes>,
    rest: Bytestream,
    key: Option<Secret>,
}

impl Answer {
    /// Whether a stream, begun with status 200, says at once that it will not go on: Anthropic does so.
    fn overloaded(&self) -> bool {
        self.first.as_deref().is_some_and(|first| {
            let error = first.starts_with(b"event: error");
            error && first.windows(OVERLOADED_ERROR.len()).any(|window| window == OVERLOADED_ERROR)
        })
    }
}

/// Why an attempt brought no answer.
#[derive(Debug, Error)]
enum Fault {
    #[error("{0}")]
    Key(#[from] KeyError),
    #[error("no connection to the provider: {0}")]
    NoAnswer(String),
    #[error("the provider did not answer in time")]
    TooSlow,
    #[error("the provider compressed its answer unasked")]
    Compressed,
    #[error("the request cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// Carries a call to its end: the response is the provider's, or a problem when there is none.
pub(crate) async fn send(
    shared: &Shared,
    candidates: &[Candidate<'_>],
    route: &CallRoute,
    request: &ModelRequest,
    parts: &Parts,
    mut call: Call,
) -> Response<Body> {
    let headers = outward(&parts.headers);
    let query = query(parts.uri.query().unwrap_or_default());
    let (mut at, mut attempt) = (0, 1);
    loop {
        let candidate = candidates[at];
        call.attempt(candidate);
        let result = try_once(shared, candidate, route, request, &headers, query.as_deref()).await;
        if let Ok(answer) = &result {
            call.answered(answer.status.as_u16());
        }
        let (outcome, cause) = outcome(&result);
        let more_models = at + 1 < candidates.len();
        match decide(outcome, attempt, more_models, &shared.config.retry, (shared.outside.jitter)()) {
            Next::PassOn => return pass_on(shared, route.format, result, call),
            Next::Again(wait) => {
                // The connection is given back before the wait.
                drop(result);
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                call.notice(NoticeKind::Retry { model: candidate.model.id.clone(), attempt, cause, wait_ms });
                tokio::time::sleep(wait).await;
                attempt += 1;
            }
            Next::Fallback => {
                let (from, to) = (candidate.model.id.clone(), candidates[at + 1].model.id.clone());
                call.notice(NoticeKind::Fallback { from, to, cause });
                (at, attempt) = (at + 1, 1);
            }
        }
    }
}

async fn try_once(
    shared: &Shared,
    candidate: Candidate<'_>,
    route: &CallRoute,
    request: &ModelRequest,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Answer, Fault> {
    let Candidate { model, provider } = candidate;
    let name = model.upstream.as_deref().unwrap_or(&model.id);
    let key = provider.key.read().await?;
    let mut headers = headers.clone();
    if let Some((name, value)) = key.as_ref().and_then(|key| credential(route.format, key)) {
        headers.insert(name, value);
    }
    let mut url = url(provider, route, name);
    url.set_query(query);
    let sending = shared.client.post(url).headers(headers).body(request.body_for(name)?).send();
    let patience = Duration::from_millis(shared.config.limits.answer_head_ms);
    let response = timeout(patience, sending).await.map_err(|_| Fault::TooSlow)?.map_err(|error| unreached(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Fault::Compressed);
    }
    let mut rest: Bytestream = Box::pin(response.bytes_stream());
    let first = match timeout(FIRST_BYTE_WAIT, rest.next()).await {
        Ok(Some(Ok(chunk))) => Some(chunk),
        Ok(Some(Err(error))) => return Err(unreached(&error)),
        Ok(None) => {
            rest = Box::pin(futures_util::stream::empty());
            None
        }
        Err(_) => None,
    };
    Ok(Answer { status, headers, first, rest, key })
}

/// What an attempt came to, for the decision and in words.
fn outcome(result: &Result<Answer, Fault>) -> (Outcome, String) {
    match result {
        Ok(answer) if answer.overloaded() => {
            (Outcome::Answer(OVERLOADED, None), "the provider is overloaded".to_owned())
        }
        Ok(answer) => {
            let status = answer.status.as_u16();
            (Outcome::Answer(status, retry_after(&answer.headers)), format!("the provider answered {status}"))
        }
        Err(fault @ Fault::NoAnswer(_)) => (Outcome::NoAnswer, fault.to_string()),
        Err(fault) => (Outcome::Hopeless, fault.to_string()),
    }
}

fn pass_on(shared: &Shared, format: WireFormat, result: Result<Answer, Fault>, mut call: Call) -> Response<Body> {
    match result {
        Ok(Answer { status, headers, first, rest, key }) => {
            let tap = Tap::new(format, &headers);
            let idle = Duration::from_millis(shared.config.limits.answer_idle_ms);
            Passage { call, tap, scrubber: Scrubber::new(key), first, rest, idle }.response(status, headers)
        }
        Err(fault) => {
            call.ended(CallEnd::Failed);
            let status = match fault {
                Fault::TooSlow => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::BAD_GATEWAY,
            };
            model_problem(status, "api_error", &fault.to_string())
        }
    }
}

/// The headers that leave, without any credential.
fn outward(inside: &HeaderMap) -> HeaderMap {
    let mut headers = inside.clone();
    strip_hop_by_hop(&mut headers);
    for name in &INSIDE_ONLY {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

/// The query that leaves: all but the token.
fn query(inside: &str) -> Option<String> {
    let kept: Vec<&str> = inside.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("key=")).collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

/// Where a provider wants its key, by wire format.
fn credential(format: WireFormat, key: &Secret) -> Option<(HeaderName, HeaderValue)> {
    let (name, text) = match format {
        WireFormat::ChatCompletions | WireFormat::Responses => {
            (header::AUTHORIZATION, format!("Bearer {}", key.expose()))
        }
        WireFormat::Messages => (HeaderName::from_static("x-api-key"), key.expose().to_owned()),
        WireFormat::GenerateContent => (HeaderName::from_static("x-goog-api-key"), key.expose().to_owned()),
    };
    // A key was checked when it was read, so that this never fails.
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// The call's address at a provider. The version is added where the base URL does not end with one.
fn url(provider: &Provider, route: &CallRoute, model: &str) -> Url {
    let mut url = provider.base_url.clone();
    let versioned =
        url.path_segments().and_then(|mut segments| segments.rfind(|last| !last.is_empty())).is_some_and(is_version);
    let version = match route.format {
        WireFormat::GenerateContent => "v1beta",
        _ => "v1",
    };
    // Configuration admits only http and https, whose URLs have a path.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty();
        if !versioned {
            segments.push(version);
        }
        segments.extend(route.segments(model));
    }
    url
}

fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// A connection's fault in words, with its causes, and without the URL.
fn unreached(error: &reqwest::Error) -> Fault {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        cause = error.source();
    }
    Fault::NoAnswer(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Catalogue, GatewayConfig};
    use crate::model::route::Verb;

    #[track_caller]
    fn check(base_url: &str, format: WireFormat, expect: &str) {
        let text = format!(
            "providers = [{{ name = 'p', kind = 'openai', base_url = '{base_url}' }}]\nmodels = [{{ id = 'm', provider = 'p' }}]"
        );
        let config: GatewayConfig = toml::from_str(&text).unwrap();
        let catalogue = Catalogue::new(&config).unwrap();
        let (_, provider) = catalogue.model("m").unwrap();
        let route = CallRoute { format, verb: Verb::Generate, model: None };
        assert_eq!(url(provider, &route, "a/b").as_str(), expect);
    }

    #[test]
    fn base_urls_are_taken_with_and_without_version() {
        use WireFormat::*;
        check("https://api.test", ChatCompletions, "https://api.test/v1/chat/completions");
        check("https://api.test/v1/", Responses, "https://api.test/v1/responses");
        check("https://api.test/api/paas/v4", ChatCompletions, "https://api.test/api/paas/v4/chat/completions");
        check("https://api.test/anthropic", Messages, "https://api.test/anthropic/v1/messages");
        check("https://api.test", GenerateContent, "https://api.test/v1beta/models/a%2Fb:generateContent");
    }

    #[test]
    fn credentials_from_inside_never_leave() {
        let inside = ["authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie", "proxy-authorization"];
        let mut headers: HeaderMap =
            inside.iter().map(|name| (name.parse().unwrap(), HeaderValue::from_static("inside"))).collect();
        headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        let outward = outward(&headers);
        assert!(outward.values().all(|value| value != "inside"));
        assert!(outward.contains_key("anthropic-version"));
        assert_eq!(query("key=inside&alt=sse").as_deref(), Some("alt=sse"));
        assert_eq!(query("key=inside"), None);
    }
}

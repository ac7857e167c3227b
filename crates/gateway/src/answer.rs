//! Answers that the gateway gives itself: problems that say what to do, in a shape that every client can read.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use serde_json::{Value, json};

/// What breaks a body off.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of any answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body without bytes.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A JSON document.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A problem document (RFC 9457).
pub(crate) fn problem(status: StatusCode, title: &str, detail: &str) -> Response<Body> {
    let value = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let mut response = json(status, &value);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// A problem that the client libraries of all providers show to their users: each looks for `error.message`.
///
/// They are told not to send the request again: the gateway has done so as often as it makes sense.
pub(crate) fn model_problem(status: StatusCode, code: &str, detail: &str) -> Response<Body> {
    let value = json!({
        "type": "error",
        "title": code,
        "status": status.as_u16(),
        "detail": detail,
        "error": { "type": code, "code": code, "status": code, "message": format!("hob gateway: {detail}") },
    });
    let mut response = json(status, &value);
    response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
    response
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

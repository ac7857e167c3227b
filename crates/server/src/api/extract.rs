//! What handlers take from a request: a session's ID, a body, who asks. Each failure is a problem document.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use hob_agent::Author;
use hob_session::SessionId;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::App;
use crate::problem::Problem;

/// The header that names who asks, as `Name <address>` in UTF-8. The server has one owner, so it is believed.
pub const AUTHOR_HEADER: &str = "hob-author";

/// The header of RFC-to-be "The Idempotency-Key HTTP Header Field".
const IDEMPOTENCY_HEADER: &str = "idempotency-key";

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

/// The session in the path.
pub(super) struct Session(pub(super) SessionId);

/// The session in the path, and one more segment.
pub(super) struct SessionAnd(pub(super) SessionId, pub(super) String);

/// The query.
pub(super) struct Params<T>(pub(super) T);

/// Who asks.
pub(super) struct By(pub(super) Author);

/// The key under which a repeated request is known.
pub(super) struct IdempotencyKey(pub(super) Option<String>);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, app).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(format!(
                "a request may have {} MiB; put large texts into a file of the repository",
                super::BODY_BYTES_MAX >> 20
            )),
            _ => Problem::malformed(rejection.body_text()),
        })?;
        parse(&bytes).map(Self)
    }
}

/// Reads JSON, and says where it is broken.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => Problem::unusable("unusable", "A value cannot be used", error.to_string()),
        _ if bytes.is_empty() => Problem::malformed("the body is empty where JSON is expected"),
        _ => Problem::malformed(format!("the JSON is broken: {error}")),
    })
}

fn session_id(text: String) -> Result<SessionId, Problem> {
    SessionId::new(text).map_err(|reason| Problem::not_found(format!("there is no such session: {reason}")))
}

impl FromRequestParts<App> for Session {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, app)
            .await
            .map_err(|rejection| Problem::malformed(rejection.body_text()))?;
        session_id(id).map(Self)
    }
}

impl FromRequestParts<App> for SessionAnd {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Path((id, rest)) = Path::<(String, String)>::from_request_parts(parts, app)
            .await
            .map_err(|rejection| Problem::malformed(rejection.body_text()))?;
        Ok(Self(session_id(id)?, rest))
    }
}

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Query(query) = Query::<T>::from_request_parts(parts, app)
            .await
            .map_err(|rejection| Problem::malformed(rejection.body_text()))?;
        Ok(Self(query))
    }
}

impl FromRequestParts<App> for By {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        author(&parts.headers, app).map(Self)
    }
}

/// Who asks: the header's person, or the server's owner.
pub(crate) fn author(headers: &HeaderMap, app: &App) -> Result<Author, Problem> {
    let Some(value) = headers.get(AUTHOR_HEADER) else { return Ok(app.defaults.author.clone()) };
    std::str::from_utf8(value.as_bytes())
        .ok()
        .and_then(parse_author)
        .ok_or_else(|| Problem::malformed(format!("the header {AUTHOR_HEADER} is not `Name <address>`")))
}

/// Reads `Name <address>`. Neither may hold what would break a commit's header.
pub(crate) fn parse_author(text: &str) -> Option<Author> {
    let (name, rest) = text.split_once('<')?;
    let (name, email) = (name.trim(), rest.trim().strip_suffix('>')?.trim());
    let fits = |text: &str| !text.is_empty() && text.len() <= 256 && !text.contains(['<', '>', '\n', '\r', '\0']);
    (fits(name) && fits(email)).then(|| Author { name: name.into(), email: email.into() })
}

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(IDEMPOTENCY_HEADER) else { return Ok(Self(None)) };
        match value.to_str() {
            Ok(key) if (1..=200).contains(&key.len()) => Ok(Self(Some(key.to_owned()))),
            _ => Err(Problem::malformed("an Idempotency-Key has 1 to 200 plain characters")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_author(text: &str, expect: Option<(&str, &str)>) {
        let expect = expect.map(|(name, email)| Author { name: name.into(), email: email.into() });
        assert_eq!(parse_author(text), expect, "{text:?}");
    }

    #[test]
    fn a_person_is_a_name_and_an_address() {
        check_author("Mona Lisa <mona@example.org>", Some(("Mona Lisa", "mona@example.org")));
        check_author("Zoë <z@x>", Some(("Zoë", "z@x")));
        check_author("mona@example.org", None);
        check_author("<mona@example.org>", None);
        check_author("a\nauthor b <c> <d>", None);
    }

    #[test]
    fn broken_json_says_where() {
        let problem = parse::<serde_json::Value>(b"{\n  \"a\": }").unwrap_err();
        assert_eq!(
            (problem.status, problem.detail.as_str()),
            (400, "the JSON is broken: expected value at line 2 column 8")
        );
    }
}

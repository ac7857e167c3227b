//! Whose model call it is: the token that came with it, held against the way it came.

use std::sync::Arc;

use http::{HeaderMap, Request, Response, StatusCode, header};

use crate::access::Door;
use crate::answer::{Body, model_problem};
use crate::door::{Connection, Way};
use crate::meter::NoticeKind;
use crate::registry::{Owner, digest};

/// Why a call was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoToken,
    Unknown,
    Foreign,
    Stale,
}

/// Finds the access. On a session's own socket only its own token counts.
pub(crate) fn door<B>(connection: &Connection, request: &Request<B>) -> Result<Arc<Door>, Refusal> {
    let shared = &connection.shared;
    let tokens = tokens(request.headers(), request.uri().query());
    if tokens.is_empty() {
        return Err(Refusal::NoToken);
    }
    let own = match &connection.way {
        Way::Socket(door) => Some(door),
        Way::Loopback => None,
    };
    if let Some(door) = own.filter(|door| tokens.iter().any(|token| digest(token) == door.token)) {
        return Ok(Arc::clone(door));
    }
    let mut refusal = Refusal::Unknown;
    for token in &tokens {
        match (shared.registry.owner(token), own) {
            (Owner::Open(door), None) => return Ok(door),
            (Owner::Open(_), Some(_)) => refusal = Refusal::Foreign,
            (Owner::Stale, _) if refusal == Refusal::Unknown => refusal = Refusal::Stale,
            (Owner::Stale | Owner::Nobody, _) => {}
        }
    }
    match (own, refusal) {
        (Some(door), Refusal::Foreign) => door.token_refused(shared, NoticeKind::ForeignToken),
        (Some(door), Refusal::Stale) => door.token_refused(shared, NoticeKind::StaleToken),
        _ => tracing::warn!(?refusal, "a model call was refused"),
    }
    Err(refusal)
}

impl Refusal {
    pub(crate) fn response(self) -> Response<Body> {
        let (status, detail) = match self {
            Self::NoToken => {
                let detail =
                    "the call carries no token; send the session's as bearer token, x-api-key, x-goog-api-key or ?key=";
                (StatusCode::UNAUTHORIZED, detail)
            }
            Self::Unknown => (StatusCode::UNAUTHORIZED, "the token is not that of an open session"),
            Self::Stale => (StatusCode::UNAUTHORIZED, "the token is of an earlier epoch of its session"),
            Self::Foreign => (StatusCode::FORBIDDEN, "the token is not that of this sandbox's session"),
        };
        model_problem(status, "authentication_error", detail)
    }
}

/// Every token that a request carries. Some agents send the same one twice, others a made-up one beside it.
fn tokens(headers: &HeaderMap, query: Option<&str>) -> Vec<String> {
    let bearer = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let plain = ["x-api-key", "x-goog-api-key", "api-key"].into_iter().flat_map(|name| headers.get_all(name));
    let plain = plain.filter_map(|value| value.to_str().ok()).map(|value| value.trim().to_owned());
    let in_query = query.unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("key=")).map(str::to_owned);
    bearer.chain(plain).chain(in_query).filter(|token| !token.is_empty()).take(4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_wherever_a_client_library_puts_it() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "bearer one".parse().unwrap());
        headers.insert("x-api-key", "two".parse().unwrap());
        headers.insert("x-goog-api-key", "three".parse().unwrap());
        assert_eq!(tokens(&headers, Some("alt=sse&key=four")), ["one", "two", "three", "four"]);
        headers.insert(header::AUTHORIZATION, "Basic one".parse().unwrap());
        assert_eq!(tokens(&headers, None), ["two", "three"]);
    }
}

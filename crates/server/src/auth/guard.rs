//! The two checks in front of every request, as middleware.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hob_session::Clock;

use super::Auth;
use super::origin::{self, Hosts};
use crate::problem::Problem;

/// What [`require_owner`] compares with.
#[derive(Clone)]
pub struct Signed {
    /// The secrets.
    pub auth: Arc<Auth>,
    /// For cookies that end.
    pub clock: Arc<dyn Clock>,
}

/// Refuses requests that a page of another site could have caused.
pub async fn require_safe_origin(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    match origin::check(&hosts, request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Refuses requests of nobody in particular.
pub async fn require_owner(State(signed): State<Signed>, request: Request, next: Next) -> Response {
    if signed.auth.knows(request.headers(), signed.clock.now_ms()) {
        return next.run(request).await;
    }
    Problem::unauthenticated(
        "send the token from the file `token` in the server's data folder as a bearer token, or open the login URL \
         that the server printed when it started",
    )
    .into_response()
}

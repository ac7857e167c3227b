//! `GET /sessions/{id}/diff`: the change.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;

use super::App;
use super::extract::Session;
use crate::problem::Problem;

/// The change against the base as a unified diff, as the sandbox has it now; empty when nothing changed.
#[utoipa::path(
    get, path = "/sessions/{id}/diff", tag = "workspace", params(("id" = String, Path, description = "The session")),
    responses(
        (status = 200, body = String, content_type = "text/x-diff"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn diff(State(app): State<App>, Session(id): Session) -> Result<Response, Problem> {
    let diff = app.engine.diff(&id).await?;
    Ok(([(header::CONTENT_TYPE, "text/x-diff; charset=utf-8")], diff).into_response())
}

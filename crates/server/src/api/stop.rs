//! `POST /sessions/{id}/stop`: stops the turn that runs.

use axum::extract::State;
use http::StatusCode;

use super::App;
use super::extract::{By, Session};
use crate::problem::Problem;

/// Stops the turn that runs; the queue goes on. Without one, nothing happens.
#[utoipa::path(
    post, path = "/sessions/{id}/stop", tag = "sessions", params(("id" = String, Path, description = "The session")),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn stop(State(app): State<App>, Session(id): Session, By(author): By) -> Result<StatusCode, Problem> {
    app.engine.stop(&id, author).await?;
    Ok(StatusCode::NO_CONTENT)
}

//! `POST /sessions/{id}/archive`: closes a session for good.

use axum::extract::State;
use http::StatusCode;

use super::App;
use super::extract::{By, Session};
use crate::problem::Problem;

/// Closes a session for good: its turn is stopped, its queue cancelled, its sandbox removed. Its log stays.
#[utoipa::path(
    post, path = "/sessions/{id}/archive", tag = "sessions", params(("id" = String, Path, description = "The session")),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn archive(
    State(app): State<App>,
    Session(id): Session,
    By(author): By,
) -> Result<StatusCode, Problem> {
    app.engine.archive(&id, author).await?;
    Ok(StatusCode::NO_CONTENT)
}

//! `DELETE /sessions/{id}/prompts/{prompt_id}`: takes back a prompt that has not started.

use axum::extract::State;
use http::StatusCode;

use super::App;
use super::extract::{By, SessionAnd};
use crate::problem::Problem;

/// Takes back a prompt that has not started.
#[utoipa::path(
    delete, path = "/sessions/{id}/prompts/{prompt_id}", tag = "sessions",
    params(("id" = String, Path, description = "The session"), ("prompt_id" = String, Path, description = "The prompt")),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn cancel_prompt(
    State(app): State<App>,
    SessionAnd(id, prompt_id): SessionAnd,
    By(author): By,
) -> Result<StatusCode, Problem> {
    app.engine.cancel_prompt(&id, &prompt_id, author).await?;
    Ok(StatusCode::NO_CONTENT)
}

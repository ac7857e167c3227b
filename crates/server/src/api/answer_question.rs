//! `POST /sessions/{id}/questions/{question_id}`: answers a question of the agent.

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::App;
use super::extract::{Body, By, SessionAnd};
use crate::problem::Problem;

/// An answer.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct AnswerQuestion {
    /// Its words.
    text: String,
}

/// Answers an open question.
#[utoipa::path(
    post, path = "/sessions/{id}/questions/{question_id}", tag = "sessions",
    params(("id" = String, Path, description = "The session"), ("question_id" = String, Path, description = "The question")),
    request_body = AnswerQuestion,
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn answer_question(
    State(app): State<App>,
    SessionAnd(id, question_id): SessionAnd,
    By(author): By,
    Body(answer): Body<AnswerQuestion>,
) -> Result<StatusCode, Problem> {
    app.engine.answer_question(&id, &question_id, &answer.text, author).await?;
    Ok(StatusCode::NO_CONTENT)
}

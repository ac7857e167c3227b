//! `POST /sessions/{id}/permissions/{request_id}`: answers a permission request.

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::App;
use super::extract::{Body, By, SessionAnd};
use crate::problem::Problem;

/// An answer.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct AnswerPermission {
    /// The ID of one of the request's options.
    option: String,
}

/// Answers an open permission request with one of its options.
#[utoipa::path(
    post, path = "/sessions/{id}/permissions/{request_id}", tag = "sessions",
    params(("id" = String, Path, description = "The session"), ("request_id" = String, Path, description = "The request")),
    request_body = AnswerPermission,
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn answer_permission(
    State(app): State<App>,
    SessionAnd(id, request_id): SessionAnd,
    By(author): By,
    Body(answer): Body<AnswerPermission>,
) -> Result<StatusCode, Problem> {
    app.engine.answer_permission(&id, &request_id, &answer.option, author).await?;
    Ok(StatusCode::NO_CONTENT)
}

//! `POST /sessions/{id}/prompts`: queues a prompt.

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hob_session::{NewAttachment, NewPrompt};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::App;
use super::extract::{Body, By, IdempotencyKey, Session};
use super::shapes::{Attachment, PromptAccepted};
use crate::problem::Problem;

/// A prompt.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct QueuePrompt {
    /// Its words.
    text: String,
    /// Its pictures.
    #[serde(default)]
    attachments: Vec<Attachment>,
    /// The model for this prompt, when it is not the session's.
    #[serde(default)]
    model: Option<String>,
}

/// Queues a prompt. When this answers, the prompt is on disk.
#[utoipa::path(
    post, path = "/sessions/{id}/prompts", tag = "sessions",
    params(
        ("id" = String, Path, description = "The session"),
        ("Idempotency-Key" = Option<String>, Header, description = "A second request with it gives the first one's answer"),
    ),
    request_body = QueuePrompt,
    responses(
        (status = 202, body = PromptAccepted),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn queue_prompt(
    State(app): State<App>,
    Session(id): Session,
    By(author): By,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    Body(request): Body<QueuePrompt>,
) -> Result<(StatusCode, Json<PromptAccepted>), Problem> {
    let attachments = decode(request.attachments)?;
    let prompt = NewPrompt { text: request.text, author, attachments, model: request.model, idempotency_key };
    let queued = app.engine.prompt(&id, prompt).await?;
    Ok((StatusCode::ACCEPTED, Json(queued.into())))
}

/// The pictures' bytes.
pub(super) fn decode(attachments: Vec<Attachment>) -> Result<Vec<NewAttachment>, Problem> {
    let decoded = attachments.into_iter().map(|attachment| {
        let bytes = STANDARD.decode(&attachment.base64).map_err(|error| {
            let detail = format!("the attachment {:?} is no base64: {error}", attachment.name);
            Problem::unusable("unusable", "A value cannot be used", detail)
        })?;
        Ok(NewAttachment { name: attachment.name, media_type: attachment.media_type, bytes: bytes.into() })
    });
    decoded.collect()
}

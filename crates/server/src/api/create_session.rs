//! `POST /sessions`: makes a session, with its first prompt where the request has one.

use axum::Json;
use axum::extract::State;
use hob_session::{NewPrompt, NewSession};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::App;
use super::extract::{Body, By, IdempotencyKey};
use super::queue_prompt::decode;
use super::shapes::{CreateSession, SessionCreated};
use crate::problem::Problem;

/// Makes a session. It gets its sandbox ready at once, whether there is a prompt yet or not.
#[utoipa::path(
    post, path = "/sessions", tag = "sessions",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "A second request with it gives the first one's session"),
        ("Hob-Author" = Option<String>, Header, description = "Who asks, as `Name <address>`; the server's owner when absent"),
    ),
    request_body = CreateSession,
    responses(
        (status = 201, body = SessionCreated),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create_session(
    State(app): State<App>,
    By(author): By,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    Body(request): Body<CreateSession>,
) -> Result<(StatusCode, HeaderMap, Json<SessionCreated>), Problem> {
    if request.attempts.is_some_and(|attempts| attempts != 1) {
        return Err(Problem::unusable("unusable", "A value cannot be used", "attempts: only 1 is taken now"));
    }
    let model = request.model.or_else(|| app.defaults.model.clone()).ok_or_else(no_model)?;
    let prompt = match request.prompt {
        Some(text) => Some(NewPrompt {
            text,
            author: author.clone(),
            attachments: decode(request.attachments)?,
            model: None,
            idempotency_key: None,
        }),
        None => None,
    };
    let session = NewSession {
        repository: request.repository,
        base: request.base,
        agent: request.agent.unwrap_or_else(|| app.defaults.agent.clone()),
        model,
        author,
        title: request.title,
        prompt,
        idempotency_key,
    };
    let created = app.engine.create(session).await?;
    let id = created.session.to_string();
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/sessions/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    Ok((StatusCode::CREATED, headers, Json(SessionCreated { id, prompt: created.prompt.map(Into::into) })))
}

pub(super) fn no_model() -> Problem {
    Problem::unusable("no-model", "No model is configured", crate::wiring::NO_MODEL)
}

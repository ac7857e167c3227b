//! `POST /typing`: somebody begins to write a prompt for a session to come.

use axum::extract::State;
use hob_agent::Author;
use hob_session::NewSession;
use http::StatusCode;

use super::App;
use super::create_session::no_model;
use super::extract::{Body, By};
use super::shapes::Typing;
use crate::problem::Problem;

/// Makes a sandbox warm for the session that is about to be made, within the person's quota, and builds its image where
/// there is none. Said again while the person goes on; it expires when the session is not made.
#[utoipa::path(
    post, path = "/typing", tag = "sessions",
    params(("Hob-Author" = Option<String>, Header, description = "Who types, as `Name <address>`; the server's owner when absent")),
    request_body = Typing,
    responses((status = 204), (status = 422, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn typing(
    State(app): State<App>,
    By(author): By,
    Body(request): Body<Typing>,
) -> Result<StatusCode, Problem> {
    hear(&app, author, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells the engine that somebody types.
pub(crate) async fn hear(app: &App, author: Author, request: Typing) -> Result<(), Problem> {
    let session = NewSession {
        repository: request.repository,
        base: request.base,
        agent: request.agent.unwrap_or_else(|| app.defaults.agent.clone()),
        model: request.model.or_else(|| app.defaults.model.clone()).ok_or_else(no_model)?,
        author,
        title: None,
        prompt: None,
        idempotency_key: None,
    };
    Ok(app.engine.typing(&session).await?)
}

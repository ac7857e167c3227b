//! `GET /sessions/{id}`: one session.

use axum::Json;
use axum::extract::State;

use super::App;
use super::extract::Session;
use super::shapes::SessionView;
use crate::problem::Problem;

/// Reads a session.
#[utoipa::path(
    get, path = "/sessions/{id}", tag = "sessions", params(("id" = String, Path, description = "The session")),
    responses((status = 200, body = SessionView), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn get_session(State(app): State<App>, Session(id): Session) -> Result<Json<SessionView>, Problem> {
    Ok(Json(app.engine.get(&id).await?.into()))
}

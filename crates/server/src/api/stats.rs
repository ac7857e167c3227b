//! `GET /sessions/{id}/stats`: what a session's sandbox uses now.

use axum::Json;
use axum::extract::State;

use super::App;
use super::extract::Session;
use super::shapes::StatsView;
use crate::problem::Problem;

/// Reads what the sandbox uses now, watched for a fifth of a second. None is started for it.
#[utoipa::path(
    get, path = "/sessions/{id}/stats", tag = "sessions", params(("id" = String, Path, description = "The session")),
    responses((status = 200, body = StatsView), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn stats(State(app): State<App>, Session(id): Session) -> Result<Json<StatsView>, Problem> {
    let used = app.engine.usage(&id).await?;
    Ok(Json(used.map_or_else(StatsView::default, StatsView::from)))
}

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
    let disk = app.engine.disk_use(&id).await?;
    let mut stats = used.map_or_else(StatsView::default, StatsView::from);
    (stats.disk_own_bytes, stats.disk_shared_bytes) = disk.map(|disk| (disk.own_bytes, disk.shared_bytes)).unzip();
    Ok(Json(stats))
}

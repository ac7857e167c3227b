//! `POST /sessions/{id}/snapshot`: freezes a session's files.

use axum::Json;
use axum::extract::State;

use super::App;
use super::extract::Session;
use super::shapes::SnapshotView;
use crate::problem::Problem;

/// Freezes the session's files as they are now, those that git ignores too; its sandbox runs on. Of a session that was put
/// away it is the snapshot of then.
#[utoipa::path(
    post, path = "/sessions/{id}/snapshot", tag = "sessions",
    params(("id" = String, Path, description = "The session")),
    responses(
        (status = 200, body = SnapshotView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn take_snapshot(State(app): State<App>, Session(id): Session) -> Result<Json<SnapshotView>, Problem> {
    Ok(Json(app.engine.snapshot(&id).await?.into()))
}

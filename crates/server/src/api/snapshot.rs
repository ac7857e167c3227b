//! `POST` and `GET /sessions/{id}/snapshot`: freezes a session's files, and hands them out.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;

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

/// A snapshot of now as an archive: tar with gzip, a `snapshot.json` and the layers that hold the session's files, those of
/// its image too. Where it breaks off, so does the answer.
#[utoipa::path(
    get, path = "/sessions/{id}/snapshot", tag = "sessions",
    params(("id" = String, Path, description = "The session")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/gzip"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn export_snapshot(State(app): State<App>, Session(id): Session) -> Result<Response, Problem> {
    let archive = app.engine.export(&id).await?;
    let pieces = futures_util::stream::unfold(archive, |mut archive| async move {
        let piece = archive.recv().await?;
        Some((piece, archive))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/gzip"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_DISPOSITION, "attachment"),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

//! `GET /sessions/{id}/artifacts`: what a session made, and each of it.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::extract::{Session, SessionAnd};
use crate::problem::Problem;

/// What a session made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ArtifactList {
    /// The artifacts, oldest first.
    artifacts: Vec<ArtifactView>,
}

/// A file that a session made.
#[derive(Debug, Serialize, ToSchema)]
struct ArtifactView {
    /// Its ID.
    artifact_id: String,
    /// What it is: `evidence`, `diff`, `image`, `file`.
    kind: String,
    /// Its file name.
    name: String,
    /// Its media type.
    media_type: String,
    /// Its size in bytes.
    size_bytes: u64,
    /// Its SHA-256, in hexadecimal.
    sha256: String,
    /// When it was kept, in milliseconds since 1970-01-01 UTC.
    at_ms: u64,
}

/// Lists what a session made, oldest first.
#[utoipa::path(
    get, path = "/sessions/{id}/artifacts", tag = "workspace", params(("id" = String, Path, description = "The session")),
    responses((status = 200, body = ArtifactList), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn list_artifacts(
    State(app): State<App>,
    Session(id): Session,
) -> Result<Json<ArtifactList>, Problem> {
    let artifacts = app.engine.artifacts(&id).await?.into_iter().map(ArtifactView::from).collect();
    Ok(Json(ArtifactList { artifacts }))
}

/// An artifact's bytes.
#[utoipa::path(
    get, path = "/sessions/{id}/artifacts/{artifact_id}", tag = "workspace",
    params(("id" = String, Path, description = "The session"), ("artifact_id" = String, Path, description = "The artifact")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_artifact(
    State(app): State<App>,
    SessionAnd(id, artifact_id): SessionAnd,
) -> Result<Response, Problem> {
    let (artifact, bytes) = app.engine.artifact_bytes(&id, &artifact_id).await?;
    // An agent made it, so it is shown as a page of ours in no case: pictures and JSON are shown, the rest is saved.
    let shown = matches!(&*artifact.media_type, "image/png" | "image/jpeg" | "image/webp" | "application/json");
    let media_type = if shown { artifact.media_type } else { "application/octet-stream".into() };
    let headers = [(header::CONTENT_TYPE, media_type), (header::X_CONTENT_TYPE_OPTIONS, "nosniff".into())];
    Ok((headers, bytes).into_response())
}

impl From<hob_session::Artifact> for ArtifactView {
    fn from(artifact: hob_session::Artifact) -> Self {
        Self {
            artifact_id: artifact.artifact_id,
            kind: artifact.kind,
            name: artifact.name,
            media_type: artifact.media_type,
            size_bytes: artifact.size_bytes,
            sha256: artifact.sha256,
            at_ms: artifact.at_ms,
        }
    }
}

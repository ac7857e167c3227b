//! `GET` and `PUT /sessions/{id}/files/{path}`: a file or folder of the sandbox.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hob_agent::{DirEntry, EntryKind};
use http::{StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::extract::SessionAnd;
use crate::problem::Problem;

/// A folder.
#[derive(Debug, Serialize, ToSchema)]
struct Folder {
    /// Its entries, sorted by name.
    entries: Vec<FolderEntry>,
}

/// An entry of a folder.
#[derive(Debug, Serialize, ToSchema)]
struct FolderEntry {
    /// Its name.
    name: String,
    /// `file`, `directory`, `symlink` or `other`.
    kind: &'static str,
    /// Its size in bytes.
    size_bytes: u64,
}

/// A file's bytes; for a path that ends in `/`, the folder's entries. Paths are relative to the checkout.
#[utoipa::path(
    get, path = "/sessions/{id}/files/{*path}", tag = "workspace",
    params(("id" = String, Path, description = "The session"), ("path" = String, Path, description = "The file or folder")),
    responses(
        (status = 200, content((Vec<u8> = "application/octet-stream"), (Folder = "application/json"))),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read_file(State(app): State<App>, SessionAnd(id, path): SessionAnd) -> Result<Response, Problem> {
    if let Some(folder) = path.strip_suffix('/') {
        let folder = if folder.is_empty() { "." } else { folder };
        let entries = app.engine.list_dir(&id, folder).await?.into_iter().map(FolderEntry::from).collect();
        return Ok(Json(Folder { entries }).into_response());
    }
    let bytes = app.engine.read_file(&id, &path).await?;
    // What comes from a sandbox is never shown as a page of ours.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_DISPOSITION, "attachment"),
    ];
    Ok((headers, bytes).into_response())
}

/// Replaces a file's bytes, and makes its folders.
#[utoipa::path(
    put, path = "/sessions/{id}/files/{*path}", tag = "workspace",
    params(("id" = String, Path, description = "The session"), ("path" = String, Path, description = "The file")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn write_file(
    State(app): State<App>,
    SessionAnd(id, path): SessionAnd,
    bytes: Bytes,
) -> Result<StatusCode, Problem> {
    app.engine.write_file(&id, &path, bytes).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<DirEntry> for FolderEntry {
    fn from(entry: DirEntry) -> Self {
        let kind = match entry.kind {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
            EntryKind::Symlink => "symlink",
            EntryKind::Other => "other",
        };
        Self { name: entry.name, kind, size_bytes: entry.size_bytes }
    }
}

//! `DELETE /images/{id}`: removes an image.

use axum::extract::{Path, State};
use http::StatusCode;

use super::App;
use crate::problem::Problem;

/// Removes an image. Sessions that started from it keep what they need of it.
#[utoipa::path(
    delete, path = "/images/{id}", tag = "images", params(("id" = String, Path, description = "The image")),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn remove_image(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    app.engine.remove_image(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

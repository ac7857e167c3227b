//! `GET /images/{id}`: one image.

use axum::Json;
use axum::extract::{Path, State};

use super::App;
use super::shapes::ImageView;
use crate::problem::Problem;

/// Reads an image.
#[utoipa::path(
    get, path = "/images/{id}", tag = "images", params(("id" = String, Path, description = "The image")),
    responses((status = 200, body = ImageView), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn get_image(State(app): State<App>, Path(id): Path<String>) -> Result<Json<ImageView>, Problem> {
    Ok(Json(app.engine.image(&id)?.as_ref().into()))
}

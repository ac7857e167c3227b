//! `GET /images`: what sessions start from.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::App;
use super::extract::Params;
use super::shapes::ImageList;

/// Which images.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListImages {
    /// Only those of this repository.
    repository: Option<String>,
}

/// Lists images, the oldest first.
#[utoipa::path(get, path = "/images", tag = "images", params(ListImages), responses((status = 200, body = ImageList)))]
pub(super) async fn list_images(State(app): State<App>, Params(query): Params<ListImages>) -> Json<ImageList> {
    let images = app.engine.images(query.repository.as_deref());
    Json(ImageList { images: images.iter().map(|image| image.as_ref().into()).collect() })
}

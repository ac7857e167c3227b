//! `POST /images`: builds an image.

use axum::Json;
use axum::extract::State;
use hob_session::NewImage;
use http::StatusCode;

use super::App;
use super::extract::Body;
use super::shapes::{BuildImage, ImageView};
use crate::problem::Problem;

/// Builds an image, or joins whoever builds the same. It is not waited for: its log tells how it goes.
#[utoipa::path(
    post, path = "/images", tag = "images", request_body = BuildImage,
    responses((status = 202, body = ImageView), (status = 422, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn build_image(
    State(app): State<App>,
    Body(body): Body<BuildImage>,
) -> Result<(StatusCode, Json<ImageView>), Problem> {
    let BuildImage { repository, base, fresh, check, environment } = body;
    let image = app.engine.build_image(NewImage { repository, base, fresh, check, environment }).await?;
    Ok((StatusCode::ACCEPTED, Json(image.as_ref().into())))
}

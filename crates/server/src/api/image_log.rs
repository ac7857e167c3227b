//! `GET /images/{id}/log`: how an image was made.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::header;
use serde::Deserialize;
use utoipa::IntoParams;

use super::App;
use super::extract::Params;
use crate::problem::Problem;

/// How much of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LogParams {
    /// Goes on until the image is built or has failed.
    #[serde(default)]
    follow: bool,
    /// Bytes that are passed over; none when absent.
    #[serde(default)]
    from: u64,
}

/// Reads the log of an image's making: commands, and what they wrote.
#[utoipa::path(
    get, path = "/images/{id}/log", tag = "images", params(("id" = String, Path, description = "The image"), LogParams),
    responses(
        (status = 200, content((String = "text/plain"))),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn image_log(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(params): Params<LogParams>,
) -> Result<Response, Problem> {
    let log = app.engine.image_log(&id, params.from, params.follow).await?;
    // What comes from a sandbox is never shown as a page of ours.
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, Body::from_stream(log)).into_response())
}

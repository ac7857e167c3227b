//! `/healthz`, `/readyz`, `/metrics`, and the page at the root until there is a web client.

use axum::Json;
use axum::extract::State;
use axum::response::{Html, IntoResponse as _, Response};
use hob_session::Filter;
use http::header;
use serde_json::json;

use super::App;
use crate::problem::Problem;

/// The process answers.
pub(super) async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

/// The store answers, and the server is not on its way out.
pub(super) async fn readyz(State(app): State<App>) -> Result<Json<serde_json::Value>, Problem> {
    if app.closing.is_cancelled() {
        return Err(Problem::unavailable("the server is shutting down"));
    }
    app.engine.list(Filter { limit: Some(1), ..Filter::default() }, None).await?;
    Ok(Json(json!({ "status": "ok" })))
}

/// Prometheus' text format, version 0.0.4.
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let text = app.metrics.text(&app.engine).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

pub(super) async fn front() -> Html<&'static str> {
    Html(
        "<!doctype html><title>Hob</title><p>You are signed in. \
         <a href=\"/api/v1/sessions\">Sessions</a> · <a href=\"/openapi.json\">interface</a></p>",
    )
}

//! HTTP: the routes of `/api/v1` and those at the root. One endpoint is one file.
//!
//! A handler parses, calls the engine, maps the answer. The OpenAPI document is generated from the handlers and
//! compared with `docs/openapi.json` in a test.

mod answer_permission;
mod answer_question;
mod archive;
mod artifacts;
mod build_image;
mod bundle;
mod cancel_prompt;
mod create_session;
mod diff;
mod events;
mod exec;
mod extract;
mod files;
mod get_image;
mod get_session;
mod health;
mod image_log;
mod list_images;
mod list_sessions;
mod login;
mod queue_prompt;
mod remove_image;
mod shapes;
mod snapshot;
mod stats;
mod stop;
mod terminal;
mod typing;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use hob_session::{Clock, Engine};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use extract::AUTHOR_HEADER;
pub(crate) use extract::author as author_of;
pub use shapes::{
    BuildImage, CheckOutcomeView, CreateSession, ImageList, ImageView, LimitsView, PhaseTimeView, PromptAccepted,
    SessionCreated, SessionPage, SessionView, SnapshotView, StatsView, Typing,
};
pub(crate) use typing::hear as hear_typing;

use crate::auth::{Auth, Signed, origin::Hosts, require_owner, require_safe_origin};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::ws::{self, Hub};

/// The largest request body, in bytes: a prompt with its pictures in base64.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// What every handler may use.
#[derive(Clone)]
pub struct App {
    /// The sessions.
    pub engine: Engine,
    /// Live events, encoded once for all clients.
    pub hub: Hub,
    /// Answers to commands of WebSocket clients, by ID.
    pub acks: Arc<ws::Acks>,
    /// Who may come in.
    pub auth: Arc<Auth>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What `/metrics` tells.
    pub metrics: Arc<Metrics>,
    /// What a session starts with when a request does not say.
    pub defaults: Arc<Defaults>,
    /// Tasks of connections.
    pub tasks: TaskTracker,
    /// Cancelled when the server shuts down.
    pub closing: CancellationToken,
}

/// What counts when a request does not say.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The agent.
    pub agent: String,
    /// The model; none where none is configured.
    pub model: Option<String>,
    /// The author of prompts.
    pub author: hob_agent::Author,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Hob", description = "A self-hosted background coding agent", license(name = "MIT OR Apache-2.0")),
    components(schemas(Problem, shapes::EventView))
)]
struct Description;

/// The routes of `/api/v1`, and their description.
fn v1() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_session::create_session, list_sessions::list_sessions))
        .routes(routes!(typing::typing))
        .routes(routes!(get_session::get_session))
        .routes(routes!(stats::stats))
        .routes(routes!(queue_prompt::queue_prompt))
        .routes(routes!(cancel_prompt::cancel_prompt))
        .routes(routes!(stop::stop))
        .routes(routes!(snapshot::take_snapshot, snapshot::export_snapshot))
        .routes(routes!(archive::archive))
        .routes(routes!(answer_permission::answer_permission))
        .routes(routes!(answer_question::answer_question))
        .routes(routes!(events::events))
        .routes(routes!(diff::diff))
        .routes(routes!(exec::exec))
        .routes(routes!(terminal::terminal))
        .routes(routes!(files::read_file, files::write_file))
        .routes(routes!(artifacts::list_artifacts))
        .routes(routes!(artifacts::get_artifact))
        .routes(routes!(bundle::bundle))
        .routes(routes!(list_images::list_images, build_image::build_image))
        .routes(routes!(get_image::get_image, remove_image::remove_image))
        .routes(routes!(image_log::image_log))
}

/// The description of the interface, as `/openapi.json` serves it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    OpenApiRouter::with_openapi(Description::openapi()).nest("/api/v1", v1()).into_openapi()
}

/// All routes, with the checks in front of them.
pub fn router(app: App, hosts: Hosts) -> Router {
    let (api, description) =
        OpenApiRouter::with_openapi(Description::openapi()).nest("/api/v1", v1()).split_for_parts();
    let description = Arc::new(description);
    let serve_description = move || async move { Json((*description).clone()) };
    let signed = Signed { auth: Arc::clone(&app.auth), clock: Arc::clone(&app.clock) };
    let closed = api
        .route("/ws", get(ws::upgrade))
        .route("/api/v1/ws", get(ws::upgrade))
        .route("/metrics", get(health::metrics))
        .route("/", get(health::front))
        .route_layer(middleware::from_fn_with_state(signed, require_owner));
    closed
        .route("/openapi.json", get(serve_description.clone()))
        .route("/api/v1/openapi.json", get(serve_description))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/login", get(login::login))
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_this_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(hosts, require_safe_origin))
        .with_state(app)
}

async fn nothing_here(uri: http::Uri) -> Response {
    Problem::not_found(format!("there is nothing at {}; /openapi.json lists what is", uri.path())).into_response()
}

async fn not_this_method(method: http::Method, uri: http::Uri) -> Response {
    let detail = format!("{} does not take {method}; /openapi.json lists what it takes", uri.path());
    Problem::new(http::StatusCode::METHOD_NOT_ALLOWED, "method", "The method is not taken here", detail).into_response()
}

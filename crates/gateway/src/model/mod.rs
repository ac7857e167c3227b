//! The model proxy: a call comes in with a session's token and goes out with a provider's key.
//!
//! [`route`] says what is asked, [`request`] reads and rewrites the body, [`retry`] decides what follows a failure,
//! [`upstream`] sends, [`passage`] passes the answer on while [`usage`] is read from it and the key scrubbed.

mod call;
mod list;
mod passage;
mod request;
mod retry;
mod route;
mod scrub;
mod tap;
mod token;
mod upstream;
mod usage;

use std::sync::Arc;

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use crate::access::{Door, UnknownModel};
use crate::answer::{Body, model_problem};
use crate::config::{ModelConfig, Provider, WireFormat};
use crate::door::{Connection, closed};
use crate::gateway::Shared;
use crate::limit::{self, BodyFault};
use call::Call;
use request::ModelRequest;
use route::{CallRoute, Route};

/// A model to ask, and where.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) model: &'a ModelConfig,
    pub(crate) provider: &'a Provider,
}

/// Answers an origin-form request.
pub(crate) async fn serve(connection: &Connection, request: Request<Incoming>) -> Response<Body> {
    let shared = &connection.shared;
    let route = match route::route(request.method(), request.uri().path()) {
        Ok(route) => route,
        Err(unknown) => return model_problem(StatusCode::NOT_FOUND, "not_found_error", unknown.detail()),
    };
    let door = match token::door(connection, &request) {
        Ok(door) => door,
        Err(refusal) => return refusal.response(),
    };
    let answering = async {
        match route {
            Route::List(dialect) => list::all(&shared.catalogue, dialect),
            Route::Describe(dialect, id) => list::one(&shared.catalogue, dialect, &id),
            Route::Call(route) => carry(shared, &door, route, request).await,
        }
    };
    tokio::select! {
        () = door.closed.cancelled() => closed(),
        response = answering => response,
    }
}

/// Carries one model call.
async fn carry(shared: &Arc<Shared>, door: &Arc<Door>, route: CallRoute, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let detail = "the request is compressed; send it plain, the gateway must read its model";
        return model_problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", detail);
    }
    let limit = shared.config.limits.body_bytes_max;
    let body = match limit::read(body, limit).await {
        Ok(body) => body,
        Err(fault) => return unread(&fault, limit),
    };
    let request = match ModelRequest::parse(body, &route) {
        Ok(request) => request,
        Err(fault) => return model_problem(StatusCode::BAD_REQUEST, "invalid_request_error", &fault.to_string()),
    };
    let candidates = match candidates(shared, door, route.format, request.model()) {
        Ok(candidates) => candidates,
        Err(response) => return *response,
    };
    let Some(permit) = admit(door) else {
        let detail = "this session has as many model calls in flight as it may; wait for one to end";
        return model_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", detail);
    };
    let call = Call::begin(Arc::clone(shared), Arc::clone(door), route.metered(), permit, candidates[0]);
    upstream::send(shared, &candidates, &route, &request, &parts, call).await
}

/// Admits a call. Whatever a session may spend is to be decided here, before anything leaves.
fn admit(door: &Door) -> Option<OwnedSemaphorePermit> {
    Arc::clone(&door.calls).try_acquire_owned().ok()
}

/// The model that is asked for, and those to go on with: never empty.
fn candidates<'a>(
    shared: &'a Shared,
    door: &Door,
    format: WireFormat,
    asked: &str,
) -> Result<Vec<Candidate<'a>>, Box<Response<Body>>> {
    let catalogue = &shared.catalogue;
    let found = match (catalogue.model(asked), door.unknown_model) {
        (None, UnknownModel::UseDefault) => catalogue.model(&door.default_model),
        (found, _) => found,
    };
    let Some((model, provider)) = found else {
        let ids: Vec<&str> = catalogue.models().iter().map(|model| model.id.as_str()).collect();
        let asked: String = asked.chars().take(100).collect();
        let detail = format!("there is no model `{asked}` here; there is: {}", ids.join(", "));
        return Err(Box::new(model_problem(StatusCode::NOT_FOUND, "not_found_error", &detail)));
    };
    if !provider.speaks(format) {
        let (id, name, format) = (&model.id, &provider.name, format.name());
        let detail = format!("the provider `{name}` of the model `{id}` does not speak {format}; choose another model");
        return Err(Box::new(model_problem(StatusCode::BAD_REQUEST, "invalid_request_error", &detail)));
    }
    let fallbacks = model.fallback.iter().filter(|id| **id != model.id).filter_map(|id| catalogue.model(id));
    let speaking = fallbacks.filter(|(_, provider)| provider.speaks(format));
    let all = std::iter::once((model, provider)).chain(speaking);
    Ok(all.map(|(model, provider)| Candidate { model, provider }).collect())
}

fn unread(fault: &BodyFault, limit: usize) -> Response<Body> {
    match fault {
        BodyFault::TooLarge => {
            let detail = format!("the request is larger than {limit} bytes (limits.body_bytes_max)");
            model_problem(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", &detail)
        }
        BodyFault::BrokenOff => {
            model_problem(StatusCode::BAD_REQUEST, "invalid_request_error", "the request broke off")
        }
        BodyFault::TooSlow => {
            model_problem(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "the request came too slowly")
        }
    }
}

//! `GET /sessions/{id}/events`: a page of the log as JSON, or the live stream as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::extract::{Params, Session};
use super::shapes::EventView;
use crate::problem::Problem;

const KEEP_ALIVE: Duration = Duration::from_secs(15);
const PAGE_LEN: usize = 500;
const PAGE_LEN_MAX: usize = 1_000;

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsAfter {
    /// Only events after this sequence number; all when absent.
    since: Option<u64>,
    /// Events on a page, from 1 to 1,000; 500 when absent. The stream has no pages.
    limit: Option<usize>,
}

/// A page of the log.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the JSON that is put together from the store's own")]
struct EventPage {
    /// The events, oldest first.
    events: Vec<EventView>,
    /// The `since` of the next page; absent when this one reaches the end of the log.
    next: Option<u64>,
}

/// A page of the log, or with `Accept: text/event-stream` the log and then what comes: `id:` is the sequence number,
/// `data:` the event, and `Last-Event-ID` resumes.
#[utoipa::path(
    get, path = "/sessions/{id}/events", tag = "sessions",
    params(
        ("id" = String, Path, description = "The session"), EventsAfter,
        ("Last-Event-ID" = Option<u64>, Header, description = "Resumes a stream after this sequence number; goes before `since`"),
    ),
    responses(
        (status = 200, content((EventPage = "application/json"), (String = "text/event-stream"))),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(
    State(app): State<App>,
    Session(id): Session,
    Params(query): Params<EventsAfter>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let since = query.since.unwrap_or(0);
    let wants_stream = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok())
        .any(|accept| accept.contains("text/event-stream"));
    if !wants_stream {
        let limit = query.limit.unwrap_or(PAGE_LEN).clamp(1, PAGE_LEN_MAX);
        return page(&app, &id, since, limit).await;
    }
    let since = match headers.get("last-event-id").map(HeaderValue::to_str) {
        None => since,
        Some(text) => text
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Problem::malformed("Last-Event-ID is no sequence number"))?,
    };
    let records = app.engine.subscribe(&id, since).await?;
    let events = records
        .map(|record| {
            Ok::<_, Infallible>(match record {
                Ok(record) => sse::Event::default().id(record.seq.to_string()).data(&*record.json),
                // The client connects again with the last ID that it saw, and loses nothing.
                Err(error) => sse::Event::default().event("error").data(format!("failed to {error}")),
            })
        })
        .take_until(app.closing.clone().cancelled_owned());
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // A proxy that collects the stream before it passes it on would make it useless.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

async fn page(app: &App, id: &hob_session::SessionId, since: u64, limit: usize) -> Result<Response, Problem> {
    let records = app.engine.events(id, since, limit).await?;
    let mut body = String::with_capacity(64 + records.iter().map(|record| record.json.len() + 1).sum::<usize>());
    body.push_str("{\"events\":[");
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&record.json);
    }
    body.push(']');
    if let (true, Some(last)) = (records.len() == limit, records.last()) {
        body.push_str(&format!(",\"next\":{}", last.seq));
    }
    body.push('}');
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

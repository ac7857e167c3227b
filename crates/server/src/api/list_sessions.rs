//! `GET /sessions`: a page of sessions.

use axum::Json;
use axum::extract::State;
use hob_session::Filter;
use serde::Deserialize;
use utoipa::IntoParams;

use super::App;
use super::extract::Params;
use super::shapes::SessionPage;
use crate::problem::Problem;

/// Which sessions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListSessions {
    /// Only those in this state; all but archived ones when absent.
    state: Option<String>,
    /// Only those of this repository.
    repository: Option<String>,
    /// Only those that this address made.
    author: Option<String>,
    /// Sessions on a page, from 1 to 200; 50 when absent.
    limit: Option<u32>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// Lists sessions, the one that changed last first.
#[utoipa::path(
    get, path = "/sessions", tag = "sessions", params(ListSessions),
    responses((status = 200, body = SessionPage), (status = 422, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn list_sessions(
    State(app): State<App>,
    Params(query): Params<ListSessions>,
) -> Result<Json<SessionPage>, Problem> {
    let state = match query.state {
        Some(word) => Some(
            serde_json::from_value(serde_json::Value::String(word))
                .map_err(|error| Problem::unusable("unusable", "A value cannot be used", format!("state: {error}")))?,
        ),
        None => None,
    };
    let filter = Filter { state, repository: query.repository, author_email: query.author, limit: query.limit };
    Ok(Json(app.engine.list(filter, query.cursor.as_deref()).await?.into()))
}

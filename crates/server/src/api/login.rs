//! `GET /login`: turns the one-time token of the printed URL into a cookie.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::App;
use super::extract::Params;
use crate::problem::Problem;

#[derive(Deserialize)]
pub(super) struct Login {
    token: String,
}

pub(super) async fn login(State(app): State<App>, Params(query): Params<Login>) -> Result<Response, Problem> {
    let cookie = app.auth.sign_in(&query.token, app.clock.now_ms()).map_err(|error| Problem::internal(&error))?;
    let cookie = cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok()).ok_or_else(|| {
        Problem::unauthenticated("this login URL was used, or is of an earlier start; restart the server for a new one")
    })?;
    let headers = [
        (header::SET_COOKIE, cookie),
        (header::LOCATION, HeaderValue::from_static("/")),
        // The token must not travel on in a Referer.
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

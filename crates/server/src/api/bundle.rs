//! `GET /sessions/{id}/bundle`: the session's branch as a git bundle, for `hob pull` from anywhere.

use std::process::Stdio;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;
use serde::Deserialize;
use tokio::process::Command;
use utoipa::IntoParams;

use super::App;
use super::extract::{Params, Session};
use crate::problem::Problem;

const DEADLINE: Duration = Duration::from_mins(2);

/// What the client has.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Have {
    /// A full commit ID that the client has; what it can reach is left out.
    have: Option<String>,
}

/// The session's branch as a git bundle with one reference, `refs/heads/BRANCH`.
#[utoipa::path(
    get, path = "/sessions/{id}/bundle", tag = "workspace",
    params(("id" = String, Path, description = "The session"), Have),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/x-git-bundle"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn bundle(
    State(app): State<App>,
    Session(id): Session,
    Params(query): Params<Have>,
) -> Result<Response, Problem> {
    let Some(branch) = app.engine.branch(&id).await? else {
        return Err(Problem::conflict(format!("session {id} has no commit yet")));
    };
    let mut git = Command::new("git");
    git.arg("-C").arg(&branch.mirror).args(["bundle", "create", "--quiet", "-"]);
    git.arg(format!("refs/heads/{}", branch.branch));
    if let Some(have) = query.have {
        let hexadecimal = (40..=64).contains(&have.len()) && have.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hexadecimal {
            return Err(Problem::malformed("have is no full commit ID"));
        }
        git.arg(format!("^{have}"));
    }
    git.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, git.output())
        .await
        .map_err(|_| Problem::unavailable(format!("git did not pack the branch within {} s", DEADLINE.as_secs())))?
        .map_err(|error| Problem::internal(&format!("run git: {error}")))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(Problem::internal(&format!("pack branch {}: {}", branch.branch, reason.trim())));
    }
    Ok(([(header::CONTENT_TYPE, "application/x-git-bundle")], output.stdout).into_response())
}

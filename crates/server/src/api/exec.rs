//! `POST /sessions/{id}/exec`: runs a command in the sandbox and gives what it wrote.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use hob_session::NewExec;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::extract::{Body, Session};
use crate::problem::Problem;

/// What is kept of each stream, in bytes.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_mins(2);
const TIMEOUT_MAX: Duration = Duration::from_mins(60);

/// A command.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Exec {
    /// The program and its arguments.
    argv: Vec<String>,
    /// Its folder; the checkout when absent.
    #[serde(default)]
    cwd: Option<String>,
    /// Environment beside the sandbox's own.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// After this time it is killed with all it started; two minutes when absent, an hour at most.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// What a command did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Executed {
    /// Its exit code, or 128 + the signal that ended it; absent when the sandbox was lost before.
    exit_code: Option<i32>,
    /// Whether its time limit ended it.
    timed_out: bool,
    /// Standard output, at most 1 MiB of it. Bytes that are no UTF-8 are replaced.
    stdout: String,
    /// Standard error, likewise.
    stderr: String,
    /// Whether either was cut.
    truncated: bool,
    /// How long it took.
    elapsed_ms: u64,
}

/// Runs a command in the session's sandbox, which is started when there is none, and waits for its end. For streamed
/// output or standard input, use the terminal.
#[utoipa::path(
    post, path = "/sessions/{id}/exec", tag = "workspace", params(("id" = String, Path, description = "The session")),
    request_body = Exec,
    responses(
        (status = 200, body = Executed),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn exec(
    State(app): State<App>,
    Session(id): Session,
    Body(request): Body<Exec>,
) -> Result<Json<Executed>, Problem> {
    if request.argv.is_empty() {
        return Err(Problem::unusable("unusable", "A value cannot be used", "argv is empty: name a program"));
    }
    let timeout = request.timeout_ms.map_or(TIMEOUT, Duration::from_millis).min(TIMEOUT_MAX);
    let command =
        NewExec { argv: request.argv, cwd: request.cwd, env: request.env, stdin: false, timeout: Some(timeout) };
    let started = Instant::now();
    let mut running = app.engine.exec(&id, command).await?;
    let output = running.process.wait_output(OUTPUT_BYTES_MAX).await;
    Ok(Json(Executed {
        exit_code: output.exit.map(|exit| exit.code),
        timed_out: output.exit.is_some_and(|exit| exit.timed_out),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        truncated: output.truncated,
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }))
}

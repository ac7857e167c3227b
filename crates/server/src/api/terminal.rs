//! `GET /sessions/{id}/terminal`: a shell or a command in the sandbox over a WebSocket.
//!
//! ```text
//! → {"rows":24,"cols":80}                    a shell with a terminal of this size; or
//! → {"argv":["make","test"],"stdin":true}    a command with pipes
//! → binary: standard input; empty: its end   → {"rows":30,"cols":100}: a new size
//! ← binary: 1 and standard output (or what the terminal shows), 2 and standard error
//! ← {"exit_code":0}   or {"error":{…}}, then the socket closes
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::response::Response;
use futures_util::{SinkExt as _, StreamExt as _};
use hob_sandbox::{ProcessEvent, Size};
use hob_session::{NewExec, Running, SessionId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;

use super::App;
use super::extract::Session;
use crate::problem::Problem;

const OPEN_WITHIN: Duration = Duration::from_secs(10);
const GOODBYE_WITHIN: Duration = Duration::from_secs(5);
const STDIN_BYTES_MAX: usize = 1 << 20;

/// What a client says as text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Say {
    /// Runs a command with pipes.
    Run {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Its folder; the checkout when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cwd: Option<String>,
        /// Environment beside the sandbox's own.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        env: BTreeMap<String, String>,
        /// Whether standard input stays open.
        #[serde(default)]
        stdin: bool,
    },
    /// Opens a shell with a terminal of this size, or tells it a new size.
    Size {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        cols: u16,
    },
}

/// A shell or a command in the session's sandbox, over a WebSocket. The first text frame says which: a size
/// (`{"rows":24,"cols":80}`) opens a shell, `{"argv":[…]}` runs a command.
#[utoipa::path(
    get, path = "/sessions/{id}/terminal", tag = "workspace", params(("id" = String, Path, description = "The session")),
    responses((status = 101), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn terminal(
    State(app): State<App>,
    Session(id): Session,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    app.engine.get(&id).await?;
    let upgrade = upgrade.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let upgrade = upgrade.max_message_size(STDIN_BYTES_MAX).max_frame_size(STDIN_BYTES_MAX);
    Ok(upgrade.on_upgrade(move |mut socket| async move {
        let last = match serve(&app, &id, &mut socket).await {
            Ok(Some(exit_code)) => json!({ "exit_code": exit_code }),
            Ok(None) => return,
            Err(problem) => json!({ "error": problem }),
        };
        say_goodbye(&mut socket, last.to_string()).await;
    }))
}

/// Tells the client how it ended, and waits until it has heard: a socket that is closed while the client still sends its
/// input is reset, and a reset throws away what the client has not read yet.
async fn say_goodbye(socket: &mut WebSocket, last: String) {
    // The client may be gone; then there is nobody to tell.
    if socket.send(Message::Text(last.into())).await.is_err() || socket.send(Message::Close(None)).await.is_err() {
        return;
    }
    let heard = async { while let Some(Ok(_)) = socket.recv().await {} };
    if tokio::time::timeout(GOODBYE_WITHIN, heard).await.is_err() {
        tracing::debug!("a client did not close its terminal");
    }
}

/// Runs until the command ends (its exit code) or the client leaves (none).
async fn serve(app: &App, id: &SessionId, socket: &mut WebSocket) -> Result<Option<i32>, Problem> {
    let first = tokio::time::timeout(OPEN_WITHIN, socket.recv()).await;
    let Ok(Some(Ok(Message::Text(text)))) = first else {
        return Err(Problem::malformed("the first frame is text: a size, or argv"));
    };
    let mut running = open(app, id, super::extract::parse(text.as_bytes())?).await?;
    let ended = relay(app, &mut running, socket).await;
    // Whoever leaves takes the command along: nobody would ever see what it does.
    if !matches!(ended, Ok(Some(_))) {
        running.process.kill().await.map_err(|error| Problem::internal(&error))?;
    }
    ended
}

async fn open(app: &App, id: &SessionId, say: Say) -> Result<Running, Problem> {
    Ok(match say {
        Say::Size { rows, cols } => app.engine.shell(id, Size { columns: cols, rows }).await?,
        Say::Run { argv, .. } if argv.is_empty() => {
            return Err(Problem::unusable("unusable", "A value cannot be used", "argv is empty: name a program"));
        }
        Say::Run { argv, cwd, env, stdin } => {
            app.engine.exec(id, NewExec { argv, cwd, env, stdin, timeout: None }).await?
        }
    })
}

async fn relay(app: &App, running: &mut Running, socket: &mut WebSocket) -> Result<Option<i32>, Problem> {
    let (mut to_client, mut from_client) = socket.split();
    let process = &mut running.process;
    let stdin = process.stdin();
    let (sizes, mut resized) = mpsc::channel(1);
    let input = async {
        while let Some(message) = from_client.next().await {
            match message {
                Ok(Message::Binary(bytes)) => {
                    let given = if bytes.is_empty() { stdin.close().await } else { stdin.write(&bytes).await };
                    if let Err(error) = given {
                        tracing::debug!("failed to {error}: a command reads no more input");
                    }
                }
                Ok(Message::Text(text)) => {
                    if let Say::Size { rows, cols } = super::extract::parse(text.as_bytes())?
                        && sizes.send(Size { columns: cols, rows }).await.is_err()
                    {
                        break;
                    }
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Close(_)) | Err(_) => break,
            }
        }
        Ok(None)
    };
    let output = async {
        loop {
            let event = tokio::select! {
                event = process.next() => event,
                Some(size) = resized.recv() => {
                    if let Err(error) = process.resize(size).await {
                        tracing::debug!("failed to {error}: a command without a terminal");
                    }
                    continue;
                }
            };
            let frame = match event {
                Some(ProcessEvent::Stdout(bytes)) => marked(1, &bytes),
                Some(ProcessEvent::Stderr(bytes)) => marked(2, &bytes),
                Some(ProcessEvent::Exited(exit)) => return Ok(Some(exit.code)),
                Some(ProcessEvent::Lost) | None => return Err(Problem::unavailable("the sandbox was lost")),
            };
            if to_client.send(frame).await.is_err() {
                return Ok(None);
            }
        }
    };
    tokio::select! {
        () = app.closing.cancelled() => Err(Problem::unavailable("the server is shutting down")),
        ended = output => ended,
        left = input => left,
    }
}

fn marked(stream: u8, bytes: &[u8]) -> Message {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(stream);
    frame.extend_from_slice(bytes);
    Message::Binary(frame.into())
}

//! `hob exec` and `hob shell`: a command or a terminal in a session's sandbox.

use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use clap::Args;
use futures_util::{SinkExt as _, StreamExt as _};
use rustix::termios::{self, OptionalActions, Termios};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

use super::{Context, Failure};
use crate::problem::Problem;

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// The session
    id: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Shell {
    /// The session
    id: String,
}

/// What the server says as text.
#[derive(Deserialize)]
struct Last {
    exit_code: Option<i32>,
    error: Option<Problem>,
}

impl Exec {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        // A terminal's input is left to the terminal, as `docker exec` does without -i: the command reads its end.
        let stdin = !std::io::stdin().is_terminal();
        let first = json!({ "argv": self.command, "stdin": stdin });
        attach(context, &self.id, &first.to_string(), stdin).await
    }
}

impl Shell {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            return Err(Failure::set_up("open a shell without a terminal; use `hob exec ID -- CMD…` in a script"));
        }
        let (rows, cols) = size()?;
        let _raw = Raw::enter()?;
        attach(context, &self.id, &json!({ "rows": rows, "cols": cols }).to_string(), true).await
    }
}

async fn attach(context: &Context, id: &str, first: &str, stdin: bool) -> Result<(), Failure> {
    let socket = context.client()?.socket(&format!("/api/v1/sessions/{id}/terminal")).await?;
    let (mut to, mut from) = socket.split();
    let lost = |error| Failure::Failed(format!("failed to keep the connection: {error}"));
    to.send(Message::text(first)).await.map_err(lost)?;
    let tasks = TaskTracker::new();
    let mut input = input(&tasks, stdin);
    let mut resized = signal(SignalKind::window_change())?;
    let mut input_open = stdin;
    loop {
        tokio::select! {
            piece = input.recv(), if input_open => {
                // An empty piece is the end of the input.
                let piece = piece.unwrap_or_default();
                input_open = !piece.is_empty();
                // A command may end before it has read everything; how it ended is still to be read.
                input_open &= to.send(Message::binary(piece)).await.is_ok();
            }
            _ = resized.recv() => {
                let (rows, cols) = size()?;
                to.send(Message::text(json!({ "rows": rows, "cols": cols }).to_string())).await.map_err(lost)?;
            }
            message = from.next() => match message {
                Some(Ok(Message::Binary(bytes))) => show(&bytes)?,
                Some(Ok(Message::Text(text))) => {
                    // The server waits for this; whether it arrives changes nothing here.
                    to.close().await.ok();
                    return end(&text);
                }
                Some(Ok(Message::Close(_))) | None => {
                    return Err(Failure::Failed("the server closed the connection".into()));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(lost(error)),
            },
        }
    }
}

fn show(bytes: &[u8]) -> Result<(), Failure> {
    match bytes.split_first() {
        Some((2, bytes)) => std::io::stderr().write_all(bytes)?,
        Some((_, bytes)) => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()?;
        }
        None => {}
    }
    Ok(())
}

fn end(text: &str) -> Result<(), Failure> {
    let last: Last = serde_json::from_str(text).map_err(Failure::set_up)?;
    match (last.exit_code, last.error) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Exit(u8::try_from(code).unwrap_or(1))),
        (None, Some(problem)) => Err(Failure::Failed(problem.detail)),
        (None, None) => Err(Failure::Failed("the command ended, nobody knows how".into())),
    }
}

/// Standard input, piece by piece; an empty piece is its end.
fn input(tasks: &TaskTracker, open: bool) -> mpsc::Receiver<Vec<u8>> {
    let (pieces, waiting) = mpsc::channel(8);
    if open {
        tasks.spawn(async move {
            let mut stdin = tokio::io::stdin();
            loop {
                let mut piece = vec![0; 16 << 10];
                let read = stdin.read(&mut piece).await.unwrap_or(0);
                piece.truncate(read);
                if pieces.send(piece).await.is_err() || read == 0 {
                    return;
                }
            }
        });
    }
    waiting
}

fn size() -> Result<(u16, u16), Failure> {
    let size = termios::tcgetwinsize(std::io::stdout().as_fd())
        .map_err(|error| Failure::set_up(format!("read the terminal's size: {error}")))?;
    Ok((size.ws_row, size.ws_col))
}

/// A terminal that hands every key on, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self, Failure> {
        let failed = |error| Failure::set_up(format!("change the terminal's mode: {error}"));
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(stdin.as_fd()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if termios::tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, &self.0).is_err() {
            tracing::debug!("the terminal went away before its mode was set back");
        }
    }
}

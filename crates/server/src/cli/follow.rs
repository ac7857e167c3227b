//! Follows a session's log and shows it, through lost connections, to the end of a turn.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use futures_util::StreamExt as _;
use hob_session::event::{Event, EventKind, TurnOutcome};

use super::client::{ClientError, ServerSent};
use super::context::print;
use super::{Client, Context, Failure};
use crate::render::Renderer;

/// A server that restarts is waited for this long.
const RECONNECT_WITHIN: Duration = Duration::from_secs(60);
const RECONNECT_EVERY: Duration = Duration::from_millis(500);

/// How far to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Until {
    /// To the end of the turn that answers this prompt.
    TurnOf(String),
    /// Until the session is archived, or for ever.
    Archived,
}

/// Shows events as they come.
pub(super) struct Screen {
    renderer: Renderer,
    json: bool,
    /// Whether a line may be drawn and wiped away again.
    live: bool,
    status: bool,
}

impl Screen {
    pub(super) fn new(context: &Context) -> Self {
        let json = context.json();
        let live = !json && io::stdout().is_terminal();
        Self { renderer: Renderer::new(context.style()), json, live, status: false }
    }

    /// Shows one event, and gives it back where this version knows its kind.
    pub(super) fn show(&mut self, sent: &ServerSent) -> Result<Option<Event>, Failure> {
        // A kind that a newer server wrote is skipped.
        let event = serde_json::from_str::<Event>(&sent.json).ok();
        let mut text = String::new();
        if self.json {
            text = format!("{}\n", sent.json);
        } else if let Some(event) = &event {
            text = self.renderer.event(event);
        }
        self.write(&text)?;
        Ok(event)
    }

    /// Ends what is half-written.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let text = self.renderer.finish();
        self.live = false;
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        if self.status {
            out.write_all(b"\r\x1b[2K")?;
            self.status = false;
        }
        out.write_all(text.as_bytes())?;
        if self.live
            && let Some(status) = self.renderer.status()
        {
            let short: String = status.chars().take(100).collect();
            out.write_all(format!("\x1b[2m  {short}\x1b[0m").as_bytes())?;
            self.status = true;
        }
        out.flush()?;
        Ok(())
    }
}

/// Follows a session after `since`. Gives the outcome of the turn, where one was waited for.
pub(super) async fn follow(
    client: &Client,
    session: &str,
    mut since: u64,
    until: &Until,
    screen: &mut Screen,
) -> Result<Option<TurnOutcome>, Failure> {
    loop {
        let mut events = reconnect(client, session, since).await?;
        while let Some(sent) = events.next().await {
            let sent = match sent {
                Ok(sent) => sent,
                Err(ClientError::Unreachable { .. }) => break,
                Err(error) => return Err(error.into()),
            };
            since = sent.seq;
            let Some(event) = screen.show(&sent)? else { continue };
            match (event.kind, until) {
                (EventKind::TurnEnded { prompt_id, outcome, .. }, Until::TurnOf(wanted)) if prompt_id == *wanted => {
                    screen.finish()?;
                    return Ok(Some(outcome));
                }
                (EventKind::PromptCancelled { prompt_id, .. }, Until::TurnOf(wanted)) if prompt_id == *wanted => {
                    screen.finish()?;
                    return Ok(Some(TurnOutcome::Stopped));
                }
                (EventKind::Archived { .. }, _) => {
                    screen.finish()?;
                    return Ok(None);
                }
                _ => {}
            }
        }
    }
}

/// Connects, and waits for a server that is not there for a while. The first refusal of a server that is there counts.
async fn reconnect(
    client: &Client,
    session: &str,
    since: u64,
) -> Result<impl futures_util::Stream<Item = Result<ServerSent, ClientError>> + Unpin + use<>, Failure> {
    let started = std::time::Instant::now();
    loop {
        match client.events(session, since).await {
            Err(ClientError::Unreachable { .. }) if started.elapsed() < RECONNECT_WITHIN => {
                tokio::time::sleep(RECONNECT_EVERY).await;
            }
            Err(ClientError::Problem(problem)) if problem.status == 503 && started.elapsed() < RECONNECT_WITHIN => {
                tokio::time::sleep(RECONNECT_EVERY).await;
            }
            result => return Ok(result?),
        }
    }
}

/// A page after page of a session's log, to its end.
pub(super) async fn print_log(
    client: &Client,
    session: &str,
    mut since: u64,
    screen: &mut Screen,
) -> Result<(), Failure> {
    #[derive(serde::Deserialize)]
    struct Page {
        events: Vec<Box<serde_json::value::RawValue>>,
        next: Option<u64>,
    }
    loop {
        let page: Page = client.get(&format!("/api/v1/sessions/{session}/events?since={since}&limit=1000")).await?;
        for event in &page.events {
            screen.show(&ServerSent { seq: 0, json: event.get().to_owned() })?;
        }
        match page.next {
            Some(next) => since = next,
            None => break,
        }
    }
    screen.finish()?;
    print("")
}

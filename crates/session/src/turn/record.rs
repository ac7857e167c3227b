//! Records what an agent says while it works: pieces of text joined for 50 ms, tool calls as they are by then.
//!
//! The first piece is written at once, so that nobody waits for it. What is written later is one batch for each window,
//! whatever the rate at which the agent speaks: the log stays small and the disk is asked for little. When the log is
//! slow, the agent waits.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use hob_agent::{
    Agent, Answer, PermissionOutcome, PermissionRequest, Prompt, Question, StopReason, TurnEnd, TurnHost, Update,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Journal, TurnError, bounds};
use crate::config::Timeouts;
use crate::event::EventKind;

/// How long pieces are gathered.
const WINDOW: Duration = Duration::from_millis(50);

/// Updates that may wait for the log; then the agent waits.
const WAITING_MAX: usize = 256;

/// Prompts the agent and records what it says until its turn ends, it is stopped, or it falls silent.
///
/// # Errors
/// The agent failed, gave no sign of life, did not end after it was told to stop, or the log could not be written.
pub(super) async fn prompt(
    agent: &mut dyn Agent,
    prompt: Prompt,
    journal: &dyn Journal,
    stop: &CancellationToken,
    timeouts: &Timeouts,
) -> Result<TurnEnd, TurnError> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    // The agent is also stopped when it falls silent or the log fails, which is not the same as a person's stop.
    let halt = stop.child_token();
    let recorder = Recorder { sender, journal };
    let mut scribe = Scribe { receiver, journal, offsets: HashMap::new(), idle: timeouts.agent_idle };
    let work = async {
        let ended = end_in_time(agent.prompt(prompt, &recorder, halt.clone()), &halt, timeouts.stop_grace).await;
        drop(recorder);
        ended
    };
    let write = async {
        let written = scribe.write().await;
        if written.is_err() {
            halt.cancel();
            // What the agent still says has no place to go; it is read so that the agent can end.
            while scribe.receiver.recv().await.is_some() {}
        }
        written
    };
    let (ended, written) = tokio::join!(work, write);
    written?;
    ended
}

/// Waits for the agent's turn to end; after a halt no longer than `grace`, and then it is dropped.
async fn end_in_time(
    turn: impl Future<Output = Result<TurnEnd, hob_agent::AgentError>>,
    halt: &CancellationToken,
    grace: Duration,
) -> Result<TurnEnd, TurnError> {
    let deadline = async {
        halt.cancelled().await;
        sleep(grace).await;
    };
    tokio::select! {
        ended = turn => Ok(ended?),
        () = deadline => Ok(TurnEnd { stop_reason: StopReason::Cancelled, summary: None }),
    }
}

/// What reaches the scribe.
enum Item {
    Update(Update),
    /// Everything before this is to be on disk before the answer.
    Flush(oneshot::Sender<()>),
}

/// The agent's side: hands updates over and asks people.
struct Recorder<'a> {
    sender: mpsc::Sender<Item>,
    journal: &'a dyn Journal,
}

impl Recorder<'_> {
    async fn send(&self, item: Item) {
        if self.sender.send(item).await.is_err() {
            tracing::debug!("an agent spoke after its turn");
        }
    }

    /// Waits until all that was said is in the log, so that a question comes after it.
    async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.send(Item::Flush(done)).await;
        if flushed.await.is_err() {
            tracing::debug!("the log was closed before an agent's question");
        }
    }
}

#[async_trait]
impl TurnHost for Recorder<'_> {
    async fn update(&self, update: Update) {
        self.send(Item::Update(update)).await;
    }

    async fn permission(&self, request: PermissionRequest) -> PermissionOutcome {
        self.flush().await;
        self.journal.permission(request).await
    }

    async fn ask(&self, question: Question) -> Answer {
        self.flush().await;
        self.journal.ask(question).await
    }
}

/// The log's side: gathers and writes.
struct Scribe<'a> {
    receiver: mpsc::Receiver<Item>,
    journal: &'a dyn Journal,
    /// Bytes of each message and thought that are written or gathered.
    offsets: HashMap<String, u64>,
    idle: Duration,
}

impl Scribe<'_> {
    async fn write(&mut self) -> Result<(), TurnError> {
        loop {
            let first = match timeout(self.idle, self.receiver.recv()).await {
                Ok(Some(item)) => item,
                Ok(None) => return Ok(()),
                Err(_) => return Err(TurnError::Silent { seconds: self.idle.as_secs() }),
            };
            let asked = self.take(vec![first]).await?;
            if !asked {
                self.gather().await?;
            }
        }
    }

    /// Gathers what comes within a window and writes it as one batch.
    async fn gather(&mut self) -> Result<(), TurnError> {
        let end = Instant::now() + WINDOW;
        let mut items = Vec::new();
        loop {
            tokio::select! {
                item = self.receiver.recv() => match item {
                    Some(item @ Item::Flush(_)) => {
                        items.push(item);
                        break;
                    }
                    Some(item) => items.push(item),
                    None => break,
                },
                () = sleep_until(end) => break,
            }
        }
        self.take(items).await?;
        Ok(())
    }

    /// Writes items as one batch; tells whether a person was about to be asked, who may take any time to answer.
    async fn take(&mut self, items: Vec<Item>) -> Result<bool, TurnError> {
        let mut kinds = Vec::new();
        let mut waiting = Vec::new();
        for item in items {
            match item {
                Item::Update(update) => self.add(&mut kinds, update),
                Item::Flush(done) => waiting.push(done),
            }
        }
        if !kinds.is_empty() {
            self.journal.append(kinds).await?;
        }
        let asked = !waiting.is_empty();
        for done in waiting {
            if done.send(()).is_err() {
                tracing::debug!("an agent's question was dropped before it was asked");
            }
        }
        if asked {
            // The deadline for an answer is the journal's; the agent's own begins with its next word.
            self.wait_for_life().await?;
        }
        Ok(asked)
    }

    /// Waits, without a deadline of its own, until the agent speaks again or ends.
    async fn wait_for_life(&mut self) -> Result<(), TurnError> {
        match self.receiver.recv().await {
            Some(item) => Box::pin(self.take(vec![item])).await.map(|_| ()),
            None => Ok(()),
        }
    }

    fn add(&mut self, kinds: &mut Vec<EventKind>, update: Update) {
        match update {
            Update::Message { message_id, text } => self.add_text(kinds, Voice::Message, &message_id, text),
            Update::Thought { message_id, text } => self.add_text(kinds, Voice::Thought, &message_id, text),
            Update::ToolCall(call) => {
                let call = bounds::tool_call(call);
                // Within one window only the latest state of a call is worth keeping.
                match kinds.last_mut() {
                    Some(EventKind::ToolCall(before)) if before.id == call.id => *before = call,
                    _ => kinds.push(EventKind::ToolCall(call)),
                }
            }
            other => kinds.push(plain(other)),
        }
    }

    /// Adds text in pieces that fit, and joins a piece to the one before where both are of one message.
    fn add_text(&mut self, kinds: &mut Vec<EventKind>, voice: Voice, message_id: &str, text: String) {
        for text in bounds::pieces(text) {
            let offset = self.advance(message_id, &text);
            let before = match (voice, kinds.last_mut()) {
                (Voice::Message, Some(EventKind::Message { message_id: last, text, .. }))
                | (Voice::Thought, Some(EventKind::Thought { message_id: last, text, .. }))
                    if last == message_id =>
                {
                    Some(text)
                }
                _ => None,
            };
            match before {
                Some(before) if before.len() + text.len() <= bounds::PIECE_BYTES_MAX => before.push_str(&text),
                _ => kinds.push(voice.event(message_id.to_owned(), offset, text)),
            }
        }
    }

    fn advance(&mut self, message_id: &str, text: &str) -> u64 {
        let offset = self.offsets.entry(message_id.to_owned()).or_default();
        let before = *offset;
        *offset += u64::try_from(text.len()).unwrap_or(0);
        before
    }
}

/// Whether text is meant for the participants, or is the agent's thinking.
#[derive(Clone, Copy)]
enum Voice {
    Message,
    Thought,
}

impl Voice {
    fn event(self, message_id: String, offset: u64, text: String) -> EventKind {
        match self {
            Self::Message => EventKind::Message { message_id, offset, text },
            Self::Thought => EventKind::Thought { message_id, offset, text },
        }
    }
}

/// Updates that are events as they are.
fn plain(update: Update) -> EventKind {
    match update {
        Update::Plan(entries) => EventKind::Plan { entries: bounds::plan(entries) },
        Update::Compaction { before_tokens, after_tokens, summary } => {
            EventKind::Compaction { before_tokens, after_tokens, summary: bounds::text(summary) }
        }
        Update::Context { used_tokens, size_tokens } => EventKind::Context { used_tokens, size_tokens },
        Update::Notice(text) => EventKind::Notice { text: bounds::text(text) },
        Update::AgentSession(id) => EventKind::AgentSession { id: bounds::text(id) },
        Update::Raw { direction, json } => EventKind::AgentRaw { direction, json: bounds::text(json) },
        Update::Message { message_id, text } => EventKind::Message { message_id, offset: 0, text },
        Update::Thought { message_id, text } => EventKind::Thought { message_id, offset: 0, text },
        Update::ToolCall(call) => EventKind::ToolCall(call),
    }
}

#[cfg(test)]
mod tests;

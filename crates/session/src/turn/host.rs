//! What an agent's turn asks of its session: updates become events, questions reach the participants.
//!
//! The first piece of a message is recorded at once, those that follow are joined for 50 ms: a model writes faster than
//! anybody reads, and each row costs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hob_agent::{
    Answer, PermissionOption, PermissionOptionKind, PermissionOutcome, PermissionRequest, Question, TurnHost, Update,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::checks::clip;
use crate::config::Permissions;
use crate::decide::Input;
use crate::driver::Message;
use crate::event::EventKind;
use crate::owned::Owned;
use crate::store::StoreError;
use crate::workspace::SandboxWorkspace;

/// How long pieces of a message are joined.
const JOIN: Duration = Duration::from_millis(50);

/// Joined pieces that are recorded without waiting longer, in bytes.
const JOIN_BYTES_MAX: usize = 16 * 1024;

/// One update, in bytes of JSON. An agent that sends more is told so in the log.
const UPDATE_BYTES_MAX: usize = 4 << 20;

/// All updates of one turn, in bytes. An agent that floods is ended.
const TURN_BYTES_MAX: usize = 256 << 20;

/// How long the wait for a released answer goes on after its deadline; the driver needs a moment to record it.
const RELEASE_GRACE: Duration = Duration::from_secs(5);

pub(super) struct Host {
    owned: Arc<Owned>,
    stop: CancellationToken,
    told: mpsc::Sender<Message>,
    pieces: tokio::sync::Mutex<Pieces>,
    /// Rung when pieces wait to be joined.
    waiting: Notify,
    life: Mutex<Life>,
    /// Why the turn cannot be recorded any more.
    fault: tokio::sync::watch::Sender<Option<String>>,
}

/// Pieces that wait to be recorded, and how far each message is.
#[derive(Default)]
struct Pieces {
    waiting: Option<Piece>,
    offsets: HashMap<String, u64>,
    last_message: String,
    last_message_id: String,
}

struct Piece {
    thought: bool,
    message_id: String,
    text: String,
}

/// Signs of life.
struct Life {
    last: Instant,
    asking: usize,
    bytes: usize,
}

impl Host {
    pub(super) fn new(owned: Arc<Owned>, stop: CancellationToken, told: mpsc::Sender<Message>) -> Self {
        Self {
            owned,
            stop,
            told,
            pieces: tokio::sync::Mutex::default(),
            waiting: Notify::new(),
            life: Mutex::new(Life { last: Instant::now(), asking: 0, bytes: 0 }),
            fault: tokio::sync::watch::Sender::new(None),
        }
    }

    /// Records what waits to be joined.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        let mut pieces = self.pieces.lock().await;
        self.flush_into(&mut pieces).await
    }

    /// The text of the last message, for a turn whose agent has no closing words.
    pub(super) fn last_message(&self) -> String {
        self.pieces.try_lock().map(|pieces| pieces.last_message.clone()).unwrap_or_default()
    }

    /// Returns when the agent has given no sign of life for so long. Time in which a person is asked, a command
    /// runs or the sandbox is on its way does not count: each has a deadline of its own.
    pub(super) async fn silent_for(&self, limit: Duration, workspace: &SandboxWorkspace) {
        self.live().last = Instant::now();
        loop {
            let last = self.live().last;
            tokio::time::sleep_until(last + limit).await;
            let mut life = self.live();
            if life.asking > 0 || workspace.is_busy() || self.owned.sandbox().is_on_its_way() {
                life.last = Instant::now();
            } else if life.last == last {
                return;
            }
        }
    }

    /// Returns when the turn cannot be recorded any more, with the reason; joins pieces meanwhile.
    pub(super) async fn broken(&self) -> String {
        let mut fault = self.fault.subscribe();
        loop {
            if let Some(reason) = fault.borrow_and_update().clone() {
                return reason;
            }
            tokio::select! {
                // The sender lives as long as this host.
                _ = fault.changed() => {}
                () = self.waiting.notified() => {
                    tokio::time::sleep(JOIN).await;
                    if let Err(error) = self.flush().await {
                        return format!("failed to {error}");
                    }
                }
            }
        }
    }

    fn live(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn break_off(&self, reason: String) {
        self.fault.send_if_modified(|fault| {
            let first = fault.is_none();
            fault.get_or_insert(reason);
            first
        });
    }

    async fn record(&self, event: EventKind) {
        if let Err(error) = self.owned.record(vec![event]).await {
            self.break_off(format!("failed to {error}"));
        }
    }

    /// Takes a piece of a message or a thought.
    async fn piece(&self, thought: bool, message_id: String, text: String) {
        let mut pieces = self.pieces.lock().await;
        let outcome = self.join(&mut pieces, thought, message_id, text).await;
        if let Err(error) = outcome {
            self.break_off(format!("failed to {error}"));
        }
    }

    async fn join(
        &self,
        pieces: &mut Pieces,
        thought: bool,
        message_id: String,
        text: String,
    ) -> Result<(), StoreError> {
        if !thought {
            if pieces.last_message_id != message_id {
                pieces.last_message.clear();
                pieces.last_message_id.clone_from(&message_id);
            }
            if pieces.last_message.len() < super::MESSAGE_BYTES_MAX {
                pieces.last_message.push_str(&text);
            }
        }
        if let Some(waiting) = &mut pieces.waiting
            && waiting.message_id == message_id
            && waiting.thought == thought
        {
            waiting.text.push_str(&text);
            if waiting.text.len() >= JOIN_BYTES_MAX {
                return self.flush_into(pieces).await;
            }
            return Ok(());
        }
        self.flush_into(pieces).await?;
        let first = !pieces.offsets.contains_key(&message_id);
        pieces.waiting = Some(Piece { thought, message_id, text });
        if first {
            return self.flush_into(pieces).await;
        }
        self.waiting.notify_one();
        Ok(())
    }

    async fn flush_into(&self, pieces: &mut Pieces) -> Result<(), StoreError> {
        let Some(Piece { thought, message_id, text }) = pieces.waiting.take() else { return Ok(()) };
        let offset = pieces.offsets.entry(message_id.clone()).or_default();
        let at = *offset;
        *offset += text.len() as u64;
        let event = match thought {
            true => EventKind::Thought { message_id, offset: at, text },
            false => EventKind::Message { message_id, offset: at, text },
        };
        self.owned.record(vec![event]).await
    }

    /// Notes a sign of life, and whether the agent may still send that much.
    fn admit(&self, update: &Update) -> Result<(), String> {
        let bytes = size_of(update);
        let mut life = self.live();
        life.last = Instant::now();
        life.bytes = life.bytes.saturating_add(bytes);
        if life.bytes > TURN_BYTES_MAX {
            return Err(format!("the agent sent more than {} MiB in one turn", TURN_BYTES_MAX >> 20));
        }
        Ok(())
    }

    /// Waits for the participants' answer to a request that is recorded.
    async fn wait(
        &self,
        request_id: &str,
        mut answer: oneshot::Receiver<Option<String>>,
        limit: Duration,
    ) -> Option<String> {
        self.live().asking += 1;
        let answered = tokio::select! {
            answered = &mut answer => answered.ok().flatten(),
            () = self.stop.cancelled() => None,
            () = tokio::time::sleep(limit) => self.expire(request_id, answer).await,
        };
        self.live().asking -= 1;
        self.owned.requests.lock().unwrap_or_else(PoisonError::into_inner).remove(request_id);
        answered
    }

    /// The deadline has passed. An answer may have come in the same moment; the driver decides which was first.
    async fn expire(&self, request_id: &str, answer: oneshot::Receiver<Option<String>>) -> Option<String> {
        let expired = Message::Told(Input::Expired { request_id: request_id.to_owned() });
        if self.told.send(expired).await.is_err() {
            return None;
        }
        tokio::time::timeout(RELEASE_GRACE, answer).await.ok()?.ok().flatten()
    }

    /// Gives an answer when what it allows can be done. An agent that runs in the sandbox may ask before the workspace may
    /// be changed, and would fail at once. The wait ends with the start, whose phases have their deadlines.
    async fn once_open(&self, option_id: String) -> PermissionOutcome {
        let open = self.owned.sandbox();
        tokio::select! {
            () = open.open() => PermissionOutcome::Selected { option_id },
            () = self.stop.cancelled() => PermissionOutcome::Cancelled,
        }
    }

    fn expect(&self, request_id: &str) -> oneshot::Receiver<Option<String>> {
        let (answer, waiting) = oneshot::channel();
        self.owned.requests.lock().unwrap_or_else(PoisonError::into_inner).insert(request_id.to_owned(), answer);
        waiting
    }
}

#[async_trait]
impl TurnHost for Host {
    async fn update(&self, update: Update) {
        if let Err(reason) = self.admit(&update) {
            return self.break_off(reason);
        }
        let event = match update {
            Update::Message { message_id, text } => return self.piece(false, message_id, text).await,
            Update::Thought { message_id, text } => return self.piece(true, message_id, text).await,
            Update::ToolCall(call) => EventKind::ToolCall(call),
            Update::Plan(entries) => EventKind::Plan { entries },
            Update::Compaction { before_tokens, after_tokens, summary } => {
                EventKind::Compaction { before_tokens, after_tokens, summary }
            }
            Update::Context { used_tokens, size_tokens } => EventKind::Context { used_tokens, size_tokens },
            Update::Notice(text) => EventKind::Notice { text },
            Update::AgentSession(id) => EventKind::AgentSession { id },
            Update::Raw { direction, json } => EventKind::AgentRaw { direction, json },
        };
        // What was said before is recorded before.
        if let Err(error) = self.flush().await {
            return self.break_off(format!("failed to {error}"));
        }
        self.record(bounded(event)).await;
    }

    async fn permission(&self, request: PermissionRequest) -> PermissionOutcome {
        if let Err(error) = self.flush().await {
            self.break_off(format!("failed to {error}"));
        }
        let PermissionRequest { request_id, tool_call, options } = request;
        let allowed = allowing(&options);
        let asked = EventKind::PermissionRequested { request_id: request_id.clone(), tool_call, options };
        if self.owned.house.config.permissions == Permissions::Allow
            && let Some(option_id) = allowed
        {
            let granted = EventKind::PermissionResolved { request_id, option_id: Some(option_id.clone()), by: None };
            return match self.owned.record(vec![asked, granted]).await {
                Ok(()) => self.once_open(option_id).await,
                Err(error) => {
                    self.break_off(format!("failed to {error}"));
                    PermissionOutcome::Cancelled
                }
            };
        }
        let answer = self.expect(&request_id);
        self.record(asked).await;
        match self.wait(&request_id, answer, self.owned.house.config.timeouts.permission).await {
            Some(option_id) => self.once_open(option_id).await,
            None => PermissionOutcome::Cancelled,
        }
    }

    async fn ask(&self, question: Question) -> Answer {
        if let Err(error) = self.flush().await {
            self.break_off(format!("failed to {error}"));
        }
        let Question { question_id, text, choices } = question;
        let answer = self.expect(&question_id);
        self.record(EventKind::QuestionAsked { question_id: question_id.clone(), text, choices }).await;
        let limit = self.owned.house.config.timeouts.question;
        match self.wait(&question_id, answer, limit).await {
            Some(text) => Answer::Text(text),
            None if self.stop.is_cancelled() => Answer::None { reason: "the turn was stopped".to_owned() },
            None => Answer::None { reason: format!("nobody answered within {} s", limit.as_secs()) },
        }
    }
}

/// The option that allows a tool call with the least consequence.
fn allowing(options: &[PermissionOption]) -> Option<String> {
    let of = |kind| options.iter().find(move |option| option.kind == kind);
    of(PermissionOptionKind::AllowOnce)
        .or_else(|| of(PermissionOptionKind::AllowAlways))
        .map(|option| option.id.clone())
}

/// About how many bytes an update takes.
fn size_of(update: &Update) -> usize {
    match update {
        Update::Message { text, .. } | Update::Thought { text, .. } | Update::Notice(text) => text.len(),
        Update::Raw { json, .. } => json.len(),
        Update::ToolCall(call) => serde_json::to_vec(call).map_or(0, |json| json.len()),
        Update::Compaction { summary, .. } => summary.len(),
        Update::Plan(entries) => entries.iter().map(|entry| entry.content.len()).sum(),
        Update::Context { .. } | Update::AgentSession(_) => 16,
    }
}

/// The event, or a remark in its place when it is too large to keep.
fn bounded(event: EventKind) -> EventKind {
    match event {
        EventKind::ToolCall(mut call) => {
            let bytes = serde_json::to_vec(&call).map_or(0, |json| json.len());
            if bytes > UPDATE_BYTES_MAX {
                call.input = serde_json::Value::Null;
                let text = format!("left out: {bytes} bytes are more than the log takes");
                call.content = vec![hob_agent::ToolContent::Text { text }];
            }
            EventKind::ToolCall(call)
        }
        EventKind::Notice { text } => EventKind::Notice { text: clip(&text, UPDATE_BYTES_MAX) },
        other => other,
    }
}

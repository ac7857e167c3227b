//! The one task that owns a session: it takes one input after the other, lets [`decide`](crate::decide) say what
//! follows, and carries that out in short steps.
//!
//! The states are drawn in [`state`](crate::state). Long steps (a start, a turn, a suspend) are tasks of their own that
//! tell the driver how they went, so that it can always hear a stop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hob_agent::Author;
use hob_sandbox::Sandbox;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::decide::{Denial, Input, Step, TurnReport};
use crate::error::EngineError;
use crate::event::TurnOutcome;
use crate::fold::SessionState;
use crate::heartbeat;
use crate::limits;
use crate::log::{Beside, Refused};
use crate::owned::Owned;
use crate::requests::{Artifact, Queued, QueuedPrompt};
use crate::snapshot;
use crate::start::{NoStart, Started, start};
use crate::state::State;
use crate::store::{Answer, StoreError};
use crate::turn::{Work, added};
use crate::waiting::Presence;

/// Inputs that may wait for a driver. A sender waits when it is full.
pub(crate) const INBOX_LEN: usize = 64;

/// How long the driver waits before it tries again what the store refused.
const RETRY: Duration = Duration::from_millis(500);

/// How long the work on a turn may go on after `stop_grace`, until it is cut off.
const CUT_OFF: Duration = Duration::from_secs(10);

/// Something for a driver.
pub(crate) enum Message {
    /// A request; whoever asks waits for the answer.
    Ask(Input, oneshot::Sender<Result<(), EngineError>>),
    /// A prompt, which is answered with its place in the queue.
    Prompt(Box<AcceptedPrompt>, oneshot::Sender<Result<Queued, EngineError>>),
    /// What a step came to.
    Told(Input),
    /// The sandbox of a certain life is gone.
    Lost { life: u64, reason: String },
}

/// A prompt that the engine takes; its pictures are on disk.
#[derive(Debug, Clone)]
pub(crate) struct AcceptedPrompt {
    pub(crate) text: String,
    pub(crate) author: Author,
    pub(crate) pictures: Vec<Artifact>,
    pub(crate) model: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}

/// Why a driver ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing is left to do; what waits in the inbox is for the next driver.
    Rest,
    /// The engine shuts down.
    Closing,
    /// Another owner has the session.
    Fenced,
}

pub(crate) struct Driver {
    owned: Arc<Owned>,
    inbox: mpsc::Receiver<Message>,
    /// For the steps to tell how they went.
    told: mpsc::Sender<Message>,
    /// The running turn's.
    stop: CancellationToken,
    /// Counts the sandboxes that this driver had, so that the end of an earlier one is not taken for that of the next.
    life: u64,
    alive: CancellationToken,
    /// Inputs that the store refused, to be tried again.
    backlog: VecDeque<Input>,
    /// Steps that are under way.
    under_way: usize,
    end: Option<End>,
}

impl Driver {
    pub(crate) fn new(owned: Arc<Owned>, inbox: mpsc::Receiver<Message>, told: mpsc::Sender<Message>) -> Self {
        Self {
            owned,
            inbox,
            told,
            stop: CancellationToken::new(),
            life: 0,
            alive: CancellationToken::new(),
            backlog: VecDeque::new(),
            under_way: 0,
            end: None,
        }
    }

    /// Owns the session until nothing is left to do, or the engine shuts down.
    pub(crate) async fn run(mut self, opened: Input) -> End {
        self.settle_branch().await;
        self.take(opened).await;
        let closing = self.owned.house.closing.clone();
        let tick = self.tick_every();
        loop {
            if let Some(end) = self.end.take() {
                return self.leave(end).await;
            }
            if self.may_rest().await {
                return self.leave(End::Rest).await;
            }
            let wait = if self.backlog.is_empty() { tick } else { RETRY };
            let rests = self.note_work().await;
            let owned = Arc::clone(&self.owned);
            tokio::select! {
                biased;
                () = closing.cancelled() => return self.shut_down().await,
                message = self.inbox.recv() => match message {
                    Some(message) => self.handle(message).await,
                    None => return self.leave(End::Rest).await,
                },
                () = owned.house.places.asked_to_leave(&owned.id), if rests => self.spare().await,
                () = tokio::time::sleep(wait) => self.pass_time().await,
            }
        }
    }

    /// A turn that a killed server left open may have committed to the log and not yet moved the branch. The log is the
    /// truth.
    async fn settle_branch(&self) {
        let left = |state: &SessionState| {
            let summary = &state.summary;
            let branch = summary.branch.clone().filter(|_| state.turn.is_some())?;
            Some((state.repository.clone(), branch, summary.commit.clone()))
        };
        let Some((repository, branch, commit)) = self.owned.log.read(left).await else { return };
        let mirror = self.owned.house.mirrors.known(&repository);
        if let Err(error) = mirror.put_branch(&branch, commit.as_deref()).await {
            tracing::error!(session.id = %self.owned.id, branch, "the branch may not be where the log says: failed to {error}");
        }
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Ask(input, reply) => {
                let decided = self.decide(input, Beside::default()).await;
                let answer = decided.map(drop).map_err(|refused| self.explain(refused));
                // Whoever asked may have gone.
                reply.send(answer).ok();
                self.go_on().await;
            }
            Message::Prompt(prompt, reply) => {
                let answer = self.prompt(*prompt).await;
                reply.send(answer).ok();
                self.go_on().await;
            }
            Message::Told(input) => {
                if is_outcome(&input) {
                    self.under_way = self.under_way.saturating_sub(1);
                }
                self.take(input).await;
            }
            Message::Lost { life, reason } if life == self.life => {
                self.absent(&reason);
                self.owned.house.places.leave(&self.owned.id);
                self.alive.cancel();
                self.take(Input::SandboxLost { reason }).await;
            }
            Message::Lost { .. } => {}
        }
    }

    /// Takes an input that must not be lost, and lets the session go on.
    async fn take(&mut self, input: Input) {
        if let Err(Refused::Store(error)) = self.decide(input.clone(), Beside::default()).await {
            self.put_off(input, &error);
        }
        self.go_on().await;
    }

    /// Begins whatever can begin.
    async fn go_on(&mut self) {
        loop {
            if self.owned.house.closing.is_cancelled() || self.end.is_some() {
                return;
            }
            let turn_id = self.owned.house.deps.ids.next();
            match self.decide(Input::Next { turn_id: turn_id.clone() }, Beside::default()).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(Refused::Denied(_)) => return,
                Err(Refused::Store(error)) => return self.put_off(Input::Next { turn_id }, &error),
            }
        }
    }

    async fn pass_time(&mut self) {
        for input in std::mem::take(&mut self.backlog) {
            self.take(input).await;
        }
        let in_use = self.owned.is_in_use();
        self.take(Input::Tick { in_use }).await;
    }

    /// Says whether the sandbox has work, so that one without can make room for others. Gives whether it rests.
    async fn note_work(&self) -> bool {
        let (state, since_ms) =
            self.owned.log.read(|state| (state.summary.state, state.rests().then_some(state.idle_since_ms))).await;
        let idle_since_ms = since_ms.filter(|_| !self.owned.is_in_use());
        if state != State::Suspending {
            self.owned.house.places.note(&self.owned.id, idle_since_ms);
        }
        idle_since_ms.is_some()
    }

    async fn spare(&mut self) {
        let in_use = self.owned.is_in_use();
        self.take(Input::Spare { in_use }).await;
    }

    /// Decides, records, carries out. Gives how many steps followed.
    async fn decide(&mut self, input: Input, beside: Beside) -> Result<usize, Refused> {
        let steps = self.owned.log.decide(&self.owned.house.rules(), input, beside).await?;
        let count = steps.len();
        for step in steps {
            self.carry_out(step).await;
        }
        Ok(count)
    }

    async fn carry_out(&mut self, step: Step) {
        match step {
            Step::StartSandbox => self.start_sandbox(),
            Step::WithdrawStart => self.owned.house.places.withdraw(&self.owned.id),
            Step::SuspendSandbox => self.suspend_sandbox(),
            Step::DestroySandbox => self.destroy_sandbox(),
            Step::RunTurn => self.run_turn().await,
            Step::StopTurn(_) => self.stop.cancel(),
            Step::Release { request_id, answer } => self.owned.release(&request_id, answer),
            // Whoever asked waits for the sandbox from now on, and is not told that there is none.
            Step::RememberWant => drop(self.owned.presence.send_replace(Presence::Starting)),
        }
    }

    fn start_sandbox(&mut self) {
        self.life += 1;
        self.alive.cancel();
        self.alive = CancellationToken::new();
        self.owned.presence.send_replace(Presence::Starting);
        self.under_way += 1;
        let (owned, told, life, alive) = (Arc::clone(&self.owned), self.told.clone(), self.life, self.alive.clone());
        self.owned.house.tracker.spawn(async move {
            let input = match start(&owned).await {
                Ok(Started { sandbox, environment, running }) => {
                    watch(&owned, &sandbox, told.clone(), life, alive.clone());
                    limits::tell(&owned, &sandbox, alive.clone());
                    // Before anybody reaches the sandbox, so that whoever waits for its services waits for these.
                    if running.is_none() {
                        owned.services.announce(&environment);
                    }
                    owned.presence.send_replace(Presence::Ready(sandbox.clone()));
                    match running {
                        Some(running) => crate::services::go_on(&owned, running, &environment, alive),
                        None => crate::services::begin(&owned, sandbox, environment, alive),
                    }
                    Input::SandboxReady
                }
                // The engine ends, and with it everybody who could be told.
                Err(NoStart::Closing) => return,
                Err(NoStart::Withdrawn) => {
                    owned.presence.send_replace(Presence::Absent("its start was taken back".to_owned()));
                    Input::Withdrawn
                }
                Err(NoStart::Failed(reason)) => {
                    owned.house.places.leave(&owned.id);
                    owned.presence.send_replace(Presence::Absent(reason.clone()));
                    Input::SandboxFailed { reason }
                }
            };
            tell(&told, input).await;
        });
    }

    fn suspend_sandbox(&mut self) {
        self.absent("it was put away; the next prompt brings it back");
        self.alive.cancel();
        self.under_way += 1;
        let (owned, told) = (Arc::clone(&self.owned), self.told.clone());
        self.owned.house.tracker.spawn(async move {
            owned.close_agent().await;
            if let Err(reason) = owned.phase("snapshot", snapshot::take(&owned)).await {
                tracing::error!(session.id = %owned.id, "{reason}");
            }
            owned.house.places.leave(&owned.id);
            tell(&told, Input::Suspended).await;
        });
    }

    fn destroy_sandbox(&mut self) {
        self.absent("the session is archived");
        self.alive.cancel();
        let owned = Arc::clone(&self.owned);
        self.owned.house.tracker.spawn(async move {
            // Whoever still waits for a place does so no more.
            owned.house.places.withdraw(&owned.id);
            owned.close_agent().await;
            if let Ok(id) = owned.sandbox_id()
                && let Err(error) = owned.house.deps.provider.destroy(&id).await
            {
                tracing::error!(session.id = %owned.id, "a sandbox is left behind: failed to {error}");
                return;
            }
            owned.house.places.leave(&owned.id);
            owned.house.deps.doors.close(&owned.id).await;
            let folder = owned.folder();
            match tokio::fs::remove_dir_all(&folder).await {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => tracing::error!(folder = %folder.display(), "a folder is left behind: {error}"),
            }
        });
    }

    async fn run_turn(&mut self) {
        let Some(turn) = self.owned.log.read(|state| state.turn.clone()).await else { return };
        self.stop = CancellationToken::new();
        self.under_way += 1;
        let (turn_id, stop, told) = (turn.turn_id.clone(), self.stop.clone(), self.told.clone());
        let work = Work::new(Arc::clone(&self.owned), turn, stop.clone(), told.clone()).await;
        let workspace = Arc::clone(&self.owned.workspace);
        let grace = self.owned.house.config.timeouts.stop_grace + CUT_OFF;
        let owned = Arc::clone(&self.owned);
        let mut task = self.owned.house.tracker.spawn(async move {
            snapshot::let_freeze(&owned).await;
            work.run().await
        });
        let owned = Arc::clone(&self.owned);
        self.owned.house.tracker.spawn(async move {
            let cut_off = async {
                stop.cancelled().await;
                // At once, and not only when the agent has noticed.
                workspace.kill_running().await;
                tokio::time::sleep(grace).await;
            };
            let report = tokio::select! {
                done = &mut task => done.unwrap_or_else(|error| broken(&turn_id, &format!("its task ended: {error}"))),
                () = cut_off => {
                    task.abort();
                    broken(&turn_id, "it did not end when it was told to, and was cut off")
                }
            };
            // Before the next turn can begin, which changes the files.
            let freezing = snapshot::begin(&owned).await;
            let turn_id = report.turn_id.clone();
            tell(&told, Input::TurnFinished(report)).await;
            if let Some(freezing) = freezing {
                snapshot::after_turn(&owned, turn_id, freezing).await;
            }
        });
    }

    /// Queues a prompt: its pictures first, so that they are there when the prompt is.
    async fn prompt(&mut self, new: AcceptedPrompt) -> Result<Queued, EngineError> {
        let house = Arc::clone(&self.owned.house);
        let scope = self.owned.id.to_string();
        if let Some(key) = &new.idempotency_key
            && let Some(before) = house.store.answer(&scope, key).await.map_err(EngineError::from)?
        {
            return serde_json::from_str(&before).map_err(|error| EngineError::Invalid(error.to_string()));
        }
        let ahead = self.owned.log.read(|state| state.queue.len() + usize::from(state.turn.is_some())).await;
        let queued = Queued { prompt_id: house.deps.ids.next(), position: u32::try_from(ahead).unwrap_or(u32::MAX) };
        let mut beside = Beside::default();
        if let Some(key) = new.idempotency_key {
            let answer = serde_json::to_string(&queued).map_err(|error| EngineError::Invalid(error.to_string()))?;
            beside.answer = Some(Answer { scope, key, answer });
        }
        let prompt = QueuedPrompt {
            prompt_id: queued.prompt_id.clone(),
            author: new.author,
            text: new.text,
            attachments: new.pictures.iter().map(|artifact| artifact.artifact_id.clone()).collect(),
            model: new.model,
        };
        self.admit(new.pictures).await?;
        self.decide(Input::Prompt(prompt), beside).await.map_err(|refused| self.explain(refused))?;
        Ok(queued)
    }

    /// Records the pictures of a prompt that is about to be queued.
    async fn admit(&self, artifacts: Vec<Artifact>) -> Result<(), EngineError> {
        if artifacts.is_empty() {
            return Ok(());
        }
        let events = artifacts.iter().map(added).collect();
        Ok(self.owned.log.append(events, Beside { answer: None, artifacts }).await?)
    }

    fn absent(&self, reason: &str) {
        self.owned.presence.send_replace(Presence::Absent(reason.to_owned()));
    }

    fn put_off(&mut self, input: Input, error: &StoreError) {
        match error {
            StoreError::Fenced { .. } => {
                tracing::warn!(session.id = %self.owned.id, "the session is let go: failed to {error}");
                self.end = Some(End::Fenced);
            }
            StoreError::Closed => self.end = Some(End::Closing),
            _ => {
                tracing::error!(session.id = %self.owned.id, "will be tried again: failed to {error}");
                // A turn that may begin is looked for again anyway.
                if !matches!(input, Input::Next { .. } | Input::Tick { .. }) || self.backlog.is_empty() {
                    self.backlog.push_back(input);
                }
            }
        }
    }

    /// Whether nothing runs and nothing will: the next request finds a new driver.
    async fn may_rest(&self) -> bool {
        let quiet = |state: &SessionState| {
            let put_away = matches!(state.summary.state, State::Suspended | State::Failed | State::Archived);
            put_away && state.turn.is_none() && state.queue.is_empty() && !state.wanted
        };
        self.under_way == 0 && self.backlog.is_empty() && self.inbox.is_empty() && self.owned.log.read(quiet).await
    }

    /// Lets go of the session. Whoever asked in this moment is told to ask the next driver.
    async fn leave(mut self, end: End) -> End {
        self.stop.cancel();
        self.alive.cancel();
        self.inbox.close();
        while self.inbox.recv().await.is_some() {}
        if end == End::Fenced {
            self.owned.house.places.leave(&self.owned.id);
        }
        if end != End::Closing {
            self.owned.house.deps.doors.close(&self.owned.id).await;
        }
        end
    }

    /// Ends the turn in order, records that, and leaves the sandbox running for the next engine.
    async fn shut_down(mut self) -> End {
        if let Err(error) = self.decide(Input::Shutdown, Beside::default()).await {
            tracing::warn!(session.id = %self.owned.id, "the turn is not stopped in order: {error:?}");
        }
        let limit = self.owned.house.config.timeouts.stop_grace + CUT_OFF;
        let finish = async {
            while self.owned.log.read(|state| state.turn.is_some()).await {
                match self.inbox.recv().await {
                    Some(Message::Told(input)) => self.take(input).await,
                    Some(_) => {}
                    None => return,
                }
            }
        };
        if tokio::time::timeout(limit, finish).await.is_err() {
            tracing::warn!(session.id = %self.owned.id, "the turn is told as interrupted at the next start");
        }
        self.owned.close_agent().await;
        self.leave(End::Closing).await
    }

    fn tick_every(&self) -> Duration {
        let quarter = self.owned.house.config.timeouts.suspend_after / 4;
        quarter.clamp(Duration::from_millis(50), Duration::from_secs(30))
    }

    fn explain(&self, refused: Refused) -> EngineError {
        match refused {
            Refused::Store(error) => error.into(),
            Refused::Denied(Denial::Archived) => EngineError::Archived(self.owned.id.clone()),
            Refused::Denied(Denial::QueueFull) => {
                EngineError::QueueFull { max: self.owned.house.config.limits.queue_len_max }
            }
            Refused::Denied(Denial::NoSuchPrompt { prompt_id }) => EngineError::NoSuchPrompt { prompt_id },
            Refused::Denied(Denial::NoSuchRequest { request_id }) => EngineError::NoSuchRequest { request_id },
        }
    }
}

/// Tells the driver when the sandbox is gone. One that does not answer any more is ended first: nobody could reach what
/// still runs in it, and the next start begins from its files.
fn watch(owned: &Arc<Owned>, sandbox: &Sandbox, told: mpsc::Sender<Message>, life: u64, alive: CancellationToken) {
    let (owned, sandbox) = (Arc::clone(owned), sandbox.clone());
    owned.house.tracker.clone().spawn(async move {
        let reason = tokio::select! {
            reason = sandbox.closed() => reason,
            silent = heartbeat::silence(&sandbox, owned.house.config.timeouts.heartbeat) => {
                if let Err(error) = owned.house.deps.provider.suspend(sandbox.id()).await {
                    tracing::error!(session.id = %owned.id, "a sandbox that does not answer may still run: failed to {error}");
                }
                format!("it did not answer for {} s and was ended", silent.as_secs())
            }
            () = alive.cancelled() => return,
        };
        // A driver that has gone does not need to know.
        told.send(Message::Lost { life, reason }).await.ok();
    });
}

async fn tell(told: &mpsc::Sender<Message>, input: Input) {
    // A driver that has gone does not need to know.
    told.send(Message::Told(input)).await.ok();
}

/// Whether an input is what a step under way came to.
fn is_outcome(input: &Input) -> bool {
    matches!(
        input,
        Input::SandboxReady
            | Input::Withdrawn
            | Input::SandboxFailed { .. }
            | Input::Suspended
            | Input::TurnFinished(_)
    )
}

fn broken(turn_id: &str, reason: &str) -> TurnReport {
    TurnReport {
        turn_id: turn_id.to_owned(),
        outcome: TurnOutcome::Failed,
        stop_reason: None,
        message: format!("The turn broke off: {reason}."),
    }
}

/// An error of the file system in the words of the engine.
pub(crate) fn disk(path: &std::path::Path, error: &std::io::Error) -> EngineError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => EngineError::DiskFull { path: path.to_owned() },
        _ => EngineError::Store { path: path.to_owned(), reason: error.to_string() },
    }
}

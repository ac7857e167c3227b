//! One session's log in its owner's hand: what is decided and what is recorded happen one after the other here, so that
//! the state that a decision was made on is the state that it is carried out in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::config::Observer;
use crate::decide::{Denial, Input, Rules, Step, decide};
use crate::event::EventKind;
use crate::fold::SessionState;
use crate::id::SessionId;
use crate::requests::{Artifact, Record};
use crate::store::{Answer, Append, Store, StoreError};

/// Events in one read while a log is loaded.
const PAGE: usize = 1_000;

/// How long a writer waits before it looks again whether a full disk has room.
const FULL_RETRY: Duration = Duration::from_millis(250);

/// The log of a session that this engine owns.
pub(crate) struct SessionLog {
    store: Store,
    session: SessionId,
    epoch: u64,
    clock: Arc<dyn Clock>,
    observer: Option<Arc<dyn Observer>>,
    state: Mutex<SessionState>,
}

/// What is written in the same step as events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beside {
    pub(crate) answer: Option<Answer>,
    pub(crate) artifacts: Vec<Artifact>,
}

/// Why nothing was decided.
#[derive(Debug)]
pub(crate) enum Refused {
    Denied(Denial),
    Store(StoreError),
}

impl SessionLog {
    /// Reads a session's log from its start.
    pub(crate) async fn load(
        store: Store,
        session: SessionId,
        epoch: u64,
        clock: Arc<dyn Clock>,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Self, StoreError> {
        let mut state = SessionState::new(session.clone(), clock.now_ms());
        let mut since = 0;
        loop {
            let page = store.events(&session, since, PAGE).await?;
            let Some(last) = page.last() else { break };
            since = last.seq;
            for record in page.iter().filter(|record| !SessionState::passes_over(kind_of(record))) {
                match record.event() {
                    Ok(event) => drop(state.apply(event.at_ms, &event.kind)),
                    // A later version may have written kinds that this one does not know; by rule they can be ignored.
                    Err(error) => {
                        tracing::debug!(session.id = %session, record.seq, "an event is passed over: {error}");
                    }
                }
            }
        }
        Ok(Self { store, session, epoch, clock, observer, state: Mutex::new(state) })
    }

    /// Reads something from the state as it is now.
    pub(crate) async fn read<T>(&self, read: impl FnOnce(&SessionState) -> T) -> T {
        read(&*self.state.lock().await)
    }

    /// Decides on an input, records what follows, and gives the steps that are to be carried out then.
    pub(crate) async fn decide(&self, rules: &Rules, input: Input, beside: Beside) -> Result<Vec<Step>, Refused> {
        let mut state = self.state.lock().await;
        let now_ms = self.clock.now_ms();
        let decision = decide(&state, rules, input, now_ms).map_err(Refused::Denied)?;
        self.write(&mut state, now_ms, decision.record, beside).await.map_err(Refused::Store)?;
        for step in &decision.then {
            state.note(step);
        }
        Ok(decision.then)
    }

    /// Records events.
    pub(crate) async fn append(&self, events: Vec<EventKind>, beside: Beside) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        self.write(&mut state, self.clock.now_ms(), events, beside).await
    }

    /// Records events, and waits at most `patience` for room while the disk is full.
    pub(crate) async fn append_patiently(
        &self,
        events: Vec<EventKind>,
        beside: Beside,
        patience: Duration,
    ) -> Result<(), StoreError> {
        let begun = Instant::now();
        loop {
            match self.append(events.clone(), beside.clone()).await {
                Err(StoreError::Full { .. }) if begun.elapsed() < patience => tokio::time::sleep(FULL_RETRY).await,
                outcome => return outcome,
            }
        }
    }

    async fn write(
        &self,
        state: &mut SessionState,
        at_ms: u64,
        events: Vec<EventKind>,
        beside: Beside,
    ) -> Result<(), StoreError> {
        if events.is_empty() && beside.answer.is_none() {
            return Ok(());
        }
        // The state follows only when the events are on disk.
        let mut after = None;
        let mut changed = false;
        for event in events.iter().filter(|event| matters(event)) {
            changed |= after.get_or_insert_with(|| state.clone()).apply(at_ms, event);
        }
        let summary = after.as_ref().filter(|_| changed).map(|after| after.summary.clone());
        let (session, epoch) = (self.session.clone(), self.epoch);
        let Beside { answer, artifacts } = beside;
        let heard = |observer| (observer, events.iter().filter(|event| matters(event)).cloned().collect::<Vec<_>>());
        let seen = self.observer.as_ref().map(heard);
        self.store.append(Append { session, epoch, at_ms, events, summary, answer, artifacts }).await?;
        if let Some((observer, events)) = seen {
            events.iter().for_each(|event| observer.recorded(event));
        }
        if let Some(after) = after {
            *state = after;
        }
        Ok(())
    }
}

fn matters(event: &EventKind) -> bool {
    !matches!(
        event,
        EventKind::Message { .. }
            | EventKind::Thought { .. }
            | EventKind::AgentRaw { .. }
            | EventKind::ToolCall(_)
            | EventKind::Context { .. }
    )
}

/// The kind of a record, read from the head of its JSON: `type` is the first field after `seq` and `at_ms`.
fn kind_of(record: &Record) -> &str {
    let kind = record.json.split_once("\"type\":\"").and_then(|(_, rest)| rest.split_once('"'));
    kind.map_or("", |(kind, _)| kind)
}

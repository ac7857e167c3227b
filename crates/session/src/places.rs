//! The wait for a place: what [`admission`](crate::admission) decides, for the tasks of many sessions.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::admission::{Admission, Capacity, Need, Place, Promised};
use crate::event::{EventKind, PhaseStatus};
use crate::fold::SessionState;
use crate::id::SessionId;
use crate::owned::{Owned, millis};
use crate::start::NoStart;

/// The phase of waiting, as the log names it.
pub(crate) const PHASE: &str = "queue";

/// How often those who wait are told where they stand, at most.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// All places of an engine.
#[derive(Debug)]
pub(crate) struct Places {
    admission: Mutex<Admission<SessionId>>,
    /// Rung after each change, so that whoever waits looks again.
    changed: watch::Sender<()>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It has its place.
    In,
    /// It stands here now.
    Stands(Place),
    /// It was taken back.
    Withdrawn,
}

impl Places {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self { admission: Mutex::new(Admission::new(capacity)), changed: watch::Sender::new(()) }
    }

    /// Asks for a place, and says where the request stands.
    pub(crate) fn ask(&self, session: &SessionId, person: &str, need: Need) -> Wait {
        self.change(|admission| {
            admission.ask(session.clone(), person, need);
            standing(admission, session)
        })
    }

    /// Waits until a session that has asked is let in, or stands elsewhere than it was last told.
    pub(crate) async fn moved(&self, session: &SessionId, told: Place) -> Wait {
        let mut changed = self.changed.subscribe();
        let not_before = Instant::now() + TELL_EVERY;
        loop {
            changed.mark_unchanged();
            match standing(&self.admission(), session) {
                Wait::Stands(place) if place == told || Instant::now() < not_before => {}
                news => return news,
            }
            tokio::select! {
                // The sender lives as long as this house.
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(not_before), if Instant::now() < not_before => {}
            }
        }
    }

    /// Notes the sandbox of a session that runs already.
    pub(crate) fn occupy(&self, session: SessionId, need: Need) {
        self.change(|admission| admission.occupy(session, need));
    }

    /// Gives up a session's wait for a place. One that has its place keeps it.
    pub(crate) fn withdraw(&self, session: &SessionId) {
        self.change(|admission| admission.withdraw(session));
    }

    /// Gives up a session's place, or its wait for one. One that has neither is left as it is.
    pub(crate) fn leave(&self, session: &SessionId) {
        self.change(|admission| admission.leave(session));
    }

    /// Says that a session's sandbox needs less than it was let in with.
    pub(crate) fn shrink(&self, session: &SessionId, need: Need) {
        self.change(|admission| admission.shrink(session, need));
    }

    /// Says whether a session's sandbox has work, or since when it has none. Gives whether it is asked to leave.
    pub(crate) fn note(&self, session: &SessionId, idle_since_ms: Option<u64>) -> bool {
        let mut admission = self.admission();
        match idle_since_ms {
            Some(since_ms) => admission.rest(session, since_ms),
            None => admission.work(session),
        }
        let asked = admission.make_room();
        let leaving = admission.is_leaving(session);
        drop(admission);
        // Nothing that is noted lets anybody in, so there is news only for those who are asked to leave.
        if asked > 0 {
            self.changed.send_replace(());
        }
        leaving
    }

    /// Waits until a session's sandbox is asked to leave.
    pub(crate) async fn asked_to_leave(&self, session: &SessionId) {
        let mut changed = self.changed.subscribe();
        // An error means that the house is gone, and with it everybody who could ask.
        while !self.admission().is_leaving(session) {
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Hears of every change.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How many more sandboxes of this need there is room for; none while somebody waits.
    pub(crate) fn room(&self, need: Need) -> u32 {
        self.admission().room(need)
    }

    /// What is promised to the sandboxes that run, and how many wait.
    pub(crate) fn promised(&self) -> (Promised, u32) {
        let admission = self.admission();
        (admission.promised(), admission.waiting_count())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Admission<SessionId>) -> T) -> T {
        let mut admission = self.admission();
        let changed = change(&mut admission);
        admission.make_room();
        drop(admission);
        self.changed.send_replace(());
        changed
    }

    fn admission(&self) -> MutexGuard<'_, Admission<SessionId>> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn standing(admission: &Admission<SessionId>, session: &SessionId) -> Wait {
    match admission.place(session) {
        Some(place) => Wait::Stands(place),
        None if admission.is_in(session) => Wait::In,
        None => Wait::Withdrawn,
    }
}

/// Waits for a session's place, and records where it stands. Gives the end of the phase, to be recorded with what
/// follows: most requests wait for nothing, and an append of their own would be their longest part.
pub(crate) async fn enter(owned: &Owned) -> Result<EventKind, NoStart> {
    let begun = Instant::now();
    let person = owned.log.read(asker).await;
    let mut wait = owned.house.places.ask(&owned.id, &person, owned.house.largest_need());
    let mut events = vec![phase(PhaseStatus::Started, None, None)];
    loop {
        let elapsed = Some(millis(begun.elapsed()));
        match wait {
            Wait::In => return Ok(phase(PhaseStatus::Ended, elapsed, None)),
            Wait::Withdrawn => {
                let reason = "nobody waits for the sandbox any more".to_owned();
                record(owned, vec![phase(PhaseStatus::Failed, elapsed, Some(reason))]).await?;
                return Err(NoStart::Withdrawn);
            }
            Wait::Stands(place) => {
                events.push(EventKind::WaitingForPlace { position: place.position, of: place.of });
                record(owned, std::mem::take(&mut events)).await?;
                // A warm sandbox must not hold what others wait for.
                owned.discard_warm().await?;
                wait = stand(owned, place, begun).await?;
            }
        }
    }
}

/// Waits for news, until the deadline.
async fn stand(owned: &Owned, place: Place, begun: Instant) -> Result<Wait, NoStart> {
    let limit = owned.house.config.timeouts.place;
    tokio::select! {
        news = owned.house.places.moved(&owned.id, place) => Ok(news),
        () = owned.house.closing.cancelled() => Err(NoStart::Closing),
        () = tokio::time::sleep_until(begun + limit) => {
            owned.house.places.withdraw(&owned.id);
            let seconds = limit.as_secs();
            let reason = format!("no place for a sandbox was free within {seconds} s; [capacity] says how many there are");
            let failed = phase(PhaseStatus::Failed, Some(millis(begun.elapsed())), Some(reason.clone()));
            record(owned, vec![failed]).await?;
            Err(NoStart::Failed(reason))
        }
    }
}

/// In whose name a session waits: whoever sent the prompt that needs the sandbox, or else its maker.
fn asker(state: &SessionState) -> String {
    let prompt = state.turn.as_ref().map(|turn| &turn.prompt).or_else(|| state.queue.front());
    prompt.map_or(&state.summary.author, |prompt| &prompt.author).email.clone()
}

fn phase(status: PhaseStatus, elapsed_ms: Option<u64>, detail: Option<String>) -> EventKind {
    EventKind::Phase { name: PHASE.to_owned(), status, elapsed_ms, detail }
}

async fn record(owned: &Owned, events: Vec<EventKind>) -> Result<(), NoStart> {
    owned.record(events).await.map_err(|error| NoStart::Failed(format!("failed to {error}")))
}

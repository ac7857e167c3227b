//! A session that this engine owns, as its driver and the tasks of its steps share it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hob_agent::Agent;
use hob_sandbox::{Sandbox, SandboxId};
use tokio::sync::{OnceCell, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Need;
use crate::artifacts::Artifacts;
use crate::breaker::Breaker;
use crate::config::{Access, Deps, EngineConfig};
use crate::decide::Rules;
use crate::event::{EventKind, PhaseStatus};
use crate::git::Mirrors;
use crate::id::SessionId;
use crate::images::Images;
use crate::log::{Beside, SessionLog};
use crate::places::Places;
use crate::pool::{self, Pool, Warm, WarmAgent};
use crate::services::Services;
use crate::store::{Store, StoreError};
use crate::waiting::{Presence, WaitingSandbox};
use crate::workspace::SandboxWorkspace;

/// How long an agent may take to leave.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// What all sessions of an engine share.
pub(crate) struct House {
    pub(crate) config: EngineConfig,
    pub(crate) deps: Deps,
    /// This engine, in the store.
    pub(crate) owner: String,
    pub(crate) store: Store,
    pub(crate) mirrors: Mirrors,
    pub(crate) artifacts: Artifacts,
    pub(crate) images: Images,
    /// Who may run a sandbox, and who waits.
    pub(crate) places: Places,
    /// Warm sandboxes.
    pub(crate) pool: Pool,
    /// What is not tried any more: repositories and the base that was asked for.
    pub(crate) breaker: Mutex<Breaker<(String, String)>>,
    pub(crate) tracker: TaskTracker,
    /// Cancelled when the engine shuts down: no new turn begins, those that run are interrupted.
    pub(crate) closing: CancellationToken,
    /// Cancelled when every driver has ended: whoever follows a log hears its end.
    pub(crate) closed: CancellationToken,
}

impl House {
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            queue_len_max: self.config.limits.queue_len_max,
            suspend_after_ms: u64::try_from(self.config.timeouts.suspend_after.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// What a sandbox is promised while it is not known what its repository asks for.
    pub(crate) fn largest_need(&self) -> Need {
        need_of(&self.config.limits.sandbox)
    }
}

/// What a sandbox with these limits is promised.
pub(crate) fn need_of(limits: &hob_sandbox::Limits) -> Need {
    Need { memory_bytes: limits.memory_bytes, cpu_millicores: u64::from(limits.cpu_millicores) }
}

/// A session that this engine owns.
pub(crate) struct Owned {
    pub(crate) house: Arc<House>,
    pub(crate) id: SessionId,
    pub(crate) epoch: u64,
    pub(crate) log: SessionLog,
    pub(crate) presence: watch::Sender<Presence>,
    /// The handle that agents get which live in the sandbox.
    pub(crate) agent_sandbox: WaitingSandbox,
    /// What the tools of the built-in agent work on.
    pub(crate) workspace: Arc<SandboxWorkspace>,
    /// What runs in the sandbox beside the agent.
    pub(crate) services: Arc<Services>,
    /// Turns that wait for an answer to a permission request or a question.
    pub(crate) requests: Mutex<HashMap<String, oneshot::Sender<Option<String>>>>,
    /// Commands and terminals of people in the sandbox.
    pub(crate) uses: Arc<AtomicUsize>,
    /// The warm sandbox that it was made for, until it takes it.
    warm: Mutex<Option<Warm>>,
    /// Whether it was made for a warm sandbox with an agent in it.
    expects_agent: bool,
    /// The agent of the warm sandbox, until the first turn takes it.
    pub(crate) warm_agent: tokio::sync::Mutex<Option<WarmAgent>>,
    /// The agent between turns. A turn takes it, and puts it back when it ended in order.
    pub(crate) agent: tokio::sync::Mutex<Option<Box<dyn Agent>>>,
    /// Held while the files are frozen that a turn has left.
    pub(crate) freezing: Arc<tokio::sync::Mutex<()>>,
    access: OnceCell<Access>,
}

impl Owned {
    pub(crate) fn new(house: Arc<House>, id: SessionId, epoch: u64, log: SessionLog) -> Self {
        let presence = watch::Sender::new(Presence::Absent("it was not started".to_owned()));
        let agent_sandbox = WaitingSandbox::new(presence.subscribe());
        let tools_sandbox = WaitingSandbox::new(presence.subscribe());
        let warm = house.pool.redeem(&id);
        let services = warm.as_ref().map_or_else(|| Arc::new(Services::new()), |warm| Arc::clone(&warm.services));
        // Another epoch opens the door anew.
        let access = warm.as_ref().filter(|_| epoch == pool::EPOCH).map(|warm| warm.access.clone());
        let tracker = house.tracker.clone();
        let workspace = Arc::new(SandboxWorkspace::new(tools_sandbox, Arc::clone(&services), tracker));
        Self {
            house,
            id,
            epoch,
            log,
            presence,
            agent_sandbox,
            workspace,
            services,
            requests: Mutex::default(),
            uses: Arc::default(),
            expects_agent: warm.as_ref().is_some_and(|warm| warm.agent.is_some()),
            warm_agent: tokio::sync::Mutex::new(None),
            warm: Mutex::new(warm),
            agent: tokio::sync::Mutex::new(None),
            freezing: Arc::default(),
            access: OnceCell::new_with(access),
        }
    }

    /// A new handle on the sandbox.
    pub(crate) fn sandbox(&self) -> WaitingSandbox {
        WaitingSandbox::new(self.presence.subscribe())
    }

    /// The sandbox, as soon as it is ready.
    pub(crate) async fn sandbox_ready(&self) -> Result<Sandbox, String> {
        self.sandbox().ready().await
    }

    /// The sandbox's name: the session's.
    pub(crate) fn sandbox_id(&self) -> Result<SandboxId, String> {
        SandboxId::new(self.id.as_str())
    }

    /// The folder that holds what belongs to this session alone.
    pub(crate) fn folder(&self) -> PathBuf {
        self.house.config.data_dir.join("sessions").join(self.id.as_str())
    }

    /// The door to the gateway, opened when it is first needed.
    pub(crate) async fn access(&self) -> Result<&Access, String> {
        self.access.get_or_try_init(|| self.house.deps.doors.open(&self.id, self.epoch)).await
    }

    /// Records events that belong to a turn or a start, and waits a while for room on a full disk.
    pub(crate) async fn record(&self, events: Vec<EventKind>) -> Result<(), StoreError> {
        self.log.append_patiently(events, Beside::default(), self.house.config.timeouts.disk_full).await
    }

    /// The agent that began in the warm sandbox, as soon as that is ready; none where there is none.
    pub(crate) async fn take_warm_agent(&self) -> Option<WarmAgent> {
        if !self.expects_agent {
            return None;
        }
        // It lives there, so whoever takes it may change what is there.
        self.agent_sandbox.ready().await.ok()?;
        self.warm_agent.lock().await.take()
    }

    /// Whether there is a warm sandbox to be taken.
    pub(crate) fn has_warm(&self) -> bool {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Takes the warm sandbox that the session was made for.
    pub(crate) fn take_warm(&self) -> Option<Warm> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Removes the warm sandbox that the session was made for, where it has not taken it.
    ///
    /// # Errors
    /// It would be taken for the session's own; words for a person.
    pub(crate) async fn discard_warm(&self) -> Result<(), String> {
        match self.take_warm() {
            Some(warm) => warm.discard(&self.house).await,
            None => Ok(()),
        }
    }

    /// Runs a phase of getting ready, and records its start, its end, and how long it took.
    pub(crate) async fn phase<T, E: ToReason>(
        &self,
        name: &str,
        work: impl Future<Output = Result<(T, Option<String>), E>>,
    ) -> Result<T, E> {
        self.phase_after(Vec::new(), name, work).await
    }

    /// The same, and records what came before it in one step with its start.
    pub(crate) async fn phase_after<T, E: ToReason>(
        &self,
        mut before: Vec<EventKind>,
        name: &str,
        work: impl Future<Output = Result<(T, Option<String>), E>>,
    ) -> Result<T, E> {
        let event = |status, elapsed_ms, detail| EventKind::Phase { name: name.to_owned(), status, elapsed_ms, detail };
        let record = |events| async { self.record(events).await.map_err(|error| format!("failed to {error}")) };
        let note = |event| record(vec![event]);
        before.push(event(PhaseStatus::Started, None, None));
        record(before).await?;
        let begun = Instant::now();
        let outcome = work.await;
        let elapsed = Some(millis(begun.elapsed()));
        match outcome {
            Ok((value, detail)) => {
                note(event(PhaseStatus::Ended, elapsed, detail)).await?;
                Ok(value)
            }
            Err(error) => {
                note(event(PhaseStatus::Failed, elapsed, Some(error.reason().to_owned()))).await?;
                Err(error)
            }
        }
    }

    /// Ends the agent that waits between turns, if there is one.
    pub(crate) async fn close_agent(&self) {
        if !self.close_agent_within(CLOSE_DEADLINE).await {
            tracing::warn!(session.id = %self.id, "the agent did not leave in {} s", CLOSE_DEADLINE.as_secs());
        }
    }

    /// Ends the agent that waits between turns, with all that it has started; false when it did not leave by itself in
    /// that time.
    pub(crate) async fn close_agent_within(&self, patience: Duration) -> bool {
        drop(self.warm_agent.lock().await.take());
        let Some(agent) = self.agent.lock().await.take() else { return true };
        tokio::time::timeout(patience, agent.close()).await.is_ok()
    }

    /// Hands an answer to the turn that waits for it. A turn that has ended does not wait any more.
    pub(crate) fn release(&self, request_id: &str, answer: Option<String>) {
        let waiting = self.requests.lock().unwrap_or_else(PoisonError::into_inner).remove(request_id);
        if let Some(waiting) = waiting
            && waiting.send(answer).is_err()
        {
            tracing::debug!(session.id = %self.id, request_id, "nobody waits for the answer any more");
        }
    }

    pub(crate) fn is_in_use(&self) -> bool {
        self.uses.load(Ordering::Relaxed) > 0
    }
}

/// Why a phase failed, in words for a person.
pub(crate) trait ToReason: From<String> {
    fn reason(&self) -> &str;
}

impl ToReason for String {
    fn reason(&self) -> &str {
        self
    }
}

/// Milliseconds of a duration.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

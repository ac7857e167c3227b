//! The services of a session's sandbox: started with it, watched, started again when they end, told when they fail.
//!
//! Each service has a [`Keeper`](keeper), a task that ends with the sandbox's life. What they come to stands on one
//! board, which the checks wait at and the agent hears of. Nothing here fails a session.

mod keeper;
mod news;
mod policy;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hob_sandbox::{Command, Sandbox};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::checks::clip;
use crate::environment::{Environment, Service};
use crate::event::{EventKind, ServiceStatus};
use crate::owned::Owned;
use crate::pool::Running;
use crate::tail::Tail;
use crate::workspace::ROOT;
use keeper::Keeper;

/// How long a command of `start` may take.
const START_COMMAND_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The longest wait for the services before the checks. Each service has a deadline of its own, which is mostly sooner.
const SETTLE_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The services of a session's sandbox, as everybody sees them.
pub(crate) struct Services {
    board: watch::Sender<Board>,
    /// What the agent was told of each.
    told: Mutex<BTreeMap<String, ServiceStatus>>,
}

/// How the services stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Board {
    /// Commands of `start` still run, so no service does yet.
    preparing: bool,
    entries: Vec<Entry>,
}

/// How one service stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    name: String,
    port: Option<u16>,
    status: ServiceStatus,
    /// What there is to say: why it ended or failed.
    detail: Option<String>,
    /// The last lines that it wrote.
    log: Option<String>,
}

impl Board {
    /// A board on which nothing has begun.
    fn of(environment: &Environment) -> Self {
        let entry = |service: &Service| Entry {
            name: service.name.clone(),
            port: service.port,
            status: ServiceStatus::Starting,
            detail: None,
            log: None,
        };
        Self { preparing: !environment.start.is_empty(), entries: environment.services.iter().map(entry).collect() }
    }

    fn status(&self, name: &str) -> Option<ServiceStatus> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| entry.status)
    }

    /// Whether each is ready or has failed.
    fn is_settled(&self) -> bool {
        !self.preparing && self.entries.iter().all(|entry| entry.status.is_settled())
    }

    /// `redis ready, web failed`.
    fn summary(&self) -> String {
        let word = |entry: &Entry| match entry.status {
            ServiceStatus::Ready => format!("{} ready", entry.name),
            ServiceStatus::Failed => format!("{} failed", entry.name),
            ServiceStatus::Starting | ServiceStatus::Ended => format!("{} starting", entry.name),
        };
        clip(&self.entries.iter().map(word).collect::<Vec<_>>().join(", "), 500)
    }
}

impl Services {
    pub(crate) fn new() -> Self {
        Self { board: watch::Sender::new(Board::default()), told: Mutex::default() }
    }

    /// Says which services are about to start, before anybody can reach the sandbox: whoever waits for them from now on
    /// waits for these.
    pub(crate) fn announce(&self, environment: &Environment) {
        self.board.send_replace(Board::of(environment));
    }

    /// Whether each service is ready or has failed.
    pub(crate) fn are_settled(&self) -> bool {
        self.board.borrow().is_settled()
    }

    /// Returns when each service is ready or has failed.
    pub(crate) async fn settled(&self) {
        let mut board = self.board.subscribe();
        let settled = board.wait_for(Board::is_settled);
        // Neither a closed board nor a late service holds the checks back for good: they say themselves what is missing.
        tokio::time::timeout(SETTLE_LIMIT, settled).await.map(drop).ok();
    }

    /// How they stand, in a line; nothing where there are none.
    fn summary(&self) -> Option<String> {
        Some(self.board.borrow().summary()).filter(|summary| !summary.is_empty())
    }

    /// What the agent was not told yet, in words for it.
    pub(crate) fn news(&self) -> Option<String> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        news::of(&self.board.borrow().entries, &mut told)
    }

    /// An agent that starts anew was told nothing.
    pub(crate) fn forget_told(&self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Nothing more will start: whoever waits need not.
    fn give_up(&self, reason: &str) {
        self.board.send_modify(|board| {
            board.preparing = false;
            for entry in board.entries.iter_mut().filter(|entry| !entry.status.is_settled()) {
                (entry.status, entry.detail) = (ServiceStatus::Failed, Some(reason.to_owned()));
            }
        });
    }

    /// Puts a status on the board.
    fn put(&self, name: &str, status: ServiceStatus, detail: Option<String>, log: Option<String>) {
        self.board.send_modify(|board| {
            if let Some(entry) = board.entries.iter_mut().find(|entry| entry.name == name) {
                (entry.status, entry.detail, entry.log) = (status, detail, log);
            }
        });
    }
}

/// Hears how services stand: a session's log, or that of an image's making.
#[async_trait]
pub(crate) trait Hearer: Send + Sync {
    /// Takes what there is to tell.
    ///
    /// # Errors
    /// It could not be kept; words for a person.
    async fn hear(&self, event: EventKind) -> Result<(), String>;
}

#[async_trait]
impl Hearer for Owned {
    async fn hear(&self, event: EventKind) -> Result<(), String> {
        self.record(vec![event]).await.map_err(|error| format!("failed to {error}"))
    }
}

/// What the services of one sandbox are kept with.
#[derive(Clone)]
pub(crate) struct Crew {
    pub(crate) services: Arc<Services>,
    pub(crate) hearer: Arc<dyn Hearer>,
    pub(crate) sandbox: Sandbox,
    pub(crate) tracker: TaskTracker,
    /// The sandbox's life. When it ends, so does every service, and nobody need be told.
    pub(crate) alive: CancellationToken,
}

/// Starts what was announced. It ends with the sandbox's life, which `alive` is.
pub(crate) fn begin(owned: &Arc<Owned>, sandbox: Sandbox, environment: Environment, alive: CancellationToken) {
    if environment.start.is_empty() && environment.services.is_empty() {
        return;
    }
    let owned = Arc::clone(owned);
    let (services, tracker) = (Arc::clone(&owned.services), owned.house.tracker.clone());
    let crew = Crew { services, hearer: Arc::clone(&owned) as _, sandbox, tracker, alive };
    owned.house.tracker.clone().spawn(async move {
        if let Err(reason) = owned.phase("services", crew.start(environment)).await
            && !crew.alive.is_cancelled()
        {
            tracing::error!(session.id = %owned.id, "the services are not watched: {reason}");
            owned.services.give_up(&reason);
        }
    });
}

/// Starts what was announced in a sandbox that has no session yet.
pub(crate) fn begin_unheard(crew: Crew, environment: Environment) {
    if environment.start.is_empty() && environment.services.is_empty() {
        return;
    }
    crew.tracker.clone().spawn(async move {
        if let Err(reason) = crew.start(environment).await
            && !crew.alive.is_cancelled()
        {
            tracing::error!(sandbox.id = %crew.sandbox.id(), "the services are not watched: {reason}");
            crew.services.give_up(&reason);
        }
    });
}

/// Goes on with what runs in a sandbox that was warm, until the sandbox's life ends, which `alive` is.
pub(crate) fn go_on(owned: &Arc<Owned>, running: Running, environment: &Environment, alive: CancellationToken) {
    let Running { mailbox, alive: running } = running;
    let has_any = !environment.start.is_empty() || !environment.services.is_empty();
    let owned = Arc::clone(owned);
    owned.house.tracker.clone().spawn(async move {
        let told = async {
            mailbox.hand_over(Arc::clone(&owned) as _).await?;
            let settled = async {
                owned.services.settled().await;
                Ok::<_, String>(((), owned.services.summary()))
            };
            if has_any { owned.phase("services", settled).await } else { Ok(()) }
        };
        if let Some(Err(reason)) = alive.run_until_cancelled(told).await {
            tracing::error!(session.id = %owned.id, "the services are not told of: {reason}");
        }
        alive.cancelled().await;
        drop(running);
    });
}

impl Crew {
    /// Runs the commands of `start`, starts the services, and returns when each is ready or has failed, with how they
    /// stand.
    ///
    /// # Errors
    /// The sandbox is gone, or what was told could not be kept.
    pub(crate) async fn start(&self, environment: Environment) -> Result<((), Option<String>), String> {
        let gone = || "the sandbox is gone".to_owned();
        for line in &environment.start {
            self.alive.run_until_cancelled(self.start_command(line)).await.ok_or_else(gone)??;
        }
        self.services.board.send_modify(|board| board.preparing = false);
        for service in environment.services {
            self.tracker.spawn(Keeper::new(self.clone(), service).keep());
        }
        self.alive.run_until_cancelled(self.services.settled()).await.ok_or_else(gone)?;
        Ok(((), self.services.summary()))
    }

    /// Runs a command of `start`, and tells when it fails. What it leaves running goes on.
    async fn start_command(&self, line: &str) -> Result<(), String> {
        let command = Command::shell(line).cwd(ROOT).timeout(START_COMMAND_LIMIT);
        let mut process = self.sandbox.exec(command).await.map_err(|error| format!("failed to {error}"))?;
        let output = process.wait_output(64 << 10).await;
        let exit = output.exit.ok_or("the sandbox is gone")?;
        if exit.code == 0 && !exit.timed_out {
            return Ok(());
        }
        let mut tail = Tail::default();
        tail.hear(&output.stdout);
        tail.hear(&output.stderr);
        let how =
            if exit.timed_out { "ran out of time".to_owned() } else { format!("ended with exit code {}", exit.code) };
        let said = tail.text().map(|lines| format!("; its last lines:\n{lines}")).unwrap_or_default();
        let text = format!("The environment's start command `{}` {how}{said}", clip(line, 200));
        self.hearer.hear(EventKind::Notice { text }).await
    }
}

//! What an engine is told when it opens: where it keeps things, how much it takes, how long it waits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::admission::Capacity;
use crate::agents::AgentFactory;
use crate::breaker::BreakerRules;
use crate::checks::rounds::MAX_ROUNDS_DEFAULT;
use crate::clock::{Clock, Ids};
use crate::event::EventKind;
use crate::id::SessionId;

/// How an engine works. Every field has a default but the folder.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where the store, the artifacts, the mirrors of repositories and the checkouts lie. Made when it is not there.
    pub data_dir: PathBuf,
    /// How much it takes.
    pub limits: EngineLimits,
    /// How long it waits.
    pub timeouts: Timeouts,
    /// What all sandboxes together may be promised; without a bound as a default.
    pub capacity: Capacity,
    /// When starts that fail again and again are not tried any more.
    pub breaker: BreakerRules,
    /// Whether branches are pushed to the repository's origin.
    pub push: Push,
    /// Who answers an agent's permission requests.
    pub permissions: Permissions,
    /// When the checks run on the base commit.
    pub base_checks: BaseChecks,
    /// How often red checks go back to the agent, where the repository does not say.
    pub max_rounds: u32,
    /// Further folders of the host that every sandbox sees, read-only.
    pub mounts: Vec<hob_sandbox::Mount>,
    /// How images are built and kept.
    pub images: ImageRules,
    /// How many sandboxes are kept warm; none as a default.
    pub pool: PoolRules,
    /// Hears of what was recorded, for statistics.
    pub observer: Option<Arc<dyn Observer>>,
    /// The system under every sandbox.
    pub base: hob_sandbox::Base,
}

impl EngineConfig {
    /// The defaults, in a folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            limits: EngineLimits::default(),
            timeouts: Timeouts::default(),
            capacity: Capacity::UNBOUNDED,
            breaker: BreakerRules::default(),
            push: Push::Auto,
            permissions: Permissions::Allow,
            base_checks: BaseChecks::Always,
            max_rounds: MAX_ROUNDS_DEFAULT,
            mounts: Vec::new(),
            images: ImageRules::default(),
            pool: PoolRules::default(),
            observer: None,
            base: hob_sandbox::Base::Host,
        }
    }
}

/// How images are built and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRules {
    /// Images that are built at once.
    pub at_once: usize,
    /// How long one may take.
    pub build_limit: Duration,
    /// How long after a failed build sessions start from what stands in for it, until it is tried again.
    pub retry_after: Duration,
    /// How often it is looked whether a branch with an image has moved on.
    pub rebuild_every: Duration,
    /// An image that no session started from for this long is removed.
    pub keep_for: Duration,
    /// Bytes that all images together may have in their own layers; the longest unused goes first.
    pub bytes_max: u64,
    /// The registries that images are pulled from, such as `docker.io`, with names and passwords where they are needed.
    /// A repository names others in vain: the server would reach out for whoever can push to it.
    pub registries: BTreeMap<String, Option<hob_sandbox::image::Credentials>>,
}

impl Default for ImageRules {
    fn default() -> Self {
        Self {
            at_once: 2,
            build_limit: Duration::from_hours(1),
            retry_after: Duration::from_mins(10),
            rebuild_every: Duration::from_mins(30),
            keep_for: Duration::from_hours(14 * 24),
            bytes_max: 100 << 30,
            registries: BTreeMap::new(),
        }
    }
}

/// How many sandboxes are kept warm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRules {
    /// Warm sandboxes in all; 0 keeps none.
    pub max: u32,
    /// Those of one repository.
    pub per_repository: u32,
    /// Kinds of sandboxes that one person's typing keeps warm.
    pub per_person: u32,
    /// How long after its last sign typing counts.
    pub typing_for: Duration,
    /// How long ago a session may have begun to count as use.
    pub use_window: Duration,
    /// Sessions that begin within this want one each: the pool is not full again sooner.
    pub burst: Duration,
    /// How long none is made of what could not be made.
    pub retry_after: Duration,
    /// Sandboxes that are made at once.
    pub at_once: usize,
    /// Memory of the machine that is left to others, in bytes: with less, the pool is drained.
    pub memory_reserve_bytes: u64,
    /// Where the machine says how much it has left.
    pub meminfo: PathBuf,
}

impl Default for PoolRules {
    fn default() -> Self {
        Self {
            max: 0,
            per_repository: 2,
            per_person: 2,
            typing_for: Duration::from_mins(2),
            use_window: Duration::from_hours(2),
            burst: Duration::from_mins(1),
            retry_after: Duration::from_mins(10),
            at_once: 2,
            memory_reserve_bytes: 0,
            meminfo: PathBuf::from("/proc/meminfo"),
        }
    }
}

impl PoolRules {
    /// Those that may be in the making at once: more than are made at once, since some wait for their image.
    pub(crate) fn making_max(&self) -> u32 {
        u32::try_from(self.at_once.saturating_mul(4)).unwrap_or(u32::MAX)
    }
}

/// Hears of events after they were recorded, but for what an agent says and does: it is most of a log. It must not wait: the session's log does meanwhile.
pub trait Observer: std::fmt::Debug + Send + Sync {
    /// An event is on disk.
    fn recorded(&self, event: &EventKind);
}

/// How much an engine takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineLimits {
    /// The longest prompt, in bytes of UTF-8.
    pub prompt_bytes_max: usize,
    /// Prompts that may wait in one session.
    pub queue_len_max: usize,
    /// The largest picture of a prompt, in bytes.
    pub attachment_bytes_max: usize,
    /// The largest change that is taken out of a sandbox, in bytes of a packed git bundle.
    pub bundle_bytes_max: u64,
    /// The largest diff that is shown, in bytes.
    pub diff_bytes_max: usize,
    /// What is kept of the output of one check or command, in bytes.
    pub output_bytes_max: usize,
    /// The largest file that is read or written through the engine, in bytes.
    pub file_bytes_max: usize,
    /// The end of a turn is followed by a snapshot as long as the sandbox has written no more than this since it was
    /// started, in bytes.
    pub turn_snapshot_bytes_max: u64,
    /// What a sandbox may use.
    pub sandbox: hob_sandbox::Limits,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            prompt_bytes_max: 1 << 20,
            queue_len_max: 64,
            attachment_bytes_max: 8 << 20,
            bundle_bytes_max: 512 << 20,
            diff_bytes_max: 16 << 20,
            output_bytes_max: 8 << 20,
            file_bytes_max: 16 << 20,
            turn_snapshot_bytes_max: 128 << 20,
            sandbox: hob_sandbox::Limits::default(),
        }
    }
}

/// How long an engine waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a clone or a fetch of a repository.
    pub fetch: Duration,
    /// For a place among the sandboxes that may run at once.
    pub place: Duration,
    /// For a sandbox to come up.
    pub sandbox_start: Duration,
    /// For an agent to come up.
    pub agent_start: Duration,
    /// For the next sign of life of an agent in a turn.
    pub agent_idle: Duration,
    /// For an agent to end its turn after it was told to stop; then it is killed.
    pub stop_grace: Duration,
    /// For an answer to a permission request.
    pub permission: Duration,
    /// For an answer to a question.
    pub question: Duration,
    /// For taking a change out of a sandbox and committing it.
    pub commit: Duration,
    /// For a push.
    pub push: Duration,
    /// An idle sandbox is put away after this.
    pub suspend_after: Duration,
    /// From one question to a sandbox whether it is there to the next; after three without an answer it is ended.
    pub heartbeat: Duration,
    /// From one search for what a crash left behind to the next.
    pub sweep: Duration,
    /// How long a turn waits for room on a full disk before it is given up.
    pub disk_full: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            fetch: Duration::from_mins(10),
            place: Duration::from_hours(1),
            sandbox_start: Duration::from_mins(1),
            agent_start: Duration::from_mins(2),
            agent_idle: Duration::from_mins(15),
            stop_grace: Duration::from_secs(1),
            permission: Duration::from_mins(10),
            question: Duration::from_mins(30),
            commit: Duration::from_mins(2),
            push: Duration::from_mins(2),
            suspend_after: Duration::from_mins(10),
            heartbeat: Duration::from_secs(20),
            sweep: Duration::from_mins(10),
            disk_full: Duration::from_mins(1),
        }
    }
}

/// Whether branches are pushed to the repository's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// Where the origin is a URL or a bare repository.
    Auto,
    /// Never; people fetch the branch from the server.
    Never,
}

/// Who answers an agent's permission requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permissions {
    /// They are granted and recorded: the sandbox is the boundary, and nobody may be looking.
    Allow,
    /// A participant answers.
    Ask,
}

/// When the checks run on the base commit, so that what was red before is not blamed on the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseChecks {
    /// Before the checks of the session's first change, so that the evidence shows before and after.
    Always,
    /// Only after a check came back red.
    WhenRed,
}

/// What an engine works with.
#[derive(Clone)]
pub struct Deps {
    /// Makes sandboxes.
    pub provider: Arc<dyn hob_sandbox::Provider>,
    /// Makes agents.
    pub agents: Arc<dyn AgentFactory>,
    /// Opens the gateway to a sandbox.
    pub doors: Arc<dyn Doors>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes names.
    pub ids: Arc<dyn Ids>,
}

/// Opens and closes the gateway for sessions.
#[async_trait]
pub trait Doors: Send + Sync {
    /// Opens a session's door in an epoch; what was opened in an older epoch is closed.
    ///
    /// # Errors
    /// Words for a person that follow "failed to open the gateway: ".
    async fn open(&self, session: &SessionId, epoch: u64) -> Result<Access, String>;

    /// Lets a session reach further hosts. Whether the operator allows that is for the door to decide. Gives words for
    /// the participants, one for each wish that is not granted. A door that takes no wishes leaves all as it is.
    async fn allow(&self, _session: &SessionId, _wishes: &Wishes) -> Vec<String> {
        Vec::new()
    }

    /// Closes a session's door. One that is not open is no error.
    async fn close(&self, session: &SessionId);
}

/// What a session wants to reach beside what every sandbox may.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wishes {
    /// The host of the repository's URL, as `host` or `host:port`; none for a local path.
    pub forge: Option<String>,
    /// What the repository asks for: `host`, `host:port` or `*.host`. Whoever can push to it writes this.
    pub repository: Vec<String>,
}

/// A session's door to the gateway.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// The unix socket on the host that the sandbox's port 3128 is joined to.
    pub socket: PathBuf,
    /// What model calls of this session and epoch show.
    pub token: String,
    /// The gateway's address as programs inside the sandbox see it, such as `http://127.0.0.1:3128`.
    pub inside_url: String,
    /// The gateway's address as the server itself sees it, for the built-in agent.
    pub base_url: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("socket", &self.socket).field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

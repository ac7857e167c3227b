//! An access: one session's door to the outside, for one epoch.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::Shared;
use crate::host::{Host, HostRule, Verdict, judge};
use crate::meter::{Notice, NoticeKind, RefusalReason, RefusedEgress, Tally, Totals};
use crate::registry::{TokenDigest, digest};
use crate::told::Told;

/// What a session may do, as the caller decided it.
#[derive(Clone)]
pub struct AccessSpec {
    /// The session's ID, for measurements.
    pub session: String,
    /// The epoch of the session's owner. A later epoch closes the access of an earlier one.
    pub epoch: u64,
    /// The secret that selects this access. It may enter the sandbox: it is worth nothing elsewhere.
    pub token: String,
    /// Where the sandbox's socket is made; its folder is made too, if need be. None for no sandbox.
    pub unix_socket: Option<PathBuf>,
    /// The model for calls that name one which is not configured.
    pub default_model: String,
    /// What becomes of such calls.
    pub unknown_model: UnknownModel,
    /// Hosts that this session may reach beside the defaults, such as its forge.
    pub allow: Vec<HostRule>,
}

/// What becomes of a call that names a model which is not configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownModel {
    /// It goes to the access's default model: external agents name models of their own choice.
    #[default]
    UseDefault,
    /// It is refused with the list of models.
    Refuse,
}

/// An open access. Dropping it closes its socket and cuts everything that passes through it.
#[derive(Debug)]
pub struct Access {
    door: Arc<Door>,
    shared: Arc<Shared>,
}

/// Why an access could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The session has had this epoch, or a later one.
    #[error("open the gateway for session {session} at epoch {epoch}: it is at epoch {latest} already")]
    StaleEpoch {
        /// The session.
        session: String,
        /// The epoch that was asked for.
        epoch: u64,
        /// The session's latest.
        latest: u64,
    },
    /// The token is shorter than 16 bytes, not plain ASCII, or another session's.
    #[error("open the gateway for session {0}: its token is too short, not plain ASCII, or taken")]
    Token(String),
    /// The gateway was shut down.
    #[error("open the gateway for session {0}: the gateway is shut down")]
    Closed(String),
    /// The socket could not be made.
    #[error("make the gateway's socket {path}: {source}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The inside of an access, shared with its connections.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) session: String,
    pub(crate) epoch: u64,
    pub(crate) token: TokenDigest,
    pub(crate) default_model: String,
    pub(crate) unknown_model: UnknownModel,
    allow: RwLock<Vec<HostRule>>,
    /// Cancelled when the access closes.
    pub(crate) closed: CancellationToken,
    /// Everything that runs for this access.
    pub(crate) tasks: TaskTracker,
    pub(crate) tally: Tally,
    /// One permit for each model call in flight.
    pub(crate) calls: Arc<Semaphore>,
    refusals_told: Told<(String, u16, RefusalReason)>,
    tokens_told: Told<NoticeKind>,
    /// Bytes that passed the egress proxy, in and out together.
    pub(crate) egress_bytes: AtomicU64,
}

impl Access {
    pub(crate) fn new(door: Arc<Door>, shared: Arc<Shared>) -> Self {
        Self { door, shared }
    }

    /// The session's ID.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.door.session
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.door.epoch
    }

    /// What the access has carried so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.door.totals()
    }

    /// Lets the session reach further hosts from now on.
    pub fn allow(&self, rules: impl IntoIterator<Item = HostRule>) {
        let mut allow = self.door.allow.write().unwrap_or_else(PoisonError::into_inner);
        for rule in rules {
            if !allow.contains(&rule) {
                allow.push(rule);
            }
        }
    }

    /// Waits until the access is closed, by its owner's doing, by a later epoch's or by the gateway's shutdown.
    pub async fn closed(&self) {
        self.door.closed.cancelled().await;
    }

    /// Closes the access and waits until nothing passes through it any more. Returns what it has carried.
    pub async fn close(self) -> Totals {
        self.shared.close(&self.door);
        self.door.tasks.wait().await;
        self.door.totals()
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        self.shared.close(&self.door);
    }
}

impl Door {
    pub(crate) fn new(spec: AccessSpec, shared: &Shared) -> Self {
        let mut allow = spec.allow;
        allow.extend_from_slice(&shared.config.egress.allow);
        Self {
            token: digest(&spec.token),
            session: spec.session,
            epoch: spec.epoch,
            default_model: spec.default_model,
            unknown_model: spec.unknown_model,
            allow: RwLock::new(allow),
            closed: shared.closed.child_token(),
            tasks: TaskTracker::new(),
            tally: Tally::default(),
            calls: Arc::new(Semaphore::new(shared.config.limits.model_calls_max)),
            refusals_told: Told::default(),
            tokens_told: Told::default(),
            egress_bytes: AtomicU64::new(0),
        }
    }

    /// What the allow-list says about a host and a port.
    pub(crate) fn judge(&self, host: &Host, port: u16) -> Verdict {
        judge(&self.allow.read().unwrap_or_else(PoisonError::into_inner), host, port)
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals { egress_bytes: self.egress_bytes.load(Ordering::Relaxed), ..self.tally.read() }
    }

    pub(crate) fn notice(&self, shared: &Shared, kind: NoticeKind) {
        tracing::info!(session.id = %self.session, session.epoch = self.epoch, "{kind}");
        shared.meter.notice(Notice { session: self.session.clone(), epoch: self.epoch, kind });
    }

    /// Tells that a token was refused.
    pub(crate) fn token_refused(&self, shared: &Shared, kind: NoticeKind) {
        if self.tokens_told.count(kind.clone()).is_some() {
            self.notice(shared, kind);
        }
    }

    pub(crate) fn refused(&self, shared: &Shared, host: &str, port: u16, reason: RefusalReason) {
        // A host name has at most 253 characters; what is longer is noise.
        let host: String = host.chars().filter(|c| !c.is_control()).take(253).collect();
        self.tally.add_refusal();
        let Some(times) = self.refusals_told.count((host.clone(), port, reason.clone())) else { return };
        tracing::info!(session.id = %self.session, session.epoch = self.epoch, host, port, times, "egress refused: {reason}");
        let (session, epoch) = (self.session.clone(), self.epoch);
        shared.meter.refused(RefusedEgress { session, epoch, host, port, reason, times });
    }
}

impl std::fmt::Debug for AccessSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessSpec")
            .field("session", &self.session)
            .field("epoch", &self.epoch)
            .field("token", &"[redacted]")
            .field("unix_socket", &self.unix_socket)
            .field("default_model", &self.default_model)
            .field("unknown_model", &self.unknown_model)
            .field("allow", &self.allow)
            .finish()
    }
}

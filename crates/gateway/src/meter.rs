//! What the gateway measures, and whom it tells.

use std::fmt;
use std::net::IpAddr;
use std::sync::Mutex;

/// Receives every measurement of the gateway, in the order in which each access makes them.
///
/// The methods are called on the path of the traffic and must not block. An implementation puts what it is given
/// into its own bounded queue, and counts what does not fit; the [`Totals`] of the access stay exact in any case.
pub trait Meter: Send + Sync {
    /// A model call ended: answered, failed or given up by its client. Told exactly once per call.
    fn model_call(&self, call: ModelCall);
    /// The egress proxy refused to let something out.
    fn refused(&self, refused: RefusedEgress);
    /// Something happened that a participant of the session may want to know.
    fn notice(&self, notice: Notice);
}

/// One model call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCall {
    /// The session whose access made it.
    pub session: String,
    /// The epoch of that access.
    pub epoch: u64,
    /// The model that answered, or the last one that was tried.
    pub model: String,
    /// That model's provider.
    pub provider: String,
    /// The provider's HTTP status; 0 when it could not be reached.
    pub status: u16,
    /// How the call ended.
    pub end: CallEnd,
    /// Whether the provider reported its usage. Where it did not, the counts below are 0.
    pub usage_reported: bool,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Of those, tokens read from the provider's cache.
    pub cached_tokens: u64,
    /// Tokens written, thinking included.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar; absent when the model has no price or the provider reported no usage.
    pub cost_micro_usd: Option<u64>,
    /// From the request to the first byte of the answer; equal to `elapsed_ms` when there was none.
    pub first_byte_ms: u64,
    /// From the request to the last byte of the answer.
    pub elapsed_ms: u64,
    /// Requests that it took, retries and fallbacks included.
    pub attempts: u32,
}

/// How a model call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// The provider's answer, whatever its status, was passed on to its last byte.
    Answered,
    /// No answer came, or it broke off.
    Failed,
    /// The client went away, or its access was closed, before the end.
    Aborted,
}

/// Something that the egress proxy refused.
///
/// The same refusal is told at its 1st, 2nd, 4th, 8th time and so on, so that a sandbox cannot flood its session.
/// [`Totals::refused`] counts them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEgress {
    /// The session whose access asked.
    pub session: String,
    /// The epoch of that access.
    pub epoch: u64,
    /// The host as it was asked for, cut to a readable length.
    pub host: String,
    /// The port; 0 when the request named none that can be read.
    pub port: u16,
    /// The rule that refused. Its text says how to allow the host.
    pub reason: RefusalReason,
    /// How often this access was refused this so far.
    pub times: u64,
}

/// Why the egress proxy refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// The request names its target in a way that cannot be read, or with a user name in it.
    Unreadable,
    /// No rule covers the host.
    HostNotAllowed,
    /// A rule covers the host, but not this port.
    PortNotAllowed,
    /// The name leads only to addresses of own networks, and no rule says `private`.
    PrivateAddress(IpAddr),
    /// The name leads only to link-local, metadata, multicast or reserved addresses.
    ForbiddenAddress(IpAddr),
    /// The TLS connection in a tunnel names this host, and not the one that the tunnel was opened to.
    ServerName(String),
    /// The access has carried as many bytes as it may, in and out together.
    ByteLimit(u64),
}

/// A remark for the participants of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The session.
    pub session: String,
    /// The epoch of its access.
    pub epoch: u64,
    /// What happened. Its text is a sentence.
    pub kind: NoticeKind,
}

/// What a notice tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// A call is sent again to the same model after a wait.
    Retry {
        /// The model.
        model: String,
        /// The request that failed, counted from 1.
        attempt: u32,
        /// What failed.
        cause: String,
        /// How long the gateway waits first.
        wait_ms: u64,
    },
    /// A call goes on with another model.
    Fallback {
        /// The model that failed.
        from: String,
        /// The model that is tried next.
        to: String,
        /// What failed.
        cause: String,
    },
    /// A token of another session was presented on this session's socket. Told ever more rarely, as refusals are.
    ForeignToken,
    /// A token of an epoch that has ended was presented. Told ever more rarely, as refusals are.
    StaleToken,
}

/// What an access has carried since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Model calls that ended.
    pub model_calls: u64,
    /// Tokens read by models, cached ones included.
    pub input_tokens: u64,
    /// Of those, tokens read from a cache.
    pub cached_tokens: u64,
    /// Tokens written by models.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar, of the calls whose model has a price.
    pub cost_micro_usd: u64,
    /// Requests that the egress proxy refused.
    pub refused: u64,
    /// Bytes that passed the egress proxy, in and out together.
    pub egress_bytes: u64,
}

/// The running totals of one access.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Totals>);

impl Tally {
    pub(crate) fn read(&self) -> Totals {
        *self.lock()
    }

    pub(crate) fn add_call(&self, call: &ModelCall) {
        let mut totals = self.lock();
        totals.model_calls += 1;
        totals.input_tokens = totals.input_tokens.saturating_add(call.input_tokens);
        totals.cached_tokens = totals.cached_tokens.saturating_add(call.cached_tokens);
        totals.output_tokens = totals.output_tokens.saturating_add(call.output_tokens);
        totals.cost_micro_usd = totals.cost_micro_usd.saturating_add(call.cost_micro_usd.unwrap_or(0));
    }

    pub(crate) fn add_refusal(&self) {
        self.lock().refused += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Totals> {
        // Nothing that panics runs under this lock, and counters stay usable in any case.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("the request does not name its target as host:port without credentials"),
            Self::HostNotAllowed => f.write_str(
                "the host is not on the allow-list; add it to the egress of the repository's .hob/environment.toml, \
                     or to egress.allow of hob.toml",
            ),
            Self::PortNotAllowed => f.write_str(
                "the host is allowed, but not on this port; write it as host:port into the egress of the repository's \
                 .hob/environment.toml, or into egress.allow of hob.toml",
            ),
            Self::PrivateAddress(address) => write!(
                f,
                "the host leads to {address}, an address of a private network; whoever runs the server can add it to egress.private of hob.toml"
            ),
            Self::ForbiddenAddress(address) => {
                write!(f, "the host leads to {address}, an address that no sandbox may reach")
            }
            Self::ServerName(name) => {
                write!(f, "the TLS connection names {name}, not the host that its tunnel was opened to")
            }
            Self::ByteLimit(limit) => write!(f, "this session's access has carried its limit of {limit} bytes"),
        }
    }
}

impl fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry { model, attempt, cause, wait_ms } => {
                write!(f, "request {attempt} to {model} failed ({cause}); trying again in {wait_ms} ms")
            }
            Self::Fallback { from, to, cause } => write!(f, "{from} failed ({cause}); going on with {to}"),
            Self::ForeignToken => f.write_str("a token of another session was presented to the gateway, and refused"),
            Self::StaleToken => f.write_str("a token of an earlier epoch was presented to the gateway, and refused"),
        }
    }
}

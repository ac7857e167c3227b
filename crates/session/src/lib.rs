//! The session engine: the states, the prompt queue, the event log, checks and diagnostics, evidence, and the one task
//! that owns a session, under a lease with an epoch.
//!
//! # Architecture invariant
//!
//! No HTTP, forge or chat. Nobody but the driver changes a session. An event is on disk before anyone sees it. No
//! `now()` and no random IDs: both are arguments.

pub mod admission;
mod agents;
mod artifacts;
pub mod breaker;
pub mod checks;
mod clock;
mod config;
pub mod decide;
mod described;
mod driver;
mod engine;
pub mod environment;
mod error;
pub mod event;
pub mod evidence;
pub mod fold;
mod footing;
pub mod git;
mod heartbeat;
mod id;
mod images;
pub mod keys;
mod limits;
mod log;
mod making;
mod owned;
mod places;
mod pool;
mod requests;
mod services;
mod snapshot;
mod start;
pub mod state;
pub mod store;
mod tail;
mod turn;
mod variables;
mod waiting;
mod workspace;

pub use admission::{Capacity, Place, Promised};
pub use agents::{AgentFactory, AgentStart, Agents, BUILT_IN, ModelFacts};
pub use clock::{Clock, Ids, SystemClock, SystemIds};
pub use config::{
    Access, BaseChecks, Deps, Doors, EngineConfig, EngineLimits, ImageRules, Observer, Permissions, PoolRules, Push,
    Timeouts, Wishes,
};
pub use engine::{Engine, Refusal, Running};
pub use error::EngineError;
pub use event::{Event, EventKind};
pub use id::SessionId;
pub use images::{CheckOutcome, Image, ImageState, Stage, StageName};
pub use pool::PoolCounts;
pub use requests::{
    Artifact, BranchRef, Change, Created, Filter, NewAttachment, NewExec, NewImage, NewPrompt, NewSession, Page,
    PhaseTime, Queued, QueuedPrompt, Record, SandboxUse, ServiceState, Summary, Usage,
};
pub use state::State;
pub use waiting::WaitingSandbox;

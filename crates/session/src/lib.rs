//! The session engine: the states, the prompt queue, the event log, checks and diagnostics, evidence, and the one task
//! that owns a session, under a lease with an epoch.
//!
//! # Architecture invariant
//!
//! No HTTP, forge or chat. Nobody but the driver changes a session. An event is on disk before anyone sees it. No
//! `now()` and no random IDs: both are arguments.

pub mod checks;
pub mod environment;
pub mod event;
pub mod state;

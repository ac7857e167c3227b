//! Sandboxes: isolated environments in which commands run, without a daemon and without an account.
//!
//! # Architecture invariant
//!
//! No word of sessions, agents, git or HTTP. Namespaces are entered by a re-executed, single-threaded child, never by
//! the server. What the guest says is untrusted input: bounded, typed, never a panic here.

mod provider;
mod spec;

pub use provider::{Capabilities, Limit, Provider, SandboxError};
pub use spec::{Base, Limits, Mount, SandboxId, Spec, Token};

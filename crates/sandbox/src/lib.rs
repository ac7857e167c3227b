//! Sandboxes: isolated environments in which commands run, without a daemon and without an account.
//!
//! # Architecture invariant
//!
//! No word of sessions, agents, git or HTTP. Namespaces are entered by a re-executed, single-threaded child, never by
//! the server. What the guest says is untrusted input: bounded, typed, never a panic here.

mod command;
mod provider;
mod sandbox;
mod spec;

pub use command::{
    Command, Entry, Exit, FileKind, Output, ProcessEvent, ProcessId, ProcessInfo, SandboxEvent, Size, Stat, Stats,
};
pub use provider::{Capabilities, Limit, Listed, Provider, SandboxError};
pub use sandbox::{Duplex, Process, Sandbox};
pub use spec::{Base, Limits, Mount, SandboxId, Spec, Token};

//! Sandboxes: isolated environments in which commands run, without a daemon and without an account.
//!
//! # Architecture invariant
//!
//! No word of sessions, agents or git, and of HTTP only what fetches an image or asks a container daemon. Namespaces are
//! entered by the helper and its single-threaded children, never by the server. What the guest says is untrusted input:
//! bounded, typed, never a panic here.

mod cgroup;
mod command;
mod disk;
mod docker;
mod filter;
mod folder;
mod freezer;
mod helper;
mod hex;
mod host;
mod ids;
pub mod image;
mod inside;
mod layer;
mod link;
mod local;
mod probe;
mod process;
mod program;
mod provider;
mod sandbox;
mod socket;
mod spec;
mod toolchains;
mod watched;
mod whole;

pub use command::{
    Command, Entry, Exit, FileKind, Output, ProcessEvent, ProcessId, ProcessInfo, SandboxEvent, Size, Stat, Stats,
};
pub use docker::{Docker, DockerConfig};
pub use layer::LayerId;
pub use local::{Local, LocalConfig};
pub use probe::{Finding, Grade};
pub use process::{Process, Stdin};
pub use provider::{Capabilities, DiskUse, Limit, Listed, LiveSnapshot, Provider, SandboxError, Snapshot};
pub use sandbox::{Duplex, Sandbox};
pub use spec::{Base, Gate, Limits, Mount, SandboxId, Spec, Token};

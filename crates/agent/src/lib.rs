//! One agent interface with two drivers: the **built-in agent** (a native loop that runs in the server) and the
//! **ACP client** (one external agent process in the sandbox, over two pipes), and the catalogue of external agents.
//!
//! # Architecture invariant
//!
//! This crate spawns nothing, opens no file and no socket of its own: it is handed a [`Workspace`], a model endpoint
//! and pipes. What a model or an agent sends is untrusted input: bounded, typed, never a panic here.

mod acp;
mod agent;
mod builtin;
pub mod catalogue;
mod update;
mod workspace;

pub use acp::{AcpAgent, AcpConfig, Deadlines, Input, Output, Resume, Setting};
pub use agent::{Agent, AgentError, Author, Image, Prompt, StopReason, TurnEnd, TurnHost};
pub use builtin::{BuiltIn, BuiltInConfig, ModelEndpoint, ModelFormat, PastCall, PastStep, PastTurn, Reasoning};
pub use update::{
    Answer, Location, PermissionOption, PermissionOptionKind, PermissionOutcome, PermissionRequest, PlanEntry,
    PlanStatus, Question, RawDirection, ToolCall, ToolContent, ToolKind, ToolStatus, Update,
};
pub use workspace::{DirEntry, EntryKind, Purpose, ShellCommand, ShellEvent, ShellProcess, Workspace, WorkspaceError};

//! The workspace as the built-in agent's tools see it. The session implements it over a sandbox.
//!
//! Paths are absolute inside the sandbox, or relative to [`Workspace::root`]; they are resolved inside the sandbox
//! and can never name a file of the host.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// A checkout in a sandbox that may still be getting ready: every call waits for what it needs. It may be read a while
/// before it may be changed, and what was read then may have changed by then.
#[async_trait]
pub trait Workspace: Send + Sync {
    /// The checkout's folder inside the sandbox, such as `/workspace`.
    fn root(&self) -> &str;

    /// Returns as soon as the workspace may be changed. Whoever writes what follows from what was read reads after this.
    async fn writable(&self) -> Result<(), WorkspaceError>;

    /// A file's bytes, at most `max_bytes` from its start.
    async fn read(&self, path: &str, max_bytes: usize) -> Result<Bytes, WorkspaceError>;

    /// Replaces a file's bytes, and makes its folders.
    async fn write(&self, path: &str, bytes: Bytes) -> Result<(), WorkspaceError>;

    /// A folder's entries, sorted by name.
    async fn list(&self, path: &str) -> Result<Vec<DirEntry>, WorkspaceError>;

    /// Starts a command under `bash -c` (or `sh -c` where there is no bash) in its own process tree.
    async fn shell(&self, command: ShellCommand) -> Result<Box<dyn ShellProcess>, WorkspaceError>;

    /// What has happened in the sandbox beside the agent's own work and was not told yet, such as a service that has
    /// failed. It stands above the output of the agent's next command.
    fn news(&self) -> Option<String> {
        None
    }
}

/// A running command. Dropping it kills the command and everything it started.
#[async_trait]
pub trait ShellProcess: Send {
    /// What happens next; `None` after [`ShellEvent::Exited`].
    async fn next(&mut self) -> Option<ShellEvent>;

    /// Kills the command and everything it started, also what left its process group. Returns when all are gone.
    async fn kill(&mut self);
}

/// A command line for the workspace's shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellCommand {
    /// The command line.
    pub line: String,
    /// Its folder; the root when absent.
    pub cwd: Option<String>,
    /// After this time it is killed with all it started.
    pub timeout: Duration,
    /// What it may do to the workspace.
    pub purpose: Purpose,
}

/// What a command may do to the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It changes nothing, so it need not wait until it could.
    Read,
    /// Who knows; it waits until the workspace may be changed.
    Any,
}

/// Something that a running command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellEvent {
    /// It wrote to standard output.
    Stdout(Bytes),
    /// It wrote to standard error.
    Stderr(Bytes),
    /// It ended.
    Exited {
        /// Its exit code, or 128 + the signal that ended it.
        code: i32,
        /// Whether its time limit ended it.
        timed_out: bool,
    },
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name, without the folder. Names that are no UTF-8 are shown with replacement characters.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A plain file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A socket, a pipe or a device.
    Other,
}

/// Why the workspace could not do it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// There is no such file or folder.
    #[error("find {path}")]
    NotFound {
        /// The path as it was asked for.
        path: String,
    },
    /// It is there, but cannot be used so.
    #[error("use {path}: {reason}")]
    Refused {
        /// The path as it was asked for.
        path: String,
        /// What the sandbox's kernel said.
        reason: String,
    },
    /// The sandbox is gone or never came up.
    #[error("reach the sandbox: {reason}")]
    Sandbox {
        /// What happened to it.
        reason: String,
    },
}

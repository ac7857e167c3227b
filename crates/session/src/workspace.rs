//! The workspace that the built-in agent's tools see: a session's sandbox, which may still be getting ready.

use async_trait::async_trait;
use bytes::Bytes;
use hob_agent::{DirEntry, EntryKind, ShellCommand, ShellEvent, ShellProcess, Workspace, WorkspaceError};
use hob_sandbox::{Command, FileKind, ProcessEvent, Sandbox, SandboxError};
use tokio_util::task::TaskTracker;

use crate::leash::Leash;
use crate::waiting::WaitingSandbox;

/// Where the checkout is inside every sandbox.
pub const WORKSPACE: &str = "/workspace";

/// A session's checkout in its sandbox; every call waits until the sandbox is there.
pub(crate) struct SandboxWorkspace {
    sandbox: WaitingSandbox,
    tasks: TaskTracker,
}

impl SandboxWorkspace {
    /// A workspace over a sandbox. Commands that are dropped are killed on `tasks`.
    pub(crate) fn new(sandbox: WaitingSandbox, tasks: TaskTracker) -> Self {
        Self { sandbox, tasks }
    }

    async fn ready(&self) -> Result<Sandbox, WorkspaceError> {
        self.sandbox.ready().await.map_err(|reason| WorkspaceError::Sandbox { reason })
    }
}

#[async_trait]
impl Workspace for SandboxWorkspace {
    fn root(&self) -> &str {
        WORKSPACE
    }

    async fn read(&self, path: &str, max_bytes: usize) -> Result<Bytes, WorkspaceError> {
        let range = 0..u64::try_from(max_bytes).unwrap_or(u64::MAX);
        self.ready().await?.read_file(&absolute(path), range).await.map_err(|error| refused(path, error))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<(), WorkspaceError> {
        self.ready().await?.write_file(&absolute(path), bytes).await.map_err(|error| refused(path, error))
    }

    async fn list(&self, path: &str) -> Result<Vec<DirEntry>, WorkspaceError> {
        let entries = self.ready().await?.list_dir(&absolute(path)).await.map_err(|error| refused(path, error))?;
        Ok(entries.into_iter().map(dir_entry).collect())
    }

    async fn shell(&self, command: ShellCommand) -> Result<Box<dyn ShellProcess>, WorkspaceError> {
        let cwd = absolute(command.cwd.as_deref().unwrap_or_default());
        let line = Command::shell(&command.line).cwd(&cwd).timeout(command.timeout);
        let process = self.ready().await?.exec(line).await.map_err(|error| refused(&cwd, error))?;
        Ok(Box::new(Shell { process: Some(Leash::new(process, self.tasks.clone())) }))
    }
}

/// A path as the sandbox takes it: relative ones begin in the workspace.
pub(crate) fn absolute(path: &str) -> String {
    match path {
        "" | "." => WORKSPACE.to_owned(),
        _ if path.starts_with('/') => path.to_owned(),
        _ => format!("{WORKSPACE}/{path}"),
    }
}

pub(crate) fn dir_entry(entry: hob_sandbox::Entry) -> DirEntry {
    let kind = match entry.stat.kind {
        FileKind::File => EntryKind::File,
        FileKind::Directory => EntryKind::Directory,
        FileKind::Symlink => EntryKind::Symlink,
        FileKind::Other => EntryKind::Other,
    };
    DirEntry { name: entry.name, kind, size_bytes: entry.stat.size_bytes }
}

fn refused(path: &str, error: SandboxError) -> WorkspaceError {
    match error {
        SandboxError::NotFound { .. } => WorkspaceError::NotFound { path: path.to_owned() },
        SandboxError::Refused { reason, .. } => WorkspaceError::Refused { path: path.to_owned(), reason },
        lost => WorkspaceError::Sandbox { reason: lost.to_string() },
    }
}

/// A running command; the process is gone once its end was told.
struct Shell {
    process: Option<Leash>,
}

#[async_trait]
impl ShellProcess for Shell {
    async fn next(&mut self) -> Option<ShellEvent> {
        let exited = match self.process.as_mut()?.next().await {
            Some(ProcessEvent::Stdout(bytes)) => return Some(ShellEvent::Stdout(bytes)),
            Some(ProcessEvent::Stderr(bytes)) => return Some(ShellEvent::Stderr(bytes)),
            Some(ProcessEvent::Exited(exit)) => ShellEvent::Exited { code: exit.code, timed_out: exit.timed_out },
            // Nobody knows how it ended. The next tool call tells the model that the sandbox is gone.
            Some(ProcessEvent::Lost) | None => ShellEvent::Exited { code: 128 + 9, timed_out: false },
        };
        // What the command left in the background is meant to stay, such as a server; it ends with the turn's sandbox
        // or when the turn is stopped.
        if let Some(process) = self.process.take() {
            process.let_go();
        }
        Some(exited)
    }

    async fn kill(&mut self) {
        let Some(process) = self.process.take() else { return };
        if let Err(error) = process.kill().await {
            tracing::debug!("a command could not be killed, so its sandbox is gone: {error}");
        }
        process.let_go();
    }
}

#[cfg(test)]
mod tests {
    use super::absolute;

    #[test]
    fn relative_paths_begin_in_the_workspace() {
        for (given, wanted) in [
            ("", "/workspace"),
            (".", "/workspace"),
            ("src/lib.rs", "/workspace/src/lib.rs"),
            ("./a", "/workspace/./a"),
            ("/tmp/x", "/tmp/x"),
        ] {
            assert_eq!(absolute(given), wanted);
        }
    }
}

//! The workspace as an agent's tools see it, over a sandbox that may still be getting ready.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use hob_agent::{DirEntry, EntryKind, Purpose, ShellCommand, ShellEvent, ShellProcess, Workspace, WorkspaceError};
use hob_sandbox::{Command, FileKind, Process, ProcessEvent, ProcessId, Sandbox, SandboxError};
use tokio_util::task::TaskTracker;

use crate::limits;
use crate::services::Services;
use crate::waiting::WaitingSandbox;

/// The checkout's folder inside every sandbox.
pub(crate) const ROOT: &str = "/workspace";

/// A session's workspace.
pub(crate) struct SandboxWorkspace {
    sandbox: WaitingSandbox,
    /// Commands that tools started and that nobody has killed yet.
    running: Arc<Mutex<HashMap<ProcessId, Sandbox>>>,
    services: Arc<Services>,
    tracker: TaskTracker,
}

impl SandboxWorkspace {
    pub(crate) fn new(sandbox: WaitingSandbox, services: Arc<Services>, tracker: TaskTracker) -> Self {
        Self { sandbox, running: Arc::default(), services, tracker }
    }

    /// Forgets what tools of earlier turns did.
    pub(crate) fn begin_turn(&self) {
        self.sandbox.reset();
    }

    /// Whether a tool has asked for the sandbox in this turn, and so may have changed files.
    pub(crate) fn was_used(&self) -> bool {
        self.sandbox.was_taken()
    }

    /// Whether a command of a tool still runs.
    pub(crate) fn is_busy(&self) -> bool {
        !self.running.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Kills every command that tools started, with all that they started.
    pub(crate) async fn kill_running(&self) {
        let running: Vec<_> = self.running.lock().unwrap_or_else(PoisonError::into_inner).drain().collect();
        let kills = running.into_iter().map(|(id, sandbox)| async move { kill(&sandbox, id).await });
        futures_util::future::join_all(kills).await;
    }

    async fn ready(&self) -> Result<Sandbox, WorkspaceError> {
        self.sandbox.ready().await.map_err(|reason| WorkspaceError::Sandbox { reason })
    }

    async fn readable(&self) -> Result<Sandbox, WorkspaceError> {
        self.sandbox.readable().await.map_err(|reason| WorkspaceError::Sandbox { reason })
    }
}

/// Kills a process by its name; one that is gone with all it left is no error.
async fn kill(sandbox: &Sandbox, id: ProcessId) {
    let killed = match sandbox.reattach(id, (u64::MAX, u64::MAX)).await {
        Ok(process) => process.kill().await,
        Err(SandboxError::NotFound { .. }) => return,
        Err(error) => Err(error),
    };
    if let Err(error) = killed {
        tracing::warn!(process.id = id.0, "a command may still run: failed to {error}");
    }
}

#[async_trait]
impl Workspace for SandboxWorkspace {
    fn root(&self) -> &str {
        ROOT
    }

    async fn writable(&self) -> Result<(), WorkspaceError> {
        self.ready().await.map(drop)
    }

    async fn read(&self, path: &str, max_bytes: usize) -> Result<Bytes, WorkspaceError> {
        let range = 0..u64::try_from(max_bytes).unwrap_or(u64::MAX);
        self.readable().await?.read_file(&absolute(path), range).await.map_err(|error| fault(path, error))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<(), WorkspaceError> {
        self.ready().await?.write_file(&absolute(path), bytes).await.map_err(|error| fault(path, error))
    }

    async fn list(&self, path: &str) -> Result<Vec<DirEntry>, WorkspaceError> {
        list(&self.readable().await?, path).await.map_err(|error| fault(path, error))
    }

    async fn shell(&self, command: ShellCommand) -> Result<Box<dyn ShellProcess>, WorkspaceError> {
        let sandbox = match command.purpose {
            Purpose::Read => self.readable().await?,
            Purpose::Any => self.ready().await?,
        };
        let mut line = Command::shell(command.line).timeout(command.timeout);
        line.cwd = Some(command.cwd.as_deref().map_or_else(|| ROOT.to_owned(), absolute));
        let kills_before = sandbox.usage().oom_kills.unwrap_or_default();
        let process = sandbox.exec(line).await.map_err(|error| fault(command.cwd.as_deref().unwrap_or("."), error))?;
        let id = process.id();
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sandbox.clone());
        let (running, tracker) = (Arc::clone(&self.running), self.tracker.clone());
        Ok(Box::new(Shell { process, sandbox, running, tracker, killed: false, kills_before, next: None }))
    }

    fn news(&self) -> Option<String> {
        self.services.news()
    }
}

/// A folder's entries as an agent and a person see them.
pub(crate) async fn list(sandbox: &Sandbox, path: &str) -> Result<Vec<DirEntry>, SandboxError> {
    let entries = sandbox.list_dir(&absolute(path)).await?;
    let entry = |entry: hob_sandbox::Entry| DirEntry {
        name: entry.name,
        size_bytes: entry.stat.size_bytes,
        kind: match entry.stat.kind {
            FileKind::File => EntryKind::File,
            FileKind::Directory => EntryKind::Directory,
            FileKind::Symlink => EntryKind::Symlink,
            FileKind::Other => EntryKind::Other,
        },
    };
    Ok(entries.into_iter().map(entry).collect())
}

/// A path in the sandbox: relative ones count from the checkout.
pub(crate) fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{ROOT}/{}", path.trim_start_matches("./")) }
}

fn fault(path: &str, error: SandboxError) -> WorkspaceError {
    match error {
        SandboxError::NotFound { .. } => WorkspaceError::NotFound { path: path.to_owned() },
        SandboxError::Refused { reason, .. } => WorkspaceError::Refused { path: path.to_owned(), reason },
        other => WorkspaceError::Sandbox { reason: other.to_string() },
    }
}

/// A command of a tool. Dropping it kills it, as [`ShellProcess`] promises.
struct Shell {
    process: Process,
    sandbox: Sandbox,
    running: Arc<Mutex<HashMap<ProcessId, Sandbox>>>,
    tracker: TaskTracker,
    killed: bool,
    /// How often the kernel had ended a process for memory before this command.
    kills_before: u64,
    /// What is told next.
    next: Option<ShellEvent>,
}

impl Shell {
    /// The end of a command; a note comes before it where memory was full meanwhile.
    fn end(&mut self, end: ShellEvent) -> ShellEvent {
        let kills = self.sandbox.usage().oom_kills.unwrap_or_default().saturating_sub(self.kills_before);
        if kills == 0 {
            return end;
        }
        self.next = Some(end);
        let note = limits::note_to_agent(kills, self.sandbox.limits().memory_bytes);
        ShellEvent::Stderr(note.into())
    }
}

#[async_trait]
impl ShellProcess for Shell {
    async fn next(&mut self) -> Option<ShellEvent> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        Some(match self.process.next().await? {
            ProcessEvent::Stdout(bytes) => ShellEvent::Stdout(bytes),
            ProcessEvent::Stderr(bytes) => ShellEvent::Stderr(bytes),
            ProcessEvent::Exited(exit) => self.end(ShellEvent::Exited { code: exit.code, timed_out: exit.timed_out }),
            // As of a program that SIGKILL ended.
            ProcessEvent::Lost => ShellEvent::Exited { code: 137, timed_out: false },
        })
    }

    async fn kill(&mut self) {
        self.killed = true;
        if let Err(error) = self.process.kill().await {
            tracing::debug!("a command was not killed, its sandbox is gone: failed to {error}");
        }
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.process.id());
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let id = self.process.id();
        let was_running = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id).is_some();
        if was_running && !self.killed {
            let sandbox = self.sandbox.clone();
            self.tracker.spawn(async move { kill(&sandbox, id).await });
        }
    }
}

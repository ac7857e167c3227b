//! A workspace in a temporary folder, with real files and real bash processes.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use async_trait::async_trait;
use bytes::Bytes;
use hob_agent::{DirEntry, EntryKind, Purpose, ShellCommand, ShellEvent, ShellProcess, Workspace, WorkspaceError};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub(crate) struct LocalWorkspace {
    folder: tempfile::TempDir,
    root: String,
    ready: watch::Sender<bool>,
    open: watch::Sender<bool>,
    tasks: TaskTracker,
}

impl LocalWorkspace {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().to_str().expect("UTF-8").to_owned();
        let ready = watch::Sender::new(true);
        let open = watch::Sender::new(true);
        Self { folder, root, ready, open, tasks: TaskTracker::new() }
    }

    /// From now on, what changes something waits until [`LocalWorkspace::open`].
    pub(crate) fn close(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// From now on, calls wait until [`LocalWorkspace::become_ready`].
    pub(crate) fn not_ready(&self) {
        self.ready.send_replace(false);
    }

    pub(crate) fn become_ready(&self) {
        self.ready.send_replace(true);
    }

    pub(crate) fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("has a folder")).expect("makes the folder");
        std::fs::write(path, text).expect("writes");
    }

    pub(crate) fn get(&self, path: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(path)).expect("reads")
    }

    async fn wait(&self) {
        let mut ready = self.ready.subscribe();
        ready.wait_for(|ready| *ready).await.expect("the workspace lives");
    }

    fn resolve(&self, path: &str) -> PathBuf {
        self.folder.path().join(Path::new(path))
    }
}

fn refused(path: &str, error: &std::io::Error) -> WorkspaceError {
    match error.kind() {
        std::io::ErrorKind::NotFound => WorkspaceError::NotFound { path: path.to_owned() },
        _ => WorkspaceError::Refused { path: path.to_owned(), reason: error.to_string() },
    }
}

#[async_trait]
impl Workspace for LocalWorkspace {
    fn root(&self) -> &str {
        &self.root
    }

    async fn writable(&self) -> Result<(), WorkspaceError> {
        self.wait().await;
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.expect("the workspace lives");
        Ok(())
    }

    async fn read(&self, path: &str, max_bytes: usize) -> Result<Bytes, WorkspaceError> {
        self.wait().await;
        let file = tokio::fs::File::open(self.resolve(path)).await.map_err(|error| refused(path, &error))?;
        let mut bytes = Vec::new();
        file.take(max_bytes as u64).read_to_end(&mut bytes).await.map_err(|error| refused(path, &error))?;
        Ok(bytes.into())
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<(), WorkspaceError> {
        self.writable().await?;
        let file = self.resolve(path);
        let folder = file.parent().expect("has a folder");
        tokio::fs::create_dir_all(folder).await.map_err(|error| refused(path, &error))?;
        tokio::fs::write(file, bytes).await.map_err(|error| refused(path, &error))
    }

    async fn list(&self, path: &str) -> Result<Vec<DirEntry>, WorkspaceError> {
        self.wait().await;
        let mut entries: Vec<DirEntry> = std::fs::read_dir(self.resolve(path))
            .map_err(|error| refused(path, &error))?
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let meta = entry.metadata().ok()?;
                let kind = if meta.is_dir() { EntryKind::Directory } else { EntryKind::File };
                Some(DirEntry { name: entry.file_name().to_string_lossy().into_owned(), kind, size_bytes: meta.len() })
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    async fn shell(&self, command: ShellCommand) -> Result<Box<dyn ShellProcess>, WorkspaceError> {
        match command.purpose {
            Purpose::Read => self.wait().await,
            Purpose::Any => self.writable().await?,
        }
        let cwd = command.cwd.as_deref().map_or_else(|| self.folder.path().to_owned(), |cwd| self.resolve(cwd));
        let mut child = Command::new("bash")
            .args(["-c", &command.line])
            .current_dir(cwd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| WorkspaceError::Sandbox { reason: error.to_string() })?;
        let (events, incoming) = mpsc::channel(16);
        let (stdout, stderr) = (child.stdout.take().expect("is piped"), child.stderr.take().expect("is piped"));
        self.tasks.spawn(pump(stdout, events.clone(), ShellEvent::Stdout));
        self.tasks.spawn(pump(stderr, events, ShellEvent::Stderr));
        let group = child.id().expect("runs");
        Ok(Box::new(LocalProcess { child, group, incoming, deadline: Instant::now() + command.timeout, over: false }))
    }
}

async fn pump(
    mut from: impl tokio::io::AsyncRead + Unpin,
    to: mpsc::Sender<ShellEvent>,
    wrap: fn(Bytes) -> ShellEvent,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.send(wrap(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
            return;
        }
    }
}

struct LocalProcess {
    child: Child,
    group: u32,
    incoming: mpsc::Receiver<ShellEvent>,
    deadline: Instant,
    over: bool,
}

#[async_trait]
impl ShellProcess for LocalProcess {
    async fn next(&mut self) -> Option<ShellEvent> {
        if self.over {
            return None;
        }
        let event = tokio::time::timeout_at(self.deadline, self.incoming.recv()).await;
        match event {
            Ok(Some(event)) => return Some(event),
            Ok(None) => {}
            Err(_) => {
                self.kill().await;
                return Some(ShellEvent::Exited { code: 137, timed_out: true });
            }
        }
        self.over = true;
        let status = self.child.wait().await.expect("can be waited for");
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        Some(ShellEvent::Exited { code, timed_out: false })
    }

    async fn kill(&mut self) {
        self.over = true;
        kill_group(self.group);
        self.child.wait().await.expect("can be waited for");
        // The pipes end when the last process that holds them is gone.
        while self.incoming.recv().await.is_some() {}
    }
}

impl Drop for LocalProcess {
    fn drop(&mut self) {
        if !self.over {
            kill_group(self.group);
        }
    }
}

fn kill_group(group: u32) {
    // Fails where the group is gone already.
    let killed = std::process::Command::new("bash").args(["-c", &format!("kill -9 -{group} 2>/dev/null")]).status();
    killed.expect("bash runs");
}

/// Whether the process still runs: one that is dead and not yet reaped does not.
pub(crate) fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    let state = stat.ok().and_then(|stat| stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()));
    !matches!(state, None | Some('Z' | 'X'))
}

/// Whether the process is gone, give or take the moment that the kernel takes to bury it.
pub(crate) fn is_gone(pid: &str) -> bool {
    let begun = std::time::Instant::now();
    while is_running(pid) && begun.elapsed() < std::time::Duration::from_millis(200) {
        std::thread::yield_now();
    }
    !is_running(pid)
}

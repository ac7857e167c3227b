//! A running sandbox in its owner's hand: commands, terminals, files and ports, over the connection of its guest.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hob_guest::frame::BLOB_MAX;
use hob_guest::protocol::{self, FromGuest, Kind, ToGuest, WRITE_MAX};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, watch};

use crate::cgroup;
use crate::command::{Command, Entry, Exit, FileKind, ProcessId, ProcessInfo, SandboxEvent, Stat, Stats};
use crate::disk::Written;
use crate::link::{Answer, Link};
use crate::process::{Feed, Process};
use crate::provider::SandboxError;
use crate::spec::{Gate, Limits, SandboxId, WORKSPACE};

/// How long a guest may take for an answer that needs no more than its own loop.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long it may take to write or remove many bytes.
const FILES_LIMIT: Duration = Duration::from_secs(120);

/// A running sandbox. Cheap to clone; dropping every clone leaves it running.
#[derive(Debug, Clone)]
pub struct Sandbox {
    parts: Arc<Parts>,
}

/// What a handle is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) link: Arc<Link>,
    /// Its control groups.
    pub(crate) groups: Vec<PathBuf>,
    /// What it has written.
    pub(crate) written: Arc<dyn Written>,
    /// What of its files could not be used at its start.
    pub(crate) lost: Option<String>,
    pub(crate) limits: Limits,
    pub(crate) gate: watch::Sender<Gate>,
    pub(crate) events: broadcast::Sender<SandboxEvent>,
}

impl Sandbox {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.parts.link
    }

    pub(crate) fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    /// Its name.
    pub fn id(&self) -> &SandboxId {
        &self.parts.link.id
    }

    /// What of its files could not be used when it was last made, in words for a person: a snapshot was torn, and an
    /// earlier one stands in for it.
    pub fn lost(&self) -> Option<&str> {
        self.parts.lost.as_deref()
    }

    /// Starts a command.
    ///
    /// # Errors
    /// The program is not there or cannot be run, or the sandbox is lost.
    pub async fn exec(&self, command: Command) -> Result<Process, SandboxError> {
        let what = command.argv.first().cloned().unwrap_or_default();
        let Command { argv, cwd, env, stdin, timeout, pty } = command;
        let command = protocol::Exec {
            argv,
            cwd: cwd.unwrap_or_else(|| WORKSPACE.to_owned()),
            env,
            stdin,
            timeout_ms: timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            pty: pty.map(|size| (size.columns, size.rows)),
        };
        match self.ask(&what, ANSWER_LIMIT, |request| ToGuest::Exec { request, command }).await? {
            (FromGuest::Started { exec, .. }, _) => {
                Ok(Process::new(ProcessId(exec), self.clone(), self.link().feed(exec)))
            }
            _ => Err(self.nonsense()),
        }
    }

    /// The processes that were started by [`Sandbox::exec`] and still run, or have left something running.
    ///
    /// # Errors
    /// The sandbox is lost.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>, SandboxError> {
        let info = |process: protocol::Process| ProcessInfo {
            id: ProcessId(process.exec),
            argv: process.argv,
            exit: process.exit.map(|exit| Exit { code: exit.code, timed_out: exit.timed_out }),
            written: process.written,
        };
        match self.ask("processes", ANSWER_LIMIT, |request| ToGuest::List { request }).await? {
            (FromGuest::Processes { processes, .. }, _) => Ok(processes.into_iter().map(info).collect()),
            _ => Err(self.nonsense()),
        }
    }

    /// Takes over a process, also one that an owner before a restart has started. What it writes is told again from
    /// these offsets (standard output, standard error) on, as far as the guest still has it: at least the last 256 KiB
    /// that nobody has read.
    ///
    /// # Errors
    /// There is no such process, or the sandbox is lost.
    pub async fn reattach(&self, id: ProcessId, from: (u64, u64)) -> Result<Process, SandboxError> {
        let feed = Arc::new(Feed::from(from));
        self.link().follow(id.0, Arc::clone(&feed));
        let attach = |request| ToGuest::Attach { request, exec: id.0, from };
        match self.ask(&format!("process {}", id.0), ANSWER_LIMIT, attach).await {
            Ok(_) => Ok(Process::new(id, self.clone(), feed)),
            Err(error) => {
                self.link().unfollow(id.0);
                Err(error)
            }
        }
    }

    /// Kills every command and everything that commands started; the sandbox stays up.
    ///
    /// # Errors
    /// The sandbox is lost.
    pub async fn kill_all(&self) -> Result<(), SandboxError> {
        self.kill(None).await
    }

    pub(crate) async fn kill(&self, id: Option<ProcessId>) -> Result<(), SandboxError> {
        let exec = id.map(|id| id.0);
        self.ask("process", ANSWER_LIMIT, |request| ToGuest::Kill { request, exec }).await.map(drop)
    }

    /// Bytes of a file; at most the range's length, and fewer at the file's end. Symbolic links are followed inside.
    ///
    /// # Errors
    /// There is no such plain file, or the sandbox is lost.
    pub async fn read_file(&self, path: &str, range: Range<u64>) -> Result<Bytes, SandboxError> {
        let mut bytes = BytesMut::new();
        let mut offset = range.start;
        while offset < range.end {
            let length = (range.end - offset).min(BLOB_MAX as u64);
            let read = |request| ToGuest::Read { request, path: path.to_owned(), offset, length };
            let (_, blob) = self.ask(path, ANSWER_LIMIT, read).await?;
            // A guest that sends more than was asked for is cut.
            let blob = blob.get(..blob.len().min(length as usize)).unwrap_or_default();
            bytes.extend_from_slice(blob);
            offset += blob.len() as u64;
            if (blob.len() as u64) < length {
                break;
            }
        }
        Ok(bytes.freeze())
    }

    /// Replaces a file in one step (its mode and owner are kept), and makes its folders; at most 256 MiB.
    ///
    /// # Errors
    /// The sandbox's kernel refused, or the sandbox is lost.
    pub async fn write_file(&self, path: &str, bytes: Bytes) -> Result<(), SandboxError> {
        if bytes.len() as u64 > WRITE_MAX {
            let reason = format!("a file may have at most {WRITE_MAX} bytes");
            return Err(SandboxError::Refused { what: path.to_owned(), reason });
        }
        let parts = |request| {
            let count = bytes.len().div_ceil(BLOB_MAX).max(1);
            let part = |at: usize| {
                let (start, end) = (at * BLOB_MAX, ((at + 1) * BLOB_MAX).min(bytes.len()));
                (ToGuest::Write { request, path: path.to_owned(), last: at + 1 == count }, bytes.slice(start..end))
            };
            (0..count).map(part).collect()
        };
        let answer = self.link().ask(parts, FILES_LIMIT).await?;
        self.understand(path, answer).map(drop)
    }

    /// A folder's entries, sorted by name; at most 100,000.
    ///
    /// # Errors
    /// There is no such folder, or the sandbox is lost.
    pub async fn list_dir(&self, path: &str) -> Result<Vec<Entry>, SandboxError> {
        let messages = |request| vec![(ToGuest::ReadDir { request, path: path.to_owned() }, Bytes::new())];
        match self.link().ask(messages, ANSWER_LIMIT).await? {
            Answer::Entries(entries) => {
                Ok(entries.into_iter().map(|entry| Entry { name: entry.name, stat: entry.stat.into() }).collect())
            }
            other => self.understand(path, other).and_then(|_| Err(self.nonsense())),
        }
    }

    /// What is at a path; `None` where nothing is.
    ///
    /// # Errors
    /// The sandbox's kernel refused, or the sandbox is lost.
    pub async fn stat(&self, path: &str) -> Result<Option<Stat>, SandboxError> {
        match self.ask(path, ANSWER_LIMIT, |request| ToGuest::Stat { request, path: path.to_owned() }).await {
            Ok((FromGuest::Stat { stat, .. }, _)) => Ok(Some(stat.into())),
            Ok(_) => Err(self.nonsense()),
            Err(SandboxError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a file, or a folder with all that is in it; `false` where nothing was.
    ///
    /// # Errors
    /// The sandbox's kernel refused, or the sandbox is lost.
    pub async fn remove(&self, path: &str) -> Result<bool, SandboxError> {
        match self.ask(path, FILES_LIMIT, |request| ToGuest::Remove { request, path: path.to_owned() }).await {
            Ok(_) => Ok(true),
            Err(SandboxError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Connects to a TCP port of the sandbox's loopback.
    ///
    /// # Errors
    /// Nothing listens there, or the sandbox is lost.
    pub async fn dial(&self, port: u16) -> Result<Box<dyn Duplex>, SandboxError> {
        let what = format!("port {port}");
        let messages = |request| vec![(ToGuest::Dial { request, port }, Bytes::new())];
        match self.link().ask(messages, ANSWER_LIMIT).await? {
            Answer::Connection(stream) => Ok(Box::new(stream)),
            other => self.understand(&what, other).and_then(|_| Err(self.nonsense())),
        }
    }

    /// What it uses now.
    ///
    /// # Errors
    /// The host could not measure its layers.
    pub async fn stats(&self) -> Result<Stats, SandboxError> {
        Ok(Stats { disk_bytes: self.parts.written.bytes().await.ok(), ..self.usage() })
    }

    /// What it uses now, as far as the kernel counts it: all but the disk, which would have to be walked.
    pub fn usage(&self) -> Stats {
        cgroup::stats(&self.parts.groups)
    }

    /// What it may use.
    pub fn limits(&self) -> Limits {
        self.parts.limits
    }

    /// Whether its processes can write to `/workspace` now.
    pub fn gate(&self) -> Gate {
        *self.parts.gate.borrow()
    }

    /// What its owner should hear of from now on. A reader that lags loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<SandboxEvent> {
        self.parts.events.subscribe()
    }

    /// Waits until the sandbox is lost, and says why. A guest that only reconnects is no loss.
    pub async fn closed(&self) -> String {
        self.link().closed().await
    }

    async fn ask(
        &self,
        what: &str,
        limit: Duration,
        message: impl FnOnce(u64) -> ToGuest,
    ) -> Result<(FromGuest, Vec<u8>), SandboxError> {
        let answer = self.link().ask(|request| vec![(message(request), Bytes::new())], limit).await?;
        self.understand(what, answer)
    }

    fn understand(&self, what: &str, answer: Answer) -> Result<(FromGuest, Vec<u8>), SandboxError> {
        match answer {
            Answer::Message(FromGuest::Failed { not_found: true, reason, .. }, _) => {
                tracing::debug!(sandbox.id = %self.id(), "not found: {reason}");
                Err(SandboxError::NotFound { what: what.to_owned() })
            }
            Answer::Message(FromGuest::Failed { reason, .. }, _) => {
                Err(SandboxError::Refused { what: what.to_owned(), reason })
            }
            Answer::Message(message, blob) => Ok((message, blob)),
            Answer::Entries(_) | Answer::Connection(_) => Err(self.nonsense()),
        }
    }

    fn nonsense(&self) -> SandboxError {
        SandboxError::Lost { id: self.id().clone(), reason: "its guest gave an answer to another question".to_owned() }
    }
}

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl From<protocol::Stat> for Stat {
    fn from(stat: protocol::Stat) -> Self {
        let kind = match stat.kind {
            Kind::File => FileKind::File,
            Kind::Directory => FileKind::Directory,
            Kind::Symlink => FileKind::Symlink,
            Kind::Other => FileKind::Other,
        };
        Self { kind, size_bytes: stat.size, mode: stat.mode, modified_ms: stat.modified_ms }
    }
}

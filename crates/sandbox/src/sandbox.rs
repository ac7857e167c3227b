//! A running sandbox in its owner's hand: commands, terminals, files and ports, over the connection of its guest.

use std::ops::Range;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;

use crate::command::{Command, Entry, Output, ProcessEvent, ProcessId, ProcessInfo, SandboxEvent, Size, Stat, Stats};
use crate::provider::SandboxError;
use crate::spec::SandboxId;

/// A running sandbox. Cheap to clone; dropping every clone leaves it running.
#[derive(Debug, Clone)]
pub struct Sandbox {
    id: SandboxId,
}

impl Sandbox {
    /// Its name.
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    fn absent<T>(&self) -> Result<T, SandboxError> {
        Err(SandboxError::Lost { id: self.id.clone(), reason: "no provider is linked yet".to_owned() })
    }

    /// Starts a command.
    ///
    /// # Errors
    /// The program is not there or cannot be run, or the sandbox is lost.
    pub async fn exec(&self, _command: Command) -> Result<Process, SandboxError> {
        self.absent()
    }

    /// The processes that were started by [`Sandbox::exec`] and still run, or have left something running.
    ///
    /// # Errors
    /// The sandbox is lost.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>, SandboxError> {
        self.absent()
    }

    /// Takes over a process, also one that an owner before a restart has started. What it writes is told again from
    /// these offsets (standard output, standard error) on, as far as the guest still has it.
    ///
    /// # Errors
    /// There is no such process, or the sandbox is lost.
    pub async fn reattach(&self, _id: ProcessId, _from: (u64, u64)) -> Result<Process, SandboxError> {
        self.absent()
    }

    /// Kills every command and everything that commands started; the sandbox stays up.
    ///
    /// # Errors
    /// The sandbox is lost.
    pub async fn kill_all(&self) -> Result<(), SandboxError> {
        self.absent()
    }

    /// Bytes of a file; at most the range's length, and fewer at the file's end. Symbolic links are followed inside.
    ///
    /// # Errors
    /// There is no such plain file, or the sandbox is lost.
    pub async fn read_file(&self, _path: &str, _range: Range<u64>) -> Result<Bytes, SandboxError> {
        self.absent()
    }

    /// Replaces a file in one step (its mode is kept), and makes its folders.
    ///
    /// # Errors
    /// The sandbox's kernel refused, or the sandbox is lost.
    pub async fn write_file(&self, _path: &str, _bytes: Bytes) -> Result<(), SandboxError> {
        self.absent()
    }

    /// A folder's entries, sorted by name; at most 100,000.
    ///
    /// # Errors
    /// There is no such folder, or the sandbox is lost.
    pub async fn list_dir(&self, _path: &str) -> Result<Vec<Entry>, SandboxError> {
        self.absent()
    }

    /// What is at a path; `None` where nothing is.
    ///
    /// # Errors
    /// The sandbox's kernel refused, or the sandbox is lost.
    pub async fn stat(&self, _path: &str) -> Result<Option<Stat>, SandboxError> {
        self.absent()
    }

    /// Removes a file, or a folder with all that is in it; `false` where nothing was.
    ///
    /// # Errors
    /// The sandbox's kernel refused, or the sandbox is lost.
    pub async fn remove(&self, _path: &str) -> Result<bool, SandboxError> {
        self.absent()
    }

    /// Connects to a TCP port of the sandbox's loopback.
    ///
    /// # Errors
    /// Nothing listens there, or the sandbox is lost.
    pub async fn dial(&self, _port: u16) -> Result<Box<dyn Duplex>, SandboxError> {
        self.absent()
    }

    /// What it uses now.
    ///
    /// # Errors
    /// The sandbox is lost.
    pub async fn stats(&self) -> Result<Stats, SandboxError> {
        self.absent()
    }

    /// What its owner should hear of from now on. A reader that lags loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<SandboxEvent> {
        broadcast::channel(1).1
    }

    /// Waits until the sandbox is lost, and says why. A guest that only reconnects is no loss.
    pub async fn closed(&self) -> String {
        std::future::pending().await
    }
}

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A command that runs in a sandbox. Dropping it leaves the command running and lets go of its output.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    sandbox: Sandbox,
}

impl Process {
    /// Its name, for [`Sandbox::reattach`].
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// What happens next; `None` after [`ProcessEvent::Exited`] or [`ProcessEvent::Lost`]. What is not read holds the
    /// process back.
    pub async fn next(&mut self) -> Option<ProcessEvent> {
        None
    }

    /// Writes to its standard input; waits while it does not read.
    ///
    /// # Errors
    /// Its standard input is closed, or the sandbox is lost.
    pub async fn write_stdin(&mut self, _bytes: &[u8]) -> Result<(), SandboxError> {
        self.sandbox.absent()
    }

    /// Closes its standard input.
    ///
    /// # Errors
    /// The sandbox is lost.
    pub async fn close_stdin(&mut self) -> Result<(), SandboxError> {
        self.sandbox.absent()
    }

    /// Changes its terminal's size.
    ///
    /// # Errors
    /// It has no terminal, or the sandbox is lost.
    pub async fn resize(&self, _size: Size) -> Result<(), SandboxError> {
        self.sandbox.absent()
    }

    /// Kills it and everything that it started, also what left its process group or session, and returns when all are
    /// gone.
    ///
    /// # Errors
    /// The sandbox is lost.
    pub async fn kill(&self) -> Result<(), SandboxError> {
        self.sandbox.absent()
    }

    /// Waits for its end, keeps at most `limit` bytes of each stream, and reads on beyond that.
    pub async fn wait_output(&mut self, _limit: usize) -> Output {
        Output { stdout: Bytes::new(), stderr: Bytes::new(), truncated: false, exit: None }
    }
}

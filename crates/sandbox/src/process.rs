//! A command that runs in a sandbox, in its owner's hand.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use hob_guest::protocol::{ToGuest, WINDOW};
use tokio::sync::Notify;

use crate::command::{Exit, Output, ProcessEvent, ProcessId, Size};
use crate::provider::SandboxError;
use crate::sandbox::Sandbox;

/// Pieces of output that wait; beyond this they are joined to earlier ones of the same stream.
const PIECES_MAX: usize = 256;

/// Bytes of standard input in one message.
const INPUT_CHUNK: usize = 64 << 10;

/// A command that runs in a sandbox. Dropping it leaves the command running and lets go of its output.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    sandbox: Sandbox,
    feed: std::sync::Arc<Feed>,
    over: bool,
}

/// What the guest has told of a process and its owner has not read yet.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<(u8, BytesMut)>,
    received: [u64; 2],
    read: [u64; 2],
    written: u64,
    taken: u64,
    input_closed: bool,
    exit: Option<Exit>,
    lost: bool,
}

impl Feed {
    /// A feed that goes on at these offsets.
    pub(crate) fn from(offsets: (u64, u64)) -> Self {
        let offsets = [offsets.0, offsets.1];
        let state = State { received: offsets, read: offsets, ..State::default() };
        Self { state: state.into(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes output; false when the guest sends more than it may.
    pub(crate) fn output(&self, stream: u8, offset: u64, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        let at = usize::from(stream);
        let (Some(received), Some(read)) = (state.received.get(at).copied(), state.read.get(at).copied()) else {
            return false;
        };
        let Some(end) = offset.checked_add(bytes.len() as u64) else { return false };
        // Twice the window: the guest may have filled it before it heard of the last acknowledgement.
        if end.saturating_sub(read.max(offset.min(received))) > 2 * WINDOW {
            return false;
        }
        // After a reconnect the guest may repeat what was received already.
        let known = received.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let fresh = bytes.get(known..).unwrap_or_default();
        if let Some(received) = state.received.get_mut(at) {
            *received = end.max(received.to_owned());
        }
        let full = state.pieces.len() >= PIECES_MAX;
        let mut backwards = state.pieces.iter_mut().rev();
        let same = if full {
            backwards.find(|(of, _)| *of == stream)
        } else {
            backwards.next().filter(|(of, _)| *of == stream)
        };
        match same {
            Some((_, piece)) => piece.extend_from_slice(fresh),
            None => state.pieces.push_back((stream, BytesMut::from(fresh))),
        }
        drop(state);
        self.changed.notify_waiters();
        true
    }

    pub(crate) fn input_taken(&self, offset: u64) {
        let mut state = self.lock();
        state.taken = state.taken.max(offset.min(state.written));
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn input_closed(&self) {
        self.lock().input_closed = true;
        self.changed.notify_waiters();
    }

    pub(crate) fn exited(&self, exit: Exit) {
        self.lock().exit.get_or_insert(exit);
        self.changed.notify_waiters();
    }

    pub(crate) fn lost(&self) {
        self.lock().lost = true;
        self.changed.notify_waiters();
    }

    /// Offsets up to which output has arrived.
    pub(crate) fn received(&self) -> (u64, u64) {
        let [stdout, stderr] = self.lock().received;
        (stdout, stderr)
    }

    /// The next event, and the stream and offset to acknowledge.
    fn take(&self) -> Option<(ProcessEvent, Option<(u8, u64)>)> {
        let mut state = self.lock();
        if let Some((stream, piece)) = state.pieces.pop_front() {
            let read = state.read.get_mut(usize::from(stream))?;
            *read += piece.len() as u64;
            let acknowledged = (stream, *read);
            let bytes = piece.freeze();
            let event = if stream == 0 { ProcessEvent::Stdout(bytes) } else { ProcessEvent::Stderr(bytes) };
            return Some((event, Some(acknowledged)));
        }
        let end = state.exit.map(ProcessEvent::Exited).or(state.lost.then_some(ProcessEvent::Lost))?;
        Some((end, None))
    }

    /// Reserves room for input and says how much; `None` when nobody will read it.
    fn reserve(&self, wanted: usize) -> Option<usize> {
        let mut state = self.lock();
        if state.input_closed || state.lost || state.exit.is_some() {
            return None;
        }
        let room = WINDOW.saturating_sub(state.written - state.taken).min(wanted.min(INPUT_CHUNK) as u64);
        state.written += room;
        Some(room as usize)
    }
}

impl Process {
    pub(crate) fn new(id: ProcessId, sandbox: Sandbox, feed: std::sync::Arc<Feed>) -> Self {
        Self { id, sandbox, feed, over: false }
    }

    /// Its name, for [`Sandbox::reattach`].
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// What happens next; `None` after [`ProcessEvent::Exited`] or [`ProcessEvent::Lost`]. What is not read holds the
    /// process back.
    pub async fn next(&mut self) -> Option<ProcessEvent> {
        if self.over {
            return None;
        }
        loop {
            let changed = self.feed.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some((event, acknowledged)) = self.feed.take() {
                let exec = self.id.0;
                let message = match acknowledged {
                    Some((stream, offset)) => ToGuest::Ack { exec, stream, offset },
                    None => {
                        self.over = true;
                        self.sandbox.link().unfollow(exec);
                        ToGuest::Forget { exec }
                    }
                };
                // Without a connection there is nothing to acknowledge: the next one begins with what was received.
                self.sandbox.link().tell(message).await.unwrap_or_default();
                return Some(event);
            }
            changed.await;
        }
    }

    /// A handle to its standard input, for a task that writes while another one reads.
    pub fn stdin(&self) -> Stdin {
        Stdin { id: self.id, sandbox: self.sandbox.clone(), feed: std::sync::Arc::clone(&self.feed) }
    }

    /// Writes to its standard input; waits while it does not read.
    ///
    /// # Errors
    /// Its standard input is closed, or the sandbox is lost.
    pub async fn write_stdin(&mut self, bytes: &[u8]) -> Result<(), SandboxError> {
        self.stdin().write(bytes).await
    }

    /// Closes its standard input; a terminal gets an end-of-file character.
    ///
    /// # Errors
    /// The sandbox is lost.
    pub async fn close_stdin(&mut self) -> Result<(), SandboxError> {
        self.stdin().close().await
    }

    /// Changes its terminal's size.
    ///
    /// # Errors
    /// The sandbox is lost.
    pub async fn resize(&self, size: Size) -> Result<(), SandboxError> {
        self.sandbox.link().tell(ToGuest::Resize { exec: self.id.0, size: (size.columns, size.rows) }).await
    }

    /// Kills it and everything that it started, also what left its process group or session, and returns when all are
    /// gone.
    ///
    /// # Errors
    /// The sandbox is lost.
    pub async fn kill(&self) -> Result<(), SandboxError> {
        self.sandbox.kill(Some(self.id)).await
    }

    /// Waits for its end, keeps at most `limit` bytes of each stream, and reads on beyond that.
    pub async fn wait_output(&mut self, limit: usize) -> Output {
        let (mut stdout, mut stderr) = (BytesMut::new(), BytesMut::new());
        let (mut truncated, mut exit) = (false, None);
        while let Some(event) = self.next().await {
            let (kept, bytes) = match event {
                ProcessEvent::Stdout(bytes) => (&mut stdout, bytes),
                ProcessEvent::Stderr(bytes) => (&mut stderr, bytes),
                ProcessEvent::Exited(ended) => {
                    exit = Some(ended);
                    continue;
                }
                ProcessEvent::Lost => continue,
            };
            let room = limit.saturating_sub(kept.len()).min(bytes.len());
            truncated |= room < bytes.len();
            kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
        }
        Output { stdout: stdout.freeze(), stderr: stderr.freeze(), truncated, exit }
    }
}

/// The standard input of a process. Cheap to clone; dropping it leaves the input open. Two tasks that write at once mix
/// their bytes.
#[derive(Debug, Clone)]
pub struct Stdin {
    id: ProcessId,
    sandbox: Sandbox,
    feed: std::sync::Arc<Feed>,
}

impl Stdin {
    /// Writes; waits while the process does not read.
    ///
    /// # Errors
    /// The input is closed, or the sandbox is lost.
    pub async fn write(&self, mut bytes: &[u8]) -> Result<(), SandboxError> {
        while !bytes.is_empty() {
            let changed = self.feed.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let closed = || SandboxError::Refused {
                what: format!("standard input of process {}", self.id.0),
                reason: "nobody reads it any more".to_owned(),
            };
            let room = self.feed.reserve(bytes.len()).ok_or_else(closed)?;
            if room == 0 {
                changed.await;
                continue;
            }
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            let message = ToGuest::Stdin { exec: self.id.0, end: false };
            self.sandbox.link().send(message, Bytes::copy_from_slice(now)).await?;
            bytes = later;
        }
        Ok(())
    }

    /// Closes it; a terminal gets an end-of-file character.
    ///
    /// # Errors
    /// The sandbox is lost.
    pub async fn close(&self) -> Result<(), SandboxError> {
        self.sandbox.link().tell(ToGuest::Stdin { exec: self.id.0, end: true }).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.over {
            self.sandbox.link().unfollow(self.id.0);
            self.sandbox.link().tell_later(ToGuest::Detach { exec: self.id.0 });
        }
    }
}

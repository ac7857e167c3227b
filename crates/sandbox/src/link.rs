//! The host's end of a guest: one listening socket per sandbox, one control connection at a time.
//!
//! Everything that arrives is untrusted: lengths are bounded by the frames, numbers that nobody waits for are ignored,
//! and a guest that breaks the protocol loses its connection and has to dial again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hob_guest::frame::{self, Decoder};
use hob_guest::protocol::{Entry, FromGuest, HOST_SOCKET, Hello, Identity, PROTOCOL, Purpose, ToGuest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::command;
use crate::process::Feed;
use crate::provider::SandboxError;
use crate::spec::SandboxId;

/// How long a guest may take to say who it is.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// How long a guest may be without a connection before a request to it fails.
const RECONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connections of one sandbox that have not said who they are.
const STRANGERS_MAX: usize = 64;

/// Messages on their way to a guest.
const OUT_MAX: usize = 128;

/// Entries of a folder that are kept of an answer.
const ENTRIES_MAX: usize = 100_000;

/// What a guest answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Message(FromGuest, Vec<u8>),
    Entries(Vec<Entry>),
    Connection(UnixStream),
}

/// A guest, connected or not.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: SandboxId,
    state: Mutex<State>,
    out: watch::Sender<Option<mpsc::Sender<(ToGuest, Bytes)>>>,
    closed: watch::Sender<Option<String>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct State {
    identity: Identity,
    connection: CancellationToken,
    next: u64,
    waiting: HashMap<u64, (oneshot::Sender<Answer>, Vec<Entry>)>,
    feeds: HashMap<u64, Arc<Feed>>,
}

impl Link {
    /// Listens for the guest in its folder.
    pub(crate) fn listen(
        id: &SandboxId,
        identity: Identity,
        folder: &Path,
        stop: CancellationToken,
        tasks: &TaskTracker,
    ) -> std::io::Result<Arc<Self>> {
        let listener = crate::socket::bind(folder, HOST_SOCKET)?;
        let link = Arc::new(Self {
            id: id.clone(),
            state: Mutex::new(State {
                identity,
                connection: stop.child_token(),
                next: 1,
                waiting: HashMap::new(),
                feeds: HashMap::new(),
            }),
            out: watch::Sender::new(None),
            closed: watch::Sender::new(None),
            stop,
            tasks: tasks.clone(),
        });
        tasks.spawn(Arc::clone(&link).accept(listener));
        Ok(link)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on only this identity is believed; a connection of another one is cut.
    pub(crate) fn identify(&self, identity: Identity) {
        let mut state = self.lock();
        if state.identity != identity {
            state.identity = identity;
            state.connection.cancel();
            state.waiting.clear();
            // At once: who waits for a connection now waits for the next one.
            self.out.send_replace(None);
        }
    }

    /// Waits until the guest is connected.
    pub(crate) async fn connected(&self) -> Result<(), SandboxError> {
        self.sender().await.map(drop)
    }

    /// The sandbox is no more; `reason` says why.
    pub(crate) fn close(&self, reason: &str) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert(reason.to_owned());
            first
        });
        self.stop.cancel();
        let mut state = self.lock();
        state.waiting.clear();
        let feeds: Vec<_> = state.feeds.drain().collect();
        drop(state);
        feeds.iter().for_each(|(_, feed)| feed.lost());
    }

    /// Whether the sandbox is no more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    /// Waits until the sandbox is no more.
    pub(crate) async fn closed(&self) -> String {
        let mut closed = self.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await.map(|reason| reason.clone());
        reason.ok().flatten().unwrap_or_else(|| "its owner has ended".to_owned())
    }

    fn lost(&self) -> SandboxError {
        let reason = self.closed.borrow().clone().unwrap_or_else(|| "its guest is not connected".to_owned());
        SandboxError::Lost { id: self.id.clone(), reason }
    }

    async fn sender(&self) -> Result<mpsc::Sender<(ToGuest, Bytes)>, SandboxError> {
        let mut out = self.out.subscribe();
        let connected = async { out.wait_for(Option::is_some).await.ok().and_then(|sender| sender.clone()) };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(self.lost()),
            sender = connected => sender.ok_or_else(|| self.lost()),
            () = tokio::time::sleep(RECONNECT_LIMIT) => Err(self.lost()),
        }
    }

    /// Sends a message that has no answer.
    pub(crate) async fn tell(&self, message: ToGuest) -> Result<(), SandboxError> {
        self.send(message, Bytes::new()).await
    }

    /// Sends a message that has no answer, with bytes.
    pub(crate) async fn send(&self, message: ToGuest, blob: Bytes) -> Result<(), SandboxError> {
        let sender = self.sender().await?;
        tokio::select! {
            sent = sender.send((message, blob)) => sent.map_err(|_| self.lost()),
            () = self.stop.cancelled() => Err(self.lost()),
        }
    }

    /// Sends a message when there is time, from where nothing can wait.
    pub(crate) fn tell_later(self: &Arc<Self>, message: ToGuest) {
        let link = Arc::clone(self);
        let sender = self.out.borrow().clone();
        let Some(sender) = sender else { return };
        if let Err(mpsc::error::TrySendError::Full((message, _))) = sender.try_send((message, Bytes::new())) {
            // Without a connection the guest has let go of everything by itself.
            self.tasks.spawn(async move { link.tell(message).await.unwrap_or_default() });
        }
    }

    /// Sends messages that have one answer, and waits for it.
    pub(crate) async fn ask(
        &self,
        messages: impl FnOnce(u64) -> Vec<(ToGuest, Bytes)>,
        limit: Duration,
    ) -> Result<Answer, SandboxError> {
        let (answer, answered) = oneshot::channel();
        let request = {
            let mut state = self.lock();
            let request = state.next;
            state.next += 1;
            state.waiting.insert(request, (answer, Vec::new()));
            request
        };
        let forget = Forget { link: self, request };
        let asked = async {
            for (message, blob) in messages(request) {
                self.send(message, blob).await?;
            }
            // The sender is dropped when the connection is cut.
            answered.await.map_err(|_| self.lost())
        };
        let answer = tokio::time::timeout(limit, asked).await;
        drop(forget);
        let what = || SandboxError::Deadline { what: format!("hear of sandbox {}", self.id), seconds: limit.as_secs() };
        answer.map_err(|_| what())?
    }

    /// Output of a process goes to this feed from now on.
    pub(crate) fn follow(&self, exec: u64, feed: Arc<Feed>) {
        self.lock().feeds.insert(exec, feed);
    }

    /// Nobody reads it any more.
    pub(crate) fn unfollow(&self, exec: u64) {
        self.lock().feeds.remove(&exec);
    }

    async fn accept(self: Arc<Self>, listener: UnixListener) {
        let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&strangers).acquire_owned().await else { return };
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.map(|(stream, _)| stream),
                () = self.stop.cancelled() => return,
            };
            let Ok(stream) = stream else {
                // Out of descriptors: others give some back.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let link = Arc::clone(&self);
            self.tasks.spawn(async move {
                let heard = tokio::time::timeout(HELLO_LIMIT, hear_hello(stream)).await;
                drop(permit);
                match heard {
                    Ok(Ok((hello, stream))) => link.welcome(hello, stream).await,
                    Ok(Err(error)) => tracing::warn!(sandbox.id = %link.id, "a guest said no hello: {error}"),
                    Err(_) => tracing::warn!(sandbox.id = %link.id, "a guest said no hello in time"),
                }
            });
        }
    }

    async fn welcome(self: Arc<Self>, hello: Hello, stream: UnixStream) {
        if hello.protocol != PROTOCOL || !same(&hello.identity, &self.lock().identity) {
            let epoch = hello.identity.epoch;
            tracing::info!(sandbox.id = %self.id, sandbox.epoch = epoch, "refused a guest with a stale or unknown token");
            return;
        }
        match hello.purpose {
            Purpose::Dial { request } => {
                let waiter = self.lock().waiting.remove(&request);
                if let Some((waiter, _)) = waiter {
                    // One that gave up needs no connection.
                    drop(waiter.send(Answer::Connection(stream)));
                }
            }
            Purpose::Control => self.control(stream).await,
        }
    }

    /// Serves a control connection until it ends or another takes its place.
    async fn control(&self, stream: UnixStream) {
        let (sender, receiver) = mpsc::channel(OUT_MAX);
        let connection = self.stop.child_token();
        let feeds: Vec<_> = {
            let mut state = self.lock();
            std::mem::replace(&mut state.connection, connection.clone()).cancel();
            state.waiting.clear();
            state.feeds.iter().map(|(exec, feed)| (*exec, feed.received())).collect()
        };
        let (reader, writer) = stream.into_split();
        let writing = self.tasks.spawn(write(writer, receiver, connection.clone()));
        let mut greeted = sender.send((ToGuest::Welcome, Bytes::new())).await.is_ok();
        for (exec, from) in feeds {
            // Nobody waits for the answer: a process that is gone says so by its silence, and its feed is lost below.
            greeted &= sender.send((ToGuest::Attach { request: 0, exec, from }, Bytes::new())).await.is_ok();
        }
        if greeted {
            self.out.send_replace(Some(sender.clone()));
        }
        let ended = tokio::select! {
            ended = self.read(reader) => ended,
            () = connection.cancelled() => "another connection took its place".to_owned(),
        };
        tracing::debug!(sandbox.id = %self.id, "the guest's connection ended: {ended}");
        self.out.send_if_modified(|out| {
            let ours = out.as_ref().is_some_and(|out| out.same_channel(&sender));
            if ours {
                *out = None;
            }
            ours
        });
        if !connection.is_cancelled() {
            self.lock().waiting.clear();
        }
        connection.cancel();
        if let Err(error) = writing.await {
            tracing::error!(sandbox.id = %self.id, "the writer of a guest's connection failed: {error}");
        }
    }

    async fn read(&self, mut reader: OwnedReadHalf) -> String {
        let mut decoder = Decoder::default();
        let mut bytes = vec![0; 64 << 10];
        loop {
            match reader.read(&mut bytes).await {
                Ok(0) => return "closed by the guest".to_owned(),
                Ok(length) => decoder.push(bytes.get(..length).unwrap_or_default()),
                Err(error) => return error.to_string(),
            }
            loop {
                match decoder.decode::<FromGuest>() {
                    Ok(Some((message, blob))) => {
                        if !self.hear(message, &blob) {
                            return "the guest sent more output than it may".to_owned();
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return error.to_string(),
                }
            }
        }
    }

    /// Takes a message; false when it breaks the protocol.
    fn hear(&self, message: FromGuest, blob: &[u8]) -> bool {
        let mut state = self.lock();
        let request = match &message {
            FromGuest::Output { exec, stream, offset } => {
                let feed = state.feeds.get(exec).cloned();
                drop(state);
                // What nobody follows was on its way when its owner let go.
                return feed.is_none_or(|feed| feed.output(*stream, *offset, blob));
            }
            FromGuest::StdinTaken { exec, offset } => {
                state.feeds.get(exec).inspect(|feed| feed.input_taken(*offset));
                return true;
            }
            FromGuest::StdinClosed { exec } => {
                state.feeds.get(exec).inspect(|feed| feed.input_closed());
                return true;
            }
            FromGuest::Exited { exec, exit } => {
                let exit = command::Exit { code: exit.code, timed_out: exit.timed_out };
                state.feeds.get(exec).inspect(|feed| feed.exited(exit));
                return true;
            }
            FromGuest::Started { request, exec } => {
                // Output may be in the same read as this message: the feed must be there before the asker wakes up.
                if state.waiting.contains_key(request) {
                    state.feeds.entry(*exec).or_default();
                }
                *request
            }
            FromGuest::Done { request }
            | FromGuest::Failed { request, .. }
            | FromGuest::Processes { request, .. }
            | FromGuest::Bytes { request }
            | FromGuest::Entries { request, .. }
            | FromGuest::Stat { request, .. } => *request,
        };
        if let FromGuest::Entries { entries, more, .. } = message {
            let Some((_, kept)) = state.waiting.get_mut(&request) else { return true };
            let room = ENTRIES_MAX.saturating_sub(kept.len());
            kept.extend(entries.into_iter().take(room));
            if !more && let Some((waiter, kept)) = state.waiting.remove(&request) {
                // One that gave up needs no answer.
                drop(waiter.send(Answer::Entries(kept)));
            }
            return true;
        }
        if let Some((waiter, _)) = state.waiting.remove(&request) {
            // One that gave up needs no answer.
            drop(waiter.send(Answer::Message(message, blob.to_vec())));
        }
        true
    }

    /// The feed of a process that has just started.
    pub(crate) fn feed(&self, exec: u64) -> Arc<Feed> {
        Arc::clone(self.lock().feeds.entry(exec).or_default())
    }
}

/// Removes a waiter however the wait ends.
struct Forget<'a> {
    link: &'a Link,
    request: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.link.lock().waiting.remove(&self.request);
    }
}

/// Compares in a time that does not depend on where two tokens differ.
fn same(a: &Identity, b: &Identity) -> bool {
    let (left, right) = (a.token.as_bytes(), b.token.as_bytes());
    let differences = left.iter().zip(right).fold(0, |differences, (left, right)| differences | (left ^ right));
    a.sandbox == b.sandbox && a.epoch == b.epoch && left.len() == right.len() && differences == 0
}

/// Reads the hello and not a byte more: what follows on a dial connection belongs to its owner.
async fn hear_hello(mut stream: UnixStream) -> Result<(Hello, UnixStream), frame::FrameError> {
    let length = stream.read_u32_le().await?;
    // A hello is short; who sends more is no guest.
    if length > 16 << 10 {
        return Err(frame::FrameError::TooLong(length as usize));
    }
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.resize(4 + length as usize, 0);
    stream.read_exact(bytes.get_mut(4..).unwrap_or_default()).await?;
    let (hello, _) = frame::read(bytes.as_slice())?;
    Ok((hello, stream))
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut messages: mpsc::Receiver<(ToGuest, Bytes)>,
    connection: CancellationToken,
) {
    let mut bytes = Vec::new();
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            () = connection.cancelled() => return,
        };
        let Some((message, blob)) = message else { return };
        bytes.clear();
        let result = match frame::encode(&message, &blob, &mut bytes) {
            Ok(()) => tokio::select! {
                written = writer.write_all(&bytes) => written.map_err(Into::into),
                () = connection.cancelled() => return,
            },
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::debug!("a guest's connection failed: {error}");
            return connection.cancel();
        }
    }
}

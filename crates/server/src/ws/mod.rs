//! The WebSocket: one for each client, with topics in it. See [`frames`] for what is said.
//!
//! A socket has one task that reads and one that writes, with a bounded queue between. Each topic has a task that
//! follows the log and waits for room in the queue: a client that is slow only falls behind, and reads from the store
//! what it missed. One that takes nothing at all for [`STALLED_AFTER`] is closed with 4008, and resumes.

mod commands;
mod frames;
mod hub;

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures_util::{SinkExt as _, StreamExt};
use hob_agent::Author;
use hob_session::SessionId;
use http::HeaderMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use commands::Acks;
pub use frames::{FromClient, PROTOCOL, ToClient};
pub use hub::{Frame, Hub};

use crate::api::{App, Typing, hear_typing};
use crate::problem::Problem;

/// Frames that wait for one client.
const QUEUE_LEN: usize = 256;
/// A client that takes nothing for this long is closed.
const STALLED_AFTER: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(20);
/// A client that says nothing, not even pong, for this long is gone.
const SILENT_AFTER: Duration = Duration::from_secs(65);
/// The largest frame of a client, in bytes: a prompt with its pictures.
const FRAME_BYTES_MAX: usize = crate::api::BODY_BYTES_MAX;
/// Topics of one client.
const TOPICS_MAX: usize = 64;
/// Commands of one client that are carried out at once.
const COMMANDS_MAX: usize = 16;

/// Close codes (RFC 6455 §7.4.2 leaves 4000 to 4999 to us).
const CLOSE_MALFORMED: u16 = 4000;
const CLOSE_SLOW: u16 = 4008;
const CLOSE_GOING_AWAY: u16 = 1001;

/// Opens the socket.
pub(crate) async fn upgrade(
    State(app): State<App>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let author = crate::api::author_of(&headers, &app)?;
    let upgrade = upgrade.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let upgrade = upgrade.max_message_size(FRAME_BYTES_MAX).max_frame_size(FRAME_BYTES_MAX);
    Ok(upgrade.on_upgrade(move |socket| run(app, author, socket)))
}

/// Why a socket was closed by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Gone,
    Slow,
    Malformed(&'static str),
    ShuttingDown,
}

async fn run(app: App, author: Author, socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    let (queue, mut waiting) = mpsc::channel::<Message>(QUEUE_LEN);
    let gone = CancellationToken::new();
    let _cancels = gone.clone().drop_guard();
    let client = Client { app: app.clone(), author, queue, gone: gone.clone() };
    let writer_gone = gone.clone();
    let writer = app.tasks.spawn(async move {
        let mut ping = tokio::time::interval(PING_EVERY);
        loop {
            let message = tokio::select! {
                () = writer_gone.cancelled() => break Closing::Gone,
                message = waiting.recv() => match message { Some(message) => message, None => break Closing::Gone },
                _ = ping.tick() => Message::Ping(bytes::Bytes::new()),
            };
            // What waits already goes out with one system call.
            let fed = async {
                sink.feed(message).await?;
                while let Ok(more) = waiting.try_recv() {
                    sink.feed(more).await?;
                }
                sink.flush().await
            };
            match tokio::time::timeout(STALLED_AFTER, fed).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => break Closing::Gone,
                Err(_) => break Closing::Slow,
            }
        }
        .pipe(|closing| (closing, sink))
    });
    let mut closing = client.listen(&mut stream).await;
    gone.cancel();
    let Ok((wrote, mut sink)) = writer.await else { return };
    if wrote == Closing::Slow {
        closing = Closing::Slow;
    }
    if let Some(frame) = closing.frame() {
        // A client that is gone cannot be told; one that stalls gets a last chance to hear why.
        let told = tokio::time::timeout(Duration::from_secs(2), sink.send(Message::Close(Some(frame)))).await;
        tracing::debug!(?closing, told = told.is_ok(), "closed a client's socket");
    }
}

impl Closing {
    fn frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Gone => return None,
            Self::Slow => (CLOSE_SLOW, "too slow; resume with since"),
            Self::Malformed(reason) => (CLOSE_MALFORMED, reason),
            Self::ShuttingDown => (CLOSE_GOING_AWAY, "the server is shutting down"),
        };
        Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason) })
    }
}

/// A value handed on to a function, so that a loop's result can be passed along with what it used.
trait Pipe: Sized {
    fn pipe<T>(self, f: impl FnOnce(Self) -> T) -> T {
        f(self)
    }
}

impl<T> Pipe for T {}

/// The reading half of a socket.
struct Client {
    app: App,
    author: Author,
    queue: mpsc::Sender<Message>,
    gone: CancellationToken,
}

impl Client {
    async fn listen(&self, stream: &mut (impl StreamExt<Item = Result<Message, axum::Error>> + Unpin)) -> Closing {
        let mut topics: HashMap<SessionId, CancellationToken> = HashMap::new();
        let commands = std::sync::Arc::new(tokio::sync::Semaphore::new(COMMANDS_MAX));
        let mut greeted = false;
        loop {
            let message = tokio::select! {
                () = self.app.closing.cancelled() => return Closing::ShuttingDown,
                () = self.gone.cancelled() => return Closing::Slow,
                message = tokio::time::timeout(SILENT_AFTER, stream.next()) => message,
            };
            let text = match message {
                Ok(Some(Ok(Message::Text(text)))) => text,
                Ok(Some(Ok(Message::Binary(_)))) => return Closing::Malformed("frames are JSON text"),
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return Closing::Gone,
            };
            let frame: FromClient = match serde_json::from_str(&text) {
                Ok(frame) => frame,
                Err(error) => {
                    self.say(&ToClient::error(None, &Problem::malformed(error.to_string()))).await;
                    continue;
                }
            };
            match frame {
                FromClient::Hello { protocol } if protocol == PROTOCOL => {
                    greeted = true;
                    self.say(&ToClient::Welcome { user: self.author.clone(), protocol: PROTOCOL }).await;
                }
                FromClient::Hello { .. } => return Closing::Malformed("this server speaks protocol 1"),
                _ if !greeted => return Closing::Malformed("say hello first"),
                FromClient::Sub { topic, since } => {
                    topics.retain(|_, topic| !topic.is_cancelled());
                    self.subscribe(&mut topics, &topic, since).await;
                }
                FromClient::Unsub { topic } => {
                    if let Some(cancelled) = frames::session_of(&topic).and_then(|id| topics.remove(&id)) {
                        cancelled.cancel();
                    }
                }
                FromClient::Cmd { id, command } => {
                    let Ok(permit) = std::sync::Arc::clone(&commands).acquire_owned().await else { continue };
                    let (app, author, queue) = (self.app.clone(), self.author.clone(), self.queue.clone());
                    self.app.tasks.spawn(async move {
                        let ack = app.acks.carry_out(&app, author, id, command).await;
                        say(&queue, &ack).await;
                        drop(permit);
                    });
                }
                FromClient::Typing { repository: None, .. } => {}
                FromClient::Typing { repository: Some(repository), base, agent, model } => {
                    let typing = Typing { repository, base, agent, model };
                    if let Err(problem) = hear_typing(&self.app, self.author.clone(), typing).await {
                        self.say(&ToClient::error(None, &problem)).await;
                    }
                }
            }
        }
    }

    async fn say(&self, frame: &ToClient) {
        say(&self.queue, frame).await;
    }

    async fn subscribe(&self, topics: &mut HashMap<SessionId, CancellationToken>, topic: &str, since: Option<u64>) {
        let refuse = |problem: Problem| ToClient::error(Some(topic.to_owned()), &problem);
        let Some(id) = frames::session_of(topic) else {
            return self.say(&refuse(Problem::not_found("topics are named sessions/ID"))).await;
        };
        if topics.len() >= TOPICS_MAX && !topics.contains_key(&id) {
            return self.say(&refuse(Problem::conflict(format!("a client has at most {TOPICS_MAX} topics")))).await;
        }
        let cancelled = self.gone.child_token();
        if let Some(before) = topics.insert(id.clone(), cancelled.clone()) {
            before.cancel();
        }
        let (app, queue, topic) = (self.app.clone(), self.queue.clone(), topic.to_owned());
        let gone = self.gone.clone();
        self.app.tasks.spawn(async move {
            let followed = async {
                match follow(&app, &queue, &id, since).await {
                    Ok(Stalled::Yes) => gone.cancel(),
                    Ok(Stalled::No) => {}
                    Err(problem) => say(&queue, &ToClient::error(Some(topic), &problem)).await,
                }
            };
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = followed => cancelled.cancel(),
            }
        });
    }
}

/// Whether a client took nothing for too long.
enum Stalled {
    Yes,
    No,
}

async fn say(queue: &mpsc::Sender<Message>, frame: &ToClient) {
    // A client that is gone, or closes, need not hear it.
    drop(queue.send_timeout(Message::Text(frame.encode()), STALLED_AFTER).await);
}

/// Sends what a client needs to be where the log is, and then every event as it comes.
async fn follow(
    app: &App,
    queue: &mpsc::Sender<Message>,
    id: &SessionId,
    since: Option<u64>,
) -> Result<Stalled, Problem> {
    let mut follower = app.hub.follow(id).await?;
    let reached = match since {
        Some(since) => since,
        None => {
            let session = app.engine.get(id).await?;
            let seq = session.seq;
            let tail = app.engine.events(id, seq.saturating_sub(frames::TAIL_LEN), 1_000).await?;
            let seq = tail.last().map_or(seq, |record| record.seq);
            let frame = frames::snapshot(id, seq, &session.into(), &tail);
            if queue.send_timeout(Message::Text(frame), STALLED_AFTER).await.is_err() {
                return Ok(Stalled::Yes);
            }
            seq
        }
    };
    if since.is_some() {
        let mut from = reached;
        loop {
            let page = app.engine.events(id, from, hub::PAGE_LEN).await?;
            let to = page.last().map_or(from, |record| record.seq);
            let frame = frames::replay(id, from, to, &page);
            if queue.send_timeout(Message::Text(frame), STALLED_AFTER).await.is_err() {
                return Ok(Stalled::Yes);
            }
            from = to;
            if page.len() < hub::PAGE_LEN {
                break;
            }
        }
        follower.start_after(from);
    } else {
        follower.start_after(reached);
    }
    while let Some(frame) = follower.next().await? {
        if queue.send_timeout(Message::Text(frame.text), STALLED_AFTER).await.is_err() {
            return Ok(Stalled::Yes);
        }
    }
    Ok(Stalled::No)
}

//! Live events for many clients: one reader of the log for each session, and each event encoded once for all.
//!
//! A follower that falls behind the shared channel reads what it missed from the store, so nobody loses an event and
//! nobody waits for anybody.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::extract::ws::Utf8Bytes;
use futures_util::StreamExt as _;
use hob_session::{Engine, EngineError, SessionId};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::frames;

/// Events that are read from the store at once.
pub(super) const PAGE_LEN: usize = 500;
/// Frames that the shared channel holds. A follower that is further behind reads from the store.
const CHANNEL_LEN: usize = 1_024;

/// An event as clients get it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its place in the log.
    pub seq: u64,
    /// The whole frame. A clone shares the bytes.
    pub text: Utf8Bytes,
}

/// The sessions that somebody follows now. Clones share them.
#[derive(Clone)]
pub struct Hub {
    engine: Engine,
    tasks: TaskTracker,
    topics: Arc<Mutex<HashMap<SessionId, Weak<Topic>>>>,
}

/// A session that somebody follows. It ends with its last follower.
struct Topic {
    frames: broadcast::Sender<Frame>,
    _reader: DropGuard,
}

/// One client's place in a session's log.
pub struct Follower {
    engine: Engine,
    id: SessionId,
    _topic: Arc<Topic>,
    live: broadcast::Receiver<Frame>,
    seen: u64,
    missed: VecDeque<Frame>,
}

impl Hub {
    /// A hub that nobody follows yet.
    pub fn new(engine: Engine, tasks: TaskTracker) -> Self {
        Self { engine, tasks, topics: Arc::default() }
    }

    /// Begins to follow a session. Call [`Follower::start_after`] with what the client has before the first
    /// [`Follower::next`].
    ///
    /// # Errors
    /// There is no such session.
    pub async fn follow(&self, id: &SessionId) -> Result<Follower, EngineError> {
        let head = self.engine.get(id).await?.seq;
        let topic = self.topic(id, head);
        let live = topic.frames.subscribe();
        Ok(Follower {
            engine: self.engine.clone(),
            id: id.clone(),
            _topic: topic,
            live,
            seen: head,
            missed: VecDeque::new(),
        })
    }

    fn topic(&self, id: &SessionId, head: u64) -> Arc<Topic> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(id).and_then(Weak::upgrade) {
            return topic;
        }
        topics.retain(|_, topic| topic.strong_count() > 0);
        let (frames, _) = broadcast::channel(CHANNEL_LEN);
        let unwanted = CancellationToken::new();
        let topic = Arc::new(Topic { frames: frames.clone(), _reader: unwanted.clone().drop_guard() });
        topics.insert(id.clone(), Arc::downgrade(&topic));
        let (engine, id) = (self.engine.clone(), id.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = unwanted.cancelled() => {}
                ended = read(&engine, &id, head, &frames) => {
                    if let Err(error) = ended {
                        tracing::warn!(session.id = %id, "failed to {error}; clients of the session connect again");
                    }
                }
            }
        });
        topic
    }
}

async fn read(engine: &Engine, id: &SessionId, since: u64, to: &broadcast::Sender<Frame>) -> Result<(), EngineError> {
    let mut records = engine.subscribe(id, since).await?;
    while let Some(record) = records.next().await {
        let record = record?;
        // Nobody listens for a moment while the last follower leaves; that is no failure.
        drop(to.send(Frame { seq: record.seq, text: frames::event(id, &record) }));
    }
    Ok(())
}

impl Follower {
    /// Says what the client has already.
    pub fn start_after(&mut self, seq: u64) {
        self.seen = seq;
    }

    /// The next event, without a gap and without a double; `None` when the engine shuts down.
    ///
    /// # Errors
    /// The store failed.
    pub async fn next(&mut self) -> Result<Option<Frame>, EngineError> {
        loop {
            if let Some(frame) = self.missed.pop_front() {
                self.seen = frame.seq;
                return Ok(Some(frame));
            }
            match self.live.recv().await {
                Ok(frame) if frame.seq <= self.seen => {}
                Ok(frame) if frame.seq == self.seen + 1 => {
                    self.seen = frame.seq;
                    return Ok(Some(frame));
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {
                    let records = self.engine.events(&self.id, self.seen, PAGE_LEN).await?;
                    let encoded =
                        records.iter().map(|record| Frame { seq: record.seq, text: frames::event(&self.id, record) });
                    self.missed.extend(encoded);
                }
                Err(RecvError::Closed) => return Ok(None),
            }
        }
    }
}

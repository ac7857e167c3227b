//! The store: one SQLite file that holds every session's log and what lists show.
//!
//! One thread writes, with group commit and an fsync for each commit; readers have connections of their own. Every
//! write names its session and epoch, and a stale epoch is refused. What a write gives back is on disk.
//!
//! The statements are plain enough for Postgres; the suite in `tests/store.rs` takes a function that makes a store.

mod hub;
mod read;
mod schema;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use hub::Hub;
pub use hub::Subscription;
use read::Readers;
use write::{Request, Writer};

use crate::event::EventKind;
use crate::id::SessionId;
use crate::requests::{Artifact, Record, Summary};
use crate::state::State;

/// Writes that may wait for the writer. A sender waits when it is full: back-pressure reaches whoever writes.
const QUEUE_LEN: usize = 4_096;

/// The store of one engine. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    writes: mpsc::Sender<Request>,
    readers: Readers,
    hub: Arc<Hub>,
}

/// Why the store did not do it. The texts follow "failed to …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full: nothing of the write was kept, and everything before it was.
    #[error("write to {}: the disk is full; free some space", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Another owner has the session.
    #[error("write to session {session} in epoch {epoch}: another owner has taken it over")]
    Fenced {
        /// The session.
        session: SessionId,
        /// The epoch that is no longer valid.
        epoch: u64,
    },
    /// Another process has the store open.
    #[error("open the store {}: another hob uses it; stop that one, or choose another data folder", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Something else is wrong with the file.
    #[error("use the store {}: {reason}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The store is closed.
    #[error("use the store: it is closed")]
    Closed,
}

/// Who owns a session now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The epoch of this ownership; one more than the last one.
    pub epoch: u64,
    /// The last sequence number of its log.
    pub last_seq: u64,
}

/// An answer that is kept under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the key belongs to: a session's ID, or `create`.
    pub scope: String,
    /// The key.
    pub key: String,
    /// The answer, as JSON.
    pub answer: String,
}

/// What becomes of a request that carried an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It was carried out.
    New,
    /// An earlier one with the same key was; this is its answer.
    Before(String),
}

/// Events to be appended in one step: all of them are on disk, or none.
#[derive(Debug, Clone)]
pub struct Append {
    /// The session.
    pub session: SessionId,
    /// The epoch in which its owner writes.
    pub epoch: u64,
    /// When they happened, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What happened, oldest first.
    pub events: Vec<EventKind>,
    /// What lists show from now on, where it changed.
    pub summary: Option<Summary>,
    /// What is kept under an idempotency key.
    pub answer: Option<Answer>,
    /// Files that the session made.
    pub artifacts: Vec<Artifact>,
}

impl Store {
    /// Opens the file, and makes it where there is none. No second store may have it open.
    ///
    /// # Errors
    /// The file cannot be used, is of a later version, or is in use.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let hub = Arc::new(Hub::default());
        let (writes, queue) = mpsc::channel(QUEUE_LEN);
        Writer::start(path, queue, Arc::clone(&hub))?;
        let readers = Readers::new(path);
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), writes, readers, hub }) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Makes a session with its first events, owned by nobody. With an answer whose key is known already, nothing is
    /// made.
    ///
    /// # Errors
    /// The disk is full, or the file is broken.
    pub async fn create(
        &self,
        summary: Summary,
        at_ms: u64,
        events: Vec<EventKind>,
        artifacts: Vec<Artifact>,
        answer: Option<Answer>,
    ) -> Result<Created, StoreError> {
        let bodies = self.bodies(&events)?;
        self.write(|reply| Request::Create { summary: Box::new(summary), at_ms, bodies, artifacts, answer, reply })
            .await
    }

    /// Takes a session over: from now on only the epoch that is given back can write to it. `None` when there is no
    /// such session.
    ///
    /// # Errors
    /// The disk is full, or the file is broken.
    pub async fn claim(
        &self,
        session: &SessionId,
        owner: &str,
        lease_until_ms: u64,
    ) -> Result<Option<Claim>, StoreError> {
        let (session, owner) = (session.clone(), owner.to_owned());
        self.write(|reply| Request::Claim { session, owner, lease_until_ms, reply }).await
    }

    /// Appends events. When this returns they are on disk, and whoever follows the session hears of them.
    ///
    /// # Errors
    /// The epoch is stale, the disk is full, or the file is broken. Nothing was appended then.
    pub async fn append(&self, append: Append) -> Result<Vec<Record>, StoreError> {
        let bodies = self.bodies(&append.events)?;
        self.write(|reply| Request::Append { append: Box::new(append), bodies, reply }).await
    }

    /// The answer that is kept under an idempotency key.
    ///
    /// # Errors
    /// The file is broken.
    pub async fn answer(&self, scope: &str, key: &str) -> Result<Option<String>, StoreError> {
        let (scope, key) = (scope.to_owned(), key.to_owned());
        self.inner.readers.read(move |connection| read::answer(connection, &scope, &key)).await
    }

    /// Events after `since`, oldest first; at most `limit`. Empty also when there is no such session.
    ///
    /// # Errors
    /// The file is broken.
    pub async fn events(&self, session: &SessionId, since: u64, limit: usize) -> Result<Vec<Record>, StoreError> {
        let session = session.clone();
        self.inner.readers.read(move |connection| read::events(connection, &session, since, limit)).await
    }

    /// What a list shows of a session; `None` when there is no such session.
    ///
    /// # Errors
    /// The file is broken.
    pub async fn summary(&self, session: &SessionId) -> Result<Option<Summary>, StoreError> {
        let session = session.clone();
        self.inner.readers.read(move |connection| read::summary(connection, &session)).await
    }

    /// A page of sessions, the one that changed last first, and where the next page begins.
    ///
    /// # Errors
    /// The file is broken.
    pub async fn list(&self, query: ListQuery) -> Result<(Vec<Summary>, Option<Cursor>), StoreError> {
        self.inner.readers.read(move |connection| read::list(connection, &query)).await
    }

    /// Sessions in which something has to go on: a turn, a queue, a start.
    ///
    /// # Errors
    /// The file is broken.
    pub async fn pending(&self) -> Result<Vec<SessionId>, StoreError> {
        self.inner.readers.read(read::pending).await
    }

    /// What a session made, oldest first.
    ///
    /// # Errors
    /// The file is broken.
    pub async fn artifacts(&self, session: &SessionId) -> Result<Vec<Artifact>, StoreError> {
        let session = session.clone();
        self.inner.readers.read(move |connection| read::artifacts(connection, &session)).await
    }

    /// Follows a session's log after `since`: what is there, then what comes, without a gap and without a double.
    pub fn follow(&self, session: &SessionId, since: u64, end: CancellationToken) -> Subscription {
        Subscription::new(self.clone(), self.inner.hub.topic(session), session.clone(), since, end)
    }

    /// Waits until every write before it is on disk, and ends the writer. Reads still work.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.inner.writes.send(Request::Close { reply }).await.is_ok() {
            // An error means that the writer has ended already, which is what is wanted.
            done.await.ok();
        }
    }

    /// The events as the file holds them: written out by whoever appends, so that the one writer need not.
    fn bodies(&self, events: &[EventKind]) -> Result<Vec<String>, StoreError> {
        let bodies: Result<_, _> = events.iter().map(serde_json::to_string).collect();
        bodies.map_err(|error| StoreError::Broken { path: self.inner.path.clone(), reason: error.to_string() })
    }

    async fn write<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.inner.writes.send(request(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// Which sessions a page shows.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only those in this state; when absent, all but archived ones.
    pub state: Option<State>,
    /// Only those of this repository.
    pub repository: Option<String>,
    /// Only those that this address made.
    pub author_email: Option<String>,
    /// Sessions on the page.
    pub limit: u32,
    /// Where the page begins; at the start when absent.
    pub after: Option<Cursor>,
}

/// A place in a list: the last session of the page before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// When that session changed.
    pub updated_ms: u64,
    /// Its number in the store.
    pub n: i64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.updated_ms, self.n)
    }
}

impl std::str::FromStr for Cursor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('.').and_then(|(ms, n)| Some((ms.parse().ok()?, n.parse().ok()?)));
        let (updated_ms, n) = parts.ok_or_else(|| format!("{text:?} is no cursor of a list"))?;
        Ok(Self { updated_ms, n })
    }
}

/// The error of SQLite in the words of the store.
fn wrong(path: &Path, error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full { path: path.to_owned() },
        _ => StoreError::Broken { path: path.to_owned(), reason: error.to_string() },
    }
}

//! The one thread that writes: it takes what waits, puts it into one transaction, and answers when that is on disk.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::hub::Hub;
use super::{Answer, Append, Claim, Created, StoreError, schema, wrong};
use crate::id::SessionId;
use crate::requests::{Artifact, Record, Summary};
use crate::state::State;

/// Requests in one transaction at most, so that the first of them does not wait for ever.
const BATCH_LEN: usize = 1_024;

/// Pages of the cache, in KiB, as `PRAGMA cache_size` wants it (negative). Measured: 0.5 MB costs twenty times as much.
const CACHE_KIB: i64 = -65_536;

/// How long the lock of a server that was just killed is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(10);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something to write, and whom to tell.
pub(super) enum Request {
    Create {
        summary: Box<Summary>,
        at_ms: u64,
        bodies: Vec<String>,
        artifacts: Vec<Artifact>,
        answer: Option<Answer>,
        reply: Reply<Created>,
    },
    Claim {
        session: SessionId,
        owner: String,
        lease_until_ms: u64,
        reply: Reply<Option<Claim>>,
    },
    Append {
        append: Box<Append>,
        bodies: Vec<String>,
        reply: Reply<Vec<Record>>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// A session as the writer knows it.
#[derive(Debug, Clone, Copy)]
struct Head {
    n: i64,
    epoch: u64,
    last_seq: u64,
}

/// What a request came to, held back until the transaction is on disk.
enum Done {
    Created(Created),
    Claimed(Option<Claim>),
    Appended(SessionId, Result<Vec<Record>, StoreError>),
}

pub(super) struct Writer {
    path: PathBuf,
    connection: Connection,
    hub: Arc<Hub>,
    /// Valid as long as no other connection has written: `data_version` tells.
    heads: HashMap<SessionId, Head>,
    data_version: i64,
    /// Held as long as the store is open; a second process cannot take it.
    _lock: File,
}

impl Writer {
    /// Opens the file and starts the thread.
    pub(super) fn start(path: &Path, queue: mpsc::Receiver<Request>, hub: Arc<Hub>) -> Result<(), StoreError> {
        let broken = |reason: String| StoreError::Broken { path: path.to_owned(), reason };
        let lock = take_lock(path)?;
        let mut connection = Connection::open(path).map_err(|error| wrong(path, &error))?;
        prepare(&connection).map_err(|error| wrong(path, &error))?;
        schema::migrate(&mut connection).map_err(|error| broken(error.to_string()))?;
        let writer =
            Self { path: path.to_owned(), connection, hub, heads: HashMap::new(), data_version: 0, _lock: lock };
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(queue))
            .map_err(|error| broken(format!("its thread did not start: {error}")))?;
        Ok(())
    }

    fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(first) = queue.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_LEN
                && let Ok(next) = queue.try_recv()
            {
                batch.push(next);
            }
            let mut closing = None;
            batch.retain_mut(|request| match request {
                Request::Close { reply } => {
                    closing = Some(std::mem::replace(reply, oneshot::channel().0));
                    false
                }
                _ => true,
            });
            self.write(batch);
            if let Some(reply) = closing {
                drop(self);
                // Whoever closed the store may have stopped waiting.
                reply.send(()).ok();
                return;
            }
        }
    }

    /// Writes a batch. When it fails as a whole, each request is tried alone, so that one that cannot be written does
    /// not take the others with it.
    fn write(&mut self, batch: Vec<Request>) {
        match self.transact(&batch) {
            Ok(done) => {
                for (request, done) in batch.into_iter().zip(done) {
                    self.answer(request, done);
                }
            }
            Err(error) if batch.len() == 1 || matches!(error, StoreError::Full { .. }) => {
                tracing::error!(store.path = %self.path.display(), requests = batch.len(), "failed to {error}");
                for request in batch {
                    refuse(request, &error);
                }
            }
            Err(_) => {
                for request in batch {
                    self.write(vec![request]);
                }
            }
        }
    }

    fn transact(&mut self, batch: &[Request]) -> Result<Vec<Done>, StoreError> {
        let outcome = self.try_transact(batch);
        if outcome.is_err() {
            // What was counted on did not happen.
            self.heads.clear();
        }
        outcome.map_err(|error| wrong(&self.path, &error))
    }

    fn try_transact(&mut self, batch: &[Request]) -> Result<Vec<Done>, rusqlite::Error> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = transaction.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        if version != self.data_version {
            self.data_version = version;
            self.heads.clear();
        }
        let mut done = Vec::with_capacity(batch.len());
        for request in batch {
            done.push(carry_out(&transaction, &mut self.heads, request)?);
        }
        transaction.commit()?;
        Ok(done)
    }

    /// Tells whoever follows, then whoever asked: the event is seen by all before its sender goes on.
    fn answer(&self, request: Request, done: Done) {
        // Whoever asked may have gone; what was written stays written.
        match (request, done) {
            (Request::Create { reply, .. }, Done::Created(created)) => drop(reply.send(Ok(created))),
            (Request::Claim { reply, .. }, Done::Claimed(claim)) => drop(reply.send(Ok(claim))),
            (Request::Append { reply, .. }, Done::Appended(session, outcome)) => {
                if let Ok(records) = &outcome {
                    self.hub.publish(&session, records);
                }
                drop(reply.send(outcome));
            }
            (request, _) => refuse(request, &StoreError::Closed),
        }
    }
}

fn take_lock(path: &Path) -> Result<File, StoreError> {
    let broken = |error: &std::io::Error| StoreError::Broken { path: path.to_owned(), reason: error.to_string() };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.with_extension("lock"))
        .map_err(|error| broken(&error))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A server that was killed while it started a program leaves the lock to that one, until it has executed.
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_RETRY),
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(broken(&error)),
        }
    }
}

fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", 16_000)?;
    connection.pragma_update(None, "journal_size_limit", 128 << 20)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.busy_timeout(Duration::from_secs(5))
}

fn refuse(request: Request, error: &StoreError) {
    match request {
        Request::Create { reply, .. } => drop(reply.send(Err(error.clone()))),
        Request::Claim { reply, .. } => drop(reply.send(Err(error.clone()))),
        Request::Append { reply, .. } => drop(reply.send(Err(error.clone()))),
        Request::Close { reply } => drop(reply.send(())),
    }
}

type Heads = HashMap<SessionId, Head>;

fn carry_out(transaction: &Transaction<'_>, heads: &mut Heads, request: &Request) -> Result<Done, rusqlite::Error> {
    match request {
        Request::Create { summary, at_ms, bodies, artifacts, answer, .. } => {
            create(transaction, heads, summary, *at_ms, bodies, artifacts, answer.as_ref()).map(Done::Created)
        }
        Request::Claim { session, owner, lease_until_ms, .. } => {
            claim(transaction, heads, session, owner, *lease_until_ms).map(Done::Claimed)
        }
        Request::Append { append: wanted, bodies, .. } => {
            append(transaction, heads, wanted, bodies).map(|outcome| Done::Appended(wanted.session.clone(), outcome))
        }
        Request::Close { .. } => Ok(Done::Claimed(None)),
    }
}

fn create(
    transaction: &Transaction<'_>,
    heads: &mut Heads,
    summary: &Summary,
    at_ms: u64,
    bodies: &[String],
    artifacts: &[Artifact],
    answer: Option<&Answer>,
) -> Result<Created, rusqlite::Error> {
    if let Some(answer) = answer
        && let Some(before) = super::read::answer(transaction, &answer.scope, &answer.key)?
    {
        return Ok(Created::Before(before));
    }
    let mut insert = transaction.prepare_cached(
        "INSERT INTO sess (id, state, pending, repository, author_email, updated_ms, summary)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let n = insert.insert(params![
        summary.id.as_str(),
        state_name(summary.state),
        is_pending(summary),
        summary.repository,
        summary.author.email,
        summary.updated_ms,
        json(summary)?,
    ])?;
    let mut head = Head { n, epoch: 0, last_seq: 0 };
    insert_events(transaction, &mut head, at_ms, bodies)?;
    insert_artifacts(transaction, n, artifacts)?;
    insert_answer(transaction, answer)?;
    heads.insert(summary.id.clone(), head);
    Ok(Created::New)
}

fn claim(
    transaction: &Transaction<'_>,
    heads: &mut Heads,
    session: &SessionId,
    owner: &str,
    lease_until_ms: u64,
) -> Result<Option<Claim>, rusqlite::Error> {
    let mut update =
        transaction.prepare_cached("UPDATE sess SET owner = ?2, epoch = epoch + 1, lease_until = ?3 WHERE id = ?1")?;
    if update.execute(params![session.as_str(), owner, lease_until_ms])? == 0 {
        return Ok(None);
    }
    heads.remove(session);
    let claimed = head(transaction, heads, session)?;
    Ok(claimed.map(|head| Claim { epoch: head.epoch, last_seq: head.last_seq }))
}

fn append(
    transaction: &Transaction<'_>,
    heads: &mut Heads,
    append: &Append,
    bodies: &[String],
) -> Result<Result<Vec<Record>, StoreError>, rusqlite::Error> {
    let Some(mut head) = head(transaction, heads, &append.session)?.filter(|head| head.epoch == append.epoch) else {
        return Ok(Err(StoreError::Fenced { session: append.session.clone(), epoch: append.epoch }));
    };
    let records = insert_events(transaction, &mut head, append.at_ms, bodies)?;
    if let Some(summary) = &append.summary {
        let mut update = transaction
            .prepare_cached("UPDATE sess SET state = ?2, pending = ?3, updated_ms = ?4, summary = ?5 WHERE n = ?1")?;
        let summary_json = json(&Summary { seq: head.last_seq, ..summary.clone() })?;
        let state = state_name(summary.state);
        update.execute(params![head.n, state, is_pending(summary), summary.updated_ms, summary_json])?;
    }
    insert_artifacts(transaction, head.n, &append.artifacts)?;
    insert_answer(transaction, append.answer.as_ref())?;
    heads.insert(append.session.clone(), head);
    Ok(Ok(records))
}

fn head(
    transaction: &Transaction<'_>,
    heads: &mut Heads,
    session: &SessionId,
) -> Result<Option<Head>, rusqlite::Error> {
    if let Some(head) = heads.get(session) {
        return Ok(Some(*head));
    }
    let mut select = transaction.prepare_cached(
        "SELECT n, epoch, (SELECT coalesce(max(seq), 0) FROM events WHERE sess = n) FROM sess WHERE id = ?1",
    )?;
    let found = select
        .query_row([session.as_str()], |row| Ok(Head { n: row.get(0)?, epoch: row.get(1)?, last_seq: row.get(2)? }));
    let found = found.optional()?;
    if let Some(head) = found {
        heads.insert(session.clone(), head);
    }
    Ok(found)
}

fn insert_events(
    transaction: &Transaction<'_>,
    head: &mut Head,
    at_ms: u64,
    bodies: &[String],
) -> Result<Vec<Record>, rusqlite::Error> {
    let mut insert =
        transaction.prepare_cached("INSERT INTO events (sess, seq, at_ms, body) VALUES (?1, ?2, ?3, ?4)")?;
    let mut records = Vec::with_capacity(bodies.len());
    for body in bodies {
        head.last_seq += 1;
        insert.execute(params![head.n, head.last_seq, at_ms, body])?;
        records.push(record(head.last_seq, at_ms, body));
    }
    Ok(records)
}

fn insert_artifacts(transaction: &Transaction<'_>, n: i64, artifacts: &[Artifact]) -> Result<(), rusqlite::Error> {
    for artifact in artifacts {
        let mut insert =
            transaction.prepare_cached("INSERT OR REPLACE INTO artifacts (sess, id, body) VALUES (?1, ?2, ?3)")?;
        insert.execute(params![n, artifact.artifact_id, json(artifact)?])?;
    }
    Ok(())
}

fn insert_answer(transaction: &Transaction<'_>, answer: Option<&Answer>) -> Result<(), rusqlite::Error> {
    let Some(answer) = answer else { return Ok(()) };
    let mut insert =
        transaction.prepare_cached("INSERT OR IGNORE INTO commands (scope, key, answer) VALUES (?1, ?2, ?3)")?;
    insert.execute(params![answer.scope, answer.key, answer.answer])?;
    Ok(())
}

/// The whole event as JSON, made from its body without reading that.
pub(super) fn record(seq: u64, at_ms: u64, body: &str) -> Record {
    let rest = body.strip_prefix('{').unwrap_or(body);
    Record { seq, at_ms, json: format!("{{\"seq\":{seq},\"at_ms\":{at_ms},{rest}").into() }
}

pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Idle => "idle",
        State::Running => "running",
        State::Suspending => "suspending",
        State::Suspended => "suspended",
        State::Failed => "failed",
        State::Archived => "archived",
    }
}

fn is_pending(summary: &Summary) -> bool {
    summary.running_prompt.is_some()
        || !summary.queue.is_empty()
        || matches!(summary.state, State::Starting | State::Running | State::Suspending)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, rusqlite::Error> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

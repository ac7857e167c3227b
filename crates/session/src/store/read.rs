//! Reads: a few connections of their own, which never wait for the writer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tokio::sync::Semaphore;

use super::write::{record, state_name};
use super::{Cursor, ListQuery, StoreError, wrong};
use crate::id::SessionId;
use crate::requests::{Artifact, Record, Summary};

/// Reads at once. A further one waits: the disk is no faster for more.
const READERS: usize = 4;

/// Connections for reading, opened when they are first needed.
pub(super) struct Readers {
    path: Arc<PathBuf>,
    turns: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: Arc::new(path.to_owned()), turns: Arc::new(Semaphore::new(READERS)), idle: Arc::default() }
    }

    /// Runs a read on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (path, idle) = (Arc::clone(&self.path), Arc::clone(&self.idle));
        let task = tokio::task::spawn_blocking(move || {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match kept {
                Some(connection) => connection,
                None => open(&path).map_err(|error| wrong(&path, &error))?,
            };
            let found = read(&connection).map_err(|error| wrong(&path, &error));
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            drop(turn);
            found
        });
        task.await.map_err(|_| StoreError::Closed)?
    }
}

fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

pub(super) fn answer(connection: &Connection, scope: &str, key: &str) -> Result<Option<String>, rusqlite::Error> {
    let mut select = connection.prepare_cached("SELECT answer FROM commands WHERE scope = ?1 AND key = ?2")?;
    select.query_row([scope, key], |row| row.get(0)).optional()
}

pub(super) fn events(
    connection: &Connection,
    session: &SessionId,
    since: u64,
    limit: usize,
) -> Result<Vec<Record>, rusqlite::Error> {
    let mut select = connection.prepare_cached(
        "SELECT seq, at_ms, body FROM events
         WHERE sess = (SELECT n FROM sess WHERE id = ?1) AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    // SQLite's integers are signed; no log is that long.
    let since = i64::try_from(since).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = select.query_map(params![session.as_str(), since, limit], |row| {
        Ok(record(row.get(0)?, row.get(1)?, row.get_ref(2)?.as_str()?))
    })?;
    rows.collect()
}

pub(super) fn summary(connection: &Connection, session: &SessionId) -> Result<Option<Summary>, rusqlite::Error> {
    let mut select = connection.prepare_cached("SELECT summary FROM sess WHERE id = ?1")?;
    select.query_row([session.as_str()], |row| parse(row.get_ref(0)?.as_str()?)).optional()
}

pub(super) fn list(
    connection: &Connection,
    query: &ListQuery,
) -> Result<(Vec<Summary>, Option<Cursor>), rusqlite::Error> {
    let mut select = connection.prepare_cached(
        "SELECT summary, updated_ms, n FROM sess
         WHERE (CASE WHEN ?1 IS NULL THEN state <> 'archived' ELSE state = ?1 END)
           AND (?2 IS NULL OR repository = ?2) AND (?3 IS NULL OR author_email = ?3)
           AND (?4 IS NULL OR (updated_ms, n) < (?4, ?5))
         ORDER BY updated_ms DESC, n DESC LIMIT ?6",
    )?;
    // One more than asked for tells whether there is a next page.
    let wanted = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let rows = select.query_map(
        params![
            query.state.map(state_name),
            query.repository,
            query.author_email,
            query.after.map(|cursor| cursor.updated_ms),
            query.after.map(|cursor| cursor.n),
            i64::from(query.limit) + 1,
        ],
        |row| Ok((parse(row.get_ref(0)?.as_str()?)?, Cursor { updated_ms: row.get(1)?, n: row.get(2)? })),
    )?;
    let mut found: Vec<(Summary, Cursor)> = rows.collect::<Result<_, _>>()?;
    let more = found.len() > wanted;
    found.truncate(wanted);
    let next = found.last().map(|(_, cursor)| *cursor).filter(|_| more);
    Ok((found.into_iter().map(|(summary, _)| summary).collect(), next))
}

pub(super) fn pending(connection: &Connection) -> Result<Vec<SessionId>, rusqlite::Error> {
    let mut select = connection.prepare_cached("SELECT id FROM sess WHERE pending = 1 ORDER BY n")?;
    let rows = select.query_map([], |row| row.get::<_, String>(0))?;
    // A name that is none was not written by this program.
    Ok(rows.collect::<Result<Vec<_>, _>>()?.into_iter().filter_map(|id| SessionId::new(id).ok()).collect())
}

pub(super) fn artifacts(connection: &Connection, session: &SessionId) -> Result<Vec<Artifact>, rusqlite::Error> {
    let mut select = connection
        .prepare_cached("SELECT body FROM artifacts WHERE sess = (SELECT n FROM sess WHERE id = ?1) ORDER BY rowid")?;
    let rows = select.query_map([session.as_str()], |row| parse(row.get_ref(0)?.as_str()?))?;
    rows.collect()
}

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, rusqlite::Error> {
    serde_json::from_str(json)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error)))
}

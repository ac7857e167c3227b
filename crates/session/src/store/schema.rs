//! The tables, and how an older file becomes a newer one.

use rusqlite::{Connection, TransactionBehavior};

/// What each version adds; `PRAGMA user_version` counts those that a file has. A step that has shipped never changes.
const STEPS: &[&str] = &["
    -- One row per session: who owns it, in which epoch, and what a list shows. `n` stands for it in the log, which is
    -- shorter than its name. `pending` marks what an engine has to go on with after a restart.
    CREATE TABLE sess (
        n INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL DEFAULT '',
        epoch INTEGER NOT NULL DEFAULT 0,
        lease_until INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL,
        pending INTEGER NOT NULL,
        repository TEXT NOT NULL,
        author_email TEXT NOT NULL,
        updated_ms INTEGER NOT NULL,
        summary TEXT NOT NULL
    );
    CREATE INDEX sess_by_update ON sess (updated_ms DESC, n DESC);
    CREATE INDEX sess_pending ON sess (n) WHERE pending = 1;

    -- The log. A rowid table with a unique index takes 50,000 rows a second at 2 ms; clustered by (sess, seq) each
    -- commit would rewrite a leaf for each session.
    CREATE TABLE events (
        sess INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        body TEXT NOT NULL
    );
    CREATE UNIQUE INDEX events_by_seq ON events (sess, seq);

    -- Answers to requests that carried an idempotency key.
    CREATE TABLE commands (
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        answer TEXT NOT NULL,
        PRIMARY KEY (scope, key)
    ) WITHOUT ROWID;

    -- Files that sessions made; their bytes lie in files named by their SHA-256.
    CREATE TABLE artifacts (
        sess INTEGER NOT NULL,
        id TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (sess, id)
    );
"];

/// Brings a file to this version, or says that it is from a later one.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), MigrateError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: usize = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > STEPS.len() {
        return Err(MigrateError::Later { found, known: STEPS.len() });
    }
    for step in &STEPS[found..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", STEPS.len())?;
    transaction.commit()?;
    Ok(())
}

/// Why a file could not be brought to this version.
#[derive(Debug, thiserror::Error)]
pub(super) enum MigrateError {
    #[error("it was written by a later version of Hob (format {found}, this one knows {known}); update Hob")]
    Later { found: usize, known: usize },
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_gets_every_step_and_a_second_opening_none() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        let version: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, STEPS.len());
    }

    #[test]
    fn a_file_of_a_later_version_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = migrate(&mut connection).unwrap_err().to_string();
        assert!(error.contains("update Hob"), "{error}");
    }
}

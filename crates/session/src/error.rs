//! What can go wrong at the engine's doors: each variant is something that a person can act on.

use std::path::PathBuf;

use crate::id::SessionId;
use crate::state::State;

/// Why the engine did not do it. The texts follow "failed to …".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no such session.
    #[error("find session {0}")]
    NoSuchSession(SessionId),
    /// There is no such queued prompt: it started, was cancelled, or never was.
    #[error("find prompt {prompt_id} in the queue: it has started, was cancelled, or never was")]
    NoSuchPrompt {
        /// The prompt's ID as it was given.
        prompt_id: String,
    },
    /// There is no such open permission request or question.
    #[error("find the open request {request_id}: it was answered, its turn ended, or it never was")]
    NoSuchRequest {
        /// The request's ID as it was given.
        request_id: String,
    },
    /// There is no such artifact.
    #[error("find artifact {artifact_id}")]
    NoSuchArtifact {
        /// The artifact's ID as it was given.
        artifact_id: String,
    },
    /// The request is not one that the engine takes; the text says what to change.
    #[error("accept the request: {0}")]
    Invalid(String),
    /// The prompt is too long.
    #[error("accept a prompt of {bytes} bytes: at most {max} fit; put long texts into a file of the repository")]
    PromptTooLong {
        /// Its size.
        bytes: usize,
        /// The most that is taken.
        max: usize,
    },
    /// Too many prompts wait in this session.
    #[error("queue another prompt: {max} wait already; cancel one, or wait for a turn to end")]
    QueueFull {
        /// The most that may wait.
        max: usize,
    },
    /// The session's state does not allow it.
    #[error("{what}: the session is {state:?}")]
    WrongState {
        /// What was asked for, such as `stop a turn`.
        what: &'static str,
        /// The state it is in.
        state: State,
    },
    /// The session is closed for good.
    #[error("change session {0}: it is archived")]
    Archived(SessionId),
    /// The repository cannot be used as asked.
    #[error("use the repository {repository}: {reason}")]
    Repository {
        /// The path or URL, without credentials.
        repository: String,
        /// What is wrong and what to do about it.
        reason: String,
    },
    /// The sandbox did not come up, or is gone.
    #[error("reach the session's sandbox: {0}")]
    Sandbox(String),
    /// Images cannot be kept or built.
    #[error("use the images: {0}")]
    Image(String),
    /// There is no such image.
    #[error("find image {0}")]
    NoSuchImage(String),
    /// A file in the workspace cannot be used as asked.
    #[error("use {path} in the workspace: {reason}")]
    File {
        /// The path as it was given.
        path: String,
        /// What the sandbox said.
        reason: String,
        /// Whether there is no such file.
        missing: bool,
    },
    /// The disk is full. Nothing that was acknowledged is lost; reads go on.
    #[error("write to {path}: the disk is full; free some space and try again")]
    DiskFull {
        /// The store's file.
        path: PathBuf,
    },
    /// Another owner holds the session: its epoch is newer.
    #[error("write to session {session} in epoch {epoch}: another owner has taken it over")]
    Fenced {
        /// The session.
        session: SessionId,
        /// The epoch that is no longer valid.
        epoch: u64,
    },
    /// It took too long.
    #[error("{what} within {seconds} s")]
    Deadline {
        /// What was awaited.
        what: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The store failed.
    #[error("use the store {path}: {reason}")]
    Store {
        /// The store's file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// The engine is shutting down.
    #[error("go on: the server is shutting down")]
    ShuttingDown,
}

impl From<crate::store::StoreError> for EngineError {
    fn from(error: crate::store::StoreError) -> Self {
        use crate::store::StoreError;
        match error {
            StoreError::Full { path } => Self::DiskFull { path },
            StoreError::Fenced { session, epoch } => Self::Fenced { session, epoch },
            StoreError::Closed => Self::ShuttingDown,
            StoreError::InUse { ref path } => Self::Store { path: path.clone(), reason: error.to_string() },
            StoreError::Broken { path, reason } => Self::Store { path, reason },
        }
    }
}

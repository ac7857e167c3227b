//! The engine: the doors' one way to sessions. It holds the catalogue and hands each request to the session's driver.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use hob_agent::{Author, DirEntry};
use hob_sandbox::{Process, Size};

use crate::config::{Deps, EngineConfig};
use crate::error::EngineError;
use crate::event::ModelCall;
use crate::id::SessionId;
use crate::requests::{
    Artifact, BranchRef, Created, Filter, NewExec, NewPrompt, NewSession, Page, Queued, Record, Summary,
};

/// All sessions of a server. Cheap to clone; every clone is the same engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    config: EngineConfig,
    #[expect(dead_code, reason = "the drivers land next and use it")]
    deps: Deps,
}

/// What is not linked yet.
fn absent<T>(inner: &Inner) -> Result<T, EngineError> {
    Err(EngineError::Store { path: inner.config.data_dir.clone(), reason: "the store is not linked yet".into() })
}

/// A refusal of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The host that was asked for.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Which rule refused, and how to allow it.
    pub reason: String,
}

impl Engine {
    /// Opens the store, takes over what an earlier engine left, and goes on with it: turns that were interrupted are
    /// told as such, and queued prompts run.
    ///
    /// # Errors
    /// The folder or the store cannot be used, or another engine uses it.
    pub async fn open(config: EngineConfig, deps: Deps) -> Result<Self, EngineError> {
        Ok(Self { inner: Arc::new(Inner { config, deps }) })
    }

    /// Makes a session. It gets its sandbox ready at once, whether there is a prompt yet or not.
    ///
    /// # Errors
    /// The agent, the model or the prompt is not one that the engine takes, or the store failed.
    pub async fn create(&self, _session: NewSession) -> Result<Created, EngineError> {
        absent(&self.inner)
    }

    /// Queues a prompt. When this returns, the prompt is on disk.
    ///
    /// # Errors
    /// There is no such session, it is archived, its queue is full, or the prompt is too long.
    pub async fn prompt(&self, _id: &SessionId, _prompt: NewPrompt) -> Result<Queued, EngineError> {
        absent(&self.inner)
    }

    /// Takes back a prompt that has not started.
    ///
    /// # Errors
    /// There is no such session or no such prompt in its queue.
    pub async fn cancel_prompt(&self, _id: &SessionId, _prompt_id: &str, _by: Author) -> Result<(), EngineError> {
        absent(&self.inner)
    }

    /// Stops the turn that runs; the queue goes on. Without one, nothing happens.
    ///
    /// # Errors
    /// There is no such session.
    pub async fn stop(&self, _id: &SessionId, _by: Author) -> Result<(), EngineError> {
        absent(&self.inner)
    }

    /// Closes a session for good: its turn is stopped, its queue cancelled, its sandbox removed. Its log stays. A
    /// session that is archived already stays so.
    ///
    /// # Errors
    /// There is no such session.
    pub async fn archive(&self, _id: &SessionId, _by: Author) -> Result<(), EngineError> {
        absent(&self.inner)
    }

    /// Answers an open permission request with one of its options.
    ///
    /// # Errors
    /// There is no such session, open request or option.
    pub async fn answer_permission(
        &self,
        _id: &SessionId,
        _request_id: &str,
        _option_id: &str,
        _by: Author,
    ) -> Result<(), EngineError> {
        absent(&self.inner)
    }

    /// Answers an open question.
    ///
    /// # Errors
    /// There is no such session or open question.
    pub async fn answer_question(
        &self,
        _id: &SessionId,
        _question_id: &str,
        _text: &str,
        _by: Author,
    ) -> Result<(), EngineError> {
        absent(&self.inner)
    }

    /// A page of sessions, the one that changed last first. `cursor` is [`Page::next`] of the page before.
    ///
    /// # Errors
    /// The cursor is none, or the store failed.
    pub async fn list(&self, _filter: Filter, _cursor: Option<&str>) -> Result<Page, EngineError> {
        absent(&self.inner)
    }

    /// One session.
    ///
    /// # Errors
    /// There is no such session, or the store failed.
    pub async fn get(&self, _id: &SessionId) -> Result<Summary, EngineError> {
        absent(&self.inner)
    }

    /// Events after `since`, oldest first; at most `limit`, and at most 1,000.
    ///
    /// # Errors
    /// There is no such session, or the store failed.
    pub async fn events(&self, _id: &SessionId, _since: u64, _limit: usize) -> Result<Vec<Record>, EngineError> {
        absent(&self.inner)
    }

    /// Every event after `since`: those of the past, then those to come, without a gap and without a double. It ends
    /// when the engine shuts down. A slow reader holds nobody back: it reads from the store.
    ///
    /// # Errors
    /// There is no such session, or the store failed.
    pub async fn subscribe(
        &self,
        _id: &SessionId,
        _since: u64,
    ) -> Result<BoxStream<'static, Result<Record, EngineError>>, EngineError> {
        absent(&self.inner)
    }

    /// Records a model call that the gateway carried for a session in an epoch.
    ///
    /// # Errors
    /// There is no such session, its epoch is another, or the store failed.
    pub async fn record_usage(&self, _id: &SessionId, _epoch: u64, _call: ModelCall) -> Result<(), EngineError> {
        absent(&self.inner)
    }

    /// Records what the gateway did not let out of a session in an epoch.
    ///
    /// # Errors
    /// There is no such session, its epoch is another, or the store failed.
    pub async fn record_refusal(&self, _id: &SessionId, _epoch: u64, _refusal: Refusal) -> Result<(), EngineError> {
        absent(&self.inner)
    }

    /// The session's change against its base as a unified diff, new files included: as the sandbox has it now, or as of
    /// the last commit when there is no sandbox. Empty when nothing changed.
    ///
    /// # Errors
    /// There is no such session, or git failed.
    pub async fn diff(&self, _id: &SessionId) -> Result<String, EngineError> {
        absent(&self.inner)
    }

    /// Runs a command in the session's sandbox, which is started when there is none.
    ///
    /// # Errors
    /// There is no such session, it is archived, or its sandbox cannot be started.
    pub async fn exec(&self, _id: &SessionId, _exec: NewExec) -> Result<Running, EngineError> {
        absent(&self.inner)
    }

    /// Opens a terminal with a shell in the session's sandbox, which is started when there is none.
    ///
    /// # Errors
    /// As for [`Engine::exec`].
    pub async fn shell(&self, _id: &SessionId, _size: Size) -> Result<Running, EngineError> {
        absent(&self.inner)
    }

    /// A file's bytes, at most [`EngineLimits::file_bytes_max`](crate::EngineLimits).
    ///
    /// # Errors
    /// As for [`Engine::exec`], and when there is no such file.
    pub async fn read_file(&self, _id: &SessionId, _path: &str) -> Result<Bytes, EngineError> {
        absent(&self.inner)
    }

    /// Replaces a file's bytes, and makes its folders.
    ///
    /// # Errors
    /// As for [`Engine::exec`], and when the file is too large.
    pub async fn write_file(&self, _id: &SessionId, _path: &str, _bytes: Bytes) -> Result<(), EngineError> {
        absent(&self.inner)
    }

    /// A folder's entries, sorted by name.
    ///
    /// # Errors
    /// As for [`Engine::exec`], and when there is no such folder.
    pub async fn list_dir(&self, _id: &SessionId, _path: &str) -> Result<Vec<DirEntry>, EngineError> {
        absent(&self.inner)
    }

    /// What the session made, oldest first.
    ///
    /// # Errors
    /// There is no such session, or the store failed.
    pub async fn artifacts(&self, _id: &SessionId) -> Result<Vec<Artifact>, EngineError> {
        absent(&self.inner)
    }

    /// An artifact and its bytes.
    ///
    /// # Errors
    /// There is no such session or artifact, or its file cannot be read.
    pub async fn artifact_bytes(&self, _id: &SessionId, _artifact_id: &str) -> Result<(Artifact, Bytes), EngineError> {
        absent(&self.inner)
    }

    /// Where the session's branch can be fetched from; `None` while it has no commit.
    ///
    /// # Errors
    /// There is no such session, or the store failed.
    pub async fn branch(&self, _id: &SessionId) -> Result<Option<BranchRef>, EngineError> {
        absent(&self.inner)
    }

    /// Stops all turns (they are told as interrupted), leaves the sandboxes running for the next engine, and waits
    /// until everything is on disk.
    pub async fn shutdown(&self) {}

    /// Where this engine keeps its things.
    pub fn data_dir(&self) -> &PathBuf {
        &self.inner.config.data_dir
    }
}

/// A command that runs in a session's sandbox. While it is held, the sandbox is not put away.
pub struct Running {
    /// The command.
    pub process: Process,
}

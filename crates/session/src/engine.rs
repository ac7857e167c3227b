//! The engine: the doors' one way to sessions. It holds the catalogue and hands each request to the session's driver.

mod images;
mod reach;
mod snapshots;
mod sweep;
mod usage;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use hob_agent::{Author, DirEntry};
use hob_sandbox::{Command, Process, Size};
use tokio::sync::{OnceCell, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::reach::{file_error, from_json, git_error, to_json};
use crate::admission::Promised;
use crate::artifacts::Artifacts;
use crate::breaker::Breaker;
use crate::config::{Deps, EngineConfig};
use crate::decide::Input;
use crate::driver::{AcceptedPrompt, Message, disk};
use crate::error::EngineError;
use crate::event::{EventKind, ModelCall};
use crate::fold::SessionState;
use crate::git::{Mirrors, inside};
use crate::id::SessionId;
use crate::images::{Images, keep_up};
use crate::owned::{House, Owned};
use crate::places::Places;
use crate::pool::{self, Claim, Kind, Pool, PoolCounts};
use crate::requests::{
    Artifact, BranchRef, Created, Filter, NewExec, NewPrompt, NewSession, Page, Queued, Record, Summary,
};
use crate::store::{self, Answer, Cursor, ListQuery, Store};
use crate::turn::added;
use crate::workspace;

/// How long a shutdown waits for sessions.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// Events on a page at most, sessions on a page at most and by default.
const EVENTS_MAX: usize = 1_000;
const SESSIONS_MAX: u32 = 200;
const SESSIONS_DEFAULT: u32 = 50;

/// All sessions of a server. Cheap to clone; every clone is the same engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    house: Arc<House>,
    /// Sessions with a driver.
    drivers: Mutex<HashMap<SessionId, Arc<OnceCell<Handle>>>>,
    /// Sandboxes that an earlier engine left running and that no driver has taken over yet.
    left_running: Mutex<HashSet<String>>,
    /// Sandboxes that were there when this engine opened.
    strangers: Mutex<HashSet<String>>,
}

/// A session's driver, as the engine reaches it.
#[derive(Clone)]
struct Handle {
    inbox: mpsc::Sender<Message>,
    owned: Arc<Owned>,
    /// Cancelled when the driver has ended and the next one may begin.
    gone: CancellationToken,
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

/// A command that runs in a session's sandbox. While it is held, the sandbox is not put away.
pub struct Running {
    /// The command.
    pub process: Process,
    _in_use: InUse,
}

/// Somebody uses a sandbox.
struct InUse(Arc<AtomicUsize>);

impl InUse {
    fn new(uses: &Arc<AtomicUsize>) -> Self {
        uses.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(uses))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Engine {
    /// Opens the store, takes over what an earlier engine left, and goes on with it: turns that were interrupted are
    /// told as such, and queued prompts run.
    ///
    /// # Errors
    /// The folder or the store cannot be used, or another engine uses it.
    pub async fn open(config: EngineConfig, deps: Deps) -> Result<Self, EngineError> {
        let data_dir = config.data_dir.clone();
        tokio::fs::create_dir_all(&data_dir).await.map_err(|error| disk(&data_dir, &error))?;
        let path = data_dir.join("hob.sqlite");
        let store = tokio::task::spawn_blocking(move || Store::open(&path))
            .await
            .map_err(|error| EngineError::Store { path: data_dir.clone(), reason: error.to_string() })??;
        let house = Arc::new(House {
            mirrors: Mirrors::new(data_dir.join("mirrors")),
            artifacts: Artifacts::new(data_dir.join("artifacts")),
            images: Images::open(&data_dir, config.images.at_once).await?,
            places: Places::new(config.capacity),
            pool: Pool::new(config.pool.clone()),
            breaker: Mutex::new(Breaker::new(config.breaker)),
            tracker: TaskTracker::new(),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
            owner: deps.ids.next(),
            store,
            config,
            deps,
        });
        let inner =
            Inner { house, drivers: Mutex::default(), left_running: Mutex::default(), strangers: Mutex::default() };
        let engine = Self { inner: Arc::new(inner) };
        engine.take_over().await?;
        engine.keep_swept();
        keep_up(&engine.inner.house);
        pool::keep(&engine.inner.house);
        Ok(engine)
    }

    /// Makes a session. It gets its sandbox ready at once, whether there is a prompt yet or not.
    ///
    /// # Errors
    /// The agent, the model or the prompt is not one that the engine takes, or the store failed.
    pub async fn create(&self, session: NewSession) -> Result<Created, EngineError> {
        self.check(&session).await?;
        let house = &self.inner.house;
        let kind = Kind::new(&session.repository, session.base.as_deref(), &session.agent, &session.model);
        let claim = Claim::of(house, &kind, &session.author.email);
        let id = match &claim {
            Some(claim) => claim.id().clone(),
            None => SessionId::new(house.deps.ids.next()).map_err(EngineError::Invalid)?,
        };
        let at_ms = house.deps.clock.now_ms();
        let NewSession { repository, base, agent, model, author, title, prompt, idempotency_key } = session;
        let scope = format!("create {}", author.email);
        let mut events = vec![EventKind::SessionCreated { repository, base, agent, model, author }];
        events.extend(title.map(|title| EventKind::Titled { title }));
        let mut created = Created { session: id.clone(), prompt: None };
        let mut artifacts = Vec::new();
        if let Some(prompt) = prompt {
            artifacts = self.keep_attachments(&prompt).await?;
            events.extend(artifacts.iter().map(added));
            let prompt_id = house.deps.ids.next();
            created.prompt = Some(Queued { prompt_id: prompt_id.clone(), position: 0 });
            events.push(EventKind::PromptQueued {
                prompt_id,
                author: prompt.author,
                text: prompt.text,
                attachments: artifacts.iter().map(|artifact| artifact.artifact_id.clone()).collect(),
                model: prompt.model,
            });
        }
        let mut state = SessionState::new(id.clone(), at_ms);
        for event in &events {
            state.apply(at_ms, event);
        }
        let answer = match idempotency_key {
            Some(key) => Some(Answer { scope, key, answer: to_json(&created)? }),
            None => None,
        };
        let made = house.store.create(state.summary, at_ms, events, artifacts, answer).await?;
        if let store::Created::Before(before) = made {
            return from_json(&before);
        }
        if let Some(claim) = claim {
            claim.keep();
        }
        if let Err(error) = self.handle(&id).await {
            // It is on disk: the next request, or the next start, goes on with it.
            tracing::error!(session.id = %id, "a new session does not start yet: failed to {error}");
        }
        Ok(created)
    }

    /// Hears that a person begins to write the prompt of such a session, or goes on with it: a sandbox is made warm for
    /// it, within the person's quota, and its image is built where there is none. Title, prompt and key say nothing
    /// here.
    ///
    /// # Errors
    /// The session would not be made either.
    pub async fn typing(&self, session: &NewSession) -> Result<(), EngineError> {
        self.check(session).await?;
        let house = &self.inner.house;
        let NewSession { repository, base, agent, model, author, .. } = session;
        let kind = Kind::new(repository, base.as_deref(), agent, model);
        let is_first = house.pool.typing(&kind, &author.email, house.deps.clock.now_ms());
        if is_first && !house.pool.is_on() {
            pool::build_ahead(house, kind);
        }
        Ok(())
    }

    /// Queues a prompt. When this returns, the prompt is on disk.
    ///
    /// # Errors
    /// There is no such session, it is archived, its queue is full, or the prompt is too long.
    pub async fn prompt(&self, id: &SessionId, prompt: NewPrompt) -> Result<Queued, EngineError> {
        self.check_prompt(&prompt)?;
        let pictures = self.keep_attachments(&prompt).await?;
        let NewPrompt { text, author, model, idempotency_key, .. } = prompt;
        let prompt = AcceptedPrompt { text, author, pictures, model, idempotency_key };
        self.send(id, |reply| Message::Prompt(Box::new(prompt.clone()), reply)).await
    }

    /// Takes back a prompt that has not started.
    ///
    /// # Errors
    /// There is no such session or no such prompt in its queue.
    pub async fn cancel_prompt(&self, id: &SessionId, prompt_id: &str, by: Author) -> Result<(), EngineError> {
        self.ask(id, Input::CancelPrompt { prompt_id: prompt_id.to_owned(), by }).await
    }

    /// Stops the turn that runs; the queue goes on. Without one, nothing happens.
    ///
    /// # Errors
    /// There is no such session.
    pub async fn stop(&self, id: &SessionId, by: Author) -> Result<(), EngineError> {
        self.ask(id, Input::Stop { by }).await
    }

    /// Closes a session for good: its turn is stopped, its queue cancelled, its sandbox removed. Its log stays. A
    /// session that is archived already stays so.
    ///
    /// # Errors
    /// There is no such session.
    pub async fn archive(&self, id: &SessionId, by: Author) -> Result<(), EngineError> {
        self.ask(id, Input::Archive { by }).await
    }

    /// Answers an open permission request with one of its options.
    ///
    /// # Errors
    /// There is no such session, open request or option.
    pub async fn answer_permission(
        &self,
        id: &SessionId,
        request_id: &str,
        option_id: &str,
        by: Author,
    ) -> Result<(), EngineError> {
        let (request_id, option_id) = (request_id.to_owned(), option_id.to_owned());
        self.ask(id, Input::AnswerPermission { request_id, option_id, by }).await
    }

    /// Answers an open question.
    ///
    /// # Errors
    /// There is no such session or open question.
    pub async fn answer_question(
        &self,
        id: &SessionId,
        question_id: &str,
        text: &str,
        by: Author,
    ) -> Result<(), EngineError> {
        let (question_id, text) = (question_id.to_owned(), text.to_owned());
        self.ask(id, Input::AnswerQuestion { question_id, text, by }).await
    }

    /// A page of sessions, the one that changed last first. `cursor` is [`Page::next`] of the page before.
    ///
    /// # Errors
    /// The cursor is none, or the store failed.
    pub async fn list(&self, filter: Filter, cursor: Option<&str>) -> Result<Page, EngineError> {
        let after = cursor.map(str::parse::<Cursor>).transpose().map_err(EngineError::Invalid)?;
        let query = ListQuery {
            state: filter.state,
            repository: filter.repository,
            author_email: filter.author_email,
            limit: filter.limit.unwrap_or(SESSIONS_DEFAULT).clamp(1, SESSIONS_MAX),
            after,
        };
        let (sessions, next) = self.inner.house.store.list(query).await?;
        Ok(Page { sessions, next: next.map(|cursor| cursor.to_string()) })
    }

    /// One session.
    ///
    /// # Errors
    /// There is no such session, or the store failed.
    pub async fn get(&self, id: &SessionId) -> Result<Summary, EngineError> {
        let found = self.inner.house.store.summary(id).await?;
        found.ok_or_else(|| EngineError::NoSuchSession(id.clone()))
    }

    /// Events after `since`, oldest first; at most `limit`, and at most 1,000.
    ///
    /// # Errors
    /// There is no such session, or the store failed.
    pub async fn events(&self, id: &SessionId, since: u64, limit: usize) -> Result<Vec<Record>, EngineError> {
        let found = self.inner.house.store.events(id, since, limit.clamp(1, EVENTS_MAX)).await?;
        if found.is_empty() {
            // Nothing new, or no such session.
            self.get(id).await?;
        }
        Ok(found)
    }

    /// Every event after `since`: those of the past, then those to come, without a gap and without a double. It ends
    /// when the engine shuts down. A slow reader holds nobody back: it reads from the store.
    ///
    /// # Errors
    /// There is no such session, or the store failed.
    pub async fn subscribe(
        &self,
        id: &SessionId,
        since: u64,
    ) -> Result<BoxStream<'static, Result<Record, EngineError>>, EngineError> {
        self.get(id).await?;
        let end = self.inner.house.closed.clone();
        let followed = self.inner.house.store.follow(id, since, end);
        let records = stream::unfold(Some(followed), |followed| async {
            let mut followed = followed?;
            match followed.next().await {
                Ok(Some(record)) => Some((Ok(record), Some(followed))),
                Ok(None) => None,
                Err(error) => Some((Err(EngineError::from(error)), None)),
            }
        });
        Ok(records.boxed())
    }

    /// Records a model call that the gateway carried for a session in an epoch.
    ///
    /// # Errors
    /// There is no such session, its epoch is another, or the store failed.
    pub async fn record_usage(&self, id: &SessionId, epoch: u64, call: ModelCall) -> Result<(), EngineError> {
        self.record_for_gateway(id, epoch, EventKind::ModelCall(call)).await
    }

    /// Records what the gateway did not let out of a session in an epoch.
    ///
    /// # Errors
    /// There is no such session, its epoch is another, or the store failed.
    pub async fn record_refusal(&self, id: &SessionId, epoch: u64, refusal: Refusal) -> Result<(), EngineError> {
        let Refusal { host, port, reason } = refusal;
        self.record_for_gateway(id, epoch, EventKind::EgressRefused { host, port, reason }).await
    }

    /// Records a remark of the gateway on a session in an epoch.
    ///
    /// # Errors
    /// There is no such session, its epoch is another, or the store failed.
    pub async fn record_notice(&self, id: &SessionId, epoch: u64, text: String) -> Result<(), EngineError> {
        self.record_for_gateway(id, epoch, EventKind::Notice { text }).await
    }

    /// The session's change against its base as a unified diff, new files included: as the sandbox has it now, or as of
    /// the last commit when there is no sandbox. Empty when nothing changed.
    ///
    /// # Errors
    /// There is no such session, or git failed.
    pub async fn diff(&self, id: &SessionId) -> Result<String, EngineError> {
        let summary = self.get(id).await?;
        let Some(base) = summary.base_commit else { return Ok(String::new()) };
        let sandbox = self.registered(id).and_then(|handle| handle.owned.sandbox().now());
        let diff = match (sandbox, summary.commit) {
            (Some(sandbox), _) => inside::diff(&sandbox, &base).await,
            (None, Some(commit)) => self.mirror(id).await?.diff(&base, &commit).await,
            (None, None) => Ok(String::new()),
        };
        diff.map_err(|error| git_error(&summary.repository, &error))
    }

    /// Runs a command in the session's sandbox, which is started when there is none.
    ///
    /// # Errors
    /// There is no such session, it is archived, or its sandbox cannot be started.
    pub async fn exec(&self, id: &SessionId, exec: NewExec) -> Result<Running, EngineError> {
        let (sandbox, in_use) = self.sandbox(id).await?;
        let NewExec { argv, cwd, env, stdin, timeout } = exec;
        let cwd = Some(cwd.map_or_else(|| workspace::ROOT.to_owned(), |cwd| workspace::absolute(&cwd)));
        let command = Command { argv, cwd, env, stdin, timeout, pty: None };
        let process = sandbox.exec(command).await.map_err(|error| EngineError::Sandbox(error.to_string()))?;
        Ok(Running { process, _in_use: in_use })
    }

    /// Opens a terminal with a shell in the session's sandbox, which is started when there is none.
    ///
    /// # Errors
    /// As for [`Engine::exec`].
    pub async fn shell(&self, id: &SessionId, size: Size) -> Result<Running, EngineError> {
        let (sandbox, in_use) = self.sandbox(id).await?;
        let pick = "if command -v bash >/dev/null; then exec bash -l; else exec sh -l; fi";
        let command =
            Command::new(["/bin/sh", "-c", pick]).cwd(workspace::ROOT).env("TERM", "xterm-256color").pty(size);
        let process = sandbox.exec(command).await.map_err(|error| EngineError::Sandbox(error.to_string()))?;
        Ok(Running { process, _in_use: in_use })
    }

    /// A file's bytes, at most [`EngineLimits::file_bytes_max`](crate::EngineLimits).
    ///
    /// # Errors
    /// As for [`Engine::exec`], and when there is no such file.
    pub async fn read_file(&self, id: &SessionId, path: &str) -> Result<Bytes, EngineError> {
        let (sandbox, _in_use) = self.readable(id).await?;
        let max = self.inner.house.config.limits.file_bytes_max as u64;
        sandbox.read_file(&workspace::absolute(path), 0..max).await.map_err(|error| file_error(path, error))
    }

    /// Replaces a file's bytes, and makes its folders.
    ///
    /// # Errors
    /// As for [`Engine::exec`], and when the file is too large.
    pub async fn write_file(&self, id: &SessionId, path: &str, bytes: Bytes) -> Result<(), EngineError> {
        let max = self.inner.house.config.limits.file_bytes_max;
        if bytes.len() > max {
            return Err(EngineError::Invalid(format!("{path} has {} bytes, at most {max} are taken", bytes.len())));
        }
        let (sandbox, _in_use) = self.sandbox(id).await?;
        sandbox.write_file(&workspace::absolute(path), bytes).await.map_err(|error| file_error(path, error))
    }

    /// A folder's entries, sorted by name.
    ///
    /// # Errors
    /// As for [`Engine::exec`], and when there is no such folder.
    pub async fn list_dir(&self, id: &SessionId, path: &str) -> Result<Vec<DirEntry>, EngineError> {
        let (sandbox, _in_use) = self.readable(id).await?;
        workspace::list(&sandbox, path).await.map_err(|error| file_error(path, error))
    }

    /// What the session made, oldest first.
    ///
    /// # Errors
    /// There is no such session, or the store failed.
    pub async fn artifacts(&self, id: &SessionId) -> Result<Vec<Artifact>, EngineError> {
        self.get(id).await?;
        Ok(self.inner.house.store.artifacts(id).await?)
    }

    /// An artifact and its bytes.
    ///
    /// # Errors
    /// There is no such session or artifact, or its file cannot be read.
    pub async fn artifact_bytes(&self, id: &SessionId, artifact_id: &str) -> Result<(Artifact, Bytes), EngineError> {
        let found = self.artifacts(id).await?.into_iter().find(|artifact| artifact.artifact_id == artifact_id);
        let artifact = found.ok_or_else(|| EngineError::NoSuchArtifact { artifact_id: artifact_id.to_owned() })?;
        let bytes = self.inner.house.artifacts.read(&artifact).await;
        let bytes = bytes.map_err(|error| disk(&self.inner.house.config.data_dir, &error))?;
        Ok((artifact, bytes))
    }

    /// Where the session's branch can be fetched from; `None` while it has no commit.
    ///
    /// # Errors
    /// There is no such session, or the store failed.
    pub async fn branch(&self, id: &SessionId) -> Result<Option<BranchRef>, EngineError> {
        let summary = self.get(id).await?;
        let (Some(branch), Some(commit)) = (summary.branch, summary.commit) else { return Ok(None) };
        Ok(Some(BranchRef { mirror: self.mirror(id).await?.folder().to_owned(), branch, commit }))
    }

    /// Stops all turns (they are told as interrupted), leaves the sandboxes running for the next engine, and waits
    /// until everything is on disk.
    pub async fn shutdown(&self) {
        let house = &self.inner.house;
        house.closing.cancel();
        house.tracker.close();
        if tokio::time::timeout(SHUTDOWN, house.tracker.wait()).await.is_err() {
            tracing::warn!("sessions did not end within {} s; the next start goes on with them", SHUTDOWN.as_secs());
        }
        house.closed.cancel();
        house.store.close().await;
    }

    /// What is promised to the sandboxes that run, and how many wait for a place.
    pub fn promised(&self) -> (Promised, u32) {
        self.inner.house.places.promised()
    }

    /// How many sandboxes are kept warm, and how often there was one.
    pub fn pool(&self) -> PoolCounts {
        self.inner.house.pool.counts()
    }

    /// Where this engine keeps its things.
    pub fn data_dir(&self) -> &Path {
        &self.inner.house.config.data_dir
    }
}

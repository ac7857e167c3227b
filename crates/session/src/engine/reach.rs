//! How the engine reaches its sessions: drivers are found or started, requests checked and handed over.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hob_sandbox::{Sandbox, SandboxError};
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Engine, Handle, InUse};
use crate::artifacts::NewArtifact;
use crate::decide::Input;
use crate::driver::{Driver, INBOX_LEN, Message, disk};
use crate::error::EngineError;
use crate::event::EventKind;
use crate::git::{GitError, Mirror, display_name};
use crate::id::SessionId;
use crate::log::SessionLog;
use crate::owned::{Owned, millis};
use crate::requests::{Artifact, NewPrompt, NewSession};

/// How long a claim of a session holds. On one machine the lock on the store's file says who is alive, so nothing waits
/// for it; several servers on one store will.
const LEASE: Duration = Duration::from_secs(10);

impl Engine {
    /// Takes over what an earlier engine left: sessions with work to do, and those whose sandbox still runs.
    pub(super) async fn take_over(&self) -> Result<(), EngineError> {
        let house = &self.inner.house;
        let listed = house.deps.provider.list().await.map_err(|error| EngineError::Sandbox(error.to_string()))?;
        *self.inner.strangers.lock().unwrap_or_else(PoisonError::into_inner) =
            listed.iter().map(|found| found.id.to_string()).collect();
        let running: HashSet<String> =
            listed.into_iter().filter(|found| found.running).map(|found| found.id.to_string()).collect();
        let mut sessions: Vec<SessionId> = house.store.pending().await?;
        let others = running.iter().filter_map(|id| SessionId::new(id.as_str()).ok());
        sessions.extend(others.filter(|id| !sessions.contains(id)).collect::<Vec<_>>());
        // Before the first driver asks for a place: what runs already has one.
        for id in running.iter().filter_map(|id| SessionId::new(id.as_str()).ok()) {
            house.places.occupy(id, house.largest_need());
        }
        *self.inner.left_running.lock().unwrap_or_else(PoisonError::into_inner) = running;
        for id in sessions {
            match self.handle(&id).await {
                Ok(_) => {}
                Err(EngineError::NoSuchSession(id)) => tracing::warn!(sandbox.id = %id, "a sandbox of no session runs"),
                // The others are not held up by one.
                Err(error) => tracing::error!(session.id = %id, "a session is not taken over: failed to {error}"),
            }
        }
        Ok(())
    }

    pub(super) async fn check(&self, session: &NewSession) -> Result<(), EngineError> {
        let invalid = |reason: &str| {
            let repository = display_name(&session.repository);
            Err(EngineError::Repository { repository, reason: reason.to_owned() })
        };
        self.inner.house.deps.agents.check(&session.agent, &session.model).map_err(EngineError::Invalid)?;
        if let Some(prompt) = &session.prompt {
            self.check_prompt(prompt)?;
        }
        let repository = session.repository.as_str();
        if repository.is_empty() || repository.starts_with('-') || repository.chars().any(char::is_control) {
            return invalid("it is no path and no URL");
        }
        if has_password(repository) {
            return invalid("its URL holds a password; give that to git's credential helper on the server instead");
        }
        if Path::new(repository).is_absolute() {
            let there = tokio::fs::try_exists(repository).await;
            if !there.map_err(|error| disk(Path::new(repository), &error))? {
                return invalid("there is no such folder on the server's machine");
            }
        } else if !repository.contains(':') {
            return invalid("give its absolute path on the server's machine, or its URL");
        }
        Ok(())
    }

    pub(super) fn check_prompt(&self, prompt: &NewPrompt) -> Result<(), EngineError> {
        let limits = &self.inner.house.config.limits;
        if prompt.text.len() > limits.prompt_bytes_max {
            return Err(EngineError::PromptTooLong { bytes: prompt.text.len(), max: limits.prompt_bytes_max });
        }
        if prompt.text.trim().is_empty() && prompt.attachments.is_empty() {
            return Err(EngineError::Invalid("the prompt is empty".to_owned()));
        }
        let max = limits.attachment_bytes_max;
        match prompt.attachments.iter().find(|attachment| attachment.bytes.len() > max) {
            Some(large) => Err(EngineError::Invalid(format!(
                "the attachment {} has {} bytes, at most {max} are taken",
                large.name,
                large.bytes.len()
            ))),
            None => Ok(()),
        }
    }

    pub(super) async fn keep_attachments(&self, prompt: &NewPrompt) -> Result<Vec<Artifact>, EngineError> {
        let house = &self.inner.house;
        let mut kept = Vec::new();
        for attachment in &prompt.attachments {
            let new = NewArtifact {
                artifact_id: house.deps.ids.next(),
                kind: "image",
                name: &attachment.name,
                media_type: &attachment.media_type,
                at_ms: house.deps.clock.now_ms(),
            };
            let artifact = house.artifacts.keep(new, &attachment.bytes).await;
            kept.push(artifact.map_err(|error| disk(&house.config.data_dir, &error))?);
        }
        Ok(kept)
    }

    pub(super) async fn ask(&self, id: &SessionId, input: Input) -> Result<(), EngineError> {
        self.send(id, |reply| Message::Ask(input.clone(), reply)).await
    }

    /// Gives a message to a session's driver, and waits for the answer. A driver that rests in this moment has not taken
    /// it; then the next one is asked.
    pub(super) async fn send<T>(
        &self,
        id: &SessionId,
        message: impl Fn(oneshot::Sender<Result<T, EngineError>>) -> Message,
    ) -> Result<T, EngineError> {
        loop {
            if self.inner.house.closing.is_cancelled() {
                return Err(EngineError::ShuttingDown);
            }
            let handle = self.handle(id).await?;
            let (reply, answer) = oneshot::channel();
            if handle.inbox.send(message(reply)).await.is_ok()
                && let Ok(answer) = answer.await
            {
                return answer;
            }
            handle.gone.cancelled().await;
        }
    }

    /// The driver of a session; one is started where there is none.
    pub(super) async fn handle(&self, id: &SessionId) -> Result<Handle, EngineError> {
        let cell = {
            let mut drivers = self.inner.drivers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(drivers.entry(id.clone()).or_default())
        };
        let handle = cell.get_or_try_init(|| self.drive(id, &cell)).await.cloned();
        if handle.is_err() {
            self.forget(id, &cell);
        }
        handle
    }

    /// The driver of a session, if there is one.
    pub(super) fn registered(&self, id: &SessionId) -> Option<Handle> {
        let drivers = self.inner.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.get(id)?.get().cloned()
    }

    pub(super) async fn drive(&self, id: &SessionId, cell: &Arc<OnceCell<Handle>>) -> Result<Handle, EngineError> {
        let house = &self.inner.house;
        let until = house.deps.clock.now_ms() + millis(LEASE);
        let claim = house.store.claim(id, &house.owner, until).await?;
        let epoch = claim.ok_or_else(|| EngineError::NoSuchSession(id.clone()))?.epoch;
        let clock = Arc::clone(&house.deps.clock);
        let log =
            SessionLog::load(house.store.clone(), id.clone(), epoch, clock, house.config.observer.clone()).await?;
        let owned = Arc::new(Owned::new(Arc::clone(house), id.clone(), epoch, log));
        let (inbox, waiting) = mpsc::channel(INBOX_LEN);
        let driver = Driver::new(Arc::clone(&owned), waiting, inbox.clone());
        let handle = Handle { inbox, owned, gone: CancellationToken::new() };
        let alive = self.inner.left_running.lock().unwrap_or_else(PoisonError::into_inner).remove(id.as_str());
        let (engine, id, cell, gone) = (self.clone(), id.clone(), Arc::downgrade(cell), handle.gone.clone());
        house.tracker.spawn(async move {
            let end = driver.run(Input::Opened { alive }).await;
            tracing::debug!(session.id = %id, "the driver has ended: {end:?}");
            if let Some(cell) = cell.upgrade() {
                engine.forget(&id, &cell);
            }
            gone.cancel();
        });
        Ok(handle)
    }

    pub(super) fn forget(&self, id: &SessionId, cell: &Arc<OnceCell<Handle>>) {
        let mut drivers = self.inner.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        if drivers.get(id).is_some_and(|known| Arc::ptr_eq(known, cell)) {
            drivers.remove(id);
        }
    }

    /// The sandbox of a session, started where there is none.
    pub(super) async fn sandbox(&self, id: &SessionId) -> Result<(Sandbox, InUse), EngineError> {
        self.ask(id, Input::Want).await?;
        let handle = self.handle(id).await?;
        let in_use = InUse::new(&handle.owned.uses);
        let sandbox = handle.owned.sandbox().ready().await.map_err(EngineError::Sandbox)?;
        Ok((sandbox, in_use))
    }

    /// The same, as soon as it can be read.
    pub(super) async fn readable(&self, id: &SessionId) -> Result<(Sandbox, InUse), EngineError> {
        self.ask(id, Input::Want).await?;
        let handle = self.handle(id).await?;
        let in_use = InUse::new(&handle.owned.uses);
        let sandbox = handle.owned.sandbox().readable().await.map_err(EngineError::Sandbox)?;
        Ok((sandbox, in_use))
    }

    pub(super) async fn record_for_gateway(
        &self,
        id: &SessionId,
        epoch: u64,
        event: EventKind,
    ) -> Result<(), EngineError> {
        if self.inner.house.images.hear(id, &event).await {
            return Ok(());
        }
        match self.registered(id).filter(|handle| handle.owned.epoch == epoch) {
            Some(handle) => Ok(handle.owned.record(vec![event]).await?),
            None if self.inner.house.pool.hear(id, event).await => Ok(()),
            None => Err(EngineError::Fenced { session: id.clone(), epoch }),
        }
    }

    /// The mirror of a session's repository.
    pub(super) async fn mirror(&self, id: &SessionId) -> Result<Mirror, EngineError> {
        let first = self.inner.house.store.events(id, 0, 1).await?;
        let kind = first.first().and_then(|record| record.event().ok()).map(|event| event.kind);
        match kind {
            Some(EventKind::SessionCreated { repository, .. }) => Ok(self.inner.house.mirrors.known(&repository)),
            _ => Err(EngineError::NoSuchSession(id.clone())),
        }
    }
}

/// Whether a URL carries `user:password@`.
fn has_password(repository: &str) -> bool {
    let Some((_, rest)) = repository.split_once("://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

pub(super) fn git_error(repository: &str, error: &GitError) -> EngineError {
    EngineError::Repository { repository: repository.to_owned(), reason: format!("failed to {error}") }
}

pub(super) fn file_error(path: &str, error: SandboxError) -> EngineError {
    let missing = matches!(error, SandboxError::NotFound { .. });
    match error {
        SandboxError::NotFound { .. } => {
            EngineError::File { path: path.to_owned(), reason: "there is no such file".to_owned(), missing }
        }
        SandboxError::Refused { reason, .. } => EngineError::File { path: path.to_owned(), reason, missing },
        other => EngineError::Sandbox(other.to_string()),
    }
}

pub(super) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, EngineError> {
    serde_json::to_string(value).map_err(|error| EngineError::Invalid(error.to_string()))
}

pub(super) fn from_json<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, EngineError> {
    serde_json::from_str(json).map_err(|error| EngineError::Invalid(error.to_string()))
}

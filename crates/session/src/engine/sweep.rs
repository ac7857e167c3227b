//! Removes what belongs to no session any more: sandboxes and folders that a crash left behind.
//!
//! The log is the truth. A session is in the store before anything is made for it, so what is found first and has no
//! session then, or an archived one, is nobody's. What this server itself makes for other purposes is left alone: of
//! sandboxes without a session, only those count that were there when it started.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::PoisonError;

use hob_sandbox::SandboxId;

use super::Engine;
use crate::driver::disk;
use crate::error::EngineError;
use crate::id::SessionId;
use crate::state::State;

impl Engine {
    /// Sweeps now, and again and again until the engine shuts down.
    pub(super) fn keep_swept(&self) {
        let (engine, closing) = (self.clone(), self.inner.house.closing.clone());
        let every = self.inner.house.config.timeouts.sweep;
        self.inner.house.tracker.spawn(async move {
            loop {
                if let Err(error) = engine.sweep().await {
                    tracing::warn!("something may be left behind: failed to {error}");
                }
                tokio::select! {
                    () = closing.cancelled() => return,
                    () = tokio::time::sleep(every) => {}
                }
            }
        });
    }

    /// Removes sandboxes and folders of sessions that are archived or unknown, and what a crash left of others. Nothing
    /// that is in use is touched.
    ///
    /// # Errors
    /// Something could not be looked through or removed.
    pub async fn sweep(&self) -> Result<(), EngineError> {
        let house = &self.inner.house;
        let sandbox = |error: hob_sandbox::SandboxError| EngineError::Sandbox(error.to_string());
        for found in house.deps.provider.list().await.map_err(sandbox)? {
            if self.is_nobodys(found.id.as_str()).await? {
                tracing::info!(sandbox.id = %found.id, "removing a sandbox of no session");
                house.deps.provider.destroy(&found.id).await.map_err(sandbox)?;
                self.forget_left(&found.id);
            }
        }
        house.deps.provider.sweep().await.map_err(sandbox)?;
        self.sweep_folders().await
    }

    /// Removes the folders of sessions whose sandbox is gone: their checkouts were under it.
    async fn sweep_folders(&self) -> Result<(), EngineError> {
        let folder = self.inner.house.config.data_dir.join("sessions");
        for name in names(&folder).await.map_err(|error| disk(&folder, &error))? {
            let Ok(id) = SessionId::new(name.as_str()) else { continue };
            // Asked first: what a session takes meanwhile is in the store by then.
            if self.inner.house.pool.holds(&id) || !self.is_over(&id).await?.unwrap_or(true) {
                continue;
            }
            let left = folder.join(&name);
            tracing::info!(folder = %left.display(), "removing the folder of no session");
            match tokio::fs::remove_dir_all(&left).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(disk(&left, &error)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Whether a sandbox belongs to no session that could want it again.
    async fn is_nobodys(&self, name: &str) -> Result<bool, EngineError> {
        let over = match SessionId::new(name) {
            Ok(id) => self.is_over(&id).await?,
            Err(_) => None,
        };
        let strangers = || self.inner.strangers.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
        Ok(over.unwrap_or_else(strangers))
    }

    /// Whether a session is archived; nothing where there is none of this name.
    async fn is_over(&self, id: &SessionId) -> Result<Option<bool>, EngineError> {
        let summary = self.inner.house.store.summary(id).await?;
        Ok(summary.map(|summary| summary.state == State::Archived))
    }

    /// Gives up the place of a sandbox that is gone.
    fn forget_left(&self, id: &SandboxId) {
        self.inner.strangers.lock().unwrap_or_else(PoisonError::into_inner).remove(id.as_str());
        if let Ok(id) = SessionId::new(id.as_str()) {
            self.inner.house.places.leave(&id);
        }
    }
}

/// The names in a folder; none where it is not there.
async fn names(folder: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut entries = match tokio::fs::read_dir(folder).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut names = BTreeSet::new();
    while let Some(entry) = entries.next_entry().await? {
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

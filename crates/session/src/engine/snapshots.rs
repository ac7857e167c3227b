//! Snapshots on demand.

use hob_sandbox::LiveSnapshot;

use super::Engine;
use crate::error::EngineError;
use crate::id::SessionId;
use crate::snapshot::take_live;
use crate::state::State;

impl Engine {
    /// Freezes a session's files as they are now; its sandbox runs on. Of a session that was put away it is the snapshot
    /// of then.
    ///
    /// # Errors
    /// There is no such session, it is archived, its sandbox cannot be started or cannot be frozen.
    pub async fn snapshot(&self, id: &SessionId) -> Result<LiveSnapshot, EngineError> {
        if self.get(id).await?.state == State::Archived {
            return Err(EngineError::Archived(id.clone()));
        }
        let owned = self.handle(id).await?.owned;
        let asleep = owned.log.read(|state| state.snapshot.clone().filter(|_| state.summary.state == State::Suspended));
        if let Some(snapshot) = asleep.await {
            return Ok(LiveSnapshot { snapshot, paused_ms: None });
        }
        let (_sandbox, _in_use) = self.sandbox(id).await?;
        take_live(&owned, None).await.map_err(EngineError::Sandbox)
    }
}

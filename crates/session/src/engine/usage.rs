//! What sandboxes use now: of one session for a person, of all for statistics.

use std::sync::PoisonError;
use std::time::Duration;

use hob_sandbox::{DiskUse, Sandbox, SandboxId, Stats};
use tokio::time::Instant;

use super::Engine;
use crate::error::EngineError;
use crate::id::SessionId;
use crate::requests::SandboxUse;
use crate::state::State;

/// For how long processor time is watched.
const SAMPLE: Duration = Duration::from_millis(200);

impl Engine {
    /// What a session's sandbox uses now, watched for a fifth of a second; nothing where it has none now. None is
    /// started for this.
    ///
    /// # Errors
    /// There is no such session, or its sandbox could not be measured.
    pub async fn usage(&self, id: &SessionId) -> Result<Option<SandboxUse>, EngineError> {
        self.get(id).await?;
        let Some(sandbox) = self.registered(id).and_then(|handle| handle.owned.sandbox().now()) else {
            return Ok(None);
        };
        let (begun, before) = (Instant::now(), sandbox.usage().cpu_us);
        tokio::time::sleep(SAMPLE).await;
        let (elapsed, after) = (begun.elapsed(), sandbox.usage().cpu_us);
        let stats = sandbox.stats().await.map_err(|error| EngineError::Sandbox(error.to_string()))?;
        let used = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        let cpu_millicores = used.map(|used_us| used_us.saturating_mul(1_000) / elapsed_us);
        Ok(Some(SandboxUse { stats, cpu_millicores, limits: sandbox.limits() }))
    }

    /// What a session's files take on disk, also while it is put away; nothing where that is not known, or the session is
    /// archived and they are on their way out.
    ///
    /// # Errors
    /// There is no such session, or the disk could not be asked.
    pub async fn disk_use(&self, id: &SessionId) -> Result<Option<DiskUse>, EngineError> {
        if self.get(id).await?.state == State::Archived {
            return Ok(None);
        }
        let sandbox = SandboxId::new(id.as_str()).map_err(EngineError::Invalid)?;
        let used = self.inner.house.deps.provider.disk_use(&sandbox).await;
        used.map_err(|error| EngineError::Sandbox(error.to_string()))
    }

    /// How many sandboxes there are now, and what they use together, without their disks.
    pub fn usage_of_all(&self) -> (u64, Stats) {
        let sandboxes: Vec<Sandbox> = {
            let drivers = self.inner.drivers.lock().unwrap_or_else(PoisonError::into_inner);
            drivers.values().filter_map(|cell| cell.get()?.owned.sandbox().now()).collect()
        };
        let sum = sandboxes.iter().map(Sandbox::usage).fold(Stats::default(), |sum, stats| Stats {
            cpu_us: add(sum.cpu_us, stats.cpu_us),
            memory_bytes: add(sum.memory_bytes, stats.memory_bytes),
            processes: add(sum.processes, stats.processes),
            disk_bytes: None,
            oom_kills: add(sum.oom_kills, stats.oom_kills),
        });
        (sandboxes.len() as u64, sum)
    }
}

/// The sum of what is known.
fn add(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (known, None) | (None, known) => known,
    }
}

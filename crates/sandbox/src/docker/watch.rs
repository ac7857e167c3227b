//! What happens to containers by themselves: they end, they use up what they may.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::api::{Container, State, Waited};
use super::engine::{Engine, EngineError};
use crate::command::SandboxEvent;
use crate::disk::{self, Verdict, Written};
use crate::sandbox::Sandbox;
use crate::spec::SandboxId;
use crate::watched::{Watched, tell};

/// How often limits are looked at. A sandbox can write for this long beyond its limit, and as long as the daemon takes to
/// measure.
const PERIOD: Duration = Duration::from_millis(200);

/// How long to wait before a daemon that did not answer is asked again. Sandboxes may run on without it.
const PAUSE: Duration = Duration::from_secs(1);

/// What a container has written, as its daemon counts it.
#[derive(Debug)]
pub(super) struct OfContainer {
    pub(super) engine: Engine,
    pub(super) container: String,
}

#[async_trait]
impl Written for OfContainer {
    async fn bytes(&self) -> std::io::Result<u64> {
        let asked = self.engine.get(&format!("/containers/{}/json?size=true", self.container)).await;
        let found: Container = asked.map_err(std::io::Error::other)?;
        found.size_rw.ok_or_else(|| std::io::Error::other("the daemon does not say how much its container has written"))
    }
}

/// Tells a handle when its container has ended.
pub(super) async fn end(engine: Engine, container: String, sandbox: Sandbox, stop: CancellationToken) {
    let reason = tokio::select! {
        reason = ended(&engine, &container) => reason,
        _ = sandbox.closed() => return,
        () = stop.cancelled() => return,
    };
    sandbox.link().close(&reason);
}

/// Waits until a container has ended, however often its daemon is started again meanwhile, and says how it ended.
async fn ended(engine: &Engine, container: &str) -> String {
    loop {
        let waited: Result<Waited, EngineError> = engine.wait(&format!("/containers/{container}/wait")).await;
        if let Err(error) = waited {
            tracing::debug!("failed to {error}");
            tokio::time::sleep(PAUSE).await;
        }
        match engine.find::<Container>(&format!("/containers/{container}/json")).await {
            Ok(Some(Container { state: State { running: true, .. }, .. })) | Err(_) => {}
            Ok(Some(found)) => return words(&found.state),
            Ok(None) => return "its container was removed".to_owned(),
        }
    }
}

fn words(state: &State) -> String {
    let code = state.exit_code.map_or_else(String::new, |code| format!(" with code {code}"));
    let memory = if state.oom_killed == Some(true) { ", after its memory was full" } else { "" };
    format!("its container ended{code}{memory}")
}

/// Watches the limits of all sandboxes that have a handle. `storage` is where the daemon keeps their files.
pub(super) async fn limits(inner: Weak<Inner>, storage: PathBuf, stop: CancellationToken) {
    let mut known: HashMap<SandboxId, Watched> = HashMap::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = stop.cancelled() => return,
        }
        let Some(open) = inner.upgrade().map(|inner| inner.open_sandboxes().values().cloned().collect::<Vec<_>>())
        else {
            return;
        };
        known.retain(|id, _| open.iter().any(|sandbox| sandbox.id() == id));
        for sandbox in open.iter().filter(|sandbox| !sandbox.link().is_closed()) {
            let known = known.entry(sandbox.id().clone()).or_insert_with(|| Watched::new(sandbox));
            known.look_at_groups(sandbox);
            look_at_disk(sandbox, &storage, known).await;
        }
    }
}

async fn look_at_disk(sandbox: &Sandbox, storage: &Path, known: &mut Watched) {
    let now = Instant::now();
    // Where the storage cannot be seen nothing is known of it, and every sandbox is measured now and then.
    let free = disk::free_bytes(storage).unwrap_or_default();
    if !known.gauge.is_due(free, now) {
        return;
    }
    let used = match sandbox.parts().written.bytes().await {
        Ok(used) => used,
        Err(error) => return tracing::debug!(sandbox.id = %sandbox.id(), "failed to measure its files: {error}"),
    };
    let limit_bytes = sandbox.parts().limits.disk_bytes;
    match known.gauge.measure(used, free, now) {
        Verdict::Fine => {}
        Verdict::NearlyFull => tell(sandbox, SandboxEvent::DiskNearlyFull { used_bytes: used, limit_bytes }),
        Verdict::Full => {
            if let Err(error) = sandbox.kill_all().await {
                tracing::warn!(sandbox.id = %sandbox.id(), "failed to stop what fills the disk: {error}");
            }
            tell(sandbox, SandboxEvent::DiskFull { used_bytes: used, limit_bytes });
        }
    }
}

//! What happens to sandboxes by itself: they end, they use up what they may.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Weak;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::command::SandboxEvent;
use crate::disk::{self, Verdict};
use crate::helper::Ended;
use crate::sandbox::Sandbox;
use crate::spec::SandboxId;
use crate::watched::{Watched, tell};

/// How often limits are looked at. A sandbox can write for this long beyond its limit.
const PERIOD: Duration = Duration::from_millis(200);

/// Below this the host's own programs fail, so every sandbox is taken to be over its limit when it grows.
const RESERVE: u64 = 512 << 20;

/// Tells handles that their sandbox has ended.
pub(super) async fn ends(inner: Weak<Inner>, mut ended: broadcast::Receiver<Ended>) {
    loop {
        let received = ended.recv().await;
        let Some(inner) = inner.upgrade() else { return };
        match received {
            Ok(Ended { id, writer, reason }) => {
                let ended = |sandbox: &SandboxId| id.as_deref().is_none_or(|id| id == sandbox.as_str());
                let mut lost = take(&mut inner.writers(), ended);
                if !writer {
                    lost.extend(take(&mut inner.open_sandboxes(), ended));
                }
                lost.iter().for_each(|handle| handle.link().close(&reason));
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn take(handles: &mut BTreeMap<SandboxId, Sandbox>, which: impl Fn(&SandboxId) -> bool) -> Vec<Sandbox> {
    let ids: Vec<SandboxId> = handles.keys().filter(|id| which(id)).cloned().collect();
    ids.iter().filter_map(|id| handles.remove(id)).collect()
}

/// Watches the limits of all sandboxes that have a handle.
pub(super) async fn limits(inner: Weak<Inner>, stop: CancellationToken) {
    let mut known: HashMap<SandboxId, Watched> = HashMap::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = stop.cancelled() => return,
        }
        let Some((folder, open, writers)) = inner.upgrade().map(|inner| {
            let open: Vec<Sandbox> = inner.open_sandboxes().values().cloned().collect();
            let writers = inner.writers().clone();
            (inner.folder.clone(), open, writers)
        }) else {
            return;
        };
        known.retain(|id, _| open.iter().any(|sandbox| sandbox.id() == id));
        for sandbox in &open {
            let known = known.entry(sandbox.id().clone()).or_insert_with(|| Watched::new(sandbox));
            known.look_at_groups(sandbox);
            look_at_disk(sandbox, writers.get(sandbox.id()), &folder, known).await;
        }
    }
}

async fn look_at_disk(sandbox: &Sandbox, writer: Option<&Sandbox>, folder: &Path, known: &mut Watched) {
    let now = Instant::now();
    let Ok(free) = disk::free_bytes(folder) else { return };
    if !known.gauge.is_due(free, now) && free > RESERVE {
        return;
    }
    let used = match sandbox.parts().written.bytes().await {
        Ok(used) => used,
        Err(error) => return tracing::warn!(sandbox.id = %sandbox.id(), "failed to measure its layer: {error}"),
    };
    let limit_bytes = sandbox.parts().limits.disk_bytes;
    match known.gauge.measure(used, free, now) {
        Verdict::Fine => {}
        Verdict::NearlyFull => tell(sandbox, SandboxEvent::DiskNearlyFull { used_bytes: used, limit_bytes }),
        Verdict::Full => {
            for handle in writer.into_iter().chain([sandbox]) {
                if let Err(error) = handle.kill_all().await {
                    tracing::warn!(sandbox.id = %sandbox.id(), "failed to stop what fills the disk: {error}");
                }
            }
            tell(sandbox, SandboxEvent::DiskFull { used_bytes: used, limit_bytes });
        }
    }
}

//! Snapshots of sandboxes that run on.

use std::sync::Arc;

use super::Inner;
use super::record::{self, LiveLayer, Record};
use super::snapshot::blocking;
use crate::disk;
use crate::freezer::Freezer;
use crate::layer::LayerId;
use crate::provider::{LiveSnapshot, SandboxError, Snapshot};
use crate::spec::SandboxId;

/// What has to be left on the disk beside a copy: below this the host's own programs fail.
const RESERVE: u64 = 1 << 30;

impl Inner {
    /// Why sandboxes that run cannot be frozen here; `None` where they can.
    pub(super) fn no_live_snapshots(&self) -> Option<String> {
        if !self.ids.can_shift() {
            return Some("Hob is not root: files inside that belong to others are closed to it".to_owned());
        }
        let missing = "this machine has no freezer of control groups that Hob may use".to_owned();
        (!self.cgroups.can_freeze()).then_some(missing)
    }

    /// Freezes a copy of what a sandbox that runs has written.
    pub(super) async fn freeze_live(self: &Arc<Self>, id: &SandboxId) -> Result<LiveSnapshot, SandboxError> {
        let refused =
            |reason: String| SandboxError::Refused { what: format!("a live snapshot of sandbox {id}"), reason };
        if let Some(reason) = self.no_live_snapshots() {
            return Err(refused(reason));
        }
        let record = record::read(&self.folder_of(id))?;
        let running = self.helper().await?.running().await.map_err(refused)?;
        let Some((record, open)) = record
            .filter(|_| running.contains_key(id.as_str()))
            .and_then(|record| record.layer.clone().map(|open| (record, open)))
        else {
            return Err(SandboxError::NotFound { what: format!("a running sandbox {id}") });
        };
        let freezer = Freezer::of(&record.groups).ok_or_else(|| {
            refused("it was started by an earlier version of Hob; the next start mends that".to_owned())
        })?;
        let (inner, id) = (Arc::clone(self), id.clone());
        blocking(move || inner.freeze_live_now(&id, record, &open, &freezer)).await
    }

    fn freeze_live_now(
        &self,
        id: &SandboxId,
        mut record: Record,
        open: &LayerId,
        freezer: &Freezer,
    ) -> Result<LiveSnapshot, SandboxError> {
        if let Some(snapshot) = self.still_current(&record, open)? {
            return Ok(snapshot);
        }
        self.check_room(id, open)?;
        let making = self.layers.begin(id, record.last_layer)?;
        let before = record.live.as_ref().map(|live| (&live.layer, live.since));
        let live = self.layers.copy(open, making.id(), before, freezer)?;
        record.last_layer = making.id().number();
        record.live = Some(LiveLayer { layer: making.id().clone(), since: live.begun });
        record::write(&self.folder_of(id), &record)?;
        drop(making);
        self.collect();
        let (entries, bytes) = (live.manifest.entries, live.manifest.bytes);
        let paused_ms = Some(u64::try_from(live.paused.as_millis()).unwrap_or(u64::MAX));
        Ok(LiveSnapshot { snapshot: Snapshot { layers: record.live_layers(), entries, bytes }, paused_ms })
    }

    /// The last live snapshot, where nothing was written since.
    fn still_current(&self, record: &Record, open: &LayerId) -> Result<Option<LiveSnapshot>, SandboxError> {
        let Some(live) = &record.live else { return Ok(None) };
        let Ok(Some(manifest)) = self.layers.manifest(&live.layer) else { return Ok(None) };
        if self.layers.changed_since(open, live.since)? {
            return Ok(None);
        }
        let (entries, bytes) = (manifest.entries, manifest.bytes);
        let snapshot = Snapshot { layers: record.live_layers(), entries, bytes };
        Ok(Some(LiveSnapshot { snapshot, paused_ms: None }))
    }

    fn check_room(&self, id: &SandboxId, open: &LayerId) -> Result<(), SandboxError> {
        let folder = self.layers.folder_of(open);
        let measured = disk::used_bytes(&folder).and_then(|used| Ok((used, disk::free_bytes(&folder)?)));
        let (used, free) = measured.map_err(SandboxError::io("measure", &folder))?;
        if free >= used.saturating_add(RESERVE) {
            return Ok(());
        }
        let reason = format!("its {} MiB do not fit on the disk beside what has to stay free", used >> 20);
        Err(SandboxError::Refused { what: format!("a live snapshot of sandbox {id}"), reason })
    }
}

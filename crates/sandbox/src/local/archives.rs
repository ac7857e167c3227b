//! Layers that leave as an archive or come from one, and what layers take on disk.

use std::io::{Read, Write};
use std::sync::Arc;

use super::Inner;
use super::record;
use super::snapshot::blocking;
use crate::disk;
use crate::image::ImageLimits;
use crate::layer::LayerId;
use crate::provider::{DiskUse, SandboxError};
use crate::spec::SandboxId;

impl Inner {
    pub(super) async fn export(
        self: &Arc<Self>,
        layers: &[LayerId],
        to: Box<dyn Write + Send>,
    ) -> Result<(), SandboxError> {
        let (inner, layers) = (Arc::clone(self), layers.to_vec());
        blocking(move || inner.layers.export(&layers, to)).await
    }

    pub(super) async fn import(
        self: &Arc<Self>,
        name: &SandboxId,
        from: Box<dyn Read + Send>,
    ) -> Result<Vec<LayerId>, SandboxError> {
        let (inner, name) = (Arc::clone(self), name.clone());
        blocking(move || {
            let imported = inner.layers.import(&name, from, ImageLimits::default()).and_then(|imported| {
                let layers: Vec<LayerId> = imported.iter().map(|making| making.id().clone()).collect();
                inner.pin(&name, &layers).map(|()| layers)
            });
            // What came of it is pinned by now; what is left of it is waste.
            inner.collect();
            imported
        })
        .await
    }

    pub(super) async fn disk_use(self: &Arc<Self>, id: &SandboxId) -> Result<Option<DiskUse>, SandboxError> {
        let (inner, id) = (Arc::clone(self), id.clone());
        blocking(move || inner.disk_use_now(&id)).await
    }

    fn disk_use_now(&self, id: &SandboxId) -> Result<Option<DiskUse>, SandboxError> {
        let Some(record) = record::read(&self.folder_of(id))? else { return Ok(None) };
        let mut used = DiskUse::default();
        if let Some(open) = &record.layer {
            let folder = self.layers.folder_of(open);
            used.own_bytes = disk::used_bytes(&folder).map_err(SandboxError::io("measure", &folder))?;
        }
        for layer in &record.below.0 {
            let bytes = self.layers.manifest(layer).ok().flatten().map_or(0, |manifest| manifest.bytes);
            let sum = if layer.is_of(id) { &mut used.own_bytes } else { &mut used.shared_bytes };
            *sum = sum.saturating_add(bytes);
        }
        Ok(Some(used))
    }
}

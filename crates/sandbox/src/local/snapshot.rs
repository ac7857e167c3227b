//! Which layers a sandbox stands on, how they are frozen, and which of all layers are still needed.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::Inner;
use super::record::{self, Record};
use super::stand::Stand;
use crate::folder;
use crate::layer::{CHAIN_LEN_MAX, Chain, LayerId};
use crate::provider::{SandboxError, Snapshot};
use crate::spec::SandboxId;
use crate::whole;

impl Inner {
    /// Gives the record of a sandbox that is about to start its layers, and writes it; beside it, the folder of the
    /// layer that the sandbox will write to.
    pub(super) async fn on_layers(
        self: &Arc<Self>,
        record: Record,
        old: Option<&Record>,
    ) -> Result<(Record, PathBuf), SandboxError> {
        let (inner, old) = (Arc::clone(self), old.cloned());
        // Blocking: after a crash of the machine whole layers are read.
        blocking(move || inner.choose_layers(record, old)).await
    }

    fn choose_layers(&self, record: Record, old: Option<Record>) -> Result<(Record, PathBuf), SandboxError> {
        let id = record.spec.id.clone();
        let is_first = old.is_none();
        let (stand, lost) = match old {
            Some(old) => {
                let untold = old.lost.clone();
                let (stand, lost) = Stand::again(old, &self.layers);
                (stand, lost.or(untold))
            }
            None => (self.fresh(&record)?, record.lost.clone()),
        };
        if let Some(lost) = &lost {
            tracing::warn!(sandbox.id = %id, "its files are not what they were: {lost}");
        }
        let folder = self.folder_of(&id);
        fs::create_dir_all(&folder).map_err(SandboxError::io("create", &folder))?;
        let in_use = self.layers_in_use.lock().unwrap_or_else(PoisonError::into_inner);
        self.still_there(&stand.below.0)?;
        let layer = match stand.open {
            Some(open) => self.layers.reopen(&open).map(|()| open)?,
            None => self.layers.make(&id, record.last_layer)?,
        };
        let open = self.layers.folder_of(&layer);
        let last_layer = record.last_layer.max(layer.number());
        let record = Record { layer: Some(layer), below: stand.below, last_layer, lost, ..record };
        if is_first {
            record::write_first(&folder, &record)?;
        } else {
            record::write(&folder, &record)?;
        }
        drop(in_use);
        Ok((record, open))
    }

    /// What a new sandbox stands on: exactly what was asked for.
    fn fresh(&self, record: &Record) -> Result<Stand, SandboxError> {
        match Chain(record.spec.layers.clone()).whole(&self.layers) {
            (below, None) => Ok(Stand { open: None, below }),
            (_, Some((layer, reason))) => {
                let reason = format!("layer {layer} cannot be used: {reason}");
                Err(SandboxError::Layers { id: record.spec.id.clone(), reason })
            }
        }
    }

    /// Freezes what a sandbox that does not run has written.
    pub(super) async fn freeze(self: &Arc<Self>, id: &SandboxId) -> Result<Snapshot, SandboxError> {
        let (inner, id) = (Arc::clone(self), id.clone());
        blocking(move || inner.freeze_now(&id)).await
    }

    fn freeze_now(&self, id: &SandboxId) -> Result<Snapshot, SandboxError> {
        let folder = self.folder_of(id);
        let record = record::read(&folder)?;
        let mut record = record.ok_or_else(|| SandboxError::NotFound { what: format!("sandbox {id}") })?;
        let (mut entries, mut bytes) = (0, 0);
        if let Some(open) = record.layer.take() {
            let manifest = self.layers.freeze(&open)?;
            (entries, bytes) = (manifest.entries, manifest.bytes);
            record.below.0.insert(0, open);
            record.live = None;
            record.lost = None;
        }
        let mut making = None;
        if record.below.0.len() > CHAIN_LEN_MAX {
            match self.layers.flatten(id, record.last_layer, &record.below.0) {
                Ok(merged) => {
                    record.last_layer = merged.id().number();
                    record.below = Chain(vec![merged.id().clone()]);
                    making = Some(merged);
                }
                // A long chain is slower, and no worse than that.
                Err(error) => tracing::warn!(sandbox.id = %id, "its layers stay apart: failed to {error}"),
            }
        }
        record::write(&folder, &record)?;
        drop(making);
        self.collect();
        Ok(Snapshot { layers: record.below.0, entries, bytes })
    }

    pub(super) fn pin(&self, name: &SandboxId, layers: &[LayerId]) -> Result<(), SandboxError> {
        let in_use = self.layers_in_use.lock().unwrap_or_else(PoisonError::into_inner);
        self.still_there(layers)?;
        let path = self.pin_of(name);
        let text = serde_json::to_vec(layers).map_err(|error| SandboxError::io("write", &path)(error.into()))?;
        whole::replace_durably(&path, &text, 0o600).map_err(SandboxError::io("write", &path))?;
        drop(in_use);
        self.collect();
        Ok(())
    }

    pub(super) fn unpin(&self, name: &SandboxId) -> Result<(), SandboxError> {
        let path = self.pin_of(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(SandboxError::io("remove", &path)(error)),
            Ok(()) => {
                self.collect();
                Ok(())
            }
        }
    }

    /// Discards the layers that no sandbox and no pin needs. Where it is not known which those are, all stay: what was
    /// asked for is done without it.
    pub(super) fn collect(&self) {
        if let Err(error) = self.try_collect() {
            tracing::warn!("layers that nobody needs may stay: failed to {error}");
        }
    }

    fn try_collect(&self) -> Result<(), SandboxError> {
        let _in_use = self.layers_in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let mut needed = self.pinned()?;
        for id in folder::sandboxes(&self.folder)? {
            // A record that cannot be read may need any layer.
            let record = record::read(&self.folder_of(&id))?;
            needed.extend(record.into_iter().flat_map(Record::layers));
        }
        for unused in self.layers.list()?.difference(&needed) {
            record::discard(&self.folder, &self.layers.folder_of(unused), &self.tasks)?;
        }
        Ok(())
    }

    fn pinned(&self) -> Result<BTreeSet<LayerId>, SandboxError> {
        let folder = self.folder.join("pins");
        let mut pinned = BTreeSet::new();
        for entry in fs::read_dir(&folder).map_err(SandboxError::io("list", &folder))?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read(&path).map_err(SandboxError::io("read", &path))?;
                let layers: Vec<LayerId> = serde_json::from_slice(&text)
                    .map_err(|error| SandboxError::io("understand", &path)(error.into()))?;
                pinned.extend(layers);
            }
        }
        Ok(pinned)
    }

    fn pin_of(&self, name: &SandboxId) -> PathBuf {
        self.folder.join("pins").join(format!("{name}.json"))
    }

    fn still_there(&self, layers: &[LayerId]) -> Result<(), SandboxError> {
        let gone = layers.iter().find(|id| !self.layers.tree_of(id).is_dir());
        gone.map_or(Ok(()), |id| Err(SandboxError::NotFound { what: format!("layer {id}") }))
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, SandboxError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(SandboxError::Machine { reason: error.to_string() }))
}

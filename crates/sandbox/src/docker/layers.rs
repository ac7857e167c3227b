//! Frozen layers as images of the daemon: how a container becomes one, who needs which, and which are removed.
//!
//! A layer `S.3` is the image `hob-INSTANCE:S.3`. It holds all that lies under it, so the topmost layer of a snapshot is
//! enough to start from; the others stay as long as it is needed, since the daemon keeps what they share only once.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use hyper::Method;
use serde_json::json;

use super::Inner;
use super::api::{Change, Container, ImageSummary, Made};
use super::base::{import_path, label};
use super::engine::quoted;
use super::record::{self, Record};
use crate::folder;
use crate::layer::LayerId;
use crate::provider::{SandboxError, Snapshot};
use crate::spec::SandboxId;

/// Layers of an image, at most, before they are merged into one. Docker's overlay driver takes 128.
const DEPTH_MAX: usize = 100;

/// The label with the folder of the host that `/workspace` was filled from.
pub(super) const WORKSPACE: &str = "hob.workspace";

impl Inner {
    fn repository(&self) -> String {
        format!("hob-{}", self.instance)
    }

    /// The image of a layer.
    pub(super) fn image_of_layer(&self, layer: &LayerId) -> String {
        format!("{}:{layer}", self.repository())
    }

    /// Freezes what a sandbox that does not run has written.
    pub(super) async fn freeze(&self, id: &SandboxId) -> Result<Snapshot, SandboxError> {
        let folder = self.folder_of(id);
        let record = record::read(&folder)?;
        let mut record = record.ok_or_else(|| SandboxError::NotFound { what: format!("sandbox {id}") })?;
        let Some(container) = record.container.take() else {
            return Ok(Snapshot { layers: record.below, entries: 0, bytes: 0 });
        };
        let layer = LayerId::new(id, record.last_layer + 1);
        let written = self.engine.get(&format!("/containers/{container}/json?size=true")).await;
        let written: Container = written?;
        let changes: Option<Vec<Change>> = self.engine.get(&format!("/containers/{container}/changes")).await?;
        let merged = self.commit(&record, &container, &layer).await?;
        record.last_layer = layer.number();
        if merged {
            record.below.clear();
        }
        record.below.insert(0, layer);
        record::write(&folder, &record)?;
        self.remove_container(&container).await?;
        self.collect().await;
        let entries = changes.map_or(0, |changes| changes.len() as u64);
        Ok(Snapshot { layers: record.below, entries, bytes: written.size_rw.unwrap_or_default() })
    }

    /// Makes an image of a container; true where it stands alone, as there were too many layers under it.
    async fn commit(&self, record: &Record, container: &str, layer: &LayerId) -> Result<bool, SandboxError> {
        let name = self.image_of_layer(layer);
        let below = match record.below.first() {
            Some(below) => self.image(&self.image_of_layer(below)).await?,
            None => None,
        };
        let workspace = record.spec.workspace.as_ref().map(|folder| folder.display().to_string()).unwrap_or_default();
        let label = label(WORKSPACE, &workspace);
        if below.as_ref().is_some_and(|below| below.depth() >= DEPTH_MAX) {
            // What an image says of its containers is not in an archive of its files.
            let path = below.as_ref().and_then(|below| below.path()).map(|path| format!("ENV PATH={path}"));
            let changes: Vec<String> = path.into_iter().chain([label]).collect();
            let (from, to) = (format!("/containers/{container}/export"), import_path(&changes));
            let said = self.engine.turn_around(&from, &to).await?;
            return self.name_imported(&name, &said).await.map(|()| true);
        }
        let (repository, changes) = (quoted(&self.repository()), quoted(&label));
        let tag = quoted(layer.as_str());
        let path = format!("/commit?container={container}&repo={repository}&tag={tag}&pause=false&changes={changes}");
        let made: Made = self.engine.make(&path, &json!({})).await?;
        tracing::debug!(layer.id = %layer, image.id = made.id, "a container became an image");
        Ok(false)
    }

    pub(super) async fn pin(&self, name: &SandboxId, layers: &[LayerId]) -> Result<(), SandboxError> {
        let in_use = self.layers_in_use.lock().await;
        self.still_there(layers).await?;
        record::write_json(&self.pin_of(name), &layers)?;
        drop(in_use);
        self.collect().await;
        Ok(())
    }

    pub(super) async fn unpin(&self, name: &SandboxId) -> Result<(), SandboxError> {
        record::remove(&self.pin_of(name))?;
        self.collect().await;
        Ok(())
    }

    fn pin_of(&self, name: &SandboxId) -> PathBuf {
        self.folder.join("pins").join(format!("{name}.json"))
    }

    pub(super) async fn still_there(&self, layers: &[LayerId]) -> Result<(), SandboxError> {
        for layer in layers {
            if self.image(&self.image_of_layer(layer)).await?.is_none() {
                return Err(SandboxError::NotFound { what: format!("layer {layer}") });
            }
        }
        Ok(())
    }

    /// Removes the layers that no sandbox and no pin needs. Where it is not known which those are, all stay: what was
    /// asked for is done without it.
    pub(super) async fn collect(&self) {
        if let Err(error) = self.try_collect().await {
            tracing::warn!("layers that nobody needs may stay: failed to {error}");
        }
    }

    async fn try_collect(&self) -> Result<(), SandboxError> {
        let _in_use = self.layers_in_use.lock().await;
        let needed = self.needed()?;
        let images: Vec<ImageSummary> = self.engine.get("/images/json").await?;
        for tag in images.into_iter().flat_map(|image| image.repo_tags.unwrap_or_default()) {
            // Podman puts a registry before the name.
            let ours = tag.rsplit_once(':').filter(|(repository, _)| repository.ends_with(&self.repository()));
            let layer = ours.and_then(|(_, layer)| LayerId::try_from(layer.to_owned()).ok());
            if let Some(layer) = layer.filter(|layer| !needed.contains(layer)) {
                let path = format!("/images/{}", self.image_of_layer(&layer));
                self.engine.settle(Method::DELETE, &path).await?;
            }
        }
        Ok(())
    }

    fn needed(&self) -> Result<BTreeSet<LayerId>, SandboxError> {
        let mut needed = BTreeSet::new();
        let pins = self.folder.join("pins");
        for entry in fs::read_dir(&pins).map_err(SandboxError::io("list", &pins))?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let layers: Option<Vec<LayerId>> = record::read_json(&path)?;
                needed.extend(layers.into_iter().flatten());
            }
        }
        for id in folder::sandboxes(&self.folder)? {
            // A record that cannot be read may need any layer.
            let record = record::read(&self.folder_of(&id))?;
            needed.extend(record.into_iter().flat_map(|record| record.below));
        }
        Ok(needed)
    }
}

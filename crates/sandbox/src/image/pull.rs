//! One pull of one image: its manifest, its configuration, its layers, each fetched, unpacked and kept.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use tokio_util::task::TaskTracker;

use super::archive::Archive;
use super::budget::Budget;
use super::config::ImageConfig;
use super::digest::Digest;
use super::error::{ImageError, LayerError};
use super::inflate::{Packing, inflate};
use super::layers::Fresh;
use super::manifest::{Document, Manifest, Part, machine};
use super::reference::ImageReference;
use super::registry::Registry;
use super::seam;
use super::store::{Inner, Pulled, Rootfs};
use super::unpack::{Facts, unpack};

/// Layers that are fetched and unpacked at once.
const AT_ONCE: usize = 3;

/// Indexes that lead to each other, at most.
const INDEXES_MAX: usize = 3;

/// How far a pull is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PullProgress {
    /// The manifest is here.
    Found {
        /// Layers.
        layers: usize,
        /// Bytes of them all, as the registry has them.
        bytes: u64,
    },
    /// A layer is in the store already.
    Shared {
        /// Which.
        layer: Digest,
    },
    /// A piece of a layer has come.
    Fetched {
        /// Which.
        layer: Digest,
        /// How long the piece is.
        bytes: u64,
    },
    /// A layer is unpacked and kept.
    Unpacked {
        /// Which.
        layer: Digest,
    },
}

/// Hears of a pull's progress.
pub type OnProgress<'a> = &'a (dyn Fn(PullProgress) + Send + Sync);

/// One layer of an image to pull.
#[derive(Debug, Clone)]
struct Wanted {
    part: Part,
    packing: Packing,
    archive: Digest,
}

/// What a pull of one image is done with.
pub(super) struct Pull<'a> {
    pub(super) store: &'a Inner,
    pub(super) registry: Registry<'a>,
    pub(super) reference: &'a ImageReference,
    pub(super) budget: Arc<Budget>,
    pub(super) progress: OnProgress<'a>,
    pub(super) tasks: TaskTracker,
}

impl Pull<'_> {
    pub(super) async fn run(&self) -> Result<Rootfs, ImageError> {
        let (manifest, digest) = self.manifest().await?;
        let config = self.registry.document(&manifest.config).await?;
        let (config, archives) = ImageConfig::read(&config, machine()).map_err(|reason| self.unusable(reason))?;
        let wanted = self.wanted(manifest, archives)?;
        let bytes = wanted.iter().map(|layer| layer.part.size).sum();
        (self.progress)(PullProgress::Found { layers: wanted.len(), bytes });
        let mut layers: Vec<Digest> = wanted.iter().map(|layer| layer.archive.clone()).collect();
        let pulls = futures_util::stream::iter(wanted).map(|layer| self.layer(layer)).buffer_unordered(AT_ONCE);
        pulls.try_collect::<Vec<()>>().await?;
        layers.extend(self.seam(layers.clone()).await?);
        let pulled = Pulled { digest: digest.clone(), layers, config };
        self.store.layers().remember(&digest, &pulled)?;
        if let Some(named) = self.reference.digest().filter(|named| **named != digest) {
            self.store.layers().remember(named, &pulled)?;
        }
        let rootfs = self.store.assemble(pulled)?;
        rootfs.ok_or_else(|| self.unusable("its layers were removed while it was pulled".to_owned()))
    }

    /// The layer that goes on top of these, where they need one.
    async fn seam(&self, layers: Vec<Digest>) -> Result<Option<Digest>, ImageError> {
        let (store, reference) = (Arc::clone(self.store.layers()), self.reference.to_string());
        let sewn = self.tasks.spawn_blocking(move || seam::seam(&store, &layers, &reference));
        sewn.await.map_err(|error| self.unusable(error.to_string()))?
    }

    fn unusable(&self, reason: String) -> ImageError {
        ImageError::Unusable { reference: self.reference.to_string(), reason }
    }

    pub(super) fn too_much(&self, what: &'static str, limit: u64) -> ImageError {
        ImageError::TooMuch { reference: self.reference.to_string(), what, limit }
    }

    /// The manifest for this machine and its digest.
    async fn manifest(&self) -> Result<(Manifest, Digest), ImageError> {
        let (mut bytes, mut digest) = self.registry.manifest(&self.reference.wanted()).await?;
        if let Some(expected) = self.reference.digest() {
            self.registry.verify("the manifest", expected, digest.clone())?;
        }
        for _ in 0..INDEXES_MAX {
            match Document::read(&bytes).map_err(|reason| self.unusable(reason))? {
                Document::Image(manifest) => return Ok((manifest, digest)),
                Document::Index(listed) => {
                    let part = Document::pick(&listed, machine()).map_err(|reason| self.unusable(reason))?;
                    (bytes, digest) = self.registry.manifest(&part.digest.to_string()).await?;
                    self.registry.verify("the manifest", &part.digest, digest.clone())?;
                }
            }
        }
        Err(self.unusable("its index leads to indexes alone".to_owned()))
    }

    fn wanted(&self, manifest: Manifest, archives: Vec<Digest>) -> Result<Vec<Wanted>, ImageError> {
        let limits = self.store.limits();
        if manifest.layers.len() != archives.len() {
            return Err(self.unusable("its manifest and its configuration name different layers".to_owned()));
        }
        if archives.len() > limits.layers {
            return Err(self.too_much("layers", limits.layers as u64));
        }
        let sum = manifest.layers.iter().try_fold(0_u64, |sum, (part, _)| sum.checked_add(part.size));
        if sum.is_none_or(|sum| sum > limits.fetched_bytes) {
            return Err(self.too_much("bytes to fetch", limits.fetched_bytes));
        }
        let layers = manifest.layers.into_iter().zip(archives);
        Ok(layers.map(|((part, packing), archive)| Wanted { part, packing, archive }).collect())
    }

    /// Fetches and unpacks a layer that is not here.
    async fn layer(&self, wanted: Wanted) -> Result<(), ImageError> {
        let layer = wanted.archive.clone();
        let turn = self.store.turn_of(&layer);
        let _turn = turn.lock().await;
        if self.store.layers().find(&layer)?.is_some() {
            (self.progress)(PullProgress::Shared { layer });
            return Ok(());
        }
        let fresh = self.store.layers().fresh()?;
        let heard = |bytes| (self.progress)(PullProgress::Fetched { layer: layer.clone(), bytes });
        self.registry.blob(&wanted.part, &fresh.blob(), &heard).await?;
        let (budget, layers, archive) = (Arc::clone(&self.budget), Arc::clone(self.store.layers()), layer.clone());
        let reference = self.reference.to_string();
        let kept = self.tasks.spawn_blocking(move || {
            let unpacked = unpack_blob(&fresh, wanted.packing, &archive, &budget);
            let facts = unpacked.map_err(|source| ImageError::Layer { reference, layer: archive.clone(), source })?;
            layers.keep(&fresh, &archive, &facts)
        });
        kept.await.map_err(|error| self.unusable(error.to_string()))??;
        (self.progress)(PullProgress::Unpacked { layer });
        Ok(())
    }
}

/// Unpacks the blob of a layer in the making, and removes it.
fn unpack_blob(fresh: &Fresh, packing: Packing, archive: &Digest, budget: &Budget) -> Result<Facts, LayerError> {
    let io = |action, path: PathBuf| move |source| LayerError::Io { action, path, source };
    let (blob, root) = (fresh.blob(), fresh.root());
    let source = inflate(packing, File::open(&blob).map_err(io("open", blob.clone()))?);
    let (found, facts) = unpack(Archive::new(source, budget, &root), &root, budget)?;
    if found != *archive {
        return Err(LayerError::Altered { found });
    }
    fs::remove_file(&blob).map_err(io("remove", blob))?;
    Ok(facts)
}

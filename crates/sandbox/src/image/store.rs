//! Pulls images into a folder, each layer once, and says what a sandbox is mounted of.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::archive::Archive;
use super::budget::{Budget, ImageLimits};
use super::digest::Digest;
use super::error::{ImageError, LayerError};
use super::inflate::{Packing, inflate};
use super::layers::{self, Fresh, Layers};
use super::manifest::{Document, ImageConfig, Manifest, Part, machine};
use super::reference::ImageReference;
use super::registry::{Credentials, Registry};
use super::unpack::{Facts, unpack};

/// Layers that are fetched and unpacked at once.
const AT_ONCE: usize = 3;

/// Indexes that lead to each other, at most.
const INDEXES_MAX: usize = 3;

/// What a sandbox is mounted of: an image, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The digest of the image's manifest for this machine; it always means the same files.
    pub digest: Digest,
    /// Its layers, topmost first: for [`Base::Layers`](crate::Base::Layers).
    pub layers: Vec<PathBuf>,
    /// What the image says about the programs in it.
    pub config: ImageConfig,
    /// What is not as the image has it, in words for a person.
    pub notes: Vec<String>,
}

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

/// Images, unpacked and shared by layer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layers: Arc<Layers>,
    limits: ImageLimits,
    /// One pull of a layer at a time: the second finds what the first has made.
    busy: Mutex<BTreeMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

/// An image as the store remembers it. New fields must have a default.
#[derive(Debug, Serialize, Deserialize)]
struct Pulled {
    digest: Digest,
    /// Bottom first, by the digest of the archive.
    layers: Vec<Digest>,
    config: ImageConfig,
}

/// One layer of an image to pull.
#[derive(Debug, Clone)]
struct Wanted {
    part: Part,
    packing: Packing,
    archive: Digest,
}

/// What a pull of one image is done with.
struct Pull<'a> {
    store: &'a Inner,
    registry: Registry<'a>,
    reference: &'a ImageReference,
    budget: Arc<Budget>,
    progress: OnProgress<'a>,
    tasks: TaskTracker,
}

impl ImageStore {
    /// Opens a folder for images, made where it is missing, with the usual limits.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open(folder: &Path) -> Result<Self, ImageError> {
        Self::with_limits(folder, ImageLimits::default())
    }

    /// Opens a folder for images that may not take more than `limits`, each.
    ///
    /// What a killed process left unfinished is removed, which takes a moment.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn with_limits(folder: &Path, limits: ImageLimits) -> Result<Self, ImageError> {
        let (layers, left) = Layers::open(folder)?;
        left.iter().for_each(|path| layers::discard(path));
        Ok(Self { inner: Arc::new(Inner { layers: Arc::new(layers), limits, busy: Mutex::default() }) })
    }

    /// An image that was pulled before, by the digest of its manifest, without asking anybody.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn find(&self, digest: &Digest) -> Result<Option<Rootfs>, ImageError> {
        self.inner.find(digest)
    }

    /// Pulls an image: what the store has of it is not fetched again, and an image that is named by its digest and is
    /// here is not asked for at all.
    ///
    /// Which registries may be asked, and with whose credentials, is for the caller to decide.
    ///
    /// # Errors
    /// The registry does not have it or does not answer, or something of it is refused. Nothing half is kept; whole
    /// layers are, for the next attempt.
    pub async fn pull(
        &self,
        reference: &ImageReference,
        credentials: Option<&Credentials>,
        progress: OnProgress<'_>,
    ) -> Result<Rootfs, ImageError> {
        if let Some(known) = reference.digest().map(|digest| self.inner.find(digest)).transpose()?.flatten() {
            return Ok(known);
        }
        let cancelled = CancellationToken::new();
        // Also where nobody waits for this any more.
        let cancel = cancelled.clone().drop_guard();
        let limits = self.inner.limits;
        let budget = Arc::new(Budget::new(limits, Instant::now(), cancelled));
        let registry = Registry::new(reference, credentials)?;
        let tasks = TaskTracker::new();
        let pull = Pull { store: &self.inner, registry, reference, budget, progress, tasks };
        let pulled = match tokio::time::timeout(limits.time, pull.run()).await {
            Ok(pulled) => pulled,
            Err(_) => Err(pull.too_much("seconds of work", limits.time.as_secs())),
        };
        // Where one layer is refused, another may be in the midst of being unpacked: it stops at its next entry.
        drop(cancel);
        pull.tasks.close();
        pull.tasks.wait().await;
        pulled
    }
}

impl Inner {
    fn turn_of(&self, layer: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(busy.entry(layer.clone()).or_default())
    }

    fn find(&self, digest: &Digest) -> Result<Option<Rootfs>, ImageError> {
        let Some(pulled) = self.layers.recall::<Pulled>(digest)? else { return Ok(None) };
        self.assemble(pulled)
    }

    /// The image's folders; `None` where one is not there any more.
    fn assemble(&self, pulled: Pulled) -> Result<Option<Rootfs>, ImageError> {
        let mut layers: Vec<PathBuf> = Vec::new();
        let (mut devices, mut disowned) = (0, 0);
        for digest in pulled.layers.iter().rev() {
            let Some((root, facts)) = self.layers.find(digest)? else { return Ok(None) };
            (devices, disowned) = (devices + facts.devices, disowned + facts.disowned);
            // Of a layer that comes twice the upper one says all that the lower one does, and an overlay takes it once.
            if !layers.contains(&root) {
                layers.push(root);
            }
            if facts.hides_all {
                break;
            }
        }
        let notes = [
            (devices, "devices were left out; a sandbox has its own"),
            (disowned, "files belong to root inside, as their owners cannot be kept without root on this machine"),
        ];
        let notes =
            notes.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        Ok(Some(Rootfs { digest: pulled.digest, layers, config: pulled.config, notes }))
    }
}

impl Pull<'_> {
    async fn run(&self) -> Result<Rootfs, ImageError> {
        let (manifest, digest) = self.manifest().await?;
        let config = self.registry.document(&manifest.config).await?;
        let (config, archives) = ImageConfig::read(&config, machine()).map_err(|reason| self.unusable(reason))?;
        let wanted = self.wanted(manifest, archives)?;
        let bytes = wanted.iter().map(|layer| layer.part.size).sum();
        (self.progress)(PullProgress::Found { layers: wanted.len(), bytes });
        let layers = wanted.iter().map(|layer| layer.archive.clone()).collect();
        let pulls = futures_util::stream::iter(wanted).map(|layer| self.layer(layer)).buffer_unordered(AT_ONCE);
        pulls.try_collect::<Vec<()>>().await?;
        let pulled = Pulled { digest: digest.clone(), layers, config };
        self.store.layers.remember(&digest, &pulled)?;
        if let Some(named) = self.reference.digest().filter(|named| **named != digest) {
            self.store.layers.remember(named, &pulled)?;
        }
        let rootfs = self.store.assemble(pulled)?;
        rootfs.ok_or_else(|| self.unusable("its layers were removed while it was pulled".to_owned()))
    }

    fn unusable(&self, reason: String) -> ImageError {
        ImageError::Unusable { reference: self.reference.to_string(), reason }
    }

    fn too_much(&self, what: &'static str, limit: u64) -> ImageError {
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
        let limits = self.store.limits;
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
        if self.store.layers.find(&layer)?.is_some() {
            (self.progress)(PullProgress::Shared { layer });
            return Ok(());
        }
        let fresh = self.store.layers.fresh()?;
        let heard = |bytes| (self.progress)(PullProgress::Fetched { layer: layer.clone(), bytes });
        self.registry.blob(&wanted.part, &fresh.blob(), &heard).await?;
        let (budget, layers, archive) = (Arc::clone(&self.budget), Arc::clone(&self.store.layers), layer.clone());
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

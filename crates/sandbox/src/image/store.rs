//! A folder of images: what is in it, and what a sandbox is mounted of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::budget::{Budget, ImageLimits};
use super::config::ImageConfig;
use super::digest::Digest;
use super::error::ImageError;
use super::layers::{self, Layers};
use super::pull::{OnProgress, Pull};
use super::reference::ImageReference;
use super::registry::{Credentials, Registry};

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

/// Images, unpacked and shared by layer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    layers: Arc<Layers>,
    limits: ImageLimits,
    /// One pull of a layer at a time: the second finds what the first has made.
    busy: Mutex<BTreeMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// Read by those who pull, written by whoever removes.
    pulls: Arc<tokio::sync::RwLock<()>>,
}

/// An image as the store remembers it. New fields must have a default.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pulled {
    pub(super) digest: Digest,
    /// Bottom first, by the digest of the archive.
    pub(super) layers: Vec<Digest>,
    pub(super) config: ImageConfig,
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
        Ok(Self {
            inner: Arc::new(Inner { layers: Arc::new(layers), limits, busy: Mutex::default(), pulls: Arc::default() }),
        })
    }

    /// An image that was pulled before, by the digest of its manifest, without asking anybody.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn find(&self, digest: &Digest) -> Result<Option<Rootfs>, ImageError> {
        self.inner.find(digest)
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
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
        let _pulling = self.inner.pulls.read().await;
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
    pub(super) fn pulls(&self) -> &Arc<tokio::sync::RwLock<()>> {
        &self.pulls
    }

    pub(super) fn limits(&self) -> ImageLimits {
        self.limits
    }

    pub(super) fn layers(&self) -> &Arc<Layers> {
        &self.layers
    }

    pub(super) fn turn_of(&self, layer: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(busy.entry(layer.clone()).or_default())
    }

    fn find(&self, digest: &Digest) -> Result<Option<Rootfs>, ImageError> {
        let Some(pulled) = self.layers.recall::<Pulled>(digest)? else { return Ok(None) };
        self.assemble(pulled)
    }

    /// The image's folders; `None` where one is not there any more.
    pub(super) fn assemble(&self, pulled: Pulled) -> Result<Option<Rootfs>, ImageError> {
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

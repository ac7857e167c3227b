//! Images: what sessions of a repository start from, built ahead.
//!
//! ```text
//!   environment ─▶ recipe ─▶ build ──▶ base ─▶ packages ─▶ setup ─▶ clone ─▶ warm
//!   (the file)     (pure)   (sandbox)  └────────── a frozen layer for each ──────┘
//!                              │
//!                              └─▶ catalogue (a record and a log for each image)
//! ```
//!
//! An image belongs to a repository and a branch. Its layers are the provider's, pinned under the image's name, so that
//! a start is a mount and what a session needs stays also when the image goes. The same thing is never built twice at
//! once: whoever wants what is being built waits for it, and sees how far it is.

mod base;
mod build;
mod catalogue;
mod image;
mod lease;
mod log;
mod recipe;
mod upkeep;
mod wait;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hob_sandbox::SandboxId;
use hob_sandbox::image::ImageStore;
use tokio::sync::Semaphore;

use crate::driver::disk;
use crate::environment::{self, Environment};
use crate::error::EngineError;
use crate::event::EventKind;
use crate::git::{Base, Mirror};
use crate::id::SessionId;
use crate::owned::{House, millis};
use catalogue::Catalogue;
use lease::{Building, Leases};
use recipe::Recipe;

pub(crate) use log::BuildLog;
pub(crate) use upkeep::{keep_up, resolve};
pub(crate) use wait::{built, wait_for};

pub use image::{CheckOutcome, Image, ImageState, Stage, StageName};

/// The version of what Hob puts into an image; another one makes other images.
const RUNTIME: &str = env!("CARGO_PKG_VERSION");

/// All images of an engine.
pub(crate) struct Images {
    catalogue: Catalogue,
    leases: Leases,
    store: ImageStore,
    /// Who may build now.
    turns: Semaphore,
    /// Branches that sessions asked for, and when last.
    asked: Mutex<BTreeMap<(String, Option<String>), u64>>,
    /// An empty folder: what a workspace has below its layers.
    pub(crate) nothing: PathBuf,
}

/// What a session wants an image for.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) mirror: Mirror,
    /// The repository as it was asked for.
    pub(crate) repository: String,
    /// The branch, tag or commit as it was asked for.
    pub(crate) asked: Option<String>,
    pub(crate) base: Base,
    pub(crate) environment: Environment,
    pub(crate) how: How,
}

/// How an image is to be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct How {
    /// From nothing, whatever is there.
    pub(crate) fresh: bool,
    /// To be looked at: no session starts from it.
    pub(crate) trial: bool,
    /// Whether the repository's checks are run in it when it is there.
    pub(crate) check: bool,
}

/// How a session gets its image.
pub(crate) enum Found {
    /// It is there. Beside it, what is to be said about it.
    Ready(Arc<Image>, Option<String>),
    /// It is being built.
    Building(Arc<Building>),
}

impl Images {
    /// Opens the images in a data folder.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub(crate) async fn open(data_dir: &Path, at_once: usize) -> Result<Self, EngineError> {
        let folder = data_dir.join("images");
        let catalogue = Catalogue::open(&folder).await.map_err(|error| disk(&folder, &error))?;
        let bases = data_dir.join("bases");
        let opened = tokio::task::spawn_blocking(move || ImageStore::open(&bases)).await;
        let store = opened.map_err(|error| EngineError::Image(error.to_string()))?;
        let store = store.map_err(|error| EngineError::Image(error.to_string()))?;
        let nothing = data_dir.join("nothing");
        tokio::fs::create_dir_all(&nothing).await.map_err(|error| disk(&nothing, &error))?;
        Ok(Self {
            catalogue,
            leases: Leases::default(),
            store,
            turns: Semaphore::new(at_once.max(1)),
            asked: Mutex::default(),
            nothing,
        })
    }

    /// Finds the image that a session starts from, or begins to build it.
    pub(crate) fn find(house: &Arc<House>, wanted: Wanted) -> Found {
        house.images.asked_for(&wanted, house.deps.clock.now_ms());
        let images = house.images.catalogue.of_repository(&wanted.repository);
        let fits = fits(house, &wanted.environment);
        if let Some(image) = youngest(&images, &wanted, &fits) {
            return Found::Ready(image, None);
        }
        let now_ms = house.deps.clock.now_ms();
        let patience_ms = millis(house.config.images.retry_after);
        let lately = |image: &&Arc<Image>| now_ms.saturating_sub(image.begun_ms) < patience_ms;
        let failed = images.iter().filter(|image| image.state == ImageState::Failed && fits(image)).filter(lately);
        if let Some(failed) = failed.max_by_key(|image| image.begun_ms)
            && let Some((image, said)) = stand_in(&images, failed)
        {
            return Found::Ready(image, Some(said));
        }
        drop(fits);
        Found::Building(Self::build(house, wanted))
    }

    /// The image that a session would start from, if it is there.
    pub(crate) fn ready(house: &House, wanted: &Wanted) -> Option<Arc<Image>> {
        let images = house.images.catalogue.of_repository(&wanted.repository);
        youngest(&images, wanted, fits(house, &wanted.environment))
    }

    /// Builds an image, or joins whoever builds it.
    pub(crate) fn build(house: &Arc<House>, wanted: Wanted) -> Arc<Building> {
        let key = (wanted.repository.clone(), wanted.base.commit.clone(), wanted.how);
        house.images.leases.take(key, house.deps.ids.next(), |building| {
            build::begin(house, wanted, Arc::clone(building));
        })
    }

    /// Keeps what the gateway has to say of an image that is being built; gives whether there is such an image.
    pub(crate) async fn hear(&self, door: &SessionId, event: &EventKind) -> bool {
        let Some(log) = self.leases.log_of(door.as_str()) else { return false };
        match event {
            EventKind::EgressRefused { host, port, reason } => {
                log.say(&format!("the gateway refused {host}:{port}: {reason}")).await;
            }
            EventKind::Notice { text } => log.say(text).await,
            _ => {}
        }
        true
    }

    /// Notes that a session starts from an image.
    pub(crate) fn used(&self, image_id: &str, now_ms: u64) {
        self.catalogue.used(image_id, now_ms);
    }

    /// Removes an image. Sessions that started from it keep what they need of it.
    ///
    /// # Errors
    /// Its record or its pin could not be removed; words for a person.
    pub(crate) async fn remove(&self, house: &House, image_id: &str) -> Result<(), String> {
        let Some(image) = self.catalogue.get(image_id) else { return Ok(()) };
        let failed = |reason: String| format!("failed to remove image {image_id}: {reason}");
        // First the pin: a record without layers is built again, layers without a record would stay for ever.
        let name = SandboxId::new(image.pin())?;
        house.deps.provider.unpin(&name).await.map_err(|error| failed(error.to_string()))?;
        self.catalogue.remove(image_id).await.map_err(|error| failed(error.to_string()))
    }

    /// All images, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Image>> {
        self.catalogue.all()
    }

    /// Where the log of an image's making lies.
    pub(crate) fn log_path(&self, image_id: &str) -> PathBuf {
        log::path(&self.catalogue.folder_of(image_id))
    }

    /// The log of an image that is being built.
    pub(crate) fn log_of(&self, image_id: &str) -> Option<Arc<BuildLog>> {
        self.leases.log_of(image_id)
    }

    /// One image.
    pub(crate) fn get(&self, image_id: &str) -> Option<Arc<Image>> {
        self.catalogue.get(image_id)
    }

    /// What stands in for an image that could not be built.
    pub(crate) fn instead_of(&self, failed: &Image) -> Option<(Arc<Image>, String)> {
        stand_in(&self.catalogue.of_repository(&failed.repository), failed)
    }
}

/// Whether an image is what an environment describes.
fn fits<'a>(house: &House, environment: &'a Environment) -> impl Fn(&Image) -> bool + use<'a> {
    // This machine's own system may have changed; what another base is made of is asked when images are rebuilt.
    let ours = (environment.base == environment::Base::Host).then(|| base::host(&house.config.base).digest);
    move |image| {
        let digest = ours.as_ref().unwrap_or(&image.base_digest);
        image.fingerprints == Recipe::new(environment, digest, RUNTIME).fingerprints
    }
}

/// Of those that fit the branch's own first, then the youngest of another: a sync takes less than a build.
fn youngest(images: &[Arc<Image>], wanted: &Wanted, fits: impl Fn(&Image) -> bool) -> Option<Arc<Image>> {
    let ready = images.iter().filter(|image| image.is_ready() && fits(image));
    ready.max_by_key(|image| (image.asked == wanted.asked, image.begun_ms)).cloned()
}

/// What a session starts from where a build has failed: the last good image, or what was whole of the failed one.
fn stand_in(images: &[Arc<Image>], failed: &Image) -> Option<(Arc<Image>, String)> {
    let reason = failed.reason.as_deref().unwrap_or("it was not finished");
    let why = format!("The image {} could not be built: {reason}.", failed.image_id);
    let last_good = images.iter().filter(|image| image.is_ready() && image.asked == failed.asked);
    if let Some(good) = last_good.max_by_key(|image| image.begun_ms) {
        let said = format!("{why} The session starts from the one before it, {}.", good.image_id);
        return Some((Arc::clone(good), said));
    }
    failed.has(StageName::Clone).then(|| {
        let said = format!("{why} The session starts without what the warm-up would have made.");
        (Arc::new(failed.clone()), said)
    })
}

//! Who builds what: each thing once at a time, and everybody who wants it waits for the same building.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;

use super::How;
use super::image::{Image, StageName};
use super::log::BuildLog;

/// What is built: a repository, the commit, and how.
type Key = (String, String, How);

/// All that is being built.
#[derive(Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<Key, Arc<Building>>>,
}

/// An image in the making, as those see it who wait for it.
#[derive(Debug)]
pub(crate) struct Building {
    /// The image's name.
    pub(crate) image_id: String,
    progress: watch::Sender<Progress>,
    /// The image's log, as soon as there is one.
    log: OnceLock<Arc<BuildLog>>,
}

/// How far a building is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// Whether its record and its log are there.
    begun: bool,
    /// The step that is under way.
    pub(crate) stage: Option<StageName>,
    /// What it came to: the image, ready or failed; or nothing, where not even a record could be written, and why.
    pub(crate) outcome: Option<Result<Arc<Image>, String>>,
}

impl Leases {
    /// Gives the building of `key`. Where there is none yet, `begin` begins one of this name.
    pub(super) fn take(&self, key: Key, image_id: String, begin: impl FnOnce(&Arc<Building>)) -> Arc<Building> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, building| building.is_under_way());
        if let Some(building) = held.get(&key) {
            return Arc::clone(building);
        }
        let progress = watch::Sender::new(Progress::default());
        let building = Arc::new(Building { image_id, progress, log: OnceLock::new() });
        held.insert(key, Arc::clone(&building));
        begin(&building);
        building
    }

    /// Gives up what is over, and with it its log.
    pub(super) fn tidy(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, building| building.is_under_way());
    }

    /// The log of an image that is being built.
    pub(super) fn log_of(&self, image_id: &str) -> Option<Arc<BuildLog>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let building = held.values().find(|building| building.image_id == image_id)?;
        building.log.get().cloned()
    }
}

impl Building {
    fn is_under_way(&self) -> bool {
        self.progress.borrow().outcome.is_none()
    }

    /// How far it is, for whoever waits.
    pub(crate) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// This is its log.
    pub(super) fn log_to(&self, log: Arc<BuildLog>) {
        // It is set once.
        self.log.set(log).ok();
    }

    /// Returns when its record and its log are there, or it is over.
    pub(crate) async fn begun(&self) -> Result<(), String> {
        let mut progress = self.progress.subscribe();
        let begun = progress.wait_for(|progress| progress.begun || progress.outcome.is_some()).await;
        match begun.map_err(|error| error.to_string())?.outcome.clone() {
            Some(Err(reason)) => Err(reason),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Its record is there.
    pub(super) fn begin(&self) {
        self.progress.send_modify(|progress| progress.begun = true);
    }

    /// A step begins.
    pub(super) fn reach(&self, stage: StageName) {
        self.progress.send_modify(|progress| progress.stage = Some(stage));
    }

    /// It is over.
    pub(super) fn end(&self, outcome: Result<Arc<Image>, String>) {
        self.progress.send_modify(|progress| progress.outcome = Some(outcome));
    }
}

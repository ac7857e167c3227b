//! Who builds what: each thing once at a time, and everybody who wants it waits for the same building.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;

use super::image::{Image, StageName};
use super::log::BuildLog;

/// What is built: a repository, and the commit.
type Key = (String, String);

/// All that is being built.
#[derive(Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<Key, Arc<Building>>>,
}

/// An image in the making, as those see it who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Building {
    progress: watch::Sender<Progress>,
    /// The image's name and log, as soon as its turn has come.
    log: OnceLock<(String, Arc<BuildLog>)>,
}

/// How far a building is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// The step that is under way.
    pub(crate) stage: Option<StageName>,
    /// What it came to: the image, ready or failed; or nothing, where not even a record could be written, and why.
    pub(crate) outcome: Option<Result<Arc<Image>, String>>,
}

impl Leases {
    /// Gives the building of `key`. Where there is none yet, `begin` begins it.
    pub(super) fn take(&self, key: Key, begin: impl FnOnce(&Arc<Building>)) -> Arc<Building> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, building| building.progress.borrow().outcome.is_none());
        if let Some(building) = held.get(&key) {
            return Arc::clone(building);
        }
        let building = Arc::new(Building::default());
        held.insert(key, Arc::clone(&building));
        begin(&building);
        building
    }

    /// The log of an image that is being built.
    pub(super) fn log_of(&self, image_id: &str) -> Option<Arc<BuildLog>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let log = held.values().filter_map(|building| building.log.get()).find(|(id, _)| id == image_id);
        log.map(|(_, log)| Arc::clone(log))
    }
}

impl Building {
    /// How far it is, for whoever waits.
    pub(crate) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Its turn has come, and this is its log.
    pub(super) fn log_to(&self, image_id: &str, log: Arc<BuildLog>) {
        // It is set once.
        self.log.set((image_id.to_owned(), log)).ok();
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

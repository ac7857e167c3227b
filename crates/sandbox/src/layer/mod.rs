//! Layers: what sandboxes have written, one folder for each writable layer of each sandbox.
//!
//! ```text
//!   layers/ID/tree/{root, workspace, usr, …}    the upper folder of each overlay
//!            /work/{root, workspace, usr, …}    the kernel's own, as long as the layer is open
//!            /freezing                          written when its freezing begins
//!            /manifest.json                     written when it is frozen
//!            /verified                          the boot in which its content was last held against the manifest
//! ```
//!
//! A layer is **open** while one sandbox writes to it. It is **frozen** by its [manifest](manifest), and never changes
//! after that; nothing is copied or moved. Sandboxes that go on from a frozen layer have an open one above it, so a
//! snapshot is a manifest, and a fork is a mount. Of a sandbox that is to run on, a [copy](copy) of its open layer is
//! frozen instead.

mod attributes;
mod chain;
mod copy;
mod digest;
mod export;
mod fill;
mod import;
mod live;
mod manifest;
mod merge;
mod pax;
mod walk;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

pub(crate) use attributes::ACCESS_LISTS;
pub(crate) use chain::Chain;
pub(crate) use copy::Moment;
pub(crate) use manifest::{Left, boot_id};
pub(crate) use merge::merge;

use crate::provider::SandboxError;
use crate::spec::SandboxId;

/// Layers under a sandbox, at most, before they are merged into one. The kernel takes 500; each costs a little.
pub(crate) const CHAIN_LEN_MAX: usize = 32;

/// Names a layer: the sandbox that wrote it, and a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerId(String);

impl LayerId {
    pub(crate) fn new(sandbox: &SandboxId, number: u64) -> Self {
        Self(format!("{sandbox}.{number}"))
    }

    /// Whether this sandbox has written it.
    pub(crate) fn is_of(&self, sandbox: &SandboxId) -> bool {
        self.0.split_once('.').is_some_and(|(name, _)| name == sandbox.as_str())
    }

    /// The number.
    pub(crate) fn number(&self) -> u64 {
        self.0.rsplit_once('.').and_then(|(_, number)| number.parse().ok()).unwrap_or_default()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for LayerId {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        let (sandbox, number) = name.split_once('.').ok_or_else(|| format!("{name:?} names no layer"))?;
        let number = number.parse().map_err(|_| format!("{name:?} names no layer"))?;
        Ok(Self::new(&SandboxId::new(sandbox)?, number))
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> Self {
        id.0
    }
}

/// The folder of all layers.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    folder: PathBuf,
    /// Layers that are being made, and that nothing names yet.
    making: Arc<Mutex<BTreeSet<LayerId>>>,
}

/// A layer that is being made. It counts as needed for as long as this is held.
#[derive(Debug)]
pub(crate) struct Making {
    id: LayerId,
    making: Arc<Mutex<BTreeSet<LayerId>>>,
}

impl Making {
    /// Its name.
    pub(crate) fn id(&self) -> &LayerId {
        &self.id
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.making.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Layers {
    /// Takes the folder; it is there.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, making: Arc::default() }
    }

    pub(crate) fn folder_of(&self, id: &LayerId) -> PathBuf {
        self.folder.join(id.as_str())
    }

    /// The upper folders of a layer.
    pub(crate) fn tree_of(&self, id: &LayerId) -> PathBuf {
        self.folder_of(id).join("tree")
    }

    /// Makes an empty layer with a number above `last`. A number is never given twice: a log may still name a layer that is
    /// gone, and must not find another one there.
    pub(crate) fn make(&self, sandbox: &SandboxId, last: u64) -> Result<LayerId, SandboxError> {
        let names = (last.saturating_add(1)..).map(|number| LayerId::new(sandbox, number));
        for id in names {
            let folder = self.folder_of(&id);
            match fs::create_dir(&folder) {
                Ok(()) => return Ok(id),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(SandboxError::io("create", &folder)(error)),
            }
        }
        Err(SandboxError::Machine { reason: "find a free name for a layer".to_owned() })
    }

    /// Makes a layer that nothing names until it is done, with an empty tree.
    pub(crate) fn begin(&self, sandbox: &SandboxId, last: u64) -> Result<Making, SandboxError> {
        // Held meanwhile, so that whoever looks for layers that nobody needs does not find it in between.
        let mut unfinished = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let id = self.make(sandbox, last)?;
        unfinished.insert(id.clone());
        let making = Making { id, making: Arc::clone(&self.making) };
        drop(unfinished);
        let tree = self.tree_of(&making.id);
        fs::create_dir(&tree).map_err(SandboxError::io("create", &tree))?;
        Ok(making)
    }

    /// Makes one frozen layer of a chain, topmost first, with the same files. The others stay as they are.
    pub(crate) fn flatten(&self, sandbox: &SandboxId, last: u64, chain: &[LayerId]) -> Result<Making, SandboxError> {
        let merged = self.begin(sandbox, last)?;
        let target = self.tree_of(&merged.id);
        let trees: Vec<PathBuf> = chain.iter().rev().map(|id| self.tree_of(id)).collect();
        let trees: Vec<&Path> = trees.iter().map(PathBuf::as_path).collect();
        merge(&trees, &target).map_err(SandboxError::io("merge layers into", &target))?;
        self.freeze(&merged.id)?;
        Ok(merged)
    }

    /// Every layer that has a folder, but for those that are being made.
    pub(crate) fn list(&self) -> Result<BTreeSet<LayerId>, SandboxError> {
        let unfinished = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = fs::read_dir(&self.folder).map_err(SandboxError::io("list", &self.folder))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let ids = names.filter_map(|name| LayerId::try_from(name).ok());
        Ok(ids.filter(|id| !unfinished.contains(id)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_named_after_its_sandbox_and_nothing_else_is_a_name() {
        let id = LayerId::new(&SandboxId::new("s-1").unwrap(), 7);
        assert_eq!(LayerId::try_from(id.to_string()), Ok(id));
        for odd in ["", "s-1", "../x.1", "s-1.x", "s-1.1/2", "S.1", ".1"] {
            assert!(LayerId::try_from(odd.to_owned()).is_err(), "{odd}");
        }
    }
}

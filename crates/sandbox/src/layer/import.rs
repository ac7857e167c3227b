//! Takes in an archive of layers that another machine, or anybody, has made.
//!
//! It is unpacked as a layer of an image is: nothing leads out of its folder, and everything is bounded. What comes out is
//! held against what the archive says of it, and frozen like any other layer.

use std::fs;
use std::io::Read;
use std::path::Path;

use super::export::{CONTENTS, Contents, FORMAT, Packed};
use super::{LayerId, Layers, Making};
use crate::image::{ImageLimits, unpack_loose};
use crate::provider::SandboxError;
use crate::spec::SandboxId;

/// Layers in one archive, at most.
const LAYERS_MAX: usize = 256;

/// Bytes of the list of them, at most.
const CONTENTS_MAX: u64 = 1 << 20;

impl Layers {
    /// Unpacks layers under a name of their own and freezes them, topmost first. They count as needed while they are held.
    pub(crate) fn import(
        &self,
        name: &SandboxId,
        archive: impl Read,
        limits: ImageLimits,
    ) -> Result<Vec<Making>, SandboxError> {
        let staging = self.begin(name, 0)?;
        let folder = self.tree_of(staging.id());
        let refused = |reason: String| SandboxError::Refused { what: "the archive of a snapshot".to_owned(), reason };
        unpack_loose(archive, &folder, limits).map_err(|error| refused(error.to_string()))?;
        let contents = contents(&folder).map_err(refused)?;
        let mut imported: Vec<Making> = Vec::new();
        for (number, packed) in contents.layers.iter().enumerate() {
            let from = folder.join("layers").join(number.to_string());
            check_top(&from).map_err(refused)?;
            let last = imported.last().map_or_else(|| staging.id().number(), |last| last.id().number());
            let making = self.begin(name, last)?;
            let tree = self.tree_of(making.id());
            fs::rename(&from, &tree).map_err(SandboxError::io("move", &from))?;
            self.take_in(making.id(), packed).map_err(|error| refused(error.to_string()))?;
            imported.push(making);
        }
        drop(staging);
        Ok(imported)
    }

    fn take_in(&self, id: &LayerId, packed: &Packed) -> Result<(), SandboxError> {
        let manifest = self.freeze(id)?;
        if manifest.holds(packed.entries, packed.bytes, &packed.sha256) {
            return Ok(());
        }
        let reason = "it holds something else than the archive says".to_owned();
        Err(SandboxError::Refused { what: format!("layer {id}"), reason })
    }
}

fn contents(folder: &Path) -> Result<Contents, String> {
    let path = folder.join(CONTENTS);
    let metadata = fs::symlink_metadata(&path).map_err(|_| format!("it has no {CONTENTS}"))?;
    if !metadata.is_file() || metadata.len() > CONTENTS_MAX {
        return Err(format!("its {CONTENTS} is none"));
    }
    let text = fs::read(&path).map_err(|error| format!("its {CONTENTS} cannot be read: {error}"))?;
    let contents: Contents =
        serde_json::from_slice(&text).map_err(|error| format!("its {CONTENTS} is none: {error}"))?;
    match contents.format {
        FORMAT if contents.layers.is_empty() || contents.layers.len() > LAYERS_MAX => {
            Err(format!("it has {} layers; 1 to {LAYERS_MAX} are taken", contents.layers.len()))
        }
        FORMAT => Ok(contents),
        other => Err(format!("a later version of Hob made it (format {other})")),
    }
}

/// The folders at the top of a layer are where overlays are mounted from: a link there would lead the mount elsewhere.
fn check_top(layer: &Path) -> Result<(), String> {
    let odd = |what: &str| format!("a layer of it has {what} where folders belong");
    if !fs::symlink_metadata(layer).is_ok_and(|metadata| metadata.is_dir()) {
        return Err("it lacks a layer that it names".to_owned());
    }
    for entry in fs::read_dir(layer).map_err(|error| odd(&error.to_string()))? {
        let is_folder = entry.and_then(|entry| entry.file_type()).map_err(|error| odd(&error.to_string()))?.is_dir();
        if !is_folder {
            return Err(odd("something else"));
        }
    }
    Ok(())
}

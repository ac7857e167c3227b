//! What makes a layer frozen, and how it is known that it still is what was frozen.

use std::fs::{self, File};
use std::io::ErrorKind;

use serde::{Deserialize, Serialize};

use super::digest::{Counted, Digest, digest};
use super::{LayerId, Layers};
use crate::provider::SandboxError;
use crate::whole;

/// The format of this version. Layers of the one before it are still understood.
const FORMAT: u32 = 2;

const FILE: &str = "manifest.json";
const VERIFIED: &str = "verified";

/// Says that the layer is being frozen, and in which boot of the machine. It stays.
const FREEZING: &str = "freezing";

/// A larger one was not written here.
const BYTES_MAX: u64 = 64 << 10;

/// What a frozen layer holds. New fields must have a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// Files, folders and all else.
    pub(crate) entries: u64,
    /// Bytes in files.
    pub(crate) bytes: u64,
    /// SHA-256 over names, kinds, owners, modes, times, attributes and content.
    sha256: String,
}

/// How a layer was left that a sandbox wrote to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Left {
    /// It can be written to again.
    Open,
    /// It was frozen.
    Frozen,
    /// Neither, and why.
    Torn(String),
}

impl Manifest {
    /// Whether the layer holds just this.
    pub(super) fn holds(&self, entries: u64, bytes: u64, sha256: &str) -> bool {
        (self.entries, self.bytes, self.sha256.as_str()) == (entries, bytes, sha256)
    }

    fn counted(&self) -> Counted {
        if self.format == 1 { Counted::Marks } else { Counted::All }
    }
}

impl Layers {
    /// Freezes a layer that nobody writes to any more. When this returns it is on disk, whatever happens next.
    ///
    /// First it is noted that this begins: of a layer with that note, and without a manifest after another boot, nobody
    /// knows what the disk has. Then comes the content, then the manifest: where that is, there is the content.
    pub(crate) fn freeze(&self, id: &LayerId) -> Result<Manifest, SandboxError> {
        let (folder, tree) = (self.folder_of(id), self.tree_of(id));
        let note = folder.join(FREEZING);
        whole::write_durably(&note, boot_id().as_bytes()).map_err(SandboxError::io("write", &note))?;
        let open = File::open(&folder).map_err(SandboxError::io("open", &folder))?;
        let (synced, digest) = std::thread::scope(|scope| {
            // The disk writes while the processor reads.
            let syncing = scope.spawn(|| rustix::fs::syncfs(&open));
            let digest = digest(&tree, Counted::All);
            (syncing.join().unwrap_or(Err(rustix::io::Errno::IO)), digest)
        });
        // The kernel's own folders are of no use without their overlay.
        fs::remove_dir_all(folder.join("work")).ok();
        synced.map_err(|error| SandboxError::io("write out", &folder)(error.into()))?;
        let Digest { entries, bytes, sha256 } = digest.map_err(SandboxError::io("read", &tree))?;
        let manifest = Manifest { format: FORMAT, entries, bytes, sha256 };
        let text =
            serde_json::to_vec_pretty(&manifest).map_err(|error| SandboxError::io("write", &folder)(error.into()))?;
        let path = folder.join(FILE);
        whole::replace_durably(&path, &text, 0o600).map_err(SandboxError::io("write", &path))?;
        self.trust(id);
        Ok(manifest)
    }

    /// Takes a layer as open again whose freezing was broken off.
    pub(crate) fn reopen(&self, id: &LayerId) -> Result<(), SandboxError> {
        let folder = self.folder_of(id);
        let note = folder.join(FREEZING);
        if !note.exists() {
            return Ok(());
        }
        let removed = fs::remove_file(&note).and_then(|()| File::open(&folder)?.sync_all());
        removed.map_err(SandboxError::io("remove", &note))
    }

    /// The manifest; `None` where the layer is open, or gone.
    pub(crate) fn manifest(&self, id: &LayerId) -> Result<Option<Manifest>, String> {
        let path = self.folder_of(id).join(FILE);
        let said = |error: std::io::Error| format!("its manifest cannot be read: {error}");
        match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(said(error)),
            Ok(metadata) if metadata.len() > BYTES_MAX => return Err("its manifest is too long".to_owned()),
            Ok(_) => {}
        }
        let text = fs::read(&path).map_err(said)?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|_| "its manifest is torn".to_owned())?;
        match manifest.format {
            1 | FORMAT => Ok(Some(manifest)),
            other => Err(format!("it was frozen by a later version of Hob (format {other})")),
        }
    }

    /// How a layer was left that a sandbox wrote to, as far as can be told without its content.
    pub(crate) fn left(&self, id: &LayerId) -> Left {
        match self.manifest(id) {
            Ok(Some(_)) => Left::Frozen,
            Err(reason) => Left::Torn(reason),
            Ok(None) if !self.folder_of(id).is_dir() => Left::Torn("it is gone".to_owned()),
            Ok(None) => match fs::read_to_string(self.folder_of(id).join(FREEZING)) {
                Err(error) if error.kind() == ErrorKind::NotFound => Left::Open,
                // The server was killed, and not the machine: nothing is lost.
                Ok(boot) if boot == boot_id() => Left::Open,
                Ok(_) | Err(_) => Left::Torn("the machine stopped before it was complete".to_owned()),
            },
        }
    }

    /// Whether a layer is what was frozen; says what is wrong where it is not. Its content is read once in each boot of
    /// the machine: only a crash of that can have torn what was written before it.
    pub(crate) fn verify(&self, id: &LayerId) -> Result<(), String> {
        let manifest = self.manifest(id)?.ok_or("it was never frozen, or is gone")?;
        if fs::read_to_string(self.folder_of(id).join(VERIFIED)).is_ok_and(|boot| boot == boot_id()) {
            return Ok(());
        }
        let found = digest(&self.tree_of(id), manifest.counted())
            .map_err(|error| format!("its files cannot be read: {error}"))?;
        if (found.entries, found.bytes, &found.sha256) != (manifest.entries, manifest.bytes, &manifest.sha256) {
            return Err("its files are not those that were frozen".to_owned());
        }
        self.trust(id);
        Ok(())
    }

    /// Notes that the content was seen in this boot. Where that cannot be noted, it is looked at again.
    fn trust(&self, id: &LayerId) {
        if let Err(error) = fs::write(self.folder_of(id).join(VERIFIED), boot_id()) {
            tracing::debug!(layer.id = %id, "failed to note that a layer was verified: {error}");
        }
    }
}

/// A name for this boot of the machine (proc_sys_kernel(5)).
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

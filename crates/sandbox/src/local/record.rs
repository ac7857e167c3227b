//! A sandbox's folder on disk: its record, its identity, its end in the trash.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hob_guest::protocol::{IDENTITY_FILE, Identity};
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;

use crate::folder;
use crate::layer::{Chain, LayerId, Moment};
use crate::provider::SandboxError;
use crate::spec::Spec;
use crate::whole;

const FILE: &str = "record.json";
/// The one before it.
const LAST: &str = "record.last.json";

/// What is known of a sandbox for as long as it has files. New fields must have a default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Which range of IDs it has.
    pub(super) slot: u32,
    /// Its control groups.
    pub(super) groups: Vec<PathBuf>,
    /// The prepared base it was last made of, where it was made of one.
    #[serde(default)]
    pub(super) base: Option<String>,
    /// The layer that it writes to; none between a snapshot and the next start.
    #[serde(default)]
    pub(super) layer: Option<LayerId>,
    /// The frozen layers under that.
    #[serde(default)]
    pub(super) below: Chain,
    /// The last live snapshot of the layer that it writes to.
    #[serde(default)]
    pub(super) live: Option<LiveLayer>,
    /// The boot of the machine in which it was last started.
    #[serde(default)]
    pub(super) boot: String,
    /// The highest number that a layer of it has had.
    #[serde(default)]
    pub(super) last_layer: u64,
    /// What of its files could not be used when it was started, in words for a person: until it is put away, so that it
    /// is not lost with a server that was killed before it told that.
    #[serde(default)]
    pub(super) lost: Option<String>,
    /// What it was last made of, without the token.
    pub(super) spec: Spec,
}

/// A frozen copy of an open layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LiveLayer {
    /// The copy. It lies on what the open layer lies on.
    pub(super) layer: LayerId,
    /// What was changed before this is in it.
    pub(super) since: Moment,
}

impl Record {
    /// The layers of the last live snapshot, topmost first; without one, those that were frozen before.
    pub(super) fn live_layers(&self) -> Vec<LayerId> {
        self.live.iter().map(|live| live.layer.clone()).chain(self.below.0.iter().cloned()).collect()
    }

    /// Every layer that it needs.
    pub(super) fn layers(self) -> impl Iterator<Item = LayerId> {
        let live = self.live.map(|live| live.layer);
        self.layer.into_iter().chain(live).chain(self.below.0)
    }
}

/// Makes the data folder and its parts, for nobody but us, and returns its real path.
pub(super) fn prepare_folder(folder: &Path) -> Result<PathBuf, SandboxError> {
    for part in ["bin", "base", "layers", "pins", "sandboxes", "trash"] {
        let part = folder.join(part);
        fs::create_dir_all(&part).map_err(SandboxError::io("create", &part))?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(SandboxError::io("close", folder))?;
    fs::canonicalize(folder).map_err(SandboxError::io("find", folder))
}

/// Writes the seccomp programs and returns their paths.
pub(super) fn write_filters(folder: &Path, programs: &[Vec<u8>]) -> Result<Vec<PathBuf>, SandboxError> {
    let write = |(number, program): (usize, &Vec<u8>)| {
        let path = folder.join(format!("filter-{number}.bpf"));
        whole::replace(&path, program, 0o644).map_err(SandboxError::io("write", &path))?;
        Ok(path)
    };
    programs.iter().enumerate().map(write).collect()
}

/// The record in a sandbox's folder, or the one before it where that is torn; `None` where there is none.
pub(super) fn read(folder: &Path) -> Result<Option<Record>, SandboxError> {
    let path = folder.join(FILE);
    match (parse(&path), parse(&folder.join(LAST))) {
        (Ok(None) | Err(_), Ok(Some(last))) => Ok(Some(last)),
        (record, _) => record.map_err(SandboxError::io("read", &path)),
    }
}

/// The same, where one that cannot be read is none: to begin anew, and to remove what there is.
pub(super) fn read_if_whole(folder: &Path) -> Option<Record> {
    read(folder).unwrap_or_else(|error| {
        tracing::warn!("a sandbox's record counts for nothing: failed to {error}");
        None
    })
}

fn parse(path: &Path) -> std::io::Result<Option<Record>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the first record of a sandbox. A power cut may tear it, and nothing is lost then: starts do not wait for the
/// disk.
pub(super) fn write_first(folder: &Path, record: &Record) -> Result<(), SandboxError> {
    let path = folder.join(FILE);
    whole::replace(&path, &text_of(record, &path)?, 0o600).map_err(SandboxError::io("write", &path))
}

/// Writes a record for good. The one before is kept beside it, for the case that it is torn after all.
pub(super) fn write(folder: &Path, record: &Record) -> Result<(), SandboxError> {
    let path = folder.join(FILE);
    let text = text_of(record, &path)?;
    let written = keep_last(folder).and_then(|()| whole::replace_durably(&path, &text, 0o600));
    written.map_err(SandboxError::io("write", &path))
}

fn text_of(record: &Record, path: &Path) -> Result<Vec<u8>, SandboxError> {
    serde_json::to_vec_pretty(record).map_err(|error| SandboxError::io("write", path)(error.into()))
}

fn keep_last(folder: &Path) -> std::io::Result<()> {
    let (path, last) = (folder.join(FILE), folder.join(LAST));
    // One that is torn does not take the place of one that is not.
    if !matches!(parse(&path), Ok(Some(_))) {
        return Ok(());
    }
    match fs::remove_file(&last) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::hard_link(&path, &last)
}

/// Writes who the guest is. It belongs to root inside, through the shift of the mount or because nothing is shifted.
pub(super) fn write_identity(run: &Path, identity: &Identity) -> Result<(), SandboxError> {
    let path = run.join(IDENTITY_FILE);
    let bytes = serde_json::to_vec(identity).map_err(|error| SandboxError::io("write", &path)(error.into()))?;
    whole::replace(&path, &bytes, 0o600).map_err(SandboxError::io("write", &path))
}

/// Ranges of IDs that sandboxes have.
pub(super) fn slots(folder: &Path) -> BTreeSet<u32> {
    let ids = folder::sandboxes(folder).unwrap_or_default();
    let records = ids.iter().filter_map(|id| read(&folder.join("sandboxes").join(id.as_str())).ok().flatten());
    records.map(|record| record.slot).collect()
}

/// Moves a folder to the trash, at once, and deletes it in the background.
pub(super) fn discard(data: &Path, folder: &Path, tasks: &TaskTracker) -> Result<(), SandboxError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // The same name may be in the trash already, while its deletion takes its time.
    let target =
        (0_u64..).map(|number| data.join("trash").join(format!("{name}.{number}"))).find(|path| !path.exists());
    let Some(target) = target else { return Ok(()) };
    match fs::rename(folder, &target) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(SandboxError::io("discard", folder))?,
    }
    empty_trash(data, tasks);
    Ok(())
}

/// Deletes what is in the trash, in the background.
pub(super) fn empty_trash(data: &Path, tasks: &TaskTracker) {
    let trash = data.join("trash");
    tasks.spawn_blocking(move || {
        for entry in fs::read_dir(&trash).into_iter().flatten().flatten() {
            match fs::remove_dir_all(entry.path()) {
                // Another deletion may be at the same folder.
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!("failed to delete {}: {error}", entry.path().display());
                }
                Ok(()) | Err(_) => {}
            }
        }
    });
}

//! Unpacked layers on disk: by the digest of their archive, whole or not there at all.
//!
//! ```text
//!   images/
//!     layers/DIGEST/{root/, layer.json}    what a sandbox is mounted of, shared by all images that have the layer
//!     pulled/DIGEST.json                   the images, by the digest of their manifest
//!     new/PID-NUMBER/                      what is being made; thrown away at the next start where it was left
//! ```
//!
//! A layer is made in `new`, written to the disk, and moved: after a kill or a power cut it is either complete or waste.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::digest::Digest;
use super::error::ImageError;
use super::unpack::Facts;

const LAYERS: &str = "layers";
const PULLED: &str = "pulled";
const NEW: &str = "new";

/// The folder of unpacked layers.
#[derive(Debug)]
pub(super) struct Layers {
    folder: PathBuf,
    made: AtomicU64,
}

/// A folder in the making; what was not kept is removed with it. Its lock ends with this process, however that ends.
#[derive(Debug)]
pub(super) struct Fresh {
    folder: PathBuf,
    _lock: File,
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Io { action, path, source }
}

impl Layers {
    /// Makes the folders, for nobody but us: what is in them may have set-user-ID bits.
    ///
    /// Returns what another process left unfinished; its removal can take a while.
    pub(super) fn open(folder: &Path) -> Result<(Self, Vec<PathBuf>), ImageError> {
        for part in [LAYERS, PULLED, NEW] {
            let part = folder.join(part);
            fs::create_dir_all(&part).map_err(failed("create", &part))?;
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed("close", folder))?;
        let folder = fs::canonicalize(folder).map_err(failed("find", folder))?;
        let entries = fs::read_dir(folder.join(NEW)).map_err(failed("list", &folder))?;
        let left = entries.flatten().map(|entry| entry.path()).filter(|path| lock(path).is_ok()).collect();
        Ok((Self { folder, made: AtomicU64::new(0) }, left))
    }

    fn of(&self, digest: &Digest) -> PathBuf {
        self.folder.join(LAYERS).join(digest.hex())
    }

    /// The root of a complete layer and what is known of it; `None` where it is not there.
    pub(super) fn find(&self, digest: &Digest) -> Result<Option<(PathBuf, Facts)>, ImageError> {
        let folder = self.of(digest);
        Ok(read(&folder.join("layer.json"))?.map(|facts| (folder.join("root"), facts)))
    }

    /// A folder for something in the making.
    pub(super) fn fresh(&self) -> Result<Fresh, ImageError> {
        loop {
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            let folder = self.folder.join(NEW).join(format!("{}-{number}", std::process::id()));
            match fs::create_dir(&folder) {
                // Left by a process that had the same number, as in a container.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                other => other.map_err(failed("create", &folder))?,
            }
            let lock = lock(&folder).map_err(failed("lock", &folder))?;
            let fresh = Fresh { folder, _lock: lock };
            fs::create_dir(fresh.root()).map_err(failed("create", &fresh.root()))?;
            return Ok(fresh);
        }
    }

    /// Keeps a complete layer under its digest. Where it was kept in the meantime, that one stays.
    pub(super) fn keep(&self, fresh: &Fresh, digest: &Digest, facts: &Facts) -> Result<(), ImageError> {
        write(&fresh.folder.join("layer.json"), facts)?;
        let folder = self.of(digest);
        let opened = File::open(&fresh.folder).map_err(failed("open", &fresh.folder))?;
        // The files and their names have to be on the disk before the name that says so is.
        rustix::fs::syncfs(opened.as_fd()).map_err(|error| failed("write out", &fresh.folder)(error.into()))?;
        match fs::rename(&fresh.folder, &folder) {
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => Ok(()),
            other => other.map_err(failed("keep", &folder)),
        }?;
        sync_folder(&self.folder.join(LAYERS))
    }

    /// Remembers an image under a digest.
    pub(super) fn remember<T: Serialize>(&self, digest: &Digest, image: &T) -> Result<(), ImageError> {
        let folder = self.folder.join(PULLED);
        let path = folder.join(format!("{}.json", digest.hex()));
        let fresh = self.fresh()?;
        let written = fresh.folder.join("image.json");
        write(&written, image)?;
        File::open(&written).and_then(|file| file.sync_all()).map_err(failed("write out", &written))?;
        fs::rename(&written, &path).map_err(failed("keep", &path))?;
        sync_folder(&folder)
    }

    /// An image that was pulled before.
    pub(super) fn recall<T: DeserializeOwned>(&self, digest: &Digest) -> Result<Option<T>, ImageError> {
        read(&self.folder.join(PULLED).join(format!("{}.json", digest.hex())))
    }
}

impl Layers {
    /// Where everything is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names under which images are remembered.
    pub(super) fn remembered(&self) -> Result<Vec<Digest>, ImageError> {
        self.names(PULLED)
    }

    /// The layers that are complete.
    pub(super) fn kept(&self) -> Result<Vec<Digest>, ImageError> {
        self.names(LAYERS)
    }

    fn names(&self, part: &str) -> Result<Vec<Digest>, ImageError> {
        let folder = self.folder.join(part);
        let entries = fs::read_dir(&folder).map_err(failed("list", &folder))?;
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().trim_end_matches(".json").to_owned();
        Ok(entries.flatten().filter_map(|entry| Digest::parse(&format!("sha256:{}", name(entry)))).collect())
    }

    /// Remembers an image no more.
    pub(super) fn forget(&self, name: &Digest) -> Result<(), ImageError> {
        let path = self.folder.join(PULLED).join(format!("{}.json", name.hex()));
        fs::remove_file(&path).map_err(failed("remove", &path))
    }

    /// Removes a layer: at once from its place, so that a kill leaves no half of it there.
    pub(super) fn remove(&self, digest: &Digest) -> Result<(), ImageError> {
        let (fresh, place) = (self.fresh()?, self.of(digest));
        // Removed with the folder in the making that it has become a part of.
        fs::rename(&place, fresh.folder.join("removed")).map_err(failed("remove", &place))
    }
}

impl Fresh {
    /// The file for what is fetched.
    pub(super) fn blob(&self) -> PathBuf {
        self.folder.join("blob")
    }

    /// The folder for the layer's files.
    pub(super) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // What was kept has gone from here.
        if self.folder.exists() {
            discard(&self.folder);
        }
    }
}

/// Removes what is left of something unfinished.
pub(super) fn discard(path: &Path) {
    let removed = if path.is_dir() { remove_tree(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!("failed to remove {}: {error}", path.display());
        }
        Ok(()) | Err(_) => {}
    }
}

/// Without root, folders that their image closes have to be opened first.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        let mut open = vec![path.to_owned()];
        while let Some(folder) = open.pop() {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
            let entries = fs::read_dir(&folder)?.flatten();
            open.extend(
                entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
            );
        }
    }
    fs::remove_dir_all(path)
}

/// Takes the lock of a folder in the making; fails where its maker still lives.
fn lock(folder: &Path) -> std::io::Result<File> {
    let opened = File::open(folder)?;
    rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive)?;
    Ok(opened)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed("understand", path)(error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), ImageError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| failed("write", path)(error.into()))?;
    fs::write(path, bytes).map_err(failed("write", path))
}

fn sync_folder(path: &Path) -> Result<(), ImageError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("write out", path))
}

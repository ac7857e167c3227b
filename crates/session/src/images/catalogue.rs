//! The records of images, each in a folder of its own with the log of its making.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncWriteExt;

use super::image::{Image, ImageState};

/// The file of an image's record.
const RECORD: &str = "image.json";

/// The largest record that is read, in bytes.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// All records, on disk and here.
pub(super) struct Catalogue {
    folder: PathBuf,
    images: Mutex<BTreeMap<String, Arc<Image>>>,
}

impl Catalogue {
    /// Reads the records in a folder. What was being built when its server ended is told as failed; a record that cannot
    /// be read is left where it is, and said.
    pub(super) async fn open(folder: &Path) -> std::io::Result<Self> {
        tokio::fs::create_dir_all(folder).await?;
        let catalogue = Self { folder: folder.to_owned(), images: Mutex::default() };
        let mut entries = tokio::fs::read_dir(folder).await?;
        while let Some(entry) = entries.next_entry().await? {
            match read(&entry.path().join(RECORD)).await {
                Ok(Some(mut image)) => {
                    if image.state == ImageState::Building {
                        image.state = ImageState::Failed;
                        image.reason = Some("the server ended while it was built".to_owned());
                    }
                    catalogue.lock().insert(image.image_id.clone(), Arc::new(image));
                }
                // Its server ended before there was anything to keep.
                Ok(None) if entry.file_type().await?.is_dir() => tokio::fs::remove_dir_all(entry.path()).await?,
                Ok(None) => {}
                Err(error) => tracing::warn!(folder = %entry.path().display(), "an image is passed over: {error}"),
            }
        }
        Ok(catalogue)
    }

    /// The folder of an image.
    pub(super) fn folder_of(&self, image_id: &str) -> PathBuf {
        self.folder.join(image_id)
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Image>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by_key(|image| (image.begun_ms, image.image_id.clone()));
        all
    }

    /// Those of a repository.
    pub(super) fn of_repository(&self, repository: &str) -> Vec<Arc<Image>> {
        self.all().into_iter().filter(|image| image.repository == repository).collect()
    }

    /// One of them.
    pub(super) fn get(&self, image_id: &str) -> Option<Arc<Image>> {
        self.lock().get(image_id).cloned()
    }

    /// Keeps a record: it is on disk when this returns.
    pub(super) async fn put(&self, image: &Image) -> std::io::Result<()> {
        let folder = self.folder_of(&image.image_id);
        tokio::fs::create_dir_all(&folder).await?;
        let half = folder.join("image.json.part");
        let mut file = tokio::fs::File::create(&half).await?;
        file.write_all(&serde_json::to_vec_pretty(image)?).await?;
        file.sync_all().await?;
        tokio::fs::rename(&half, folder.join(RECORD)).await?;
        tokio::fs::File::open(&folder).await?.sync_all().await?;
        self.lock().insert(image.image_id.clone(), Arc::new(image.clone()));
        Ok(())
    }

    /// Notes that a session starts from an image. It is written with the next change of the record: when it is lost, the
    /// image is only collected sooner.
    pub(super) fn used(&self, image_id: &str, now_ms: u64) {
        if let Some(image) = self.lock().get_mut(image_id) {
            Arc::make_mut(image).used_ms = now_ms;
        }
    }

    /// Removes a record and its log.
    pub(super) async fn remove(&self, image_id: &str) -> std::io::Result<()> {
        self.lock().remove(image_id);
        match tokio::fs::remove_dir_all(self.folder_of(image_id)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Image>>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(path: &Path) -> std::io::Result<Option<Image>> {
    let size = match tokio::fs::metadata(path).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found?.len(),
    };
    if size > RECORD_BYTES_MAX {
        return Err(std::io::Error::other(format!("{} has {size} bytes", path.display())));
    }
    Ok(Some(serde_json::from_slice(&tokio::fs::read(path).await?)?))
}

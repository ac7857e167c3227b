//! What a session's sandbox stands on: the image that it first started from, kept with the session.
//!
//! Images go; a session that goes on from its own files needs the system under them to be the same as ever.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hob_sandbox::{Base, LayerId};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use crate::git::carry::Held;
use crate::images::Image;

/// The file in the session's folder.
const FILE: &str = "footing.json";

/// What a session's sandbox stands on. New fields must have a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Footing {
    pub(crate) image_id: String,
    /// The system under everything, and what that is made of.
    pub(crate) base: Base,
    pub(crate) base_digest: String,
    pub(crate) env: BTreeMap<String, String>,
    /// The image's layers, for a sandbox that has no files of its own yet.
    pub(crate) layers: Vec<LayerId>,
    /// What the image's workspace has of the repository.
    pub(crate) held: Held,
}

impl Footing {
    pub(crate) fn of(image: &Image) -> Self {
        Self {
            image_id: image.image_id.clone(),
            base: image.base.clone(),
            base_digest: image.base_digest.clone(),
            env: image.env.clone(),
            layers: image.layers.clone(),
            held: image.held.clone(),
        }
    }

    /// Reads that of a session; `None` where it has never had a sandbox.
    ///
    /// # Errors
    /// It cannot be read; words for a person.
    pub(crate) async fn read(folder: &Path) -> Result<Option<Self>, String> {
        let path = folder.join(FILE);
        match tokio::fs::read(&path).await {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed("read", &path, &error.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    /// Keeps it: it is on disk when this returns.
    ///
    /// # Errors
    /// The disk did not take it; words for a person.
    pub(crate) async fn write(&self, folder: &Path) -> Result<(), String> {
        let path = folder.join(FILE);
        let written = async {
            tokio::fs::create_dir_all(folder).await?;
            let half: PathBuf = folder.join("footing.json.part");
            let mut file = tokio::fs::File::create(&half).await?;
            file.write_all(&serde_json::to_vec(self)?).await?;
            file.sync_all().await?;
            tokio::fs::rename(&half, &path).await
        };
        written.await.map_err(|error| failed("write", &path, &error))
    }

    /// Forgets it: the session has no sandbox any more.
    ///
    /// # Errors
    /// It cannot be removed; words for a person.
    pub(crate) async fn remove(folder: &Path) -> Result<(), String> {
        let path = folder.join(FILE);
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", &path, &error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn failed(action: &str, path: &Path, error: &std::io::Error) -> String {
    format!("failed to {action} {}: {error}", path.display())
}

//! What is known on disk of a sandbox whose files the daemon holds.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::layer::LayerId;
use crate::provider::SandboxError;
use crate::spec::Spec;
use crate::whole;

const FILE: &str = "record.json";

/// A sandbox, for as long as it has files. New fields must have a default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its container, complete with its workspace; none between a snapshot and the next start.
    pub(super) container: Option<String>,
    /// The image that the container was made of.
    pub(super) image: String,
    /// What the container was given that only a new one can be given otherwise.
    pub(super) shape: String,
    /// The frozen layers under the container, topmost first.
    pub(super) below: Vec<LayerId>,
    /// The highest number that a layer of it has had.
    pub(super) last_layer: u64,
    /// What of its files could not be used at its last start, in words for a person.
    pub(super) lost: Option<String>,
    /// What it was last made of, without the token.
    pub(super) spec: Spec,
}

/// The record in a sandbox's folder; `None` where there is none.
pub(super) fn read(folder: &Path) -> Result<Option<Record>, SandboxError> {
    read_json(&folder.join(FILE))
}

/// Writes the record into a sandbox's folder.
pub(super) fn write(folder: &Path, record: &Record) -> Result<(), SandboxError> {
    fs::create_dir_all(folder).map_err(SandboxError::io("create", folder))?;
    write_json(&folder.join(FILE), record)
}

/// What a file says; `None` where there is none.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, SandboxError> {
    let understand = |bytes: Vec<u8>| serde_json::from_slice(&bytes).map(Some);
    match fs::read(path) {
        Ok(bytes) => understand(bytes).map_err(|error| SandboxError::io("understand", path)(error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SandboxError::io("read", path)(error)),
    }
}

/// Replaces a file for good.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), SandboxError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| SandboxError::io("write", path)(error.into()))?;
    whole::replace_durably(path, &bytes, 0o600).map_err(SandboxError::io("write", path))
}

/// Removes a file or a folder that may not be there.
pub(super) fn remove(path: &Path) -> Result<(), SandboxError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(SandboxError::io("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

//! The data folder of a provider: what it is called for short, and the sandboxes that have a folder in it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::hex::hex;
use crate::provider::SandboxError;
use crate::spec::SandboxId;

/// A short name for a data folder: its inode tells two on one machine apart, also after a move.
pub(crate) fn name(folder: &Path) -> String {
    let text =
        fs::metadata(folder).map_or_else(|_| folder.display().to_string(), |m| format!("{}:{}", m.dev(), m.ino()));
    hex(&Sha256::digest(text)[..4])
}

/// Names of the sandboxes that have files.
pub(crate) fn sandboxes(folder: &Path) -> Result<Vec<SandboxId>, SandboxError> {
    let folder = folder.join("sandboxes");
    let entries = fs::read_dir(&folder).map_err(SandboxError::io("list", &folder))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter_map(|name| SandboxId::new(name).ok()).collect::<BTreeSet<_>>().into_iter().collect())
}

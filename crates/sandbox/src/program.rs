//! The guest's program, carried inside this one and put into the data folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::hex::hex;
use crate::provider::SandboxError;

/// The static program that is built from `crates/guest`.
const GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hob-guest"));

/// Puts the program into `folder` under a name that says what is in it, and returns its path.
///
/// One that is there already is read and compared: a program that somebody has changed is replaced.
///
/// # Errors
/// The folder cannot be written to.
pub(crate) fn install(folder: &Path) -> Result<PathBuf, SandboxError> {
    let failed = SandboxError::io;
    let digest = hex(&Sha256::digest(GUEST)[..8]);
    let path = folder.join(format!("hob-guest-{digest}"));
    if fs::read(&path).is_ok_and(|there| there == GUEST) {
        return Ok(path);
    }
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    // Written beside and moved: another process may be executing the old one.
    let fresh = folder.join(format!("hob-guest-{digest}.{}", std::process::id()));
    fs::write(&fresh, GUEST).map_err(failed("write", &fresh))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).map_err(failed("write", &fresh))?;
    fs::rename(&fresh, &path).map_err(failed("write", &path))?;
    Ok(path)
}

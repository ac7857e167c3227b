//! Random secrets, their hashes, and the files that hold them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A secret in clear. It shows itself to nobody who does not ask by name.
#[derive(Clone)]
pub struct Secret(String);

/// What is kept of a secret. Secrets are 256 random bits, so a plain hash cannot be searched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hash([u8; 32]);

/// What to do when a secret's file is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Fail,
}

impl Secret {
    /// 256 bits from the kernel.
    pub fn random() -> Self {
        let mut bytes = [0_u8; 32];
        // getrandom(2) fails only on kernels without the call; a secret that could be guessed must not be given out.
        while getrandom::fill(&mut bytes).is_err() {
            std::thread::yield_now();
        }
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// A secret that came from elsewhere.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

pub(super) fn hash(text: &str) -> Hash {
    Hash(Sha256::digest(text.as_bytes()).into())
}

/// Whether two hashes are the same, in a time that does not depend on where they differ.
pub(super) fn same(a: &Hash, b: &Hash) -> bool {
    let difference = a.0.iter().zip(&b.0).fold(0_u8, |difference, (x, y)| difference | (x ^ y));
    std::hint::black_box(difference) == 0
}

/// Reads the secret in a file; makes both where `missing` says so.
pub(super) fn read(path: &Path, missing: Missing) -> io::Result<Secret> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Ok(Secret(text.trim().to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound || missing == Missing::Fail => Err(error),
        _ => {
            let secret = Secret::random();
            write_private(path, secret.0.as_bytes())?;
            Ok(secret)
        }
    }
}

/// Replaces a file that only its owner may read. It is whole at any moment, also after a power cut.
///
/// # Errors
/// What the system said.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    // A leftover of a crash may have other permissions.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

//! Files that are there whole or not at all: written beside their place and moved there.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Replaces a file: whoever reads it, and whoever comes after a process that was killed here, sees the old one or the new
/// one. After a power cut it may be neither.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let fresh = beside(path);
    write(&fresh, bytes, mode)?;
    fs::rename(&fresh, path)
}

/// Replaces a file for good: when this returns the new one is on disk, and after a power cut at any moment before there
/// is the old one or the new one.
pub(crate) fn replace_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let fresh = beside(path);
    write(&fresh, bytes, mode)?.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Writes a file that nobody needs whole: that it is there says all.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, 0o600)?.sync_all()?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.new", std::process::id()))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<File> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

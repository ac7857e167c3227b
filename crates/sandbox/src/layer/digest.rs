//! One number for everything that a folder holds: names, kinds, owners, modes, times, marks of overlays, content.
//!
//! The entries are listed first, then two threads read the files, since most of the time goes into opening them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::hex::hex;

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest {
    /// Files, folders and all else.
    pub(super) entries: u64,
    /// Bytes in files.
    pub(super) bytes: u64,
    /// SHA-256 over all of it, as hexadecimal digits.
    pub(super) sha256: String,
}

/// Threads that read.
const READERS: usize = 2;

/// Marks that overlays leave on files and folders.
const MARKS: [&str; 3] = ["user.overlay.opaque", "user.overlay.whiteout", "user.overlay.redirect"];

/// Reads a folder whole.
pub(super) fn digest(folder: &Path) -> io::Result<Digest> {
    let paths = list(folder)?;
    let share = paths.len().div_ceil(READERS).max(1);
    let parts: Vec<io::Result<Vec<Entry>>> = std::thread::scope(|scope| {
        let readers: Vec<_> = paths
            .chunks(share)
            .map(|some| scope.spawn(move || some.iter().map(|path| entry(folder, path)).collect()))
            .collect();
        let gone = |_| Err(io::Error::other("a thread ended early"));
        readers.into_iter().map(|reader| reader.join().unwrap_or_else(gone)).collect()
    });
    let (mut bytes, mut all) = (0, Sha256::new());
    for part in parts {
        for Entry { length, hash } in part? {
            bytes += length;
            all.update(hash);
        }
    }
    Ok(Digest { entries: paths.len() as u64, bytes, sha256: hex(&all.finalize()) })
}

/// Paths of everything below a folder, in an order that depends on the names alone.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let entries = match fs::read_dir(folder.join(&below)) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => continue,
            other => other?,
        };
        let mut names: Vec<(OsString, bool)> = entries
            .map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?.is_dir()))))
            .collect::<io::Result<_>>()?;
        names.sort();
        for (name, is_folder) in names {
            let path = below.join(name);
            if is_folder {
                open.push(path.clone());
            }
            paths.push(path);
        }
    }
    Ok(paths)
}

/// One entry: its bytes where it is a file, and the hash of all of it.
struct Entry {
    length: u64,
    hash: [u8; 32],
}

fn entry(folder: &Path, path: &Path) -> io::Result<Entry> {
    let place = folder.join(path);
    let metadata = fs::symlink_metadata(&place)?;
    let mut hash = Sha256::new();
    part(&mut hash, path.as_os_str().as_bytes());
    let mtime = (metadata.mtime() as u64, metadata.mtime_nsec() as u64);
    let owner = u64::from(metadata.uid()) << 32 | u64::from(metadata.gid());
    for number in [u64::from(metadata.mode()), owner, mtime.0, mtime.1, metadata.rdev()] {
        hash.update(number.to_le_bytes());
    }
    for mark in MARKS {
        part(&mut hash, &super::merge::mark(&place, mark)?.unwrap_or_default());
    }
    let mut length = 0;
    if metadata.is_symlink() {
        part(&mut hash, fs::read_link(&place)?.as_os_str().as_bytes());
    } else if metadata.is_file() {
        length = metadata.len();
        content(&mut hash, &place)?;
        hash.update(length.to_le_bytes());
    }
    Ok(Entry { length, hash: hash.finalize().into() })
}

/// Where Hob is not root, files inside may belong to others and be closed to it; of those only the rest is held.
fn content(hash: &mut Sha256, place: &Path) -> io::Result<()> {
    let mut file = match File::open(place) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
        other => other?,
    };
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// A length before the bytes keeps one field apart from the next.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_changes_the_digest() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir(at("a")).unwrap();
        fs::write(at("a/file"), "text").unwrap();
        std::os::unix::fs::symlink("file", at("a/link")).unwrap();
        let mut seen = vec![digest(folder.path()).unwrap()];
        assert_eq!(digest(folder.path()).unwrap(), seen[0]);
        assert_eq!((seen[0].entries, seen[0].bytes), (3, 4));
        let changes: [&dyn Fn(); 5] = [
            &|| fs::write(at("a/file"), "test").unwrap(),
            &|| fs::set_permissions(at("a/file"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap(),
            &|| fs::rename(at("a/file"), at("a/other")).unwrap(),
            &|| File::open(at("a")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap(),
            &|| rustix::fs::lsetxattr(at("a"), MARKS[0], b"y", rustix::fs::XattrFlags::empty()).unwrap(),
        ];
        for change in changes {
            change();
            let now = digest(folder.path()).unwrap();
            assert!(!seen.contains(&now));
            seen.push(now);
        }
    }
}

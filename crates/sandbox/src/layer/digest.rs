//! One number for everything that a folder holds: names, kinds, owners, modes, times, attributes, content.
//!
//! It is the same for a copy of the folder, also one that went through an archive. So of what an overlay hides only the
//! name counts, and sockets do not count at all: nobody listens behind one that was frozen, and no archive knows them.
//!
//! The entries are listed first, then two threads read the files, since most of the time goes into opening them.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};

use super::{attributes, merge};
use crate::hex::hex;

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    /// Files, folders and all else.
    pub(crate) entries: u64,
    /// Bytes in files.
    pub(crate) bytes: u64,
    /// SHA-256 over all of it, as hexadecimal digits.
    pub(crate) sha256: String,
}

/// What of an entry counts: the formats of [manifests](super::manifest).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Of the attributes only the marks of overlays; whiteouts and sockets like all else. Format 1.
    Marks,
    /// As the head of this file says. Format 2.
    All,
}

/// Threads that read.
const READERS: usize = 2;

/// Entries that a reader takes at once.
const SHARE: usize = 32;

/// Marks that overlays leave on files and folders, as format 1 has them.
const MARKS: [&str; 3] = ["user.overlay.opaque", "user.overlay.whiteout", "user.overlay.redirect"];

/// Reads a folder whole.
pub(crate) fn digest(folder: &Path, counted: Counted) -> io::Result<Digest> {
    let paths = list(folder, counted)?;
    let next = AtomicUsize::new(0);
    let read = || {
        let mut entries = Vec::new();
        loop {
            let begin = next.fetch_add(SHARE, Ordering::Relaxed);
            let share = paths.get(begin..(begin + SHARE).min(paths.len())).unwrap_or_default();
            if share.is_empty() {
                return Ok(entries);
            }
            for (at, path) in share.iter().enumerate() {
                entries.push((begin + at, entry(folder, path, counted)?));
            }
        }
    };
    let parts: Vec<io::Result<Vec<(usize, Entry)>>> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        let gone = |_| Err(io::Error::other("a thread ended early"));
        readers.into_iter().map(|reader| reader.join().unwrap_or_else(gone)).collect()
    });
    let mut entries = parts.into_iter().collect::<io::Result<Vec<_>>>()?.concat();
    entries.sort_unstable_by_key(|(at, _)| *at);
    let (mut bytes, mut all) = (0, Sha256::new());
    for (_, Entry { length, hash }) in entries {
        bytes += length;
        all.update(hash);
    }
    Ok(Digest { entries: paths.len() as u64, bytes, sha256: hex(&all.finalize()) })
}

/// Paths of everything below a folder, in an order that depends on the names alone.
fn list(folder: &Path, counted: Counted) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let entries = match fs::read_dir(folder.join(&below)) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => continue,
            other => other?,
        };
        let mut names: Vec<(OsString, fs::FileType)> = entries
            .map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?))))
            .collect::<io::Result<_>>()?;
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (name, kind) in names {
            let path = below.join(name);
            if kind.is_dir() {
                open.push(path.clone());
            }
            if !kind.is_socket() || counted == Counted::Marks {
                paths.push(path);
            }
        }
    }
    Ok(paths)
}

/// One entry: its bytes where it is a file, and the hash of all of it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    length: u64,
    hash: [u8; 32],
}

fn entry(folder: &Path, path: &Path, counted: Counted) -> io::Result<Entry> {
    let place = folder.join(path);
    let metadata = fs::symlink_metadata(&place)?;
    let mut hash = Sha256::new();
    part(&mut hash, path.as_os_str().as_bytes());
    if counted == Counted::All && merge::is_whiteout(&metadata) {
        part(&mut hash, b"whiteout");
        return Ok(Entry { length: 0, hash: hash.finalize().into() });
    }
    look(&mut hash, &metadata);
    match counted {
        Counted::Marks => {
            for mark in MARKS {
                part(&mut hash, &attributes::value(&place, mark)?.unwrap_or_default());
            }
        }
        Counted::All => {
            for (name, value) in attributes::read(&place)? {
                part(&mut hash, &name);
                part(&mut hash, &value);
            }
        }
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

/// Kind, mode, owner and time.
fn look(hash: &mut Sha256, metadata: &Metadata) {
    let mtime = (metadata.mtime() as u64, metadata.mtime_nsec() as u64);
    let owner = u64::from(metadata.uid()) << 32 | u64::from(metadata.gid());
    for number in [u64::from(metadata.mode()), owner, mtime.0, mtime.1, metadata.rdev()] {
        hash.update(number.to_le_bytes());
    }
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
    use rustix::fs::{CWD, FileType, Mode, XattrFlags};

    use super::*;

    fn read(folder: &Path) -> Digest {
        digest(folder, Counted::All).unwrap()
    }

    #[test]
    fn every_change_changes_the_digest() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir(at("a")).unwrap();
        fs::write(at("a/file"), "text").unwrap();
        std::os::unix::fs::symlink("file", at("a/link")).unwrap();
        let mut seen = vec![read(folder.path())];
        assert_eq!(read(folder.path()), seen[0]);
        assert_eq!((seen[0].entries, seen[0].bytes), (3, 4));
        let long = vec![b'x'; 3_000];
        let changes: [&dyn Fn(); 7] = [
            &|| fs::write(at("a/file"), "test").unwrap(),
            &|| fs::set_permissions(at("a/file"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap(),
            &|| fs::rename(at("a/file"), at("a/other")).unwrap(),
            &|| File::open(at("a")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap(),
            &|| rustix::fs::lsetxattr(at("a"), MARKS[0], b"y", XattrFlags::empty()).unwrap(),
            &|| rustix::fs::lsetxattr(at("a/other"), "user.note", &long, XattrFlags::empty()).unwrap(),
            &|| rustix::fs::mknodat(CWD, at("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap(),
        ];
        for change in changes {
            change();
            let now = read(folder.path());
            assert!(!seen.contains(&now));
            seen.push(now);
        }
    }

    #[test]
    fn neither_a_socket_nor_what_a_whiteout_looks_like_counts() {
        let folder = tempfile::tempdir().unwrap();
        let hidden = folder.path().join("hidden");
        rustix::fs::mknodat(CWD, &hidden, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        let before = (read(folder.path()), digest(folder.path(), Counted::Marks).unwrap());
        let _listening = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        fs::set_permissions(&hidden, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(read(folder.path()), before.0);
        assert_ne!(digest(folder.path(), Counted::Marks).unwrap(), before.1);
    }
}

//! Files of the sandbox, for its host. Every path is resolved by the sandbox's own kernel view: a link or `..` that
//! leads anywhere leads to a place inside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hob_guest::frame::BLOB_MAX;
use hob_guest::protocol::{Entry, FromGuest, Kind, Stat, ToGuest, WRITE_MAX};

use super::link::Link;

/// What paths are relative to.
pub(super) const HOME: &str = "/workspace";

/// Entries of a folder that are told; more than a person or a model reads.
const ENTRIES_MAX: usize = 100_000;

/// Files that are being written at once.
const WRITES_MAX: usize = 64;

/// Files that are being written.
#[derive(Default)]
pub(super) struct Writes(BTreeMap<u64, Option<Writing>>);

/// A new file beside the one that it will replace.
struct Writing {
    file: File,
    fresh: PathBuf,
    target: PathBuf,
    length: u64,
}

impl Writes {
    /// Answers a request about files; any other message is none.
    pub(super) fn answer(&mut self, message: ToGuest, blob: &[u8], link: &mut Link) {
        match message {
            ToGuest::Read { request, path, offset, length } => match read(&path, offset, length) {
                Ok(bytes) => link.send(&FromGuest::Bytes { request }, &bytes),
                Err(error) => link.fail(request, &error),
            },
            ToGuest::Write { request, path, last } => match self.write(request, &path, last, blob) {
                Ok(false) => {}
                Ok(true) => link.send(&FromGuest::Done { request }, &[]),
                Err(error) => link.fail(request, &error),
            },
            ToGuest::ReadDir { request, path } => match list(&path) {
                Ok(entries) => tell(request, entries, link),
                Err(error) => link.fail(request, &error),
            },
            ToGuest::Stat { request, path } => match fs::symlink_metadata(resolve(&path)) {
                Ok(metadata) => link.send(&FromGuest::Stat { request, stat: describe(&metadata) }, &[]),
                Err(error) => link.fail(request, &error),
            },
            ToGuest::Remove { request, path } => match remove(&resolve(&path)) {
                Ok(()) => link.send(&FromGuest::Done { request }, &[]),
                Err(error) => link.fail(request, &error),
            },
            _ => {}
        }
    }

    /// Takes a part; true when the file is in place. After a failure the other parts are dropped.
    fn write(&mut self, request: u64, path: &str, last: bool, blob: &[u8]) -> io::Result<bool> {
        if !self.0.contains_key(&request) {
            if self.0.len() >= WRITES_MAX {
                return Err(io::Error::other("too many files are being written"));
            }
            let begun = Writing::begin(&resolve(path), request);
            let kept = if last { None } else { Some(None) };
            match begun {
                Ok(writing) => drop(self.0.insert(request, Some(writing))),
                Err(error) => {
                    self.0.extend(kept.map(|kept| (request, kept)));
                    return Err(error);
                }
            }
        }
        let Some(Some(writing)) = self.0.get_mut(&request) else {
            if last {
                self.0.remove(&request);
            }
            return Ok(false);
        };
        let result = writing.append(blob).and_then(|()| if last { writing.finish() } else { Ok(()) });
        if let Err(error) = result {
            self.0.insert(request, None);
            if last {
                self.0.remove(&request);
            }
            return Err(error);
        }
        if last {
            self.0.remove(&request);
        }
        Ok(last)
    }
}

impl Writing {
    fn begin(path: &Path, request: u64) -> io::Result<Self> {
        // A link is written through: what it names is replaced, not the link.
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error),
        };
        let old = fs::metadata(&target).ok();
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "is no plain file"));
        }
        let folder = target.parent().ok_or(ErrorKind::InvalidInput)?;
        fs::create_dir_all(folder)?;
        let fresh = folder.join(format!(".hob-{request}-{}.new", std::process::id()));
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = File::options().write(true).create_new(true).open(&fresh)?;
        let writing = Self { file, fresh, target, length: 0 };
        if let Some(old) = old {
            writing.file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
            std::os::unix::fs::fchown(&writing.file, Some(old.uid()), Some(old.gid()))?;
        }
        Ok(writing)
    }

    fn append(&mut self, blob: &[u8]) -> io::Result<()> {
        self.length += blob.len() as u64;
        if self.length > WRITE_MAX {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "the file is too large"));
        }
        self.file.write_all(blob)
    }

    fn finish(&mut self) -> io::Result<()> {
        fs::rename(&self.fresh, &self.target)?;
        // There is nothing left for the drop to remove.
        self.fresh.clear();
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.fresh.as_os_str().is_empty() {
            // Half a file is of no use to anybody; where it cannot be removed, it is only seen by the sandbox.
            drop(fs::remove_file(&self.fresh));
        }
    }
}

fn resolve(path: &str) -> PathBuf {
    Path::new(HOME).join(path)
}

/// Opens without waiting, so that a pipe or a terminal cannot hold process 1; only plain files are read.
fn read(path: &str, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(resolve(path))?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "is no plain file"));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length.min(BLOB_MAX as u64)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn list(path: &str) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(resolve(path))?.take(ENTRIES_MAX) {
        let entry = entry?;
        // An entry that went away in between is left out.
        if let Ok(metadata) = fs::symlink_metadata(entry.path()) {
            entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), stat: describe(&metadata) });
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn tell(request: u64, mut entries: Vec<Entry>, link: &mut Link) {
    loop {
        let rest = entries.split_off(entries.len().min(1_000));
        let more = !rest.is_empty();
        link.send(&FromGuest::Entries { request, entries, more }, &[]);
        if !more {
            return;
        }
        entries = rest;
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn describe(metadata: &fs::Metadata) -> Stat {
    let kind = match metadata.file_type() {
        kind if kind.is_file() => Kind::File,
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_symlink() => Kind::Symlink,
        kind => {
            debug_assert!(kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device());
            Kind::Other
        }
    };
    let modified_ms = metadata.mtime().saturating_mul(1000).saturating_add(metadata.mtime_nsec() / 1_000_000);
    Stat { kind, size: metadata.len(), mode: metadata.mode() & 0o7777, modified_ms }
}

//! Looks at every entry of a folder that a sandbox may be writing to.
//!
//! It may put a link in the place of any folder at any time, so nothing is resolved through one: the kernel holds that,
//! with `openat2(2)`.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// An entry, as it was when it was looked at.
pub(super) struct Found<'a> {
    /// The folder that it is in.
    pub(super) folder: &'a OwnedFd,
    /// Its name in that.
    pub(super) name: &'a CString,
    /// Its path from the top.
    pub(super) path: &'a Path,
    pub(super) stat: Stat,
    pub(super) kind: FileType,
}

impl Found<'_> {
    /// Whether it says that something below it was removed: a character device 0:0.
    pub(super) fn is_whiteout(&self) -> bool {
        self.kind == FileType::CharacterDevice && self.stat.st_rdev == 0
    }
}

/// What to make of an entry that went away, or became something else, while it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entries {
    /// The sandbox runs: that is to be expected.
    Move,
    /// Nobody is there who could have done it.
    HoldStill,
}

/// Opens the top folder.
pub(super) fn top(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// A folder below the top.
pub(super) fn folder(top: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let stay = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(top, path, flags, Mode::empty(), stay)
}

/// Tells of every entry, each folder before what is in it.
pub(super) fn walk(
    top: &OwnedFd,
    entries: Entries,
    tell: &mut dyn FnMut(&Found<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let folder = match folder(top, &below) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if entries == Entries::Move => continue,
            other => other?,
        };
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_owned();
            if matches!(name.as_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) if entries == Entries::Move => continue,
                other => other?,
            };
            let path = below.join(OsStr::from_bytes(name.as_bytes()));
            let kind = FileType::from_raw_mode(stat.st_mode);
            tell(&Found { folder: &folder, name: &name, path: &path, stat, kind })?;
            if kind == FileType::Directory {
                open.push(path);
            }
        }
    }
    Ok(())
}

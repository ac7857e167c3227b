//! What a file or folder is beside its content: extended attributes, owner, mode, times.
//!
//! Of the extended attributes only those count that a sandbox can set, its own and access lists, and the one mark of the
//! overlay that says what is seen. Its other marks are notes on the folders below, and true of one place only. Capabilities
//! of files no sandbox can set, and what a security module of the host notes is the host's.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

/// A name and its value.
pub(super) type Attribute = (Vec<u8>, Vec<u8>);

/// Access lists of files, and what files in a folder inherit (acl(5)).
pub(crate) const ACCESS_LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// The mark on a folder that hides what lies below it.
pub(crate) const OPAQUE: &str = "user.overlay.opaque";

/// Room for names and values that suffices as a rule.
const USUAL: usize = 1_024;

/// The attributes of an entry, sorted by name. What is closed to this process has none that it could read.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Attribute>> {
    gather(|room| rustix::fs::llistxattr(path, room), |name, room| rustix::fs::lgetxattr(path, name, room))
}

fn read_open(file: impl AsFd) -> io::Result<Vec<Attribute>> {
    gather(|room| rustix::fs::flistxattr(&file, room), |name, room| rustix::fs::fgetxattr(&file, name, room))
}

/// One attribute; `None` where the entry does not have it.
pub(super) fn value(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    Ok(read(path)?.into_iter().find_map(|(found, value)| (found == name.as_bytes()).then_some(value)))
}

/// Gives an entry the attributes of another, and takes from it what that has not.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    copy_open(File::open(from)?, File::open(to)?)
}

/// The same, of an open file or folder.
pub(super) fn copy_open(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let (wanted, there) = (read_open(from)?, read_open(&to)?);
    for (name, _) in there.iter().filter(|(name, _)| !wanted.iter().any(|(wanted, _)| wanted == name)) {
        rustix::fs::fremovexattr(&to, OsStr::from_bytes(name))?;
    }
    for (name, value) in wanted {
        rustix::fs::fsetxattr(&to, OsStr::from_bytes(&name), &value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Gives an entry the attributes, the owner, the mode and the times of another.
pub(super) fn dress(from: &Path, to: &Path) -> io::Result<()> {
    let like = fs::symlink_metadata(from)?;
    std::os::unix::fs::lchown(to, Some(like.uid()), Some(like.gid()))?;
    if like.is_file() || like.is_dir() {
        copy(from, to)?;
    }
    if !like.is_symlink() {
        // After the owner, whose change takes the set-user-ID bit away.
        fs::set_permissions(to, like.permissions())?;
    }
    let time = |seconds: i64, nanoseconds: i64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(like.atime(), like.atime_nsec()),
        last_modification: time(like.mtime(), like.mtime_nsec()),
    };
    Ok(rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn counts(name: &[u8]) -> bool {
    let own = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    own || name == OPAQUE.as_bytes() || ACCESS_LISTS.contains(&name)
}

fn gather(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    value: impl Fn(&OsStr, &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Vec<Attribute>> {
    let names = whole(list)?;
    let mut names: Vec<&[u8]> = names.split(|byte| *byte == 0).filter(|name| counts(name)).collect();
    names.sort_unstable();
    let value = |name: &[u8]| Ok((name.to_owned(), whole(|room| value(OsStr::from_bytes(name), room))?));
    names.into_iter().map(value).collect()
}

/// All of what the kernel puts into a buffer, however long it is.
fn whole(get: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut room = vec![0; USUAL];
    loop {
        match get(&mut room) {
            Ok(length) => {
                room.truncate(length);
                return Ok(room);
            }
            // It may have grown since it was measured.
            Err(Errno::RANGE) => room.resize(room.len().saturating_mul(8), 0),
            // Links and devices have none, and some file systems neither.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
}

//! Makes one layer of many, without copying what files hold: the merged layer has them under a second name.
//!
//! From the lowest layer up, each one's folders are made, its files linked, and its marks carried out as overlayfs reads
//! them (overlayfs.rst, "whiteouts and opaque directories"). Marks stay in the merged layer, for what lies below the
//! lowest one is still to be hidden.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

const OPAQUE: &str = "user.overlay.opaque";

/// Merges upper folders, lowest first, into `target`, which is there and empty.
pub(super) fn merge(lowest_first: &[&Path], target: &Path) -> io::Result<()> {
    lowest_first.iter().try_for_each(|tree| lay(tree, target))
}

/// Lays one folder's entries over what is there.
fn lay(source: &Path, target: &Path) -> io::Result<()> {
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            lay_folder(&from, &to)?;
        } else {
            remove(&to)?;
            link(&from, &to)?;
        }
    }
    Ok(())
}

fn lay_folder(from: &Path, to: &Path) -> io::Result<()> {
    let there = fs::symlink_metadata(to).ok();
    let hides = there.as_ref().is_some_and(|there| !there.is_dir());
    let opaque = mark(from, OPAQUE)?.is_some_and(|value| value == b"y");
    if hides || opaque {
        remove(to)?;
    }
    if !to.exists() {
        fs::create_dir(to)?;
    }
    lay(from, to)?;
    // A folder in place of what a lower layer removed hides what lies under all of them.
    if opaque || hides {
        rustix::fs::lsetxattr(to, OPAQUE, b"y", XattrFlags::empty())?;
    }
    dress(from, to)
}

/// Gives a folder the owner, the mode and the times of another.
fn dress(from: &Path, to: &Path) -> io::Result<()> {
    let like = fs::symlink_metadata(from)?;
    std::os::unix::fs::lchown(to, Some(like.uid()), Some(like.gid()))?;
    fs::set_permissions(to, like.permissions())?;
    let time = |seconds: i64, nanoseconds: i64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(like.atime(), like.atime_nsec()),
        last_modification: time(like.mtime(), like.mtime_nsec()),
    };
    Ok(rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Another name for a file, a link or a whiteout. A file that has all the names it may have is copied.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == ErrorKind::TooManyLinks && !is_whiteout(from)? => {
            fs::copy(from, to)?;
            dress(from, to)
        }
        other => other,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    gone.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Whether an entry says that something below it was removed: a character device 0:0.
fn is_whiteout(path: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(metadata.file_type().is_char_device() && metadata.rdev() == 0)
}

/// An overlay's mark on an entry.
pub(super) fn mark(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = [0; 256];
    match rustix::fs::lgetxattr(path, name, &mut value) {
        Ok(length) => Ok(value.get(..length).map(<[u8]>::to_vec)),
        // Links and devices cannot carry a mark of a user; what is closed to us has none that we could read.
        Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

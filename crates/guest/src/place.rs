//! Places in the root that is being built: found and made without ever leaving it.
//!
//! A base is somebody's image, and the writable layer was a sandbox's: each may have put a link to anywhere of the host
//! where something is to be mounted. The kernel resolves links as if the root were entered already, so that one that
//! is absolute leads to the root's own files.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File,
}

/// The place `path` in `root`, opened only to be named.
pub(crate) fn find(root: &str, path: &str) -> Result<OwnedFd> {
    open(root, path, OFlags::PATH)
}

/// Opens the file `path` in `root`.
pub(crate) fn open_file(root: &str, path: &str) -> Result<OwnedFd> {
    open(root, path, OFlags::RDONLY)
}

fn open(root: &str, path: &str, flags: OFlags) -> Result<OwnedFd> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let stay = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), stay)
}

/// The place `path` in `root`, made where it is missing with all above it.
pub(crate) fn make(root: &str, path: &str, kind: Kind) -> Result<OwnedFd> {
    let path = path.trim_end_matches('/');
    match find(root, if path.is_empty() { "/" } else { path }) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = make(root, above, Kind::Folder)?;
    // Where the name is a link that leads nowhere, the kernel says that something is there.
    match kind {
        Kind::Folder => rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?,
        Kind::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            drop(rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?);
        }
    }
    find(root, path)
}

/// Whether a link stands under the name itself.
pub(crate) fn is_link(root: &str, name: &str) -> bool {
    rustix::fs::readlinkat(CWD, format!("{root}/{name}"), Vec::new()).is_ok()
}

/// A path that leads to what was found, for the calls that take no descriptor. It is good while `place` is open.
pub(crate) fn path_of(place: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", place.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root beside a folder that its links lead to, as from outside.
    fn house() -> (tempfile::TempDir, String) {
        let house = tempfile::tempdir().unwrap();
        let (root, outside) = (house.path().join("root"), house.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        let root = root.to_str().unwrap().to_owned();
        (house, root)
    }

    #[test]
    fn places_are_made_inside_whatever_links_say() {
        let (house, root) = house();
        make(&root, "/a/b/c", Kind::Folder).unwrap();
        make(&root, "/a/b/file", Kind::File).unwrap();
        make(&root, "/a/b/file", Kind::File).unwrap();
        assert!(house.path().join("root/a/b/c").is_dir() && house.path().join("root/a/b/file").is_file());
        assert_eq!(make(&root, "/lib", Kind::Folder).unwrap_err(), Errno::EXIST, "it leads nowhere");
        fs::create_dir_all(house.path().join("root/usr/lib")).unwrap();
        make(&root, "/lib/new", Kind::Folder).unwrap();
        assert!(house.path().join("root/usr/lib/new").is_dir(), "a link of the root is followed in it");
        for link in ["/absolute/x", "/relative/x", "/absolute", "/../../outside/x"] {
            drop(make(&root, link, Kind::File));
            drop(open_file(&root, link));
        }
        assert_eq!(fs::read_dir(house.path().join("outside")).unwrap().count(), 0, "nothing was made outside");
        assert!(is_link(&root, "absolute") && !is_link(&root, "a") && !is_link(&root, "nothing"));
    }
}

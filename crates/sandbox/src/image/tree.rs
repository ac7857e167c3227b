//! A folder that an archive is unpacked into: nothing that a path says leads out of it.
//!
//! The kernel holds it, with `openat2(2)`: a path stays beneath the folder and is never resolved through a link, so it
//! does not matter which links the archive has put there, or what they point to. A link is only text until a sandbox
//! follows it, in its own root.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, ResolveFlags, XattrFlags};
use rustix::io::Errno;

use super::budget::{DEPTH_MAX, NAME_MAX, PATH_MAX};
use super::error::LayerError;

/// The longest target of a link, as the kernel has it.
pub(super) const LINK_MAX: usize = 4_095;

const OPAQUE: (&str, &[u8]) = ("user.overlay.opaque", b"y");

/// Says that an entry is not to be believed.
pub(super) fn refuse(path: &[u8], reason: &'static str) -> LayerError {
    LayerError::Entry { entry: path.escape_ascii().to_string(), reason }
}

/// Says that the kernel refused.
pub(super) fn failed(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> LayerError {
    let path = PathBuf::from(OsStr::from_bytes(path));
    move |error| LayerError::Io { action, path, source: error.into() }
}

/// The path of an entry without `.` and doubled slashes; empty for the top folder. Absolute paths are from there, too.
pub(super) fn clean(path: &[u8]) -> Result<Vec<u8>, LayerError> {
    let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    let clean = names.join(&b'/');
    let fault = if names.contains(&b"..".as_slice()) {
        "leads out of its folder with “..”"
    } else if clean.contains(&0) {
        "has a zero byte in its path"
    } else if clean.len() > PATH_MAX || names.iter().any(|name| name.len() > NAME_MAX) {
        "has a longer path than the kernel takes"
    } else if names.len() > DEPTH_MAX {
        "lies deeper than 256 folders"
    } else {
        return Ok(clean);
    };
    let shown = path.len().min(200);
    Err(refuse(path.get(..shown).unwrap_or_default(), fault))
}

/// The folder of a path and the name in it.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

/// The folder, and the last folder in it that was used.
#[derive(Debug)]
pub(super) struct Tree {
    top: Rc<OwnedFd>,
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
}

impl Tree {
    pub(super) fn open(path: &Path) -> Result<Self, LayerError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let top = opened.map_err(failed("open", path.as_os_str().as_bytes()))?;
        Ok(Self { top: Rc::new(top), last: None })
    }

    /// A folder; `None` where there is nothing.
    pub(super) fn find(&mut self, path: &[u8]) -> Result<Option<Rc<OwnedFd>>, LayerError> {
        if path.is_empty() {
            return Ok(Some(Rc::clone(&self.top)));
        }
        if let Some((_, folder)) = self.last.as_ref().filter(|(last, _)| last == path) {
            return Ok(Some(Rc::clone(folder)));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let stay =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        match rustix::fs::openat2(&self.top, path, flags, Mode::empty(), stay) {
            Ok(folder) => {
                let folder = Rc::new(folder);
                self.last = Some((path.to_owned(), Rc::clone(&folder)));
                Ok(Some(folder))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::XDEV) => Err(refuse(path, "leads through a link")),
            Err(Errno::NOTDIR) => Err(refuse(path, "is a folder in one entry and something else in another")),
            Err(error) => Err(failed("open", path)(error)),
        }
    }

    /// A folder, made where it is missing with all above it; `made` hears of each.
    pub(super) fn make(
        &mut self,
        path: &[u8],
        made: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>,
    ) -> Result<Rc<OwnedFd>, LayerError> {
        if let Some(folder) = self.find(path)? {
            return Ok(folder);
        }
        let (above, name) = split(path);
        let parent = self.make(above, made)?;
        made(path)?;
        // Closed until its owner is known, which is when all is in it.
        rustix::fs::mkdirat(&parent, name, Mode::RWXU).map_err(failed("create", path))?;
        self.find(path)?.ok_or_else(|| failed("find", path)(Errno::NOENT))
    }
}

/// What stands under a name; `None` for nothing.
pub(super) fn kind_of(folder: &OwnedFd, name: &[u8]) -> Result<Option<(FileType, u64)>, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), stat.st_ino))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes room under a name. Of two entries the later one counts, but a folder is never replaced.
pub(super) fn clear(folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), LayerError> {
    match kind_of(folder, name).map_err(failed("look at", path))? {
        None => Ok(()),
        Some((FileType::Directory, _)) => Err(refuse(path, "is a folder in one entry and something else in another")),
        Some(_) => rustix::fs::unlinkat(folder, name, AtFlags::empty()).map_err(failed("replace", path)),
    }
}

/// A new file, closed to everybody until its owner is known.
pub(super) fn create(folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<File, LayerError> {
    clear(folder, name, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR);
    opened.map(File::from).map_err(failed("create", path))
}

/// The mark of the overlay that nothing of the layers below is seen under a name. The kernel lets everybody make it.
pub(super) fn hide(folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), LayerError> {
    rustix::fs::mknodat(folder, name, FileType::CharacterDevice, Mode::empty(), 0).map_err(failed("hide", path))
}

/// The mark of the overlay that nothing of the layers below is seen in a folder, as `userxattr` mounts have it.
pub(super) fn hide_below(folder: &OwnedFd, path: &[u8]) -> Result<(), LayerError> {
    rustix::fs::fsetxattr(folder, OPAQUE.0, OPAQUE.1, XattrFlags::empty()).map_err(failed("hide what is below", path))
}

/// Whether a folder has the mark of [`hide_below`].
pub(super) fn is_opaque(folder: &OwnedFd, path: &[u8]) -> Result<bool, LayerError> {
    match rustix::fs::fgetxattr(folder, OPAQUE.0, &mut [0_u8; 8]) {
        Ok(length) => Ok(length > 0),
        Err(Errno::NODATA) => Ok(false),
        Err(error) => Err(failed("look at", path)(error)),
    }
}

/// Permissions with the set-user-ID, set-group-ID and sticky bits.
pub(super) fn mode(bits: u64) -> Mode {
    Mode::from_raw_mode(RawMode::try_from(bits & 0o7777).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_stay_below_and_within_bounds() {
        let check = |path: &[u8], expect: Option<&[u8]>| assert_eq!(clean(path).ok().as_deref(), expect);
        check(b"./a//b/./c/", Some(b"a/b/c"));
        check(b"/etc/passwd", Some(b"etc/passwd"));
        check(b"./", Some(b""));
        check(b"a/...", Some(b"a/..."));
        check(b"\xff/\xfe\n", Some(b"\xff/\xfe\n"));
        check(b"..", None);
        check(b"a/../../b", None);
        check(b"a\0b", None);
        check(&[b'x'; 256], None);
        check(&b"a/".repeat(257), None);
        check(&[&[b'x'; 200][..], b"/"].concat().repeat(21), None);
    }

    proptest! {
        #[test]
        fn a_clean_path_is_clean_and_split_puts_it_together(path in "[./ab]{0,40}") {
            if let Ok(clean_path) = clean(path.as_bytes()) {
                prop_assert_eq!(&clean(&clean_path).unwrap(), &clean_path);
                let (folder, name) = split(&clean_path);
                let joined = if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() };
                prop_assert_eq!(joined, clean_path);
            }
        }
    }
}

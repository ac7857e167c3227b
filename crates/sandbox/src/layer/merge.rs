//! Makes one layer of many, without copying what files hold: the merged layer has them under a second name.
//!
//! From the lowest layer up, each one's folders are made, its files linked, and its marks carried out as overlayfs reads
//! them (overlayfs.rst, "whiteouts and opaque directories"). Marks stay in the merged layer, for what lies below the
//! lowest one is still to be hidden.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::XattrFlags;

use super::attributes::{self, OPAQUE};

/// Merges upper folders, lowest first, into `target`, which is there and empty.
pub(crate) fn merge(lowest_first: &[&Path], target: &Path) -> io::Result<()> {
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
    let opaque = attributes::value(from, OPAQUE)?.is_some_and(|value| value == b"y");
    if hides || opaque {
        remove(to)?;
    }
    if !to.exists() {
        fs::create_dir(to)?;
    }
    lay(from, to)?;
    // A folder in place of what a lower layer removed hides what lies under all of them, and so does one that did before.
    let stays = attributes::value(to, OPAQUE)?.is_some();
    attributes::dress(from, to)?;
    if opaque || hides || stays {
        rustix::fs::lsetxattr(to, OPAQUE, b"y", XattrFlags::empty())?;
    }
    Ok(())
}

/// Another name for a file, a link or a whiteout. A file that has all the names it may have is copied.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == ErrorKind::TooManyLinks && !is_whiteout(&fs::symlink_metadata(from)?) => {
            fs::copy(from, to)?;
            attributes::dress(from, to)
        }
        other => other,
    }
}

/// Removes whatever is there, also nothing.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    gone.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Whether an entry says that something below it was removed: a character device 0:0.
pub(crate) fn is_whiteout(entry: &fs::Metadata) -> bool {
    entry.file_type().is_char_device() && entry.rdev() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_the_attributes_of_the_topmost_layer_and_hides_as_any_of_them_did() {
        let place = tempfile::tempdir().unwrap();
        let at = |path: &str| place.path().join(path);
        for folder in ["low/kept", "low/closed", "high/kept", "merged"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        let mark = |path: &str, name: &str| rustix::fs::lsetxattr(at(path), name, b"y", XattrFlags::empty()).unwrap();
        mark("low/kept", "user.old");
        mark("low/kept", OPAQUE);
        mark("low/closed", "user.alone");
        mark("high/kept", "user.new");
        merge(&[&at("low"), &at("high")], &at("merged")).unwrap();
        let has = |path: &str, name: &str| attributes::value(&at(path), name).unwrap().is_some();
        assert!(has("merged/kept", "user.new") && !has("merged/kept", "user.old"));
        assert!(has("merged/kept", OPAQUE), "what lies under both is still hidden");
        assert!(has("merged/closed", "user.alone"));
    }
}

//! Unpacks the archive of one layer into a folder that an overlay can use as it is.
//!
//! Whiteouts (OCI image specification, “Image Layer Filesystem Changeset”) become what overlayfs knows: a name that is
//! hidden is a character device 0:0, a folder that hides what is below carries a mark. They are made when all else is
//! there, since they speak of the layers below and never of the same one, in whatever order the entries come.
//!
//! Owners and permissions are kept as they are, also set-user-ID bits: the store is closed to everybody else on this
//! machine, and a sandbox mounts it so that they mean nothing. Devices are left out, for no sandbox may use any but the
//! few that it is given. Of the extended attributes only `user.` ones and access lists are kept, and none that overlayfs
//! would obey.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::archive::{Archive, Entry, Kind};
use super::budget::Budget;
use super::digest::Digest;
use super::error::LayerError;
use super::tree::{self, Tree, failed, refuse, split};
use crate::layer::ACCESS_LISTS;

const WHITEOUT: &[u8] = b".wh.";
/// In a folder: nothing of the layers below is seen in it.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Bookkeeping of AUFS, an overlay of long ago; it is no part of the file system.
const RESERVED: &[u8] = b".wh..wh.";

/// The most folders of a layer that are remembered to be unspoken of. Honest layers have a handful.
const IMPLIED_MAX: usize = 10_000;

/// What is to be known of an unpacked layer beside its files. New fields must have a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Nothing of the layers below is seen at all.
    pub(super) hides_all: bool,
    /// Devices that were left out.
    pub(super) devices: u64,
    /// Entries whose owner could not be kept, as this is not root.
    pub(super) disowned: u64,
    /// Folders that no entry speaks of, by their paths.
    #[serde(default)]
    pub(super) implied: BTreeSet<String>,
}

/// Owner, permissions and time of an entry.
#[derive(Debug, Clone)]
struct Stamp {
    owner: (Uid, Gid),
    mode: Mode,
    times: Timestamps,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A layer in the making.
struct Layer<'a> {
    tree: Tree,
    budget: &'a Budget,
    disk: &'a Path,
    /// Every folder, and what it is to look like when all is in it; `None` where no entry has said so yet.
    folders: BTreeMap<Vec<u8>, Option<Stamp>>,
    opaque: BTreeSet<Vec<u8>>,
    /// Hidden names.
    whiteouts: BTreeSet<Vec<u8>>,
    facts: Facts,
}

/// Unpacks `archive` into the empty folder `into`, and returns the archive's digest.
///
/// # Errors
/// An entry was refused, or a limit reached. What is in the folder then is to be thrown away.
pub(super) fn unpack(mut archive: Archive<'_>, into: &Path, budget: &Budget) -> Result<(Digest, Facts), LayerError> {
    let mut layer = Layer {
        tree: Tree::open(into)?,
        budget,
        disk: into,
        folders: BTreeMap::from([(Vec::new(), None)]),
        opaque: BTreeSet::new(),
        whiteouts: BTreeSet::new(),
        facts: Facts::default(),
    };
    while let Some(entry) = archive.next()? {
        layer.place(&entry, &mut archive)?;
    }
    layer.place_whiteouts()?;
    layer.stamp_folders()?;
    Ok((archive.finish()?, layer.facts))
}

impl Layer<'_> {
    fn place(&mut self, entry: &Entry, archive: &mut Archive<'_>) -> Result<(), LayerError> {
        let path = tree::clean(&entry.path)?;
        let (above, name) = split(&path);
        if path.split(|byte| *byte == b'/').any(|part| part.starts_with(RESERVED)) && name != OPAQUE {
            return Ok(());
        }
        if above.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT)) {
            return Err(refuse(&path, "lies below a whiteout"));
        }
        if name == OPAQUE || name.starts_with(WHITEOUT) {
            return self.note_whiteout(above, name);
        }
        let stamp = Stamp::of(entry)?;
        match entry.kind {
            Kind::Folder => self.folder(&path, Some(stamp)).map(drop),
            _ if path.is_empty() => Err(refuse(&entry.path, "replaces the top folder")),
            Kind::File => self.file(&path, entry, archive, &stamp),
            Kind::Symlink => self.symlink(&path, entry, &stamp),
            Kind::Hardlink => self.hardlink(&path, entry),
            Kind::Pipe => self.pipe(&path, &stamp),
            Kind::Device => {
                self.facts.devices += 1;
                Ok(())
            }
        }
    }

    fn note_whiteout(&mut self, above: &[u8], name: &[u8]) -> Result<(), LayerError> {
        self.budget.take_name(above)?;
        if name == OPAQUE {
            self.opaque.insert(above.to_vec());
            return Ok(());
        }
        let hidden = name.strip_prefix(WHITEOUT).unwrap_or_default();
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refuse(name, "hides what is no name"));
        }
        let path = if above.is_empty() { hidden.to_vec() } else { [above, b"/", hidden].concat() };
        self.whiteouts.insert(path);
        Ok(())
    }

    /// A folder, made where it is missing, and what it is to look like where that is known.
    fn folder(&mut self, path: &[u8], stamp: Option<Stamp>) -> Result<Rc<OwnedFd>, LayerError> {
        let (folders, budget) = (&mut self.folders, self.budget);
        let folder = self.tree.make(path, &mut |made| {
            budget.take_name(made)?;
            folders.insert(made.to_vec(), None);
            Ok(())
        })?;
        if stamp.is_some() {
            self.folders.insert(path.to_vec(), stamp);
        }
        Ok(folder)
    }

    fn file(&mut self, path: &[u8], entry: &Entry, archive: &mut Archive<'_>, stamp: &Stamp) -> Result<(), LayerError> {
        let (above, name) = split(path);
        let folder = self.folder(above, None)?;
        let file = tree::create(&folder, name, path)?;
        let whole = [(0, entry.size)];
        let pieces = entry.pieces.as_deref().unwrap_or(&whole);
        for (at, length) in pieces {
            fill(&file, path, archive, *at, *length)?;
        }
        let holes = entry.size - pieces.iter().map(|(_, length)| length).sum::<u64>();
        if holes > 0 {
            self.budget.take_bytes(holes, self.disk)?;
            file.set_len(entry.size).map_err(io_failed("extend", path))?;
        }
        self.stamp(&file, path, stamp)
    }

    fn symlink(&mut self, path: &[u8], entry: &Entry, stamp: &Stamp) -> Result<(), LayerError> {
        let (above, name) = split(path);
        if entry.link.is_empty() || entry.link.contains(&0) || entry.link.len() > tree::LINK_MAX {
            return Err(refuse(path, "is a link whose target cannot be"));
        }
        let folder = self.folder(above, None)?;
        tree::clear(&folder, name, path)?;
        rustix::fs::symlinkat(entry.link.as_slice(), &folder, name).map_err(failed("create", path))?;
        self.stamp_name(&folder, name, path, stamp)
    }

    fn hardlink(&mut self, path: &[u8], entry: &Entry) -> Result<(), LayerError> {
        let target = tree::clean(&entry.link)?;
        let (target_above, target_name) = split(&target);
        let missing = || refuse(path, "is a second name of something that the layer does not have");
        let source = self.tree.find(target_above)?.ok_or_else(missing)?;
        let found = if target.is_empty() {
            None
        } else {
            tree::kind_of(&source, target_name).map_err(failed("find", &target))?
        };
        let (kind, number) = found.ok_or_else(missing)?;
        if kind == FileType::Directory {
            return Err(refuse(path, "is a second name of a folder"));
        }
        let (above, name) = split(path);
        let folder = self.folder(above, None)?;
        let there = tree::kind_of(&folder, name).map_err(failed("look at", path))?;
        if there.is_some_and(|(_, there)| there == number) {
            return Ok(());
        }
        tree::clear(&folder, name, path)?;
        // Without the flag that would follow a link.
        rustix::fs::linkat(&source, target_name, &folder, name, AtFlags::empty()).map_err(failed("link", path))
    }

    fn pipe(&mut self, path: &[u8], stamp: &Stamp) -> Result<(), LayerError> {
        let (above, name) = split(path);
        let folder = self.folder(above, None)?;
        tree::clear(&folder, name, path)?;
        rustix::fs::mknodat(&folder, name, FileType::Fifo, Mode::empty(), 0).map_err(failed("create", path))?;
        rustix::fs::chmodat(&folder, name, stamp.mode, AtFlags::empty()).map_err(failed("open", path))?;
        self.stamp_name(&folder, name, path, stamp)
    }

    fn place_whiteouts(&mut self) -> Result<(), LayerError> {
        for path in std::mem::take(&mut self.whiteouts) {
            let (above, name) = split(&path);
            // In a folder that hides all, a whiteout would be seen as the device that it is.
            if self.opaque.contains(above) {
                continue;
            }
            let folder = self.folder(above, None)?;
            match tree::kind_of(&folder, name).map_err(failed("look at", &path))? {
                None => tree::hide(&folder, name, &path)?,
                // A folder is laid over the one below, which it is to replace.
                Some((FileType::Directory, _)) => drop(self.opaque.insert(path)),
                Some(_) => {}
            }
        }
        for path in std::mem::take(&mut self.opaque) {
            if path.is_empty() {
                // The kernel does not look for the mark at the top.
                self.facts.hides_all = true;
                continue;
            }
            let folder = self.folder(&path, None)?;
            tree::hide_below(&folder, &path)?;
        }
        Ok(())
    }

    /// Deepest first: without root, what is closed cannot be entered any more.
    fn stamp_folders(&mut self) -> Result<(), LayerError> {
        let plain = Stamp {
            owner: (Uid::ROOT, Gid::ROOT),
            mode: tree::mode(0o755),
            times: times(0, 0),
            attributes: Vec::new(),
        };
        for (path, stamp) in std::mem::take(&mut self.folders).into_iter().rev() {
            let folder = self.tree.find(&path)?.ok_or_else(|| failed("find", &path)(Errno::NOENT))?;
            if stamp.is_none() && self.facts.implied.len() < IMPLIED_MAX {
                // A name that is no text is not worth more than the usual look.
                self.facts.implied.extend(String::from_utf8(path.clone()).ok().filter(|path| !path.is_empty()));
            }
            self.stamp(&*folder, &path, stamp.as_ref().unwrap_or(&plain))?;
        }
        Ok(())
    }

    fn stamp(&mut self, file: impl std::os::fd::AsFd, path: &[u8], stamp: &Stamp) -> Result<(), LayerError> {
        let (uid, gid) = stamp.owner;
        let owned = rustix::fs::fchown(&file, Some(uid), Some(gid));
        self.note_owner(owned, path, stamp)?;
        for (name, value) in &stamp.attributes {
            let set = rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty());
            set.map_err(failed("set an attribute of", path))?;
        }
        // After the owner, whose change takes the set-user-ID bit away.
        rustix::fs::fchmod(&file, stamp.mode).map_err(failed("open", path))?;
        rustix::fs::futimens(&file, &stamp.times).map_err(failed("set the time of", path))
    }

    fn stamp_name(&mut self, folder: &OwnedFd, name: &[u8], path: &[u8], stamp: &Stamp) -> Result<(), LayerError> {
        let ((uid, gid), itself) = (stamp.owner, AtFlags::SYMLINK_NOFOLLOW);
        let owned = rustix::fs::chownat(folder, name, Some(uid), Some(gid), itself);
        self.note_owner(owned, path, stamp)?;
        rustix::fs::utimensat(folder, name, &stamp.times, itself).map_err(failed("set the time of", path))
    }

    /// Without root all belongs to this user, who is root inside.
    fn note_owner(&mut self, owned: rustix::io::Result<()>, path: &[u8], stamp: &Stamp) -> Result<(), LayerError> {
        match owned {
            Err(Errno::PERM | Errno::INVAL) if !rustix::process::geteuid().is_root() => {
                self.facts.disowned += u64::from(stamp.owner != (Uid::ROOT, Gid::ROOT));
                Ok(())
            }
            other => other.map_err(failed("own", path)),
        }
    }
}

impl Stamp {
    fn of(entry: &Entry) -> Result<Self, LayerError> {
        let number = |id: u64| u32::try_from(id).ok().filter(|id| *id < u32::MAX);
        let (Some(uid), Some(gid)) = (number(entry.uid), number(entry.gid)) else {
            return Err(refuse(&entry.path, "belongs to nobody that can be"));
        };
        let kept = |(name, _): &&(Vec<u8>, Vec<u8>)| {
            let own = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
            own || ACCESS_LISTS.contains(&name.as_slice())
        };
        Ok(Self {
            owner: (Uid::from_raw(uid), Gid::from_raw(gid)),
            mode: tree::mode(entry.mode),
            times: times(entry.mtime.0, entry.mtime.1),
            attributes: entry.attributes.iter().filter(kept).cloned().collect(),
        })
    }
}

fn times(seconds: i64, nanoseconds: u32) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn io_failed(action: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> LayerError {
    let refused = failed(action, path);
    move |error| refused(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Writes the next bytes of the archive's entry to a file.
fn fill(file: &File, path: &[u8], archive: &mut Archive<'_>, at: u64, length: u64) -> Result<(), LayerError> {
    let mut buffer = [0; 32 << 10];
    let (mut at, end) = (at, at + length);
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = archive.read(buffer.get_mut(..most).unwrap_or_default())?;
        if read == 0 {
            return Err(refuse(path, "is shorter than it says"));
        }
        file.write_all_at(buffer.get(..read).unwrap_or_default(), at).map_err(io_failed("write", path))?;
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

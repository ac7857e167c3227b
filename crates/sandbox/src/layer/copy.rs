//! Copies a layer that a sandbox writes to, so that the copy is of one moment.
//!
//! It goes through the layer twice: while the sandbox runs, and then, while it is frozen, over whatever has changed since.
//! So a sandbox stands still for as long as it takes to look at its files, and not for as long as it takes to copy them.
//!
//! What has not changed since the copy before is not copied again: it gets a second name, as frozen files never change.
//!
//! What has changed is known by the time of the last change (`ctime`), which nobody can set. Two things are to be known
//! of it. It is as coarse as the kernel's clock tick, so what changed shortly before the first pass counts as changed. And
//! a process that has a file mapped writes to it without a trace, until the kernel writes the page out and sees the next
//! write again: so everything is written out first, and what changed since the beginning of that counts as changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, RawMode, Stat, Timespec, Timestamps};

use super::merge::remove;
use super::walk::{Entries, Found, folder, top, walk};
use super::{attributes, fill};

/// How much earlier than another change a change must be to be told from it, in nanoseconds: some clock ticks.
const TICKS: i128 = 50_000_000;

/// How long a sandbox may be frozen for the second pass.
const FROZEN_LIMIT: Duration = Duration::from_secs(5);

/// A moment, as the file system's times have it: nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Moment(i128);

impl Moment {
    /// When a file or folder was last changed: of one that was just made, now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self(i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec())))
    }

    fn of_change(stat: &Stat) -> Self {
        Self(i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec))
    }

    /// Whether it is before another one for certain.
    fn is_before(self, other: Self) -> bool {
        self.0 < other.0 - TICKS
    }
}

/// Whether anything in a folder may have changed since a moment.
pub(super) fn changed_since(tree: &Path, since: Moment) -> io::Result<bool> {
    let mut changed = false;
    walk(&top(tree)?, Entries::Move, &mut |found| {
        changed |= !Moment::of_change(&found.stat).is_before(since);
        Ok(())
    })?;
    Ok(changed)
}

/// A frozen copy of the same layer, and when it was begun.
#[derive(Debug, Clone)]
pub(super) struct Prior {
    pub(super) tree: PathBuf,
    pub(super) begun: Moment,
}

/// A copy in the making.
pub(super) struct Copy<'a> {
    source: OwnedFd,
    target: &'a Path,
    prior: Option<Prior>,
    /// When everything was begun to be written out.
    begun: Moment,
    /// What was copied in the first pass, and how it was then.
    seen: BTreeMap<PathBuf, Seen>,
    /// Everything that was put into the target.
    made: BTreeSet<PathBuf>,
}

/// What tells whether an entry is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    number: u64,
    mode: u32,
    size: i64,
    changed: Moment,
}

/// One time through the layer.
struct Pass {
    entries: Entries,
    until: Option<Instant>,
    /// Files with several names, by their number.
    names: HashMap<u64, PathBuf>,
    found: BTreeMap<PathBuf, Seen>,
    /// Folders that are to look like the original again.
    touched: BTreeSet<PathBuf>,
}

impl<'a> Copy<'a> {
    /// Begins a copy of `source` in `target`, which is there and empty.
    pub(super) fn new(source: &Path, target: &'a Path, prior: Option<Prior>, begun: Moment) -> io::Result<Self> {
        Ok(Self { source: top(source)?, target, prior, begun, seen: BTreeMap::new(), made: BTreeSet::new() })
    }

    /// Goes through it while the sandbox runs.
    pub(super) fn ahead(&mut self) -> io::Result<()> {
        self.pass(Entries::Move, None)
    }

    /// Goes through it while the sandbox is frozen.
    pub(super) fn rest(&mut self) -> io::Result<()> {
        self.pass(Entries::HoldStill, Some(Instant::now() + FROZEN_LIMIT))
    }

    fn pass(&mut self, entries: Entries, until: Option<Instant>) -> io::Result<()> {
        let mut pass = Pass { entries, until, names: HashMap::new(), found: BTreeMap::new(), touched: BTreeSet::new() };
        let source = self.source.try_clone()?;
        walk(&source, entries, &mut |found| self.look_at(found, &mut pass))?;
        for gone in self.made.iter().rev().filter(|path| !pass.found.contains_key(*path)) {
            remove(&self.target.join(gone))?;
            pass.touched.extend(gone.parent().map(Path::to_owned));
        }
        self.made.retain(|path| pass.found.contains_key(path));
        self.seen = pass.found;
        // Deepest first, as what is put into a folder changes its times.
        for path in pass.touched.iter().rev() {
            if !self.seen.contains_key(path) {
                continue;
            }
            match self.dress_folder(path) {
                // Left to the second pass, as one that was never seen.
                Err(_) if entries == Entries::Move => drop(self.seen.remove(path)),
                other => other?,
            }
        }
        Ok(())
    }

    fn look_at(&mut self, found: &Found<'_>, pass: &mut Pass) -> io::Result<()> {
        pass.check_time()?;
        let seen = Seen::of(&found.stat);
        let unchanged = self.seen.get(found.path) == Some(&seen) && seen.changed.is_before(self.begun);
        let another_name = pass.other_name(found);
        if !unchanged || another_name.is_some() {
            self.made.insert(found.path.to_owned());
            match self.place(found, another_name.as_deref(), pass) {
                // Left to the second pass.
                Err(_) if pass.entries == Entries::Move => return Ok(()),
                other => other?,
            }
            pass.touch(found);
        }
        pass.found.insert(found.path.to_owned(), seen);
        Ok(())
    }

    fn place(&self, found: &Found<'_>, another_name: Option<&Path>, pass: &Pass) -> io::Result<()> {
        let target = self.target.join(found.path);
        if found.kind == FileType::Directory {
            if !fs::symlink_metadata(&target).is_ok_and(|there| there.is_dir()) {
                remove(&target)?;
                fs::create_dir(&target)?;
            }
            return Ok(());
        }
        remove(&target)?;
        match (found.kind, another_name) {
            (_, Some(name)) => fs::hard_link(self.target.join(name), &target),
            (FileType::RegularFile, None) if self.is_in_prior(found, &target) => Ok(()),
            (FileType::RegularFile, None) => place_file(found, &target, pass),
            (FileType::Symlink, None) => {
                let to = rustix::fs::readlinkat(found.folder, found.name, Vec::new())?;
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(to.as_bytes()), &target)?;
                dress_name(&target, found)
            }
            (kind, None) => {
                rustix::fs::mknodat(CWD, &target, kind, Mode::empty(), found.stat.st_rdev)?;
                rustix::fs::chmod(&target, mode(&found.stat))?;
                dress_name(&target, found)
            }
        }
    }

    /// Gives a file that has not changed since the copy before a second name. Where that cannot be, it is copied.
    fn is_in_prior(&self, found: &Found<'_>, target: &Path) -> bool {
        let unchanged = |prior: &&Prior| Moment::of_change(&found.stat).is_before(prior.begun);
        let prior = self.prior.as_ref().filter(unchanged);
        prior.is_some_and(|prior| fs::hard_link(prior.tree.join(found.path), target).is_ok())
    }

    fn dress_folder(&self, path: &Path) -> io::Result<()> {
        let (from, to) = (folder(&self.source, path)?, File::open(self.target.join(path))?);
        let stat = rustix::fs::fstat(&from)?;
        dress(&from, &to, &stat)
    }
}

impl Seen {
    fn of(stat: &Stat) -> Self {
        Self { number: stat.st_ino, mode: stat.st_mode, size: stat.st_size, changed: Moment::of_change(stat) }
    }
}

impl Pass {
    fn check_time(&self) -> io::Result<()> {
        let late = self.until.is_some_and(|until| Instant::now() > until);
        if late { Err(ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// The name under which this file was come across before.
    fn other_name(&mut self, found: &Found<'_>) -> Option<PathBuf> {
        if found.kind == FileType::Directory || found.stat.st_nlink < 2 || found.is_whiteout() {
            return None;
        }
        let first = self.names.entry(found.stat.st_ino).or_insert_with(|| found.path.to_owned());
        (first != found.path).then(|| first.clone())
    }

    fn touch(&mut self, found: &Found<'_>) {
        self.touched.extend(found.path.parent().map(Path::to_owned));
        if found.kind == FileType::Directory {
            self.touched.insert(found.path.to_owned());
        }
    }
}

fn place_file(found: &Found<'_>, target: &Path, pass: &Pass) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let from = File::from(rustix::fs::openat(found.folder, found.name, flags, Mode::empty())?);
    let stat = rustix::fs::fstat(&from)?;
    if stat.st_ino != found.stat.st_ino || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it was replaced while it was looked at"));
    }
    let to = File::create_new(target)?;
    fill::fill(&from, &to, u64::try_from(stat.st_size).unwrap_or_default(), &|| pass.check_time())?;
    dress(&from, &to, &stat)
}

/// Gives an open file or folder the owner, the attributes, the mode and the times of another.
fn dress(from: impl std::os::fd::AsFd, to: &File, like: &Stat) -> io::Result<()> {
    rustix::fs::fchown(to, Some(rustix::fs::Uid::from_raw(like.st_uid)), Some(rustix::fs::Gid::from_raw(like.st_gid)))?;
    attributes::copy_open(from, to)?;
    // After the owner, whose change takes the set-user-ID bit away.
    rustix::fs::fchmod(to, mode(like))?;
    Ok(rustix::fs::futimens(to, &times(like))?)
}

fn dress_name(target: &Path, found: &Found<'_>) -> io::Result<()> {
    std::os::unix::fs::lchown(target, Some(found.stat.st_uid), Some(found.stat.st_gid))?;
    let itself = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::utimensat(CWD, target, &times(&found.stat), itself)?)
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(RawMode::from(stat.st_mode) & 0o7777)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

//! How much a sandbox has written, measured without paying for it all the time.
//!
//! Walking the layers costs milliseconds for each thousand files. But nobody can have written more than the file system
//! has lost: as long as its free space has fallen by less than a sandbox may still write, that sandbox is within its
//! limit, and one `statfs` answers for all of them.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;

/// Even where the free space says that all is well, somebody else may have given back what a sandbox took.
const REMEASURE: Duration = Duration::from_secs(30);

/// What a sandbox has written, wherever its provider keeps that.
#[async_trait]
pub(crate) trait Written: fmt::Debug + Send + Sync {
    /// How many bytes it takes on disk.
    async fn bytes(&self) -> io::Result<u64>;
}

/// A folder of this machine.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

#[async_trait]
impl Written for Folder {
    async fn bytes(&self) -> io::Result<u64> {
        let folder = self.0.clone();
        tokio::task::spawn_blocking(move || used_bytes(&folder)).await?
    }
}

/// Bytes that a folder's files take on disk. Sparse files count by what they hold; files with two names count twice.
///
/// # Errors
/// The folder cannot be read. What vanishes while it is measured is left out.
pub(crate) fn used_bytes(folder: &Path) -> io::Result<u64> {
    let mut open = vec![folder.to_owned()];
    let mut used = 0;
    while let Some(folder) = open.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if open.is_empty() && used == 0 => return Err(error),
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            // Of the entry itself: a link to the host's files is a link and no more.
            let Ok(metadata) = entry.metadata() else { continue };
            used += metadata.blocks() * 512;
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(used)
}

/// Free bytes of the file system under a folder.
pub(crate) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let fs = rustix::fs::statvfs(folder)?;
    Ok(fs.f_bavail * fs.f_frsize)
}

/// What is known of one sandbox's use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gauge {
    limit: u64,
    used: u64,
    free_then: u64,
    measured: Option<Instant>,
    /// What it used when it was last called to order: only what is written beyond that counts again.
    tolerated: u64,
    /// Whether it was said that it comes near to its limit.
    warned: bool,
}

/// What follows from a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All is well, or was said already.
    Fine,
    /// It has come near to its limit: four fifths of it.
    NearlyFull,
    /// It is over its limit and has to be stopped.
    Full,
}

impl Gauge {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: 0, free_then: 0, measured: None, tolerated: 0, warned: false }
    }

    /// Whether it could be over its limit, given the free bytes of the file system.
    pub(crate) fn is_due(&self, free: u64, now: Instant) -> bool {
        let Some(measured) = self.measured else { return true };
        let next = if self.used < self.near() { self.near() } else { self.limit.max(self.tolerated) };
        let left = next.saturating_sub(self.used);
        let quiet = free >= self.free_then && now < measured + REMEASURE;
        !quiet && (self.free_then.saturating_sub(free) >= left || now >= measured + REMEASURE)
    }

    /// From here on it is near to its limit.
    fn near(&self) -> u64 {
        self.limit / 5 * 4
    }

    /// Takes a measurement.
    pub(crate) fn measure(&mut self, used: u64, free: u64, now: Instant) -> Verdict {
        (self.used, self.free_then, self.measured) = (used, free, Some(now));
        if used <= self.limit {
            self.tolerated = 0;
        }
        let over = used > self.limit.max(self.tolerated);
        if over {
            // After everything was killed its owner may still tidy up, and a little room is needed for that.
            self.tolerated = used + (16 << 20);
            return Verdict::Full;
        }
        let (is_near, was_warned) = (used >= self.near(), self.warned);
        self.warned = is_near;
        if is_near && !was_warned { Verdict::NearlyFull } else { Verdict::Fine }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn a_quiet_file_system_needs_no_measurement() {
        let now = Instant::now();
        let mut gauge = Gauge::new(100 * MB);
        assert!(gauge.is_due(1000 * MB, now), "nothing is known at first");
        assert_eq!(gauge.measure(10 * MB, 1000 * MB, now), Verdict::Fine);
        assert!(!gauge.is_due(1000 * MB, now));
        assert!(!gauge.is_due(931 * MB, now), "69 MB went somewhere, and it had 70 left until it is near");
        assert!(gauge.is_due(930 * MB, now));
        assert_eq!(gauge.measure(80 * MB, 930 * MB, now), Verdict::NearlyFull);
        assert_eq!(gauge.measure(81 * MB, 930 * MB, now), Verdict::Fine, "it is said once");
        assert!(!gauge.is_due(912 * MB, now), "18 MB went somewhere, and it had 19 left");
        assert!(gauge.is_due(911 * MB, now));
        assert_eq!(gauge.measure(10 * MB, 911 * MB, now), Verdict::Fine);
        assert_eq!(gauge.measure(90 * MB, 911 * MB, now), Verdict::NearlyFull, "it has come back");
        assert!(gauge.is_due(1000 * MB, now + REMEASURE), "others may have given back what it took");
    }

    #[test]
    fn one_that_is_over_is_called_to_order_once_until_it_writes_more() {
        let now = Instant::now();
        let mut gauge = Gauge::new(100 * MB);
        let mut is_full = |used: u64| gauge.measure(used * MB, 0, now) == Verdict::Full;
        assert!(is_full(120));
        assert!(!is_full(121), "tidying up needs a little room");
        assert!(is_full(140));
        assert!(!is_full(50));
        assert!(is_full(101));
    }

    #[test]
    fn a_sparse_file_counts_by_what_it_holds_and_a_link_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::File::create(folder.path().join("sparse")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("link")).unwrap();
        std::fs::write(folder.path().join("real"), vec![1; 100_000]).unwrap();
        let used = used_bytes(folder.path()).unwrap();
        assert!((100_000..1_000_000).contains(&used), "{used}");
    }
}

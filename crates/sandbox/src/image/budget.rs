//! What an image may take: bytes, entries, names and time, so that a bomb is refused before it goes off.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::error::LayerError;
use crate::disk;

/// The longest path of an entry. Inside, with `/` before it, it is just short enough for the kernel.
pub(super) const PATH_MAX: usize = 4_094;

/// The longest name in a path, as file systems have it.
pub(super) const NAME_MAX: usize = 255;

/// How deep an entry may lie. Real trees stay below a hundred, and removing a deeper one takes a descriptor for each.
pub(super) const DEPTH_MAX: usize = 256;

/// The longest header of one entry: its long name, its link's target or its attributes.
pub(super) const HEADER_MAX: u64 = 1 << 20;

/// Below this the machine's own programs fail, so nothing more is unpacked.
const RESERVE: u64 = 1 << 30;

/// How often the disk is asked whether there is room, in bytes written.
const ASKED_EVERY: u64 = 64 << 20;

/// What one image may take, all its layers together. The defaults fit every image that we know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// Layers.
    pub layers: usize,
    /// Bytes that are fetched.
    pub fetched_bytes: u64,
    /// Bytes of the unpacked archives, and of their files: holes of sparse files and trailing zeros count.
    pub unpacked_bytes: u64,
    /// Entries in the archives.
    pub entries: u64,
    /// Bytes of the names of folders and whiteouts, which are held in memory until a layer is complete.
    pub names_bytes: u64,
    /// Everything, from the first question to the last layer.
    pub time: Duration,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            layers: 128,
            fetched_bytes: 16 << 30,
            unpacked_bytes: 48 << 30,
            entries: 4_000_000,
            names_bytes: 128 << 20,
            time: Duration::from_secs(3_600),
        }
    }
}

/// What is left of the limits while one image is unpacked, shared by its layers.
#[derive(Debug)]
pub(super) struct Budget {
    limits: ImageLimits,
    unpacked: AtomicU64,
    entries: AtomicU64,
    names: AtomicU64,
    until: Instant,
    cancelled: CancellationToken,
}

impl Budget {
    /// The whole budget; it is also spent when `cancelled`.
    pub(super) fn new(limits: ImageLimits, now: Instant, cancelled: CancellationToken) -> Self {
        let until = now + limits.time;
        Self { limits, unpacked: 0.into(), entries: 0.into(), names: 0.into(), until, cancelled }
    }

    /// Takes bytes of an archive or a file, on the disk under `folder`.
    pub(super) fn take_bytes(&self, bytes: u64, folder: &Path) -> Result<(), LayerError> {
        let before = take(&self.unpacked, bytes, self.limits.unpacked_bytes, "bytes unpacked")?;
        if before / ASKED_EVERY == (before + bytes) / ASKED_EVERY {
            return Ok(());
        }
        self.check_time()?;
        match disk::free_bytes(folder) {
            Ok(free) if free < RESERVE => Err(LayerError::DiskFull { path: folder.to_owned(), free_bytes: free }),
            Ok(_) => Ok(()),
            Err(source) => Err(LayerError::Io { action: "measure", path: folder.to_owned(), source }),
        }
    }

    /// Takes one entry, if there is time left for it.
    pub(super) fn take_entry(&self) -> Result<(), LayerError> {
        self.check_time()?;
        take(&self.entries, 1, self.limits.entries, "entries").map(drop)
    }

    fn check_time(&self) -> Result<(), LayerError> {
        if self.cancelled.is_cancelled() {
            return Err(LayerError::Cancelled);
        }
        if Instant::now() >= self.until {
            return Err(LayerError::TooMuch { what: "seconds of work", limit: self.limits.time.as_secs() });
        }
        Ok(())
    }

    /// Takes the name of a folder or whiteout.
    pub(super) fn take_name(&self, name: &[u8]) -> Result<(), LayerError> {
        // What holds a name in memory takes about as much again.
        take(&self.names, name.len() as u64 + 64, self.limits.names_bytes, "bytes of names").map(drop)
    }
}

/// Adds to what was taken and returns what it was before.
fn take(taken: &AtomicU64, more: u64, limit: u64, what: &'static str) -> Result<u64, LayerError> {
    let grown = |before: u64| before.checked_add(more).filter(|sum| *sum <= limit);
    taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).map_err(|_| LayerError::TooMuch { what, limit })
}

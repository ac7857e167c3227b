//! The log of an image's making: what was run, and what it wrote, as it comes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex, watch};

/// The file in the image's folder.
const FILE: &str = "build.log";

/// The longest log that is kept, in bytes; what comes after is left out, and the end says so.
const BYTES_MAX: u64 = 16 << 20;

/// A log that is being written.
#[derive(Debug)]
pub(crate) struct BuildLog {
    file: Mutex<(File, u64)>,
    /// Rung whenever something is written.
    written: watch::Sender<()>,
    begun: Instant,
}

/// Where the log of an image lies.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

impl BuildLog {
    /// Begins the log of an image, in its folder.
    pub(super) async fn create(folder: &Path) -> std::io::Result<Self> {
        tokio::fs::create_dir_all(folder).await?;
        let file = File::create(path(folder)).await?;
        Ok(Self { file: Mutex::new((file, 0)), written: watch::Sender::new(()), begun: Instant::now() })
    }

    /// Says something of Hob's own, with the time since the beginning.
    pub(super) async fn say(&self, text: &str) {
        let line = format!("[{:>7.1} s] {text}\n", self.begun.elapsed().as_secs_f64());
        self.write(line.as_bytes()).await;
    }

    /// Keeps what a command wrote.
    pub(super) async fn write(&self, bytes: &[u8]) {
        let mut held = self.file.lock().await;
        let (file, written) = &mut *held;
        let room = usize::try_from(BYTES_MAX.saturating_sub(*written)).unwrap_or(0);
        let kept = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        *written += kept.len() as u64;
        let cut = kept.len() < bytes.len() && !kept.is_empty();
        let note: &[u8] = if cut { b"\n[the log is too long; the rest is left out]\n" } else { b"" };
        // An image is no worse without its log, and a full disk is told by what comes next.
        for part in [kept, note] {
            if let Err(error) = file.write_all(part).await {
                tracing::warn!("a build log is cut short: {error}");
            }
        }
        file.flush().await.ok();
        self.written.send_replace(());
    }

    /// Hears whenever something is written, until the log is closed.
    pub(crate) fn hears(&self) -> watch::Receiver<()> {
        self.written.subscribe()
    }
}

//! Snapshots on demand, also as an archive.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use bytes::Bytes;
use hob_sandbox::LiveSnapshot;
use tokio::sync::mpsc;

use super::{Engine, InUse};
use crate::error::EngineError;
use crate::id::SessionId;
use crate::snapshot::{begin, take_live};
use crate::state::State;

/// Pieces of an archive that may wait for whoever reads it, and how long each is.
const PIECES: usize = 16;
const PIECE_BYTES: usize = 64 << 10;

impl Engine {
    /// A session's files as an archive, from a snapshot of now. An error in it means that it is not complete.
    ///
    /// # Errors
    /// As for [`Engine::snapshot`].
    pub async fn export(&self, id: &SessionId) -> Result<mpsc::Receiver<io::Result<Bytes>>, EngineError> {
        let layers = self.snapshot(id).await?.snapshot.layers;
        let owned = self.handle(id).await?.owned;
        // Neither put away nor frozen again meanwhile: both would let layers go that are being read.
        let in_use = InUse::new(&owned.uses);
        let freezing = begin(&owned).await;
        let (pieces, archive) = mpsc::channel(PIECES);
        let provider = Arc::clone(&self.inner.house.deps.provider);
        self.inner.house.tracker.spawn(async move {
            let out = BufWriter::with_capacity(PIECE_BYTES, Pieces(pieces.clone()));
            if let Err(error) = provider.export(&layers, Box::new(out)).await {
                // Whoever does not read any more does not need to know.
                pieces.send(Err(io::Error::other(format!("failed to {error}")))).await.ok();
            }
            drop((in_use, freezing));
        });
        Ok(archive)
    }

    /// Freezes a session's files as they are now; its sandbox runs on. Of a session that was put away it is the snapshot
    /// of then.
    ///
    /// # Errors
    /// There is no such session, it is archived, its sandbox cannot be started or cannot be frozen.
    pub async fn snapshot(&self, id: &SessionId) -> Result<LiveSnapshot, EngineError> {
        if self.get(id).await?.state == State::Archived {
            return Err(EngineError::Archived(id.clone()));
        }
        let owned = self.handle(id).await?.owned;
        let asleep = owned.log.read(|state| state.snapshot.clone().filter(|_| state.summary.state == State::Suspended));
        if let Some(snapshot) = asleep.await {
            return Ok(LiveSnapshot { snapshot, paused_ms: None });
        }
        let (_sandbox, _in_use) = self.sandbox(id).await?;
        take_live(&owned, None).await.map_err(EngineError::Sandbox)
    }
}

/// Hands on what is written to whoever reads the archive.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! Carries bytes between a sandbox and the outside, counted, and cut when silent, over the limit or closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::access::Door;

/// A connection to the outside whose bytes count for an access.
#[derive(Debug)]
pub(crate) struct Counted {
    stream: TcpStream,
    door: Arc<Door>,
    bytes_max: u64,
    activity: Activity,
}

/// How much a connection has carried, for whoever watches over its silence.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activity(Arc<AtomicU64>);

impl Counted {
    pub(crate) fn new(stream: TcpStream, door: Arc<Door>, bytes_max: u64) -> Self {
        Self { stream, door, bytes_max, activity: Activity::default() }
    }

    pub(crate) fn activity(&self) -> Activity {
        self.activity.clone()
    }

    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.door.egress_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.activity.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        if spent(&self.door, self.bytes_max) {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the access has carried its limit of bytes"));
        }
        Ok(())
    }
}

impl Activity {
    /// Returns when nothing was carried for this long.
    pub(crate) async fn silence(&self, patience: Duration) {
        loop {
            let before = self.0.load(Ordering::Relaxed);
            tokio::time::sleep(patience).await;
            if self.0.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// Whether an access has carried all that it may.
pub(crate) fn spent(door: &Door, bytes_max: u64) -> bool {
    door.egress_bytes.load(Ordering::Relaxed) >= bytes_max
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.count(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.count(written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

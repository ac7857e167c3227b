//! Reads a request body up to a limit, and gets rid of the rest so that the client can hear the answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

/// How much of a body beyond the limit is read and thrown away, as a multiple of the limit.
const DRAIN_FACTOR: usize = 4;

/// How long the gateway waits for the next part of a body.
const PART_WAIT: Duration = Duration::from_secs(60);

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyFault {
    TooLarge,
    BrokenOff,
    TooSlow,
}

/// Reads the whole body.
///
/// A body over the limit is drained for a while first: a server that closes a connection with unread bytes resets
/// it, and the client would see a reset instead of the answer.
pub(crate) async fn read(mut body: Incoming, limit: usize) -> Result<Bytes, BodyFault> {
    let hint = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut bytes = BytesMut::with_capacity(hint.min(limit));
    let mut drained = hint > limit;
    let mut seen = 0_usize;
    while let Some(frame) = tokio::time::timeout(PART_WAIT, body.frame()).await.map_err(|_| BodyFault::TooSlow)? {
        let Ok(part) = frame.map_err(|_| BodyFault::BrokenOff)?.into_data() else { continue };
        seen = seen.saturating_add(part.len());
        drained |= seen > limit;
        if seen > limit.saturating_mul(DRAIN_FACTOR) {
            return Err(BodyFault::TooLarge);
        }
        if !drained {
            bytes.extend_from_slice(&part);
        }
    }
    if drained { Err(BodyFault::TooLarge) } else { Ok(bytes.freeze()) }
}

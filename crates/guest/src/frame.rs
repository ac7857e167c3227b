//! Frames: a typed message as JSON with raw bytes behind it.
//!
//! On the wire: `u32` length of what follows, `u32` length of the JSON, the JSON, the bytes; lengths are little-endian.
//! A frame that is longer than [`FRAME_MAX`] or is no message of the expected type ends the connection: there is no way
//! to find the next frame that could be trusted.

use std::io::{Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest frame in bytes, its first length not counted.
pub const FRAME_MAX: usize = 2 << 20;

/// The most raw bytes that one frame carries, so that every message fits beside them.
pub const BLOB_MAX: usize = 1 << 20;

const LENGTH: usize = 4;

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It says that it is longer than a frame may be.
    #[error("read a frame of {0} bytes")]
    TooLong(usize),
    /// Its two lengths contradict each other.
    #[error("read a frame whose lengths contradict each other")]
    Lengths,
    /// Its JSON is no message of the expected type.
    #[error("read a message: {0}")]
    Message(#[from] serde_json::Error),
    /// The connection failed.
    #[error("use the connection: {0}")]
    Io(#[from] std::io::Error),
}

/// Appends a frame to `out`.
///
/// # Errors
/// The message cannot be written as JSON, or the frame would be too long.
pub fn encode<M: Serialize>(message: &M, blob: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    let json = serde_json::to_vec(message)?;
    let length = LENGTH + json.len() + blob.len();
    if length > FRAME_MAX {
        return Err(FrameError::TooLong(length));
    }
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&(json.len() as u32).to_le_bytes());
    out.extend_from_slice(&json);
    out.extend_from_slice(blob);
    Ok(())
}

/// Finds frames in bytes that arrive in any pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    read: usize,
}

impl Decoder {
    /// Takes bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 && (self.read == self.bytes.len() || self.read > FRAME_MAX) {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// What arrived is no frame; nothing after it can be read.
    pub fn decode<M: DeserializeOwned>(&mut self) -> Result<Option<(M, Vec<u8>)>, FrameError> {
        let rest = self.bytes.get(self.read..).unwrap_or_default();
        let Some(length) = length_at(rest, 0) else { return Ok(None) };
        if length > FRAME_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(frame) = rest.get(LENGTH..LENGTH + length) else { return Ok(None) };
        let message = split(frame)?;
        self.read += LENGTH + length;
        Ok(Some(message))
    }

    /// Bytes that arrived after the last whole frame.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.bytes.split_off(self.read)
    }
}

/// Writes a frame to a blocking stream.
///
/// # Errors
/// As [`encode`], or the stream failed.
pub fn write<M: Serialize>(mut to: impl Write, message: &M, blob: &[u8]) -> Result<(), FrameError> {
    let mut bytes = Vec::new();
    encode(message, blob, &mut bytes)?;
    to.write_all(&bytes)?;
    Ok(())
}

/// Reads one frame from a blocking stream, and nothing behind it.
///
/// # Errors
/// The stream failed or ended, or what arrived is no frame.
pub fn read<M: DeserializeOwned>(mut from: impl Read) -> Result<(M, Vec<u8>), FrameError> {
    let mut length = [0; LENGTH];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_MAX {
        return Err(FrameError::TooLong(length));
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    split(&frame)
}

fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + LENGTH)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

/// Splits a frame without its first length.
fn split<M: DeserializeOwned>(frame: &[u8]) -> Result<(M, Vec<u8>), FrameError> {
    let json_len = length_at(frame, 0).ok_or(FrameError::Lengths)?;
    let json = frame.get(LENGTH..LENGTH + json_len).ok_or(FrameError::Lengths)?;
    let blob = frame.get(LENGTH + json_len..).unwrap_or_default();
    Ok((serde_json::from_slice(json)?, blob.to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{FromGuest, ToGuest};

    proptest! {
        #[test]
        fn frames_survive_any_cuts(
            blobs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..8),
            cut in 1_usize..97,
        ) {
            let mut wire = Vec::new();
            for (exec, blob) in blobs.iter().enumerate() {
                encode(&ToGuest::Stdin { exec: exec as u64, end: false }, blob, &mut wire).unwrap();
            }
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.push(piece);
                while let Some((message, blob)) = decoder.decode::<ToGuest>().unwrap() {
                    prop_assert_eq!(message, ToGuest::Stdin { exec: seen.len() as u64, end: false });
                    seen.push(blob);
                }
            }
            prop_assert_eq!(seen, blobs);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.decode::<FromGuest>() {}
        }

        #[test]
        fn hostile_messages_never_panic(json in "\\PC{0,200}", blob in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut wire = ((4 + json.len() + blob.len()) as u32).to_le_bytes().to_vec();
            wire.extend_from_slice(&(json.len() as u32).to_le_bytes());
            wire.extend_from_slice(json.as_bytes());
            wire.extend_from_slice(&blob);
            let mut decoder = Decoder::default();
            decoder.push(&wire);
            prop_assert!(!matches!(decoder.decode::<FromGuest>(), Ok(None)));
        }
    }

    #[test]
    fn a_frame_that_claims_4_gb_is_refused_before_it_arrives() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(decoder.decode::<FromGuest>(), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn a_json_length_beyond_its_frame_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&[8, 0, 0, 0, 255, 255, 255, 255, 1, 2, 3, 4]);
        assert!(matches!(decoder.decode::<FromGuest>(), Err(FrameError::Lengths)));
    }
}

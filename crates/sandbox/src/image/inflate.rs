//! The three ways in which layers are packed: not at all, with gzip, with zstd.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// A plain archive.
    Plain,
    /// gzip, in one member or several.
    Gzip,
    /// zstd, in one frame or several, with frames to skip between them.
    Zstd,
}

/// The archive that a blob holds.
pub(super) fn inflate<'a>(packing: Packing, blob: impl Read + 'a) -> Box<dyn Read + 'a> {
    let blob = BufReader::with_capacity(128 << 10, blob);
    match packing {
        Packing::Plain => Box::new(blob),
        Packing::Gzip => Box::new(MultiGzDecoder::new(blob)),
        Packing::Zstd => Box::new(Frames { decoder: FrameDecoder::new(), source: blob }),
    }
}

/// Reads all frames of a zstd stream: the decoder knows one at a time.
struct Frames<R> {
    decoder: FrameDecoder,
    source: R,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, one).map_err(io::Error::other)?;
            } else if self.source.fill_buf()?.is_empty() {
                return Ok(0);
            } else {
                self.next_frame()?;
            }
        }
    }
}

impl<R: BufRead> Frames<R> {
    fn next_frame(&mut self) -> io::Result<()> {
        match self.decoder.reset(&mut self.source) {
            Ok(()) => Ok(()),
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let skipped = io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                if skipped == u64::from(length) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn check(packing: Packing, blob: &[u8], expect: &[u8]) {
        let mut read = Vec::new();
        inflate(packing, blob).read_to_end(&mut read).unwrap();
        assert!(read == expect, "{packing:?}: {} bytes, not {}", read.len(), expect.len());
    }

    #[test]
    fn members_and_frames_follow_each_other_and_frames_are_skipped() {
        let (one, two) = (vec![b'a'; 300_000], b"second".to_vec());
        let both = [one.clone(), two.clone()].concat();
        check(Packing::Plain, &both, &both);

        let gzip = |bytes: &[u8]| {
            let mut blob = Vec::new();
            flate2::bufread::GzEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut blob).unwrap();
            blob
        };
        check(Packing::Gzip, &[gzip(&one), gzip(&two)].concat(), &both);

        let zstd = |bytes: &[u8]| compress_to_vec(bytes, CompressionLevel::Fastest);
        let skipped = [&0x184D_2A50_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"note"].concat();
        check(Packing::Zstd, &[skipped.clone(), zstd(&one), skipped, zstd(&two)].concat(), &both);
        check(Packing::Zstd, b"", b"");
    }

    #[test]
    fn what_is_cut_off_or_garbage_is_an_error() {
        let blob = compress_to_vec(&b"something longer than nothing"[..], CompressionLevel::Fastest);
        for (packing, blob) in
            [(Packing::Zstd, &blob[..blob.len() - 3]), (Packing::Zstd, b"garbage"), (Packing::Gzip, b"garbage")]
        {
            inflate(packing, blob).read_to_end(&mut Vec::new()).unwrap_err();
        }
    }
}

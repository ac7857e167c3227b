//! Reads a tar archive entry by entry, with a bound on everything that it holds in memory.
//!
//! The reader is our own since no crate bounds the headers of long names, which are as long as the archive says. What it
//! makes of an archive is what Go's `archive/tar` makes of it, as Docker and containerd use that: two programs that
//! understand one layer differently are a way to hide something in it.

use std::io::Read;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::budget::{Budget, HEADER_MAX};
use super::digest::Digest;
use super::error::LayerError;
use super::header::{self, BLOCK, Header, Pieces, broken};

/// The most pieces of one sparse file.
const PIECES_MAX: usize = 100_000;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink,
    Hardlink,
    Pipe,
    Device,
}

/// An entry as the archive says it. Nothing of it is to be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// The target of a link.
    pub(super) link: Vec<u8>,
    pub(super) mode: u64,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds since 1970, and nanoseconds.
    pub(super) mtime: (i64, u32),
    /// Bytes of the file, with its holes.
    pub(super) size: u64,
    /// What is between the holes, where it has some.
    pub(super) pieces: Option<Pieces>,
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What stood before the header of an entry and is meant for it.
#[derive(Debug, Default)]
struct Ahead {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An archive in the midst of being read.
pub(super) struct Archive<'a> {
    source: Box<dyn Read + 'a>,
    budget: &'a Budget,
    /// A folder on the disk that it goes to.
    disk: &'a Path,
    hash: Sha256,
    /// Bytes of the current entry that have not been read, and what fills its last block.
    left: u64,
    fill: u64,
}

impl<'a> Archive<'a> {
    pub(super) fn new(source: Box<dyn Read + 'a>, budget: &'a Budget, disk: &'a Path) -> Self {
        Self { source, budget, disk, hash: Sha256::new(), left: 0, fill: 0 }
    }

    /// The next entry; what was not read of the last one is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut ahead = Ahead::default();
        loop {
            self.skip()?;
            let mut block = [0; BLOCK];
            if !self.read_block(&mut block)? {
                return Ok(None);
            }
            let Some(header) = Header::read(&block)? else { return Ok(None) };
            self.budget.take_entry()?;
            match header.flag() {
                b'L' => ahead.path = Some(self.long_text(&header)?),
                b'K' => ahead.link = Some(self.long_text(&header)?),
                b'x' => self.read_records(&header, &mut ahead)?,
                // What is meant for all entries is comments and dates: no builder of layers writes more.
                b'g' => drop(self.read_header_body(&header)?),
                flag => return self.entry(&header, flag, ahead).map(Some),
            }
        }
    }

    /// Reads from the content of the current entry.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let read = self.fetch(buffer)?;
        if read == 0 {
            return Err(broken("it ends in the midst of a file"));
        }
        self.left -= read as u64;
        Ok(read)
    }

    /// Reads to the end, past the archive's own, and returns the digest of all.
    pub(super) fn finish(mut self) -> Result<Digest, LayerError> {
        let mut buffer = vec![0; 64 << 10];
        while self.fetch(&mut buffer)? > 0 {}
        Ok(Digest::finished(self.hash))
    }

    fn fetch(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let read = self.source.read(buffer).map_err(|error| LayerError::Broken { reason: error.to_string() })?;
        self.budget.take_bytes(read as u64, self.disk)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }

    /// Reads a block; `false` at the end. Some builders leave out the two empty ones that should be there.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, LayerError> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.fetch(rest)? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(broken("it ends in the midst of a header")),
                read => filled += read,
            }
        }
        Ok(true)
    }

    fn skip(&mut self) -> Result<(), LayerError> {
        self.left += std::mem::take(&mut self.fill);
        let mut buffer = [0; 16 << 10];
        while self.left > 0 {
            self.read(&mut buffer)?;
        }
        Ok(())
    }

    /// Says how long the content of the current entry is.
    fn expect(&mut self, size: u64) -> Result<(), LayerError> {
        let fill = size.next_multiple_of(BLOCK as u64).checked_sub(size);
        self.fill = fill.filter(|_| size <= i64::MAX as u64).ok_or_else(|| broken("a size is impossible"))?;
        self.left = size;
        Ok(())
    }

    fn read_header_body(&mut self, header: &Header<'_>) -> Result<Vec<u8>, LayerError> {
        let size = header.size().ok_or_else(|| broken("a size cannot be read"))?;
        if size > HEADER_MAX {
            return Err(LayerError::TooMuch { what: "bytes in a header", limit: HEADER_MAX });
        }
        self.expect(size)?;
        let mut body = vec![0; usize::try_from(size).unwrap_or_default()];
        let mut filled = 0;
        while let Some(rest) = body.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += self.read(rest)?;
        }
        Ok(body)
    }

    fn long_text(&mut self, header: &Header<'_>) -> Result<Vec<u8>, LayerError> {
        let mut body = self.read_header_body(header)?;
        body.truncate(body.iter().position(|byte| *byte == 0).unwrap_or(body.len()));
        Ok(body)
    }

    fn read_records(&mut self, header: &Header<'_>, ahead: &mut Ahead) -> Result<(), LayerError> {
        let body = self.read_header_body(header)?;
        let records = header::records(&body).ok_or_else(|| broken("a pax header cannot be read"))?;
        for (key, value) in records {
            ahead.take(key, value)?;
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header<'_>, flag: u8, ahead: Ahead) -> Result<Entry, LayerError> {
        let path = ahead.path.unwrap_or_else(|| header.path());
        let refuse = |reason| LayerError::Entry { entry: path.escape_ascii().to_string(), reason };
        let kind = match flag {
            // The oldest archives know folders by their name alone.
            0 if path.ends_with(b"/") => Kind::Folder,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Folder,
            b'6' => Kind::Pipe,
            _ => return Err(refuse("is of a kind that layers do not have")),
        };
        let number = |ahead: Option<u64>, own: Option<u64>| {
            ahead.or(own).ok_or_else(|| refuse("has a number in its header that cannot be read"))
        };
        // Only files have content, whatever the header says.
        let stored = if kind == Kind::File { number(ahead.size, header.size())? } else { 0 };
        let (mode, uid, gid) =
            (number(None, header.mode())?, number(ahead.uid, header.uid())?, number(ahead.gid, header.gid())?);
        let (size, pieces) = match flag {
            b'S' => self.sparse(header, stored)?.ok_or_else(|| refuse("has a map of holes that cannot be"))?,
            _ => (stored, None),
        };
        self.expect(stored)?;
        Ok(Entry {
            kind,
            link: ahead.link.unwrap_or_else(|| header.link()),
            mode,
            uid,
            gid,
            mtime: ahead.mtime.unwrap_or((header.mtime(), 0)),
            size,
            pieces,
            attributes: ahead.attributes,
            path,
        })
    }

    /// The size with holes and the map of a sparse file that stores so many bytes; `None` where they make no sense.
    fn sparse(&mut self, header: &Header<'_>, stored: u64) -> Result<Option<(u64, Option<Pieces>)>, LayerError> {
        let Some((size, mut pieces, mut more)) = header.sparse() else { return Ok(None) };
        while more {
            let mut block = [0; BLOCK];
            let is_there = self.read_block(&mut block)?;
            let Some((further, again)) = header::more_pieces(&block).filter(|_| is_there) else { return Ok(None) };
            pieces.extend(further);
            if pieces.len() > PIECES_MAX {
                return Err(LayerError::TooMuch { what: "pieces of a sparse file", limit: PIECES_MAX as u64 });
            }
            more = again;
        }
        let mut end = 0;
        let mut sum = 0_u64;
        for (at, length) in &pieces {
            if *at < end {
                return Ok(None);
            }
            let (Some(next), Some(grown)) = (at.checked_add(*length), sum.checked_add(*length)) else {
                return Ok(None);
            };
            (end, sum) = (next, grown);
        }
        Ok((end <= size && sum == stored).then_some((size, Some(pieces))))
    }
}

impl Ahead {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), LayerError> {
        let text = std::str::from_utf8(value).ok();
        let number = || text.and_then(|text| text.parse().ok()).ok_or_else(|| broken("a pax header has no number"));
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = text.map(time),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(broken("it has sparse files in the pax format; pack it without --sparse"));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attributes.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Seconds and nanoseconds of a decimal number; a time before 1970 is 1970.
fn time(text: &str) -> (i64, u32) {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    match seconds.parse::<i64>() {
        Ok(seconds) if seconds >= 0 => (seconds, nanoseconds.parse().unwrap_or_default()),
        Ok(_) | Err(_) => (0, 0),
    }
}

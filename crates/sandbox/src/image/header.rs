//! The header of a tar entry: 512 bytes in one of three dialects, and the records that stand before it.
//!
//! Formats: POSIX.1-2017, `pax`, “ustar Interchange Format” and “pax Header Block”; GNU tar's manual, “Basic Tar Format”.

use std::ops::Range;

use super::error::LayerError;

/// The size of everything in an archive.
pub(super) const BLOCK: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const FLAG: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const PREFIX: Range<usize> = 345..500;
/// GNU: the first four pieces of a sparse file, whether more follow, and its size with holes.
const SPARSE: Range<usize> = 386..482;
const SPARSE_MORE: usize = 482;
const SPARSE_SIZE: Range<usize> = 483..495;
/// A block with further pieces.
const EXTENSION: Range<usize> = 0..504;
const EXTENSION_MORE: usize = 504;

pub(super) fn broken(reason: &str) -> LayerError {
    LayerError::Broken { reason: reason.to_owned() }
}

/// A header block whose checksum is right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// Takes a block; `None` for the one that ends an archive.
    pub(super) fn read(block: &'a [u8; BLOCK]) -> Result<Option<Self>, LayerError> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |(at, byte): (usize, &u8)| u64::from(if CHECKSUM.contains(&at) { b' ' } else { *byte });
        let right = number(&block[CHECKSUM]) == Some(block.iter().enumerate().map(sum).sum());
        if right {
            Ok(Some(Self(block)))
        } else {
            Err(broken("a header has a wrong checksum, so it is no tar archive"))
        }
    }

    pub(super) fn flag(&self) -> u8 {
        self.0[FLAG]
    }

    pub(super) fn mode(&self) -> Option<u64> {
        number(&self.0[MODE])
    }

    pub(super) fn uid(&self) -> Option<u64> {
        number(&self.0[UID])
    }

    pub(super) fn gid(&self) -> Option<u64> {
        number(&self.0[GID])
    }

    pub(super) fn size(&self) -> Option<u64> {
        number(&self.0[SIZE])
    }

    /// Seconds since 1970. What cannot be read, such as a time before it, is 0.
    pub(super) fn mtime(&self) -> i64 {
        number(&self.0[MTIME]).and_then(|time| time.try_into().ok()).unwrap_or_default()
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[LINK]).to_vec()
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let (prefix, name) = (text(&self.0[PREFIX]), text(&self.0[NAME]));
        // GNU's dialect has other things where the standard has the prefix.
        if self.is_gnu() || &self.0[MAGIC][..5] != b"ustar" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn is_gnu(&self) -> bool {
        &self.0[MAGIC] == b"ustar  \0"
    }

    /// Of a sparse file: its size with holes, its first pieces, and whether a block with more follows.
    pub(super) fn sparse(&self) -> Option<(u64, Pieces, bool)> {
        let size = number(&self.0[SPARSE_SIZE]).filter(|_| self.is_gnu())?;
        Some((size, pieces(&self.0[SPARSE])?, self.0[SPARSE_MORE] != 0))
    }
}

/// Where the pieces of a sparse file go, and how long they are.
pub(super) type Pieces = Vec<(u64, u64)>;

/// The pieces in a block that continues a sparse header, and whether another such block follows.
pub(super) fn more_pieces(block: &[u8; BLOCK]) -> Option<(Pieces, bool)> {
    Some((pieces(&block[EXTENSION])?, block[EXTENSION_MORE] != 0))
}

fn pieces(bytes: &[u8]) -> Option<Pieces> {
    let used = bytes.chunks_exact(24).take_while(|piece| piece[0] != 0);
    used.map(|piece| Some((number(&piece[..12])?, number(&piece[12..])?))).collect()
}

/// The bytes up to the first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits, or in binary where the first bit is set; an empty field is 0.
fn number(field: &[u8]) -> Option<u64> {
    match field.split_first() {
        Some((first, rest)) if first & 0x80 != 0 => {
            let mut digits = std::iter::once(first & 0x7f).chain(rest.iter().copied());
            digits.try_fold(0_u64, |sum, digit| sum.checked_mul(256)?.checked_add(digit.into()))
        }
        _ => {
            let digits = text(field).trim_ascii();
            let octal = |sum: u64, digit: &u8| {
                let digit = (b'0'..=b'7').contains(digit).then(|| digit - b'0')?;
                sum.checked_mul(8)?.checked_add(digit.into())
            };
            digits.iter().try_fold(0, octal)
        }
    }
}

/// The records of a pax header: `LENGTH KEY=VALUE\n`, where the length counts all of it.
///
/// By length and not by line, since a name may have a line break in it.
pub(super) fn records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[length..];
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_octal_binary_or_empty_and_never_wrap() {
        let check = |field: &[u8], expect| assert_eq!(number(field), expect, "{field:?}");
        check(b"0000755\0", Some(0o755));
        check(b" 644 \0\0\0", Some(0o644));
        check(b"\0\0\0\0", Some(0));
        check(b"0008\0", None);
        check(b"-1\0", None);
        check(&[0x80, 0, 0, 0, 0, 0, 1, 2], Some(258));
        check(&[0xff; 12], None);
        check(b"777777777777777777777777", None);
    }

    #[test]
    fn records_are_cut_by_their_length() {
        let check = |text: &[u8], expect: Option<&[(&[u8], &[u8])]>| assert_eq!(records(text).as_deref(), expect);
        check(b"", Some(&[]));
        check(b"12 path=a\nb\n9 uid=10\n", Some(&[(b"path", b"a\nb"), (b"uid", b"10")]));
        check(b"9 uid=10", None);
        check(b"99 uid=10\n", None);
        check(b"2 \n", None);
        check(b"0 a=b\n", None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            drop(records(&bytes));
            number(&bytes);
            if let Some(block) = bytes.first_chunk::<BLOCK>() {
                let header = Header(block);
                drop((header.path(), header.sparse(), more_pieces(block), Header::read(block)));
            }
        }
    }
}

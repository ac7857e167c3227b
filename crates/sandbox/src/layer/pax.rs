//! Writes tar archives in the pax format (POSIX.1-2001, pax Interchange Format), as `image/archive.rs` reads them.
//!
//! Everything that the old header holds only in part stands in the records before it: names of any length, owners, times
//! to the nanosecond, attributes.

use std::io::{self, Write};

const BLOCK: usize = 512;

/// What an entry is, by its type flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Hardlink,
    Symlink,
    Folder,
    Pipe,
}

/// An entry, but for its content.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: Kind,
    /// The target of a link.
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    /// Seconds since 1970, and nanoseconds.
    pub(super) mtime: (u64, u64),
    pub(super) size: u64,
    pub(super) attributes: &'a [(Vec<u8>, Vec<u8>)],
}

/// Writes the header of an entry; its content follows, and then [`fill`].
pub(super) fn header(out: &mut dyn Write, entry: &Entry<'_>) -> io::Result<()> {
    let mut records = Vec::new();
    record(&mut records, b"path", entry.path);
    if !entry.link.is_empty() {
        record(&mut records, b"linkpath", entry.link);
    }
    record(&mut records, b"mtime", format!("{}.{:09}", entry.mtime.0, entry.mtime.1).as_bytes());
    record(&mut records, b"uid", entry.owner.0.to_string().as_bytes());
    record(&mut records, b"gid", entry.owner.1.to_string().as_bytes());
    record(&mut records, b"size", entry.size.to_string().as_bytes());
    for (name, value) in entry.attributes {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    let length = records.len() as u64;
    out.write_all(&block(b"pax", b'x', 0o644, length))?;
    out.write_all(&records)?;
    fill(out, length)?;
    let flag = match entry.kind {
        Kind::File => b'0',
        Kind::Hardlink => b'1',
        Kind::Symlink => b'2',
        Kind::Folder => b'5',
        Kind::Pipe => b'6',
    };
    let name = entry.path.get(..entry.path.len().min(99)).unwrap_or_default();
    out.write_all(&block(name, flag, entry.mode, entry.size))
}

/// Fills the last block of a content of so many bytes.
pub(super) fn fill(out: &mut dyn Write, length: u64) -> io::Result<()> {
    let left = usize::try_from(length.next_multiple_of(BLOCK as u64) - length).unwrap_or_default();
    out.write_all([0; BLOCK].get(..left).unwrap_or_default())
}

/// Ends an archive.
pub(super) fn end(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(into: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    into.extend_from_slice(format!("{length} ").as_bytes());
    into.extend_from_slice(&[key, b"=", value, b"\n"].concat());
}

fn block(name: &[u8], flag: u8, mode: u32, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(field) = block.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    put(0, name);
    put(100, format!("{:07o}\0", mode & 0o7777).as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    // What does not fit stands in the records.
    let size = if size < 1 << 33 { size } else { 0 };
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[flag]);
    put(257, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    if let Some(field) = block.get_mut(148..156) {
        field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        let check = |value: &str, expect: &str| {
            let mut records = Vec::new();
            record(&mut records, b"path", value.as_bytes());
            assert_eq!(String::from_utf8(records).unwrap(), expect);
        };
        check("a", "9 path=a\n");
        check("", "8 path=\n");
        check(&"x".repeat(89), &format!("98 path={}\n", "x".repeat(89)));
        check(&"x".repeat(90), &format!("99 path={}\n", "x".repeat(90)));
        check(&"x".repeat(91), &format!("101 path={}\n", "x".repeat(91)));
    }
}

//! Copies what a file holds, its holes as holes.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Up to this size a file is read and written at once.
const SMALL: u64 = 64 << 10;

/// Bytes that are copied before the time is looked at.
const PIECE: usize = 8 << 20;

/// Fills an empty file with the first `size` bytes of another. File systems that can share them do.
///
/// `go_on` is asked between pieces, and ends it with its error.
pub(super) fn fill(from: &File, to: &File, size: u64, go_on: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
    if size <= SMALL {
        let mut bytes = Vec::new();
        from.take(size).read_to_end(&mut bytes)?;
        let mut to = to;
        return to.write_all(&bytes);
    }
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            other => other?,
        };
        let hole = rustix::fs::seek(from, SeekFrom::Hole(data))?.min(size);
        copy(from, to, data, hole, go_on)?;
        at = hole.max(data + 1);
    }
    to.set_len(size)
}

fn copy(from: &File, to: &File, begin: u64, end: u64, go_on: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
    let (mut read, mut written) = (begin, begin);
    while read < end {
        go_on()?;
        let most = usize::try_from(end - read).unwrap_or(PIECE).min(PIECE);
        // Shorter than it was: whoever cut it off is seen by the time of its change.
        if rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), most)? == 0 {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn holes_stay_holes_and_bytes_stay_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            File::options().read(true).write(true).create(true).truncate(true).open(folder.path().join(name)).unwrap()
        };
        let check = |size: u64, pieces: &[(u64, &[u8])]| {
            let (from, to) = (open("from"), open("to"));
            from.set_len(size).unwrap();
            pieces.iter().for_each(|(at, bytes)| from.write_all_at(bytes, *at).unwrap());
            fill(&from, &to, size, &|| Ok(())).unwrap();
            let read = |file: &File| {
                let mut bytes = vec![0; usize::try_from(size).unwrap()];
                file.read_exact_at(&mut bytes, 0).unwrap();
                bytes
            };
            assert!(read(&from) == read(&to), "{size} bytes");
            assert_eq!(to.metadata().unwrap().len(), size);
            assert!(to.metadata().unwrap().blocks() <= from.metadata().unwrap().blocks(), "{size} bytes");
        };
        check(0, &[]);
        check(10, &[(3, b"abc")]);
        check(20 << 20, &[]);
        check(20 << 20, &[(0, &[1; 5_000]), (9 << 20, &[2; 100_000]), ((20 << 20) - 1, b"!")]);
    }
}

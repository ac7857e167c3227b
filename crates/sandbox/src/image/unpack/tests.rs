//! Whatever an archive says, nothing outside its folder is touched and nothing panics.

use std::os::unix::fs::symlink;

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;
use crate::image::budget::ImageLimits;

/// Words of which hostile paths and targets are made.
const WORDS: &[&str] =
    &["..", ".", "", "a", "b", "link", ".wh.a", ".wh..wh..opq", ".wh.", ".wh...", "canary", "\u{7f}"];

const KINDS: &[EntryType] = &[
    EntryType::Regular,
    EntryType::Directory,
    EntryType::Symlink,
    EntryType::Link,
    EntryType::Fifo,
    EntryType::Char,
    EntryType::GNUSparse,
    EntryType::XHeader,
    EntryType::GNULongName,
];

fn path() -> impl Strategy<Value = String> {
    let words = proptest::collection::vec(proptest::sample::select(WORDS), 1..5);
    (words, any::<bool>()).prop_map(|(words, absolute)| if absolute { "/" } else { "" }.to_owned() + &words.join("/"))
}

fn archive() -> impl Strategy<Value = Vec<u8>> {
    let entry = (proptest::sample::select(KINDS), path(), path(), 0..0o10000_u32, 0..600_usize);
    proptest::collection::vec(entry, 1..12).prop_map(|entries| {
        let mut archive = Builder::new(Vec::new());
        for (kind, path, link, mode, size) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            let fields = header.as_old_mut();
            fields.name[..path.len()].copy_from_slice(path.as_bytes());
            fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
            let content = if kind == EntryType::XHeader { path.into_bytes() } else { vec![b'x'; size] };
            let is_file = matches!(kind, EntryType::Regular | EntryType::XHeader | EntryType::GNULongName);
            let content = if is_file { content } else { Vec::new() };
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive.append(&header, &content[..]).unwrap();
        }
        archive.into_inner().unwrap()
    })
}

/// Unpacks into a folder beside a canary, with links to it from inside; and looks at the canary.
fn unpack_beside_a_canary(bytes: &[u8]) {
    let house = tempfile::tempdir().unwrap();
    let (into, canary) = (house.path().join("into"), house.path().join("canary"));
    std::fs::create_dir(&into).unwrap();
    std::fs::create_dir(&canary).unwrap();
    std::fs::write(canary.join("a"), "untouched").unwrap();
    symlink(&canary, into.join("link")).unwrap();
    let before = std::fs::metadata(&canary).unwrap();
    let limits = ImageLimits { unpacked_bytes: 1 << 20, entries: 100, names_bytes: 1 << 16, ..ImageLimits::default() };
    let budget = Budget::new(limits, std::time::Instant::now(), tokio_util::sync::CancellationToken::new());
    drop(unpack(Archive::new(Box::new(bytes), &budget, &into), &into, &budget));
    let names: BTreeSet<_> = std::fs::read_dir(house.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, BTreeSet::from(["canary".into(), "into".into()]));
    let after = std::fs::metadata(&canary).unwrap();
    assert_eq!((after.permissions(), after.modified().unwrap()), (before.permissions(), before.modified().unwrap()));
    assert_eq!(std::fs::read_to_string(canary.join("a")).unwrap(), "untouched");
}

proptest! {
    #[test]
    fn no_archive_reaches_what_is_outside(bytes in archive()) {
        unpack_beside_a_canary(&bytes);
    }

    #[test]
    fn no_change_of_an_archive_makes_it_panic(
        bytes in archive(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        end in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = bytes;
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            // A header whose checksum is right gets further.
            let start = at / 512 * 512;
            let block = &mut bytes[start..start + 512];
            let sum: u32 = block.iter().enumerate().map(|(at, b)| u32::from(if (148..156).contains(&at) { b' ' } else { *b })).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        bytes.truncate(end.index(bytes.len()) + 1);
        unpack_beside_a_canary(&bytes);
    }
}

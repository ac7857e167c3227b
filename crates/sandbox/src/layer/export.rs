//! Writes frozen layers into one archive that another machine can take in.
//!
//! ```text
//!   snapshot.json        what each layer holds, topmost first
//!   layers/0/…           the topmost layer, as layers of OCI images are packed: what it hides is a `.wh.` entry
//!   layers/1/…           the one below
//! ```

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::attributes::{self, OPAQUE};
use super::digest::{Counted, digest};
use super::pax::{self, Entry, Kind};
use super::{LayerId, Layers, merge};
use crate::provider::SandboxError;

/// The format of this version.
pub(super) const FORMAT: u32 = 1;

/// The first entry.
pub(super) const CONTENTS: &str = "snapshot.json";

/// What names of hidden entries begin with (OCI image specification, “Whiteouts”).
const HIDDEN: &[u8] = b".wh.";

/// Whose content is hidden.
const HIDDEN_BELOW: &[u8] = b".wh..wh..opq";

/// What an archive holds. New fields must have a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    pub(super) format: u32,
    /// Topmost first.
    pub(super) layers: Vec<Packed>,
}

/// A layer in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packed {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// Over all that the layer holds, as manifests have it.
    pub(super) sha256: String,
}

impl Layers {
    /// Writes layers, topmost first, as one archive packed with gzip. What is torn is not handed on.
    pub(crate) fn export(&self, chain: &[LayerId], out: impl Write) -> Result<(), SandboxError> {
        let mut layers = Vec::new();
        for id in chain {
            let torn = |reason: String| SandboxError::Refused { what: format!("layer {id}"), reason };
            self.verify(id).map_err(torn)?;
            let tree = self.tree_of(id);
            let found = digest(&tree, Counted::All).map_err(SandboxError::io("read", &tree))?;
            layers.push(Packed { entries: found.entries, bytes: found.bytes, sha256: found.sha256 });
        }
        let contents = Contents { format: FORMAT, layers };
        let mut out = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
        write_contents(&mut out, &contents).map_err(SandboxError::io("write", Path::new(CONTENTS)))?;
        for (number, id) in chain.iter().enumerate() {
            let tree = self.tree_of(id);
            let mut archive =
                Archive { out: &mut out, top: format!("layers/{number}").into_bytes(), names: HashMap::new() };
            archive.folder(&tree, &[]).map_err(SandboxError::io("export", &tree))?;
        }
        let ended = pax::end(&mut out).and_then(|()| out.finish()?.flush());
        ended.map_err(SandboxError::io("write", Path::new("the archive")))
    }
}

fn write_contents(out: &mut dyn Write, contents: &Contents) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(contents)?;
    let size = text.len() as u64;
    let path = CONTENTS.as_bytes();
    let (mode, owner, mtime) = (0o644, (0, 0), (0, 0));
    pax::header(out, &Entry { path, kind: Kind::File, link: b"", mode, owner, mtime, size, attributes: &[] })?;
    out.write_all(&text)?;
    pax::fill(out, size)
}

/// A layer that is being written.
struct Archive<'a> {
    out: &'a mut dyn Write,
    top: Vec<u8>,
    /// Files with several names, by their number.
    names: HashMap<u64, Vec<u8>>,
}

impl Archive<'_> {
    /// Writes a folder and all that is in it.
    fn folder(&mut self, place: &Path, below: &[u8]) -> io::Result<()> {
        let metadata = fs::symlink_metadata(place)?;
        let mut marks = attributes::read(place)?;
        let hides_below = marks.iter().any(|(name, _)| name == OPAQUE.as_bytes());
        marks.retain(|(name, _)| name != OPAQUE.as_bytes());
        let path = self.path(below);
        self.entry(&path, Kind::Folder, b"", &metadata, 0, &marks)?;
        if hides_below {
            self.empty(&[path.as_slice(), b"/", HIDDEN_BELOW].concat())?;
        }
        let mut entries: Vec<fs::DirEntry> = fs::read_dir(place)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let inside =
                if below.is_empty() { name.as_bytes().to_vec() } else { [below, b"/", name.as_bytes()].concat() };
            if name.as_bytes().starts_with(HIDDEN) {
                let reason = format!("{}: its name means something else in an archive", inside.escape_ascii());
                return Err(io::Error::new(ErrorKind::InvalidData, reason));
            }
            self.one(&entry.path(), &inside, name.as_bytes())?;
        }
        Ok(())
    }

    fn one(&mut self, place: &Path, inside: &[u8], name: &[u8]) -> io::Result<()> {
        let metadata = fs::symlink_metadata(place)?;
        let kind = metadata.file_type();
        let path = self.path(inside);
        if kind.is_dir() {
            return self.folder(place, inside);
        }
        if merge::is_whiteout(&metadata) {
            let above = path.get(..path.len() - name.len()).unwrap_or_default();
            return self.empty(&[above, HIDDEN, name].concat());
        }
        if metadata.nlink() > 1 {
            // Of a layer that shares files with another one, only the names in this one count.
            if let Some(first) = self.names.get(&metadata.ino()).cloned() {
                return self.entry(&path, Kind::Hardlink, &first, &metadata, 0, &[]);
            }
            self.names.insert(metadata.ino(), path.clone());
        }
        if kind.is_symlink() {
            let target = fs::read_link(place)?;
            return self.entry(&path, Kind::Symlink, target.as_os_str().as_bytes(), &metadata, 0, &[]);
        }
        if kind.is_fifo() {
            return self.entry(&path, Kind::Pipe, b"", &metadata, 0, &[]);
        }
        if kind.is_file() {
            return self.file(place, &path, &metadata);
        }
        // Nobody listens behind a socket, and there are no devices.
        Ok(())
    }

    fn file(&mut self, place: &Path, path: &[u8], metadata: &Metadata) -> io::Result<()> {
        let size = metadata.len();
        self.entry(path, Kind::File, b"", metadata, size, &attributes::read(place)?)?;
        let copied = io::copy(&mut File::open(place)?.take(size), &mut self.out)?;
        if copied != size {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        pax::fill(self.out, size)
    }

    fn empty(&mut self, path: &[u8]) -> io::Result<()> {
        let (mode, owner, mtime) = (0o644, (0, 0), (0, 0));
        pax::header(
            self.out,
            &Entry { path, kind: Kind::File, link: b"", mode, owner, mtime, size: 0, attributes: &[] },
        )
    }

    fn entry(
        &mut self,
        path: &[u8],
        kind: Kind,
        link: &[u8],
        metadata: &Metadata,
        size: u64,
        attributes: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        let old = || io::Error::new(ErrorKind::InvalidData, format!("{}: it is from before 1970", path.escape_ascii()));
        let seconds = u64::try_from(metadata.mtime()).map_err(|_| old())?;
        let mtime = (seconds, u64::try_from(metadata.mtime_nsec()).unwrap_or_default());
        let (mode, owner) = (metadata.mode() & 0o7777, (metadata.uid(), metadata.gid()));
        pax::header(self.out, &Entry { path, kind, link, mode, owner, mtime, size, attributes })
    }

    fn path(&self, inside: &[u8]) -> Vec<u8> {
        if inside.is_empty() { self.top.clone() } else { [self.top.as_slice(), b"/", inside].concat() }
    }
}

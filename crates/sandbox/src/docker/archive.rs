//! Folders of this machine as archives on their way to the daemon: written as they are sent, never whole in memory.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::engine::Archive;

/// Bytes that are sent at once.
const PIECE: usize = 256 << 10;

/// Pieces on their way.
const PIECES_MAX: usize = 8;

/// The attribute in which a file keeps capabilities (capabilities(7)): the one that images have.
const CAPABILITY: &str = "security.capability";

/// Who owns what is in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// Root, as the checkout of the server's user does inside.
    Root,
    /// Whoever owns it here; where this is not root, what is ours is root's.
    AsHere,
}

/// Archives a folder under the name `inside`, which is empty for an archive of a whole root.
pub(super) fn folder(source: PathBuf, inside: &'static str, owners: Owners, tasks: &TaskTracker) -> Archive {
    let (sender, archive) = mpsc::channel(PIECES_MAX);
    tasks.spawn_blocking(move || {
        let failing = sender.clone();
        if let Err(error) = write(&source, inside, owners, sender) {
            // Whoever has stopped reading knows why.
            drop(failing.blocking_send(Err(error)));
        }
    });
    archive
}

/// An archive with nothing but the folder `inside`.
pub(super) fn empty_folder(inside: &str) -> io::Result<Archive> {
    let mut builder = Builder::new(Vec::new());
    builder.append_data(&mut plain(EntryType::Directory, 0o755), format!("{inside}/"), io::empty())?;
    let (sender, archive) = mpsc::channel(1);
    // There is room for one piece.
    drop(sender.try_send(Ok(Bytes::from(builder.into_inner()?))));
    Ok(archive)
}

fn plain(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}

fn write(source: &Path, inside: &str, owners: Owners, sender: mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let out = BufWriter::with_capacity(PIECE, Pipe(sender));
    let mut tree = Tree { builder: Builder::new(out), owners, names: HashMap::new() };
    let mut open = vec![(source.to_owned(), PathBuf::from(inside))];
    while let Some((folder, name)) = open.pop() {
        tree.add(&folder, &name)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), name.join(entry.file_name()));
            if entry.file_type()?.is_dir() {
                open.push((path, name));
            } else {
                tree.add(&path, &name)?;
            }
        }
    }
    tree.builder.into_inner()?.flush()
}

/// A tree on its way into an archive.
struct Tree<W: Write> {
    builder: Builder<W>,
    owners: Owners,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Tree<W> {
    /// Adds one entry. Sockets have nobody listening, and devices and the whiteouts of overlays are not for a container.
    fn add(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            let name = if name.as_os_str().is_empty() { Path::new("./") } else { name };
            let mut header = self.header(EntryType::Directory, &metadata);
            self.builder.append_data(&mut header, name.join(""), io::empty())
        } else if kind.is_symlink() {
            let mut header = self.header(EntryType::Symlink, &metadata);
            self.builder.append_link(&mut header, name, fs::read_link(path)?)
        } else if kind.is_fifo() {
            let mut header = self.header(EntryType::Fifo, &metadata);
            self.builder.append_data(&mut header, name, io::empty())
        } else if kind.is_file() {
            self.add_file(path, name, &metadata)
        } else {
            Ok(())
        }
    }

    fn add_file(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> io::Result<()> {
        if metadata.nlink() > 1 {
            let first = self.names.entry((metadata.dev(), metadata.ino())).or_insert_with(|| name.to_owned()).clone();
            if first != name {
                let mut header = self.header(EntryType::Link, metadata);
                return self.builder.append_link(&mut header, name, first);
            }
        }
        let mut value = [0; 64];
        if let Ok(length) = rustix::fs::lgetxattr(path, CAPABILITY, &mut value) {
            let key = format!("SCHILY.xattr.{CAPABILITY}");
            self.builder.append_pax_extensions([(key.as_str(), value.get(..length).unwrap_or_default())])?;
        }
        let mut header = self.header(EntryType::Regular, metadata);
        header.set_size(metadata.len());
        // A file that grows meanwhile is cut: its length is in the archive already.
        self.builder.append_data(&mut header, name, File::open(path)?.take(metadata.len()))
    }

    fn header(&self, kind: EntryType, metadata: &Metadata) -> Header {
        let mut header = plain(kind, metadata.mode() & 0o7777);
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or_default());
        let ours = rustix::process::geteuid().as_raw();
        let owner = match self.owners {
            Owners::Root => (0, 0),
            Owners::AsHere if metadata.uid() == ours && ours != 0 => (0, 0),
            Owners::AsHere => (u64::from(metadata.uid()), u64::from(metadata.gid())),
        };
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header
    }
}

/// The writing end of an archive.
struct Pipe(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn an_archive_has_what_a_folder_has_and_root_owns_it() {
        let folder_here = tempfile::tempdir().unwrap();
        let at = |name: &str| folder_here.path().join(name);
        let long = format!("deep/{}", "x".repeat(200));
        fs::create_dir(at("deep")).unwrap();
        fs::write(at(&long), "text").unwrap();
        fs::hard_link(at(&long), at("second")).unwrap();
        symlink("/nowhere", at("link")).unwrap();
        let _listening = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let tasks = TaskTracker::new();
        let mut archive = folder(folder_here.path().to_owned(), "workspace", Owners::Root, &tasks);
        let mut bytes = Vec::new();
        while let Some(piece) = archive.recv().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        let mut reader = tar::Archive::new(bytes.as_slice());
        let mut found: Vec<_> = reader
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
                (entry.path().unwrap().into_owned(), entry.header().entry_type())
            })
            .collect();
        found.sort_by_key(|(name, _)| name.clone());
        let kinds: Vec<_> = found.iter().map(|(_, kind)| *kind).collect();
        let names: Vec<_> = found.iter().map(|(name, _)| name.display().to_string()).collect();
        assert_eq!(
            names,
            ["workspace/", "workspace/deep/", &format!("workspace/{long}"), "workspace/link", "workspace/second"]
        );
        assert!(kinds.contains(&EntryType::Link) && kinds.contains(&EntryType::Symlink), "{kinds:?}");
    }
}

//! Folders that a layer has files in but says nothing of.
//!
//! Some builders pack `tmp/file` without an entry for `tmp`. Docker unpacks such a layer onto those below and so keeps
//! their `tmp` as it is, sticky and open to all. Our layers are unpacked alone and laid over each other by the kernel,
//! which shows a folder as the topmost layer has it. So where an image has such folders, a layer more lies on top of
//! it, the seam: it holds nothing but these folders, as the layers below would show them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, Timespec, Timestamps};

use super::digest::Digest;
use super::error::{ImageError, LayerError};
use super::layers::Layers as Store;
use super::tree::{self, Tree, failed, is_opaque, split};
use super::unpack::Facts;

/// The layer to lay on top of these, bottom first; `None` where they are right without.
pub(super) fn seam(store: &Store, layers: &[Digest], reference: &str) -> Result<Option<Digest>, ImageError> {
    let names: Vec<String> = layers.iter().map(ToString::to_string).collect();
    let digest = Digest::of(format!("seam {}", names.join(" ")).as_bytes());
    let refused = |source| ImageError::Layer { reference: reference.to_owned(), layer: digest.clone(), source };
    let mut roots = Vec::new();
    for layer in layers.iter().rev() {
        roots.extend(store.find(layer)?.map(|(root, facts)| (root, facts.implied)));
    }
    if roots.iter().all(|(_, implied)| implied.is_empty()) {
        return Ok(None);
    }
    let seam = Layers::open(&roots).and_then(|mut layers| layers.seam()).map_err(refused)?;
    if seam.is_empty() {
        return Ok(None);
    }
    if store.find(&digest)?.is_none() {
        let fresh = store.fresh()?;
        sew(&seam, &fresh.root()).map_err(refused)?;
        store.keep(&fresh, &digest, &Facts::default())?;
    }
    Ok(Some(digest))
}

/// What a folder looks like: owner, mode, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    owner: (u32, u32),
    mode: u32,
    mtime: i64,
}

/// What a folder looks like that no entry speaks of.
const PLAIN: Look = Look { owner: (0, 0), mode: 0o755, mtime: 0 };

/// The layers of an image, topmost first, each with the folders that none of its entries speaks of.
struct Layers<'a> {
    layers: Vec<(Tree, &'a BTreeSet<String>)>,
}

/// The folders of a seam.
type Seam = BTreeMap<String, Look>;

impl<'a> Layers<'a> {
    fn open(roots: &'a [(PathBuf, BTreeSet<String>)]) -> Result<Self, LayerError> {
        let open = |(root, implied): &'a (PathBuf, BTreeSet<String>)| Ok((Tree::open(root)?, implied));
        Ok(Self { layers: roots.iter().map(open).collect::<Result<_, LayerError>>()? })
    }

    /// The folders that would not be seen as they should; empty where no seam is needed.
    fn seam(&mut self) -> Result<Seam, LayerError> {
        let implied: BTreeSet<String> = self.layers.iter().flat_map(|(_, implied)| implied.iter().cloned()).collect();
        let mut seam = Seam::new();
        for path in implied {
            let (shown, meant) = (self.look(&path, true)?, self.look(&path, false)?);
            if let (Some(shown), Some(meant)) = (shown, meant)
                && shown != meant
            {
                seam.insert(path.clone(), meant);
                self.add_above(&path, &mut seam)?;
            }
        }
        Ok(seam)
    }

    /// The folders above are in the seam too, and it is they that are seen.
    fn add_above(&mut self, path: &str, seam: &mut Seam) -> Result<(), LayerError> {
        for (at, _) in path.match_indices('/') {
            let above = path.get(..at).unwrap_or_default();
            if let Some(look) = self.look(above, false)? {
                seam.insert(above.to_owned(), look);
            }
        }
        Ok(())
    }

    /// What a folder looks like in the topmost layer that has it; or, not `as_it_is`, in the topmost one that says so.
    fn look(&mut self, path: &str, as_it_is: bool) -> Result<Option<Look>, LayerError> {
        let mut found = None;
        for (tree, implied) in &mut self.layers {
            let (folder, hides) = walk(tree, path)?;
            if let Some(folder) = folder {
                if as_it_is || !implied.contains(path) {
                    return look_of(&folder, path).map(Some);
                }
                found = Some(PLAIN);
            }
            if hides {
                break;
            }
        }
        Ok(found)
    }
}

/// A folder of a layer, where it has it, and whether nothing below the layer is seen under that path.
fn walk(tree: &mut Tree, path: &str) -> Result<(Option<std::rc::Rc<OwnedFd>>, bool), LayerError> {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let (mut folder, mut hides) = (None, false);
    for end in ends {
        let part = path.get(..end).unwrap_or_default().as_bytes();
        match tree.find(part) {
            Ok(Some(found)) => {
                hides |= is_opaque(&found, part)?;
                folder = Some(found);
            }
            // Nothing is there, or what hides the name.
            Ok(None) => {
                let (above, name) = split(part);
                let above = tree.find(above)?;
                let is_hidden = above.is_some_and(|above| tree::kind_of(&above, name).is_ok_and(|kind| kind.is_some()));
                return Ok((None, hides || is_hidden));
            }
            Err(LayerError::Entry { .. }) => return Ok((None, true)),
            Err(error) => return Err(error),
        }
    }
    Ok((folder, hides))
}

fn look_of(folder: &OwnedFd, path: &str) -> Result<Look, LayerError> {
    let stat = rustix::fs::fstat(folder).map_err(failed("look at", path.as_bytes()))?;
    Ok(Look { owner: (stat.st_uid, stat.st_gid), mode: stat.st_mode & 0o7777, mtime: stat.st_mtime })
}

/// Makes the folders of a seam in the empty folder `root`.
fn sew(seam: &Seam, root: &Path) -> Result<(), LayerError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| LayerError::Io { action: "create", path, source }
    };
    for path in seam.keys() {
        let folder = root.join(path);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder).map_err(failed(&folder))?;
    }
    // Deepest first, as what is made in a folder changes its time.
    for (path, look) in seam.iter().rev() {
        let folder = root.join(path);
        let opened = File::open(&folder).map_err(failed(&folder))?;
        if rustix::process::geteuid().is_root() {
            fchown(&opened, Some(look.owner.0), Some(look.owner.1)).map_err(failed(&folder))?;
        }
        let time = Timespec { tv_sec: look.mtime, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        let dressed = rustix::fs::fchmod(opened.as_fd(), Mode::from_raw_mode(look.mode))
            .and_then(|()| rustix::fs::futimens(opened.as_fd(), &times));
        dressed.map_err(|error| failed(&folder)(error.into()))?;
    }
    Ok(())
}

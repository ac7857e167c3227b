//! The base [`Base::Host`](crate::Base::Host): this machine's own system, by allow-list.
//!
//! A skeleton holds what everybody has: empty home folders, `/tmp`, `/var` with the few parts that package tools need.
//! Over the machine's own `/usr`, `/etc` and `/opt` lies a mask: a layer in which everything that is not for everybody
//! is a whiteout. A mask cannot be undone from inside, where a bind mount over a file could be.
//!
//! The machine is looked through once for each server, half a second for a hundred thousand files: only so is a file
//! that was made private, or put anywhere, since the last start not shown. The result is kept under a name that follows
//! from all that it is made of. Everything else of the machine is simply not there.

mod build;
mod scan;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::hex::hex;
use build::{COPIED, FOLDERS};

/// Folders of the machine that a sandbox sees, with a writable layer of their own.
const SHOWN: &[&str] =
    &["/usr", "/etc", "/opt", "/var/lib/dpkg", "/var/lib/apt", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Files and folders in them that are private whatever their permissions say.
const PRIVATE: &[&str] = &[
    "/etc/apt/auth.conf",
    "/etc/apt/auth.conf.d",
    "/etc/docker",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/hob",
    "/etc/hob.toml",
    "/etc/krb5.keytab",
    "/etc/kubernetes",
    "/etc/machine-id",
    "/etc/NetworkManager/system-connections",
    "/etc/rancher",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/ssl/private",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/wireguard",
];

/// What the names of prepared bases begin with.
const PREFIX: &str = "host-";

/// A prepared base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostBase {
    /// The name of its folder.
    pub(crate) name: String,
    /// The lower layer of `/`.
    pub(crate) skeleton: PathBuf,
    /// For each shown folder: its mask and the folder itself.
    pub(crate) shown: Vec<(PathBuf, PathBuf)>,
}

/// A shown folder and everything in it that is not for everybody.
#[derive(Debug)]
struct Shown {
    path: PathBuf,
    hidden: Vec<PathBuf>,
}

/// Looks through the machine and prepares the base in `folder`, or finds it there.
///
/// # Errors
/// A folder of the machine could not be read: a base with holes in its mask is not used.
pub(crate) fn prepare(folder: &Path, links: &[(PathBuf, PathBuf)]) -> Result<HostBase, String> {
    let shown: Vec<PathBuf> = SHOWN.iter().map(PathBuf::from).filter(|path| is_real_folder(path)).collect();
    prepare_of(folder, shown, links)
}

fn prepare_of(folder: &Path, shown: Vec<PathBuf>, links: &[(PathBuf, PathBuf)]) -> Result<HostBase, String> {
    let private: BTreeSet<&Path> = PRIVATE.iter().map(Path::new).collect();
    let look = |path: PathBuf| Ok(Shown { hidden: scan::hidden(&path, &private)?, path });
    let shown = shown.into_iter().map(look).collect::<Result<Vec<_>, String>>()?;
    let name = name(&shown, links);
    let ready = folder.join(&name);
    if !ready.is_dir() {
        let fresh = folder.join(format!("{name}.{}", std::process::id()));
        remove(&fresh)?;
        build::build(&fresh, &shown, links)?;
        match fs::rename(&fresh, &ready) {
            // Another process was faster, and made the same.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => remove(&fresh)?,
            other => other.map_err(|error| format!("create {}: {error}", ready.display()))?,
        }
    }
    let mask = |shown: Shown| (ready.join("mask").join(mask_name(&shown.path)), shown.path);
    Ok(HostBase { skeleton: ready.join("skeleton"), shown: shown.into_iter().map(mask).collect(), name })
}

/// The prepared bases in `folder`, also unfinished ones, but not those in `used`.
pub(crate) fn unused(folder: &Path, used: &BTreeSet<String>) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_unused = |name: &str| name.starts_with(PREFIX) && !used.contains(name);
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_unused)).map(|entry| entry.path()).collect()
}

/// Removes a prepared base. No sandbox that runs may have been made of it: with its mask goes what it hides.
///
/// # Errors
/// A part of it could not be removed.
pub(crate) fn remove(base: &Path) -> Result<(), String> {
    match fs::remove_dir_all(base) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(format!("remove {}: {error}", base.display())),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A name that follows from everything that a base is made of.
fn name(shown: &[Shown], links: &[(PathBuf, PathBuf)]) -> String {
    let mut digest = Sha256::new();
    let who = rustix::process::geteuid().as_raw();
    digest.update(format!("{} {who} {FOLDERS:?} {links:?}", env!("CARGO_PKG_VERSION")));
    for name in COPIED {
        let metadata = fs::symlink_metadata(Path::new("/").join(name)).ok();
        let stamp = metadata.map(|metadata| (metadata.mode(), metadata.ctime(), metadata.ctime_nsec()));
        digest.update(format!("{name} {stamp:?}"));
    }
    for accounts in ["/etc/passwd", "/etc/group"] {
        digest.update(fs::read(accounts).unwrap_or_default());
    }
    for Shown { path, hidden } in shown {
        // The folders above what is hidden are in the mask too, and look like the machine's.
        let above: BTreeSet<&Path> = hidden
            .iter()
            .flat_map(|hidden| hidden.ancestors().skip(1))
            .filter(|above| above.starts_with(path))
            .collect();
        for folder in above.into_iter().chain([path.as_path()]) {
            let stamp =
                fs::symlink_metadata(folder).ok().map(|metadata| (metadata.uid(), metadata.gid(), metadata.mode()));
            digest.update(format!("{} {stamp:?}", folder.display()));
        }
        digest.update(format!("{hidden:?}"));
    }
    format!("{PREFIX}{}", hex(&digest.finalize()[..8]))
}

fn mask_name(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').replace('/', "-")
}

fn is_real_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder that is shown, and one for bases.
    fn machine() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let machine = tempfile::tempdir().unwrap();
        let (shown, bases) = (machine.path().join("usr"), machine.path().join("base"));
        fs::create_dir_all(shown.join("a/b/c/d/e")).unwrap();
        fs::create_dir(&bases).unwrap();
        (machine, shown, bases)
    }

    #[test]
    fn a_second_preparation_finds_the_first() {
        let (_machine, shown, bases) = machine();
        fs::write(shown.join("open"), "x").unwrap();
        let first = prepare_of(&bases, vec![shown.clone()], &[]).unwrap();
        let made = fs::metadata(&first.skeleton).unwrap().ino();
        fs::write(shown.join("a/b/another"), "x").unwrap();
        assert_eq!(prepare_of(&bases, vec![shown], &[]).unwrap(), first, "what everybody may read changes nothing");
        assert_eq!(fs::metadata(&first.skeleton).unwrap().ino(), made);
        assert_eq!(fs::read_dir(&bases).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn a_file_that_became_private_at_any_depth_makes_another_base() {
        let (_machine, shown, bases) = machine();
        let key = shown.join("a/b/c/d/e/key");
        fs::write(&key, "x").unwrap();
        let open = prepare_of(&bases, vec![shown.clone()], &[]).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let closed = prepare_of(&bases, vec![shown.clone()], &[]).unwrap();
        assert_ne!(closed.name, open.name);
        assert_eq!(unused(&bases, &BTreeSet::from([closed.name])), [bases.join(&open.name)]);
        remove(&bases.join(&open.name)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(prepare_of(&bases, vec![shown], &[]).unwrap(), open, "made again, under the name it had");
    }
}

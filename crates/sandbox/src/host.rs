//! The base [`Base::Host`](crate::Base::Host): this machine's own system, by allow-list.
//!
//! A skeleton holds what everybody has: empty home folders, `/tmp`, `/var` with the few parts that package tools need.
//! Over the machine's own `/usr`, `/etc` and `/opt` lies a mask: a layer in which everything that is not for everybody
//! is a whiteout. A mask cannot be undone from inside, where a bind mount over a file could be.
//!
//! As root the machine is looked through for such files, which takes a second; the result is kept under a fingerprint
//! of the folders that were looked through. Everything else of the machine is simply not there.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use sha2::{Digest, Sha256};

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

/// Empty folders of the skeleton, with their permissions.
const FOLDERS: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("root/.cargo", 0o755),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/backups", 0o755),
    ("var/cache", 0o755),
    ("var/cache/apt", 0o755),
    ("var/cache/apt/archives", 0o755),
    ("var/cache/apt/archives/partial", 0o755),
    ("var/cache/debconf", 0o755),
    ("var/lib", 0o755),
    ("var/lib/apt", 0o755),
    ("var/lib/dpkg", 0o755),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/log/apt", 0o755),
    ("var/mail", 0o755),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
    ("workspace", 0o755),
    (".hob", 0o755),
];

/// Parts of `/var` that package scripts read, copied where everybody may read them.
const COPIED: &[&str] = &[
    "var/cache/debconf/config.dat",
    "var/cache/debconf/templates.dat",
    "var/lib/ca-certificates-java",
    "var/lib/misc",
    "var/lib/pam",
    "var/lib/python",
    "var/lib/sgml-base",
    "var/lib/shells.state",
    "var/lib/ucf",
    "var/lib/xml-core",
];

/// The most bytes of one of them.
const COPIED_MAX: u64 = 16 << 20;

/// A prepared base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostBase {
    /// The lower layer of `/`.
    pub(crate) skeleton: PathBuf,
    /// For each shown folder: its mask and the folder itself.
    pub(crate) shown: Vec<(PathBuf, PathBuf)>,
}

/// Prepares the base in `folder`, or finds it there.
///
/// # Errors
/// A folder of the machine could not be read: a base with holes in its mask is not used.
pub(crate) fn prepare(folder: &Path, links: &[(PathBuf, PathBuf)]) -> Result<HostBase, String> {
    let shown: Vec<PathBuf> = SHOWN.iter().map(PathBuf::from).filter(|path| is_real_folder(path)).collect();
    let name = fingerprint(&shown, links);
    let ready = folder.join(format!("host-{name}"));
    if !ready.is_dir() {
        let fresh = folder.join(format!("host-{name}.{}", std::process::id()));
        remove(&fresh)?;
        build(&fresh, &shown, links)?;
        match fs::rename(&fresh, &ready) {
            // Another process was faster, and made the same.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => remove(&fresh)?,
            other => other.map_err(|error| format!("create {}: {error}", ready.display()))?,
        }
    }
    let mask = |path: PathBuf| (ready.join("mask").join(mask_name(&path)), path);
    Ok(HostBase { skeleton: ready.join("skeleton"), shown: shown.into_iter().map(mask).collect() })
}

fn mask_name(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').replace('/', "-")
}

fn is_real_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(format!("remove {}: {error}", folder.display())),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Changes when the machine's packages, or anything in the upper levels of the shown folders, changes.
fn fingerprint(shown: &[PathBuf], links: &[(PathBuf, PathBuf)]) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{} {PRIVATE:?} {FOLDERS:?} {COPIED:?} {links:?}", env!("CARGO_PKG_VERSION")));
    let mut add = |path: &Path| {
        let metadata = fs::symlink_metadata(path).ok();
        let stamp = metadata.map(|m| (m.dev(), m.ino(), m.mode(), m.ctime(), m.ctime_nsec()));
        digest.update(format!("{} {stamp:?}", path.display()));
    };
    add(Path::new("/var/lib/dpkg/status"));
    for path in shown {
        // /etc is small and holds the secrets: each of its files counts. Elsewhere three levels of folders do.
        let depth = if path == Path::new("/etc") { usize::MAX } else { 3 };
        let mut open = vec![(path.clone(), depth)];
        while let Some((folder, depth)) = open.pop() {
            add(&folder);
            let mut entries: Vec<_> = fs::read_dir(&folder).into_iter().flatten().flatten().collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_folder && depth > 1 {
                    open.push((entry.path(), depth - 1));
                } else if depth > 3 {
                    add(&entry.path());
                }
            }
        }
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn build(folder: &Path, shown: &[PathBuf], links: &[(PathBuf, PathBuf)]) -> Result<(), String> {
    let skeleton = folder.join("skeleton");
    build_skeleton(&skeleton, links).map_err(|error| format!("build {}: {error}", skeleton.display()))?;
    let private: BTreeSet<&Path> = PRIVATE.iter().map(Path::new).collect();
    for path in shown {
        let mask = folder.join("mask").join(mask_name(path));
        fs::create_dir_all(&mask).map_err(|error| format!("create {}: {error}", mask.display()))?;
        like(&mask, path).map_err(|error| format!("create {}: {error}", mask.display()))?;
        mask_folder(path, path, &mask, &private)?;
        if path == Path::new("/usr") && !rustix::process::geteuid().is_root() {
            open_local(&mask).map_err(|error| format!("write {}: {error}", mask.display()))?;
        }
        if path == Path::new("/etc") {
            write_public_etc(&mask).map_err(|error| format!("write {}: {error}", mask.display()))?;
        }
    }
    Ok(())
}

fn build_skeleton(skeleton: &Path, links: &[(PathBuf, PathBuf)]) -> std::io::Result<()> {
    fs::create_dir_all(skeleton)?;
    fs::set_permissions(skeleton, fs::Permissions::from_mode(0o755))?;
    for (name, mode) in FOLDERS {
        fs::create_dir_all(skeleton.join(name))?;
        fs::set_permissions(skeleton.join(name), fs::Permissions::from_mode(*mode))?;
    }
    for (name, target) in [("var/run", "/run"), ("var/lock", "/run/lock")] {
        std::os::unix::fs::symlink(target, skeleton.join(name))?;
    }
    for path in SHOWN.iter().map(Path::new) {
        let inside = skeleton.join(path.strip_prefix("/").unwrap_or(path));
        match fs::read_link(path) {
            Ok(target) => std::os::unix::fs::symlink(target, inside)?,
            Err(_) if is_real_folder(path) => fs::create_dir_all(inside)?,
            Err(_) => {}
        }
    }
    for name in COPIED {
        copy_public(&Path::new("/").join(name), &skeleton.join(name), &mut COPIED_MAX.clone())?;
    }
    for (link, target) in links {
        let inside = skeleton.join(link.strip_prefix("/").unwrap_or(link));
        fs::create_dir_all(inside.parent().unwrap_or(&inside))?;
        std::os::unix::fs::symlink(target, inside)?;
    }
    Ok(())
}

/// Copies what everybody may read, up to a number of bytes.
fn copy_public(from: &Path, to: &Path, left: &mut u64) -> std::io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(from) else { return Ok(()) };
    if metadata.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if metadata.mode() & 0o004 == 0 || metadata.len() > *left {
        return Ok(());
    }
    if metadata.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy_public(&entry.path(), &to.join(entry.file_name()), left)?;
        }
    } else if metadata.is_file() {
        *left -= metadata.len();
        fs::copy(from, to)?;
    }
    Ok(())
}

/// Puts a whiteout into the mask for everything below `folder` that is not for everybody.
fn mask_folder(folder: &Path, shown: &Path, mask: &Path, private: &BTreeSet<&Path>) -> Result<(), String> {
    let failed = |path: &Path, error: std::io::Error| format!("look through {}: {error}", path.display());
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // What we cannot read, the sandbox cannot read either, being no more than we are.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => continue,
            Err(error) => return Err(failed(&folder, error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| failed(&folder, error))?;
            let path = entry.path();
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&path, error)),
            };
            if !is_public(&metadata) || private.contains(path.as_path()) {
                hide(&path, shown, mask).map_err(|error| format!("mask {}: {error}", path.display()))?;
            } else if metadata.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(())
}

/// Whether everybody may read it. Sockets, pipes and devices lead to other programs, so they are not.
fn is_public(metadata: &fs::Metadata) -> bool {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return true;
    }
    let wanted = if kind.is_dir() { 0o005 } else { 0o004 };
    (kind.is_dir() || kind.is_file()) && metadata.mode() & wanted == wanted
}

/// A whiteout: a character device 0/0, which needs no privilege. The folders above it shine through and have to look
/// like the ones below, since the topmost layer says what a merged folder's owner and permissions are.
fn hide(path: &Path, shown: &Path, mask: &Path) -> std::io::Result<()> {
    let below = path.strip_prefix(shown).map_err(std::io::Error::other)?;
    let mut real = shown.to_owned();
    let mut copy = mask.to_owned();
    for part in below.parent().unwrap_or(Path::new("")) {
        real.push(part);
        copy.push(part);
        if !copy.exists() {
            fs::create_dir(&copy)?;
            like(&copy, &real)?;
        }
    }
    rustix::fs::mknodat(CWD, mask.join(below), FileType::CharacterDevice, Mode::empty(), 0)?;
    Ok(())
}

/// Gives a folder the owner and permissions of another one, as far as this process may.
fn like(copy: &Path, real: &Path) -> std::io::Result<()> {
    let metadata = fs::metadata(real)?;
    match std::os::unix::fs::chown(copy, Some(metadata.uid()), Some(metadata.gid())) {
        // Without root every folder of the mask is ours, so that a sandbox's root can write to it.
        Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::set_permissions(copy, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

/// Without root the machine's folders belong to nobody inside, and only one that is also in the mask can be written to.
/// So packages of the machine cannot be replaced, but programs can be put beside them.
fn open_local(mask: &Path) -> std::io::Result<()> {
    for name in ["bin", "etc", "include", "lib", "sbin", "share", "src"] {
        let folder = mask.join("local").join(name);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(mask.join("local"), fs::Permissions::from_mode(0o755))
}

/// Harmless files in place of private ones that programs expect.
fn write_public_etc(mask: &Path) -> std::io::Result<()> {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let names = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
    };
    let shadow: String = names(&accounts).iter().map(|name| format!("{name}:*:19000:0:99999:7:::\n")).collect();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let gshadow: String = names(&groups).iter().map(|name| format!("{name}:*::\n")).collect();
    let files = [
        ("shadow", shadow, 0o640),
        ("gshadow", gshadow, 0o640),
        ("machine-id", String::new(), 0o444),
        ("hostname", "sandbox\n".to_owned(), 0o644),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned(), 0o644),
        ("resolv.conf", "# There is no name server: the gateway looks names up.\n".to_owned(), 0o644),
    ];
    for (name, text, mode) in files {
        let path = mask.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_hides_what_is_not_for_everybody_and_nothing_else() {
        let machine = tempfile::tempdir().unwrap();
        let (shown, mask) = (machine.path().join("etc"), machine.path().join("mask"));
        let write = |name: &str, mode: u32| {
            let path = shown.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("open", 0o644);
        write("deep/er/key", 0o600);
        write("deep/er/open", 0o644);
        write("closed/inside", 0o644);
        fs::set_permissions(shown.join("closed"), fs::Permissions::from_mode(0o710)).unwrap();
        write("named", 0o644);
        fs::create_dir(&mask).unwrap();
        let named = shown.join("named");
        mask_folder(&shown, &shown, &mask, &BTreeSet::from([named.as_path()])).unwrap();
        let is_whiteout =
            |name: &str| fs::symlink_metadata(mask.join(name)).is_ok_and(|m| m.rdev() == 0 && !m.is_dir());
        assert!(is_whiteout("deep/er/key") && is_whiteout("closed") && is_whiteout("named"));
        assert!(!mask.join("open").exists() && !mask.join("deep/er/open").exists());
    }

    #[test]
    fn a_second_preparation_finds_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = prepare(folder.path(), &[]).unwrap();
        let made = fs::metadata(&first.skeleton).unwrap().ino();
        assert_eq!(prepare(folder.path(), &[]).unwrap(), first);
        assert_eq!(fs::metadata(&first.skeleton).unwrap().ino(), made);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
    }
}

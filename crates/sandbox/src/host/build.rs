//! Builds a base: the skeleton, and a mask for each folder that is shown.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};

use super::{SHOWN, Shown, is_real_folder, mask_name};

/// Empty folders of the skeleton, with their permissions.
pub(super) const FOLDERS: &[(&str, u32)] = &[
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
pub(super) const COPIED: &[&str] = &[
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

/// Builds a base in `folder`.
///
/// # Errors
/// A part of it could not be written.
pub(super) fn build(folder: &Path, shown: &[Shown], links: &[(PathBuf, PathBuf)]) -> Result<(), String> {
    let skeleton = folder.join("skeleton");
    build_skeleton(&skeleton, links).map_err(|error| format!("build {}: {error}", skeleton.display()))?;
    for Shown { path, hidden } in shown {
        let mask = folder.join("mask").join(mask_name(path));
        build_mask(&mask, path, hidden).map_err(|error| format!("build {}: {error}", mask.display()))?;
    }
    Ok(())
}

fn build_mask(mask: &Path, path: &Path, hidden: &[PathBuf]) -> std::io::Result<()> {
    fs::create_dir_all(mask)?;
    like(mask, path)?;
    for hidden in hidden {
        match hide(hidden, path, mask) {
            // Gone since it was seen, with the folder that it was in.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
    }
    if path == Path::new("/usr") && !rustix::process::geteuid().is_root() {
        open_local(mask)?;
    }
    if path == Path::new("/etc") {
        write_public_etc(mask)?;
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

//! Looks through a folder of the machine for what is not for everybody.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Everything below `shown` that is not for everybody, in order; what is below a hidden folder is hidden with it.
///
/// # Errors
/// A folder could not be read.
pub(super) fn hidden(shown: &Path, private: &BTreeSet<&Path>) -> Result<Vec<PathBuf>, String> {
    let failed = |path: &Path, error: std::io::Error| format!("look through {}: {error}", path.display());
    let mut hidden = Vec::new();
    let mut open = vec![shown.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // What we cannot read, the sandbox cannot read either, being no more than we are.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => continue,
            Err(error) if error.kind() == ErrorKind::NotFound && folder != shown => continue,
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
                hidden.push(path);
            } else if metadata.is_dir() {
                open.push(path);
            }
        }
    }
    hidden.sort_unstable();
    Ok(hidden)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_not_for_everybody_is_found_and_nothing_else() {
        let machine = tempfile::tempdir().unwrap();
        let shown = machine.path().join("etc");
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
        let named = shown.join("named");
        let found = hidden(&shown, &BTreeSet::from([named.as_path()])).unwrap();
        assert_eq!(found, [shown.join("closed"), shown.join("deep/er/key"), named]);
    }
}

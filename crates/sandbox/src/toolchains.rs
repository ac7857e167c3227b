//! Developer toolchains that live in the home folder of the server's user, offered read-only.
//!
//! They are mounted below `/opt/hob/toolchains`, and a link leads there from where they were: their scripts name their
//! interpreter by its full path. Only the folders with programs are taken, never a file with credentials.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::spec::Mount;

/// Where they are inside.
const FOLDER: &str = "/opt/hob/toolchains";

/// A folder below the home folder, and the folders in it that belong on the `PATH`.
const KNOWN: &[(&str, &[&str])] = &[
    (".rustup", &[]),
    (".cargo/bin", &[""]),
    (".pyenv", &["shims", "bin"]),
    (".nvm/versions", &[]),
    (".fnm/node-versions", &[]),
    (".volta/tools", &[]),
    (".volta/bin", &[""]),
    (".deno/bin", &[""]),
    (".bun/bin", &[""]),
    (".sdkman/candidates", &["java/current/bin", "maven/current/bin", "gradle/current/bin"]),
    (".local/share/uv/python", &[]),
    ("go/bin", &[""]),
];

/// The toolchains of this machine's user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Toolchains {
    /// What to mount.
    pub(crate) mounts: Vec<Mount>,
    /// Links of the root: where, and to what.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// Folders for the beginning of the `PATH`.
    pub(crate) path: Vec<String>,
    /// Variables that they need.
    pub(crate) env: BTreeMap<String, String>,
}

/// Finds the toolchains below a home folder.
pub(crate) fn find(home: &Path) -> Toolchains {
    let mut found = Toolchains::default();
    for (name, programs) in KNOWN {
        let source = home.join(name);
        if !source.is_dir() {
            continue;
        }
        let target = format!("{FOLDER}/{}", name.trim_start_matches('.').replace('/', "-"));
        for folder in preferred(&source, name).iter().map(String::as_str).chain(programs.iter().copied()) {
            if source.join(folder).is_dir() {
                found.path.push(format!("{target}/{folder}").trim_end_matches('/').to_owned());
            }
        }
        if *name == ".rustup" {
            found.env.insert("RUSTUP_HOME".to_owned(), target.clone());
        }
        // A folder that the sandbox has of its own cannot also be a link.
        if *name != ".cargo/bin" && source != Path::new("/") {
            found.links.push((source.clone(), PathBuf::from(&target)));
        }
        found.mounts.push(Mount { source, target: PathBuf::from(target) });
    }
    if found.env.contains_key("RUSTUP_HOME") {
        found.env.insert("CARGO_HOME".to_owned(), "/root/.cargo".to_owned());
        found.env.insert("RUSTUP_AUTO_INSTALL".to_owned(), "0".to_owned());
    }
    found
}

/// Folders with the programs of the versions that the user has chosen.
fn preferred(source: &Path, name: &str) -> Vec<String> {
    let read = |file: &str| std::fs::read_to_string(source.join(file)).unwrap_or_default();
    match name {
        ".pyenv" => read("version").split_whitespace().map(|version| format!("versions/{version}/bin")).collect(),
        ".nvm/versions" => {
            let alias = read("../alias/default");
            newest(&source.join("node"), alias.trim())
                .map(|version| format!("node/{version}/bin"))
                .into_iter()
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The newest version whose name begins like the alias, such as `20` or `v20.1`.
fn newest(folder: &Path, alias: &str) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let numbers =
        |name: &str| -> Vec<u64> { name.trim_start_matches('v').split('.').filter_map(|n| n.parse().ok()).collect() };
    let wanted = numbers(alias);
    names.filter(|name| numbers(name).starts_with(&wanted)).max_by_key(|name| numbers(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_versions_come_first_and_credentials_stay_behind() {
        let home = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(home.path().join(path)).unwrap();
        make(".cargo/bin");
        make(".rustup/toolchains");
        make(".pyenv/versions/3.11.7/bin");
        make(".pyenv/shims");
        make(".nvm/alias");
        make(".nvm/versions/node/v18.20.0/bin");
        make(".nvm/versions/node/v20.9.0/bin");
        make(".nvm/versions/node/v20.10.0/bin");
        std::fs::write(home.path().join(".pyenv/version"), "3.11.7\n").unwrap();
        std::fs::write(home.path().join(".nvm/alias/default"), "20\n").unwrap();
        std::fs::write(home.path().join(".cargo/credentials.toml"), "secret").unwrap();
        let found = find(home.path());
        assert_eq!(
            found.path,
            [
                "/opt/hob/toolchains/cargo-bin",
                "/opt/hob/toolchains/pyenv/versions/3.11.7/bin",
                "/opt/hob/toolchains/pyenv/shims",
                "/opt/hob/toolchains/nvm-versions/node/v20.10.0/bin",
            ]
        );
        assert!(
            found.mounts.iter().all(|mount| !home.path().join(".cargo/credentials.toml").starts_with(&mount.source))
        );
        assert_eq!(found.env["RUSTUP_HOME"], "/opt/hob/toolchains/rustup");
    }
}

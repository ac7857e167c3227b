//! Agents as `hob agent install` fetches them from npm, kept between test runs.
//!
//! They lie in `HOB_AGENTS_DIR`, or else in `target/agents`, where the tests of the driver keep theirs too. A lock for
//! each agent makes tests wait for each other, and a file `complete` tells a toolchain from what was left of a run that
//! was interrupted.

use std::path::{Path, PathBuf};
use std::process::Command;

use hob_agent::catalogue::{Entry, InstallPlan};

/// The folder of all toolchains, with this one in it.
pub fn toolchains_with(entry: &Entry) -> PathBuf {
    let root = std::env::var_os("HOB_AGENTS_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/agents"), PathBuf::from);
    std::fs::create_dir_all(&root).expect("a folder for agents");
    let root = root.canonicalize().expect("it was just made");
    let plan = entry.install_plan();
    let lock = std::fs::File::create(root.join(format!("{}.lock", plan.folder))).expect("a lock");
    lock.lock().expect("locked");
    let folder = root.join(&plan.folder);
    if !is_complete(&folder, &plan) {
        if folder.exists() {
            std::fs::remove_dir_all(&folder).expect("the rest of an earlier run is removed");
        }
        install(entry.name, &root);
        std::fs::write(folder.join("complete"), "").expect("written");
    }
    root
}

fn is_complete(folder: &Path, plan: &InstallPlan) -> bool {
    let is_same = |(name, text): &(&str, &str)| std::fs::read_to_string(folder.join(name)).is_ok_and(|t| t == *text);
    folder.join("complete").exists() && plan.files.iter().all(is_same)
}

/// `hob agent install`, into this folder of toolchains.
fn install(agent: &str, toolchains: &Path) {
    let data = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(toolchains, data.path().join("agents")).expect("a link");
    let install = Command::new(env!("CARGO_BIN_EXE_hob"))
        .args(["agent", "install", agent])
        .env("HOB_DATA_DIR", data.path())
        .env("HOB_CONFIG", "/dev/null")
        .output()
        .expect("hob starts");
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
}

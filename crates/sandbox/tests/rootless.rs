//! Sandboxes without root: this program is started again as an ordinary user with borrowed IDs.
//!
//! As root the test makes that user for itself and removes it; as an ordinary user it is that user.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;
#[path = "images/house.rs"]
mod house;
#[path = "images/made.rs"]
mod made;
#[path = "images/registry.rs"]
mod registry;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{Bench, ok, spec};
use hob_sandbox::{Limit, Local, Provider, Spec, Token};
use house::{House, on};
use made::{Layer, tools};

/// A user of this machine with a range of IDs, gone when the test is.
struct User(String);

impl User {
    fn make() -> Self {
        let name = format!("hobtest{}", std::process::id());
        sh(&format!("useradd --create-home --shell /bin/bash {name}"));
        sh(&format!("usermod --add-subuids 700000-765535 --add-subgids 700000-765535 {name}"));
        Self(name)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        sh(&format!("pkill -KILL -U {0}; userdel --remove {0} 2>&1", self.0));
    }
}

fn sh(line: &str) {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}

#[tokio::test]
async fn an_ordinary_user_has_sandboxes_too() {
    if !rustix::process::geteuid().is_root() {
        return as_an_ordinary_user().await;
    }
    let user = User::make();
    // The build folder may be closed to others, so the user gets a copy of this program.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("rootless");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let line = format!(
        "cd /; TMPDIR=/home/{} HOME=/home/{} exec {} --exact as_the_user --nocapture",
        user.0,
        user.0,
        program.display()
    );
    let output = Command::new("su")
        .args([user.0.as_str(), "-c", &format!("HOB_TEST_ROOTLESS=1 sh -c '{line}'")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

/// The user's part of the test above.
#[tokio::test]
async fn as_the_user() {
    if std::env::var_os("HOB_TEST_ROOTLESS").is_some() {
        as_an_ordinary_user().await;
        an_image_of_an_ordinary_user().await;
        a_gate_of_an_ordinary_user().await;
    }
}

async fn an_image_of_an_ordinary_user() {
    let (house, bench) = (House::new(), Bench::new().await);
    let below = Layer::new().file("hidden", 0o644, "x").folder("shut", 0o500).file("shut/file", 0o400, "shut");
    let above = Layer::new().without("hidden").owner(33, 33).file("srv/theirs", 0o4755, "x");
    let rootfs = house.image([tools(), below, above]).await;
    let note = "1 files belong to root inside, as their owners cannot be kept without root on this machine";
    assert_eq!(rootfs.notes, [note]);
    let sandbox = bench.create(on(&rootfs)).await;
    assert_eq!(ok(&sandbox, "cat /shut/file; ls /hidden 2>/dev/null || echo ' hidden'").await, "shut hidden");
    assert_eq!(ok(&sandbox, "stat -c '%a %u' /srv/theirs; echo y > /shut/more; cat /shut/more").await, "4755 0\ny");
    bench.close().await;
}

async fn a_gate_of_an_ordinary_user() {
    let (house, bench) = (House::new(), Bench::new().await);
    let rootfs = house.image([tools(), Layer::new().file("workspace/file", 0o644, "image\n")]).await;
    let sandbox = bench.create_closed(on(&rootfs)).await;
    common::fails(&sandbox, "echo x > /workspace/file").await;
    let writer = bench.local.writer(sandbox.id(), Token("writer".to_owned())).await;
    let writer = writer.unwrap_or_else(|error| panic!("failed to {error}"));
    ok(&writer, "echo synced > /workspace/file").await;
    bench.local.open_gate(sandbox.id()).await.unwrap_or_else(|error| panic!("failed to {error}"));
    assert_eq!(ok(&sandbox, "cat /workspace/file; echo mine > /workspace/file").await, "synced");
    bench.close().await;
}

async fn as_an_ordinary_user() {
    let bench = Bench::new().await;
    let workspace = bench.folder.path().join("checkout");
    std::fs::create_dir(&workspace).unwrap();
    std::fs::write(workspace.join("file"), "host\n").unwrap();
    let sandbox = bench.create(Spec { workspace: Some(workspace.clone()), ..spec("rootless") }).await;
    assert_eq!(ok(&sandbox, "id -u; stat -c %u /workspace/file").await, "0\n0");
    ok(
        &sandbox,
        "echo sandbox > /workspace/file && echo x > /usr/local/bin/made && echo x > /etc/made && echo x > /root/made",
    )
    .await;
    assert_eq!(std::fs::read_to_string(workspace.join("file")).unwrap(), "host\n");
    // Other users exist, as packages and databases want them.
    ok(&sandbox, "chown 1000:1000 /workspace/file && setpriv --reuid 1000 --clear-groups test -O /workspace/file")
        .await;
    assert_ne!(common::run(&sandbox, "cat /etc/shadow-").await.code, 0);
    assert_eq!(ok(&sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await, "lo");
    // What cannot be held is said, not left out.
    let unheld = bench.local.capabilities().unheld;
    if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert!(unheld.iter().any(|(limit, reason)| *limit == Limit::Memory && !reason.is_empty()), "{unheld:?}");
    }
    bench.local.destroy(sandbox.id()).await.unwrap();
    bench.close().await;
    let bench_folder = tempfile::tempdir().unwrap();
    let findings = Local::probe(bench_folder.path()).await;
    let ranges = findings.iter().find(|finding| finding.name == "user ID ranges").unwrap();
    assert_eq!(ranges.detail, "65536 IDs from /etc/subuid");
}

//! What a sandbox has written is frozen, comes back, is shared, and is never taken for whole when it is not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Bench, MAKE, id, look, ok, spec};
use hob_sandbox::{LayerId, Provider, Snapshot, Spec};

async fn snapshot(bench: &Bench, name: &str) -> Snapshot {
    bench.local.snapshot(&id(name)).await.unwrap_or_else(|error| panic!("failed to {error}"))
}

fn tree(bench: &Bench, layer: &LayerId) -> std::path::PathBuf {
    bench.data().join("layers").join(layer.as_str()).join("tree")
}

/// Forgets that the layers were verified in this boot, as the next boot does.
fn boot_again(bench: &Bench) {
    for entry in std::fs::read_dir(bench.data().join("layers")).unwrap().flatten() {
        std::fs::remove_file(entry.path().join("verified")).ok();
    }
}

#[tokio::test]
async fn files_of_every_kind_come_back_as_they_were() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("back").await;
    ok(&sandbox, MAKE).await;
    let before = look(&sandbox).await;
    let taken = snapshot(&bench, "back").await;
    assert!(taken.bytes >= 300_000 && taken.entries > 10, "{taken:?}");
    boot_again(&bench);
    let again = bench.sandbox("back").await;
    assert_eq!(look(&again).await, before);
    assert_eq!(again.lost(), None);
    bench.close().await;
}

#[tokio::test]
async fn a_fork_goes_on_from_a_snapshot_and_neither_sees_the_other() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("one").await;
    ok(&sandbox, &format!("{MAKE}; echo installed > /usr/local/tool; rm /etc/hostname; echo me >> /etc/passwd")).await;
    let taken = snapshot(&bench, "one").await;
    let fork = bench.create(Spec { layers: taken.layers, ..spec("two") }).await;
    let one = bench.sandbox("one").await;
    assert_eq!(look(&fork).await, look(&one).await);
    assert_eq!(ok(&fork, "cat /usr/local/tool; ls /etc/hostname 2>&1 | grep -c 'No such'").await, "installed\n1");
    ok(&fork, "echo fork > /workspace/deep/er/one; rm -r /workspace/.cache; chown 77 /workspace/big").await;
    assert_eq!(ok(&one, "cat /workspace/deep/er/one /workspace/hard; stat -c %u /workspace/big").await, "one\none\n0");
    ok(&one, "test -d /workspace/.cache").await;
    bench.close().await;
}

#[tokio::test]
async fn a_fork_outlives_what_it_was_forked_from_and_nothing_else_does() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("origin").await;
    ok(&sandbox, "echo kept > /workspace/kept").await;
    let taken = snapshot(&bench, "origin").await;
    let fork = bench.create(Spec { layers: taken.layers.clone(), ..spec("fork") }).await;
    bench.local.pin(&id("image"), &taken.layers).await.unwrap();
    bench.local.destroy(&id("origin")).await.unwrap();
    assert_eq!(ok(&fork, "cat /workspace/kept").await, "kept");
    bench.local.destroy(&id("fork")).await.unwrap();
    let layers = || std::fs::read_dir(bench.data().join("layers")).unwrap().count();
    assert_eq!(layers(), 1, "the pin keeps its layer");
    bench.local.unpin(&id("image")).await.unwrap();
    assert_eq!(layers(), 0);
    let gone = bench.local.create(Spec { layers: taken.layers, ..spec("late") }).await;
    assert!(gone.unwrap_err().to_string().contains("origin.1"), "the error names the layer");
    std::fs::create_dir(bench.data().join("sandboxes/odd")).unwrap();
    std::fs::write(bench.data().join("sandboxes/odd/record.json"), "torn").unwrap();
    let again = hob_sandbox::Local::open(hob_sandbox::LocalConfig::new(bench.data())).await;
    assert!(again.is_ok(), "a record that nobody understands keeps no server from starting");
    bench.close().await;
}

#[tokio::test]
async fn many_snapshots_are_merged_and_nothing_comes_back_or_goes() {
    let bench = Bench::new().await;
    let mut expected = String::new();
    let mut named = std::collections::BTreeSet::new();
    for round in 0..35 {
        let sandbox = bench.sandbox("long").await;
        if round > 0 {
            assert_eq!(look(&sandbox).await, expected, "round {round}");
        }
        let change = format!(
            "cd /workspace; mkdir -p d$(({round} % 5)); echo {round} > d$(({round} % 5))/f{round}; rm -rf d$((({round} + 2) % 5)); \
             rm -f file; test $(({round} % 2)) = 0 && mkdir -p file && rm -r file && echo {round} > file; \
             test $(({round} % 7)) != 3 || {{ rm -rf file; mkdir file; echo in > file/in; }}; true"
        );
        ok(&sandbox, &change).await;
        expected = look(&sandbox).await;
        let taken = snapshot(&bench, "long").await;
        assert!(taken.layers.len() <= 32, "{}", taken.layers.len());
        assert!(named.insert(taken.layers[0].clone()), "{} stands for two contents", taken.layers[0]);
    }
    bench.close().await;
}

/// A change to a layer's files on disk, as a crash of the machine or a worn disk makes it.
type Tear = fn(&Path);

const TEARS: [(&str, Tear); 6] = [
    ("a file is cut", |layer| cut(&layer.join("tree/root/workspace/second"), 3)),
    ("a file is empty", |layer| cut(&layer.join("tree/root/workspace/second"), 0)),
    ("a file is gone", |layer| std::fs::remove_file(layer.join("tree/root/workspace/second")).unwrap()),
    ("a file is other than it was", |layer| {
        std::fs::write(layer.join("tree/root/workspace/second"), "twice\n").unwrap();
    }),
    ("the manifest is cut", |layer| cut(&layer.join("manifest.json"), 20)),
    ("a mode is lost", |layer| {
        std::fs::set_permissions(layer.join("tree/root/workspace/second"), PermissionsExt::from_mode(0o000)).unwrap();
    }),
];

fn cut(file: &Path, length: u64) {
    std::fs::File::options().write(true).open(file).unwrap().set_len(length).unwrap();
}

#[tokio::test]
async fn a_torn_snapshot_is_told_and_the_one_before_it_is_used() {
    let bench = Bench::new().await;
    for (number, (what, tear)) in TEARS.into_iter().enumerate() {
        let name = format!("torn-{number}");
        ok(&bench.sandbox(&name).await, "echo first > /workspace/first").await;
        snapshot(&bench, &name).await;
        ok(&bench.sandbox(&name).await, "printf 'second\\n' > /workspace/second").await;
        let taken = snapshot(&bench, &name).await;
        tear(tree(&bench, &taken.layers[0]).parent().unwrap());
        boot_again(&bench);

        let again = bench.sandbox(&name).await;
        assert_eq!(ok(&again, "ls -A /workspace").await, "first", "{what}");
        let told = again.lost().unwrap();
        assert!(told.contains(taken.layers[0].as_str()) && told.contains("the snapshot before it"), "{what}: {told}");
        snapshot(&bench, &name).await;
        assert_eq!(bench.sandbox(&name).await.lost(), None, "what was told is not told again");
    }
    bench.close().await;
}

#[tokio::test]
async fn a_sandbox_that_was_only_suspended_keeps_its_open_layer() {
    let bench = Bench::new().await;
    ok(&bench.sandbox("open").await, "echo x > /workspace/x").await;
    bench.local.suspend(&id("open")).await.unwrap();
    ok(&bench.sandbox("open").await, "test -f /workspace/x").await;
    let taken = snapshot(&bench, "open").await;
    assert_eq!(taken.layers.len(), 1);
    let again = snapshot(&bench, "open").await;
    assert_eq!(again.layers, taken.layers, "a second snapshot of the same adds nothing");
    bench.close().await;
}

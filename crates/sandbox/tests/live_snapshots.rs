//! A sandbox that runs is frozen for a moment, copied as it is in that moment, and runs on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Bench, id, ok, spec};
use hob_sandbox::{Command, Provider, Sandbox, SandboxError, Snapshot, Spec};

async fn live(bench: &Bench, name: &str) -> Snapshot {
    let taken = bench.local.snapshot_live(&id(name)).await.unwrap_or_else(|error| panic!("failed to {error}"));
    assert!(taken.paused_ms.is_none_or(|paused_ms| paused_ms < 5_000), "{taken:?}");
    taken.snapshot
}

async fn fork(bench: &Bench, name: &str, snapshot: &Snapshot) -> Sandbox {
    bench.create(Spec { layers: snapshot.layers.clone(), ..spec(name) }).await
}

#[tokio::test]
async fn a_sandbox_is_frozen_for_a_moment_and_another_goes_on_from_there() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("runs").await;
    ok(&sandbox, common::MAKE).await;
    let mut ticking = sandbox.exec(Command::shell("while echo x; do sleep 0.01; done").cwd("/")).await.unwrap();
    let before = common::look(&sandbox).await;
    let taken = live(&bench, "runs").await;
    assert!(taken.bytes >= 300_000 && taken.entries > 10, "{taken:?}");
    ok(&sandbox, "echo later > /workspace/later; rm /workspace/big; mv /workspace/deep /workspace/moved").await;
    let fork = fork(&bench, "fork", &taken).await;
    assert_eq!(common::look(&fork).await, before);
    assert_eq!(ok(&fork, "stat -c %h /workspace/hard").await, "2", "two names of one file are that in the copy");
    assert!(ticking.next().await.is_some(), "what ran runs on");
    ok(&sandbox, "test -f /workspace/later && test ! -e /workspace/big").await;
    bench.close().await;
}

#[tokio::test]
async fn whatever_is_written_meanwhile_a_copy_is_of_one_moment() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("busy").await;
    // The second counter is never ahead of the first, and never more than one behind: whoever sees it otherwise sees two
    // moments. Folders and links come and go beside it, and a file that is mapped is written to without a call.
    let work = "cd /workspace; mkdir a b; seq 200 | split -l 1 -a 4 - a/f; n=0; while :; do n=$((n+1)); \
                echo $n > first; echo $n > second; rm -rf c; mkdir c; ln first c/$n; ln -sfn c d; mv a e; mv e a; sleep 0.001; done";
    let mapped = "python3 -c \"import mmap, time; f = open('/workspace/mapped', 'w+b'); f.truncate(8192); m = mmap.mmap(f.fileno(), 8192)\nn = 0\n\
                  while True:\n n += 1; time.sleep(0.0001); m[0:8] = n.to_bytes(8, 'big'); m[4096:4104] = n.to_bytes(8, 'big')\"";
    let _work = sandbox.exec(Command::shell(work).cwd("/")).await.unwrap();
    let _mapped = sandbox.exec(Command::shell(mapped).cwd("/")).await.unwrap();
    ok(&sandbox, "until test -s /workspace/second && test -s /workspace/mapped; do sleep 0.01; done").await;
    let mut last = 0;
    for round in 0..6 {
        let fork = fork(&bench, &format!("fork-{round}"), &live(&bench, "busy").await).await;
        let read = "cd /workspace; echo $(cat first)x $(cat second)x $(ls a e 2>/dev/null | grep -c f) $(od -An -t u8 --endian=big -j 0 -N 8 mapped) \
                    $(od -An -t u8 --endian=big -j 4096 -N 8 mapped)";
        let numbers: Vec<i64> =
            ok(&fork, read).await.split(' ').map(|word| word.trim_end_matches('x').parse().unwrap_or(-1)).collect();
        let [first, second, files, one, other] = numbers[..] else { panic!("{numbers:?}") };
        // A shell empties a file before it writes to it.
        assert!(first < 0 || second < 0 || (0..=1).contains(&(first - second)), "{numbers:?}");
        assert!((0..=1).contains(&(one - other)) && one > last, "what is mapped is of one moment too: {numbers:?}");
        assert_eq!(files, 200, "{numbers:?}");
        last = one;
    }
    bench.close().await;
}

#[tokio::test]
async fn where_nothing_was_written_the_last_one_is_still_it() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("same").await;
    ok(&sandbox, "mkdir /workspace/a; echo x > /workspace/a/x; echo z > /workspace/z").await;
    // So that what was written lies before the copy for certain.
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let (one, two) = (live(&bench, "same").await, live(&bench, "same").await);
            if one.layers == two.layers {
                return;
            }
        }
    })
    .await
    .unwrap();
    let kept = live(&bench, "same").await;
    ok(&sandbox, "rm /workspace/a/x").await;
    ok(&sandbox, "echo y > /workspace/y").await;
    let next = live(&bench, "same").await;
    assert_ne!(next.layers, kept.layers);
    assert_eq!(ok(&fork(&bench, "next", &next).await, "cat /workspace/y /workspace/z; ls /workspace/a").await, "y\nz");
    bench.local.destroy(&id("next")).await.unwrap();
    let layers = || std::fs::read_dir(bench.data().join("layers")).unwrap().count();
    assert_eq!(layers(), 2, "the layer that is written to, and the last copy");
    bench.local.pin(&id("turn-1"), &next.layers).await.unwrap();
    let stopped = bench.local.snapshot(&id("same")).await.unwrap();
    assert_eq!(layers(), 2, "a pin keeps a live snapshot");
    bench.local.unpin(&id("turn-1")).await.unwrap();
    assert_eq!((layers(), stopped.layers.len()), (1, 1));
    bench.close().await;
}

#[tokio::test]
async fn a_folder_that_becomes_a_link_meanwhile_leads_the_copy_nowhere() {
    let bench = Bench::new().await;
    let host = bench.folder.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("key"), "of the host").unwrap();
    let sandbox = bench.sandbox("swap").await;
    let swap = format!(
        "cd /workspace; mkdir d; echo own > d/key; ln -s {0} l; ln -s {0}/key k; \
         while :; do mv -T d x; mv -T l d; mv -T d l; mv -T x d; mv d/key y; mv k d/key; mv d/key k; mv y d/key; done",
        host.display()
    );
    let _swaps = sandbox.exec(Command::shell(swap).cwd("/")).await.unwrap();
    for _ in 0..10 {
        let taken = live(&bench, "swap").await;
        let tree = bench.data().join("layers").join(taken.layers[0].as_str()).join("tree");
        let found = std::process::Command::new("grep").args(["-rl", "of the host"]).arg(&tree).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    }
    bench.close().await;
}

#[tokio::test]
async fn what_a_killed_server_left_frozen_goes_on_with_the_next() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("stuck").await;
    let record = std::fs::read(bench.data().join("sandboxes/stuck/record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let groups = record["groups"].as_array().unwrap().iter().map(|group| Path::new(group.as_str().unwrap()));
    let (state, frozen) = [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")]
        .into_iter()
        .find_map(|(file, frozen)| {
            Some((groups.clone().map(|group| group.join(file)).find(|state| state.exists())?, frozen))
        })
        .expect("this machine has a freezer");
    std::fs::write(&state, frozen).unwrap();
    let next = hob_sandbox::Local::open(hob_sandbox::LocalConfig::new(bench.data())).await.unwrap();
    assert_ne!(std::fs::read_to_string(&state).unwrap().trim(), frozen);
    ok(&sandbox, "true").await;
    next.destroy(&id("stuck")).await.unwrap();
    bench.close().await;
}

#[tokio::test]
async fn one_that_does_not_run_is_refused() {
    let bench = Bench::new().await;
    bench.sandbox("rests").await;
    bench.local.suspend(&id("rests")).await.unwrap();
    for name in ["rests", "never-made"] {
        let refused = bench.local.snapshot_live(&id(name)).await.unwrap_err();
        assert!(matches!(refused, SandboxError::NotFound { .. }), "{refused}");
    }
    bench.close().await;
}

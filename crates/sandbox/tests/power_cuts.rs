//! The machine stops at any write of a snapshot: the sandbox comes back with that snapshot whole, or with the one before
//! it whole, and says which.
//!
//! What is on disk after a power cut is made by hand. Of every file that a snapshot writes there are three states: as it
//! was before, cut off, as it was written. All their combinations are gone through, also those that no order of writes
//! allows, but for two: that nothing was begun yet and files are cut off all the same (a test of its own), and that the
//! record and the one before it are torn at once, which were never written at the same time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Bench, id, ok};
use hob_sandbox::{Provider, Sandbox};

/// A file of a snapshot after the power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Before,
    Cut,
    Written,
}

use Left::{Before, Cut, Written};

const ANY: [Left; 3] = [Before, Cut, Written];

/// What the disk has after a power cut.
#[derive(Debug, Clone, Copy)]
struct Disk {
    /// A file that the sandbox wrote.
    content: Left,
    /// The note that the freezing has begun.
    note: Left,
    manifest: Left,
    record: Left,
    /// The record before it. Before the snapshot that is the one before that.
    last: Left,
}

impl Disk {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (content, note, manifest) in ANY.iter().flat_map(|c| ANY.iter().flat_map(|n| ANY.map(|m| (*c, *n, m)))) {
            for (record, last) in [(Before, Before), (Before, Written), (Cut, Written), (Written, Written)] {
                all.push(Self { content, note, manifest, record, last });
            }
        }
        all
    }

    /// The freezing had not begun: the sandbox was in use.
    fn in_use(self) -> bool {
        self.note == Before && self.manifest == Before && self.record != Written
    }
}

/// The files before and after a snapshot of the sandbox `cut`, whose layer 1 was frozen before.
struct Taken {
    bench: Bench,
    before: PathBuf,
    after: PathBuf,
}

const WRITE: &str = "cd /workspace; mkdir -p d; for f in a d/b d/c; do seq";
const FIRST: [&str; 3] = ["a", "d/b", "d/c"];

impl Taken {
    async fn new() -> Self {
        let bench = Bench::new().await;
        ok(&bench.sandbox("cut").await, &format!("{WRITE} 100 > $f; done")).await;
        bench.local.snapshot(&id("cut")).await.unwrap();
        ok(&bench.sandbox("cut").await, &format!("{WRITE} 200 > $f; done")).await;
        bench.local.suspend(&id("cut")).await.unwrap();
        let (before, after) = (bench.folder.path().join("before"), bench.folder.path().join("after"));
        keep(&bench.data(), &before);
        bench.local.snapshot(&id("cut")).await.unwrap();
        keep(&bench.data(), &after);
        Self { bench, before, after }
    }

    /// Puts onto the disk what a power cut left.
    fn put(&self, disk: Disk) {
        let data = self.bench.data();
        keep(&self.after, &data);
        for (path, left) in [
            ("layers/cut.2/tree/root/workspace/d/b", disk.content),
            ("layers/cut.2/freezing", disk.note),
            ("layers/cut.2/manifest.json", disk.manifest),
            ("sandboxes/cut/record.last.json", disk.last),
            ("sandboxes/cut/record.json", disk.record),
        ] {
            let (now, before) = (data.join(path), self.before.join(path));
            // New bytes, not those that a record and the one before it share.
            let whole = fs::read(&now).unwrap();
            fs::remove_file(&now).unwrap();
            match left {
                Written => fs::write(&now, another_boot(whole)).unwrap(),
                Cut => fs::write(&now, &whole[..whole.len() / 2]).unwrap(),
                // A file of the sandbox was empty on disk, or not there.
                Before if path.contains("tree") => {}
                Before if before.exists() => fs::write(&now, another_boot(fs::read(&before).unwrap())).unwrap(),
                Before => {}
            }
        }
        if disk.content == Written {
            // With owner, mode and times.
            copy(&self.after.join("layers/cut.2/tree/."), &data.join("layers/cut.2/tree"));
        }
        for entry in fs::read_dir(data.join("layers")).unwrap().flatten() {
            fs::remove_file(entry.path().join("verified")).ok();
        }
    }

    async fn again(&self, disk: Disk) -> (String, Option<String>) {
        self.put(disk);
        let sandbox = self.bench.local.create(common::spec("cut")).await;
        let sandbox = sandbox.unwrap_or_else(|error| panic!("{disk:?}: failed to {error}"));
        let found = (lines(&sandbox).await, sandbox.lost().map(str::to_owned));
        self.bench.local.suspend(&id("cut")).await.unwrap();
        found
    }
}

/// How many lines each file has.
async fn lines(sandbox: &Sandbox) -> String {
    ok(sandbox, &format!("cd /workspace; wc -l {} 2>/dev/null | awk '{{print $1}}' | head -3 | xargs", FIRST.join(" ")))
        .await
}

fn another_boot(bytes: Vec<u8>) -> Vec<u8> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    match String::from_utf8(bytes) {
        Ok(text) => text.replace(boot.trim(), "another").into_bytes(),
        Err(error) => error.into_bytes(),
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success(), "{}", from.display());
}

/// Copies what there is of sandboxes and layers.
fn keep(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for part in ["sandboxes", "layers"] {
        fs::remove_dir_all(to.join(part)).ok();
        copy(&from.join(part), &to.join(part));
    }
}

/// Paths of the files in one folder that the other has not, or has otherwise.
fn written(before: &Path, after: &Path) -> BTreeSet<String> {
    let (mut open, mut written) = (vec![after.to_owned()], BTreeSet::new());
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let below = path.strip_prefix(after).unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(path.clone());
            } else if entry.file_type().unwrap().is_file() && fs::read(before.join(below)).ok() != fs::read(&path).ok()
            {
                written.insert(below.display().to_string());
            }
        }
    }
    written
}

#[tokio::test]
async fn at_any_write_of_a_snapshot_it_or_the_one_before_it_comes_back_whole() {
    let taken = Taken::new().await;
    let expect = ["freezing", "manifest.json", "verified"].map(|name| format!("layers/cut.2/{name}"));
    let records = ["record.json", "record.last.json"].map(|name| format!("sandboxes/cut/{name}"));
    assert_eq!(
        written(&taken.before, &taken.after),
        expect.into_iter().chain(records).collect(),
        "a write that this test does not cut belongs into it"
    );
    for disk in Disk::all().into_iter().filter(|disk| !disk.in_use() || disk.content == Written) {
        let (lines, lost) = taken.again(disk).await;
        let lost = lost.unwrap_or_default();
        match lines.as_str() {
            "200 200 200" => assert!(!lost.contains("torn") && disk.content == Written, "{disk:?}: {lost}"),
            "100 100 100" => {
                assert!(lost.contains("cut.2") && lost.contains("the snapshot before it"), "{disk:?}: {lost}");
                let complete = disk.content == Written && disk.manifest == Written;
                assert!(!complete && !disk.in_use(), "{disk:?}: it was there, and is not used: {lost}");
            }
            mix => panic!("{disk:?}: {mix}, {lost}"),
        }
    }
    taken.bench.close().await;
}

#[tokio::test]
async fn what_was_in_use_when_the_machine_stopped_is_used_and_said_to_be_so() {
    let taken = Taken::new().await;
    let in_use = Disk { content: Cut, note: Before, manifest: Before, record: Before, last: Before };
    let (lines, lost) = taken.again(in_use).await;
    assert!(lines.starts_with("200 ") && lines != "200 200 200", "{lines}");
    assert!(lost.unwrap().contains("the machine stopped while this sandbox was in use"));
    taken.bench.close().await;
}

#[tokio::test]
async fn a_record_that_is_torn_at_the_first_start_is_told_and_keeps_nobody_out() {
    let bench = Bench::new().await;
    bench.sandbox("first").await;
    bench.local.suspend(&id("first")).await.unwrap();
    fs::write(bench.data().join("sandboxes/first/record.json"), "{").unwrap();
    let again = bench.sandbox("first").await;
    assert!(again.lost().unwrap().contains("nothing is known of the files that there were"));
    fs::write(bench.data().join("sandboxes/first/record.json"), "{").unwrap();
    fs::remove_file(bench.data().join("sandboxes/first/record.last.json")).ok();
    bench.local.destroy(&id("first")).await.unwrap();
    assert_eq!(bench.local.list().await.unwrap(), []);
    bench.close().await;
}

#[tokio::test]
async fn a_live_snapshot_stands_in_for_one_that_was_not_completed() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("live").await;
    ok(&sandbox, "echo turn > /workspace/turn").await;
    bench.local.snapshot_live(&id("live")).await.unwrap();
    ok(&sandbox, "echo later > /workspace/later").await;
    bench.local.suspend(&id("live")).await.unwrap();
    fs::write(bench.data().join("layers/live.1/freezing"), "another").unwrap();
    let again = bench.sandbox("live").await;
    assert_eq!(ok(&again, "ls /workspace").await, "turn");
    assert!(again.lost().unwrap().contains("the snapshot before it"));
    bench.close().await;
}

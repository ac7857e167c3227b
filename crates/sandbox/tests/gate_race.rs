//! A race of a thousand writers in a sandbox against the sync of its workspace: nobody writes before it is complete, and
//! nothing that was written after it is lost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command as Program;

use bytes::Bytes;
use common::{Bench, LIMIT, ok, spec};
use hob_sandbox::{Command, Limits, Process, ProcessEvent, Provider, Spec, Token};

const WRITERS: usize = 1_000;
const LINES: usize = 10;

/// A checkout of the first of two commits, each of which has another text in every file.
fn checkout(folder: &Path) {
    let git = |line: &str| {
        let words = ["-c", "user.name=x", "-c", "user.email=x@example.org"].into_iter().chain(line.split(' '));
        let ran = Program::new("git").arg("-C").arg(folder).args(words).output().unwrap();
        assert!(ran.status.success(), "git {line}: {ran:?}");
    };
    std::fs::create_dir(folder).unwrap();
    git("init -q");
    for text in ["first", "second"] {
        for number in 0..WRITERS {
            std::fs::write(folder.join(format!("file-{number}")), format!("{text} {number}\n")).unwrap();
        }
        git("add --all");
        git(&format!("commit -q -m {text}"));
        git(&format!("tag {text}"));
    }
    git("checkout -q first");
}

/// What the writers said.
#[derive(Default)]
struct Told {
    text: String,
}

impl Told {
    async fn hear(&mut self, process: &mut Process, word: &str, times: usize) {
        while self.lines(word).count() < times {
            match tokio::time::timeout(LIMIT, process.next()).await.unwrap() {
                Some(ProcessEvent::Stdout(bytes)) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} after {} times {word}", self.lines(word).count()),
            }
            assert_eq!(self.lines("failed").next(), None);
        }
    }

    fn lines<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.text.split_inclusive('\n').filter_map(move |line| line.strip_suffix('\n')?.strip_prefix(word))
    }
}

#[tokio::test]
async fn a_thousand_writers_neither_come_before_the_sync_nor_lose_a_line_after_it() {
    let bench = Bench::new().await;
    let workspace = bench.folder.path().join("checkout");
    checkout(&workspace);
    let limits = Limits { memory_bytes: 8 << 30, ..Limits::default() };
    let sandbox = bench.create_closed(Spec { workspace: Some(workspace), limits, ..spec("race") }).await;
    sandbox.write_file("/tmp/writers.py", Bytes::from_static(include_bytes!("gate/writers.py"))).await.unwrap();
    let mut writers = sandbox.exec(Command::new(["python3", "/tmp/writers.py"]).cwd("/").timeout(LIMIT)).await.unwrap();
    let mut told = Told::default();
    told.hear(&mut writers, "refused", WRITERS).await;

    let writer = bench.local.writer(sandbox.id(), Token("writer".to_owned())).await.unwrap();
    let sync = "cd /workspace && git -c safe.directory='*' checkout -q second && \
        git -c safe.directory='*' status --porcelain && python3 -c 'import time; print(time.monotonic_ns())'";
    let synced: u64 = ok(&writer, sync).await.parse().expect("nothing has changed beside the sync");
    bench.local.open_gate(sandbox.id()).await.unwrap();

    told.hear(&mut writers, "wrote", WRITERS).await;
    for line in told.lines("wrote ") {
        let (first, refused) = line.split_once(' ').unwrap();
        assert!(first.parse::<u64>().unwrap() > synced, "{line}: before {synced}");
        assert!(refused.parse::<u64>().unwrap() > 0, "{line}");
    }
    let found =
        ok(&sandbox, "cd /workspace && grep -r . --include 'file-*' --include 'new-*' --exclude-dir .git").await;
    let found: BTreeSet<String> = found.lines().map(|line| line.trim_start_matches("./").to_owned()).collect();
    assert_eq!(found, expected());
    bench.close().await;
}

/// What has to be there: the second commit's text in every file, and each line of each writer once.
fn expected() -> BTreeSet<String> {
    let tracked = (0..WRITERS).map(|number| format!("file-{number}:second {number}"));
    let written = (0..WRITERS).flat_map(|number| {
        let name = if number % 3 == 2 { "new" } else { "file" };
        (0..LINES).map(move |line| format!("{name}-{number}:writer {number} line {line}"))
    });
    tracked.chain(written).collect()
}

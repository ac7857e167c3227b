//! The way of a commit: repository → mirror → checkout → commit → bundle → mirror → push, with real git everywhere.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hob_agent::Author;
use hob_sandbox::Command;
use hob_session::git::inside::{self, NewCommit, Workplace};
use hob_session::git::{Base, Expected, GitError, Mirror, Mirrors, PushOutcome};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_change_travels_from_the_workspace_to_a_branch_in_the_persons_name() {
    let place = Place::new().await;
    let workspace = place.checkout("hob/1-fix").await;
    workspace.write("calc.py", "def add(a, b):\n    return a + b\n");
    workspace.write("new.txt", "untracked\n");
    workspace.write("build.log", "ignored\n");

    let expected = workspace.commit(&place.base.commit).await;
    let bundle = inside::bundle(&workspace, &expected.commit, &place.base.commit).await.unwrap();
    place.mirror.receive(&bundle, &expected).await.unwrap();
    place.mirror.put_branch("hob/1-fix", Some(&expected.commit)).await.unwrap();

    let shown = git(place.mirror.folder(), &["log", "-1", "--format=%an <%ae>|%cn|%B", "hob/1-fix"]);
    assert_eq!(
        shown.trim(),
        "Ada Lovelace <ada@example.org>|Ada Lovelace|Add instead of subtract\n\nCo-authored-by: Grace <grace@example.org>"
    );
    let stat = place.mirror.stat(&place.base.commit, &expected.commit).await.unwrap();
    assert_eq!((stat.files_changed, stat.insertions, stat.deletions), (2, 2, 1), "the ignored file stays behind");
    let diff = place.mirror.diff(&place.base.commit, &expected.commit).await.unwrap();
    assert!(diff.contains("-    return a - b\n+    return a + b"), "{diff}");
}

#[tokio::test]
async fn reading_the_tree_changes_nothing_that_the_agent_sees() {
    let place = Place::new().await;
    let workspace = place.checkout("hob/1-fix").await;
    workspace.write("staged.txt", "staged\n");
    git(&workspace.0, &["add", "staged.txt"]);
    workspace.write("untracked.txt", "untracked\n");
    let before = git(&workspace.0, &["status", "--porcelain"]);

    inside::tree(&workspace).await.unwrap();
    inside::diff(&workspace, &place.base.commit).await.unwrap();

    assert_eq!(git(&workspace.0, &["status", "--porcelain"]), before);
}

#[tokio::test]
async fn a_mirror_follows_its_source_and_fetches_only_what_is_new() {
    let place = Place::new().await;
    let source = place.folder.path().join("source");
    let name = source.to_str().unwrap();
    let fetched = || std::fs::metadata(place.mirror.folder().join("FETCH_HEAD")).unwrap().modified().unwrap();
    let before = fetched();
    let mirror = place.mirrors.fetch(name, DEADLINE).await.unwrap();
    assert_eq!((mirror.resolve(None).await.unwrap(), fetched()), (place.base.clone(), before), "there was nothing new");

    let commit =
        ["-c", "user.name=S", "-c", "user.email=s@example.org", "commit", "--quiet", "--allow-empty", "-m", "Next"];
    git(&source, &commit);
    git(&source, &["tag", "light"]);
    git(&source, &["-c", "user.name=S", "-c", "user.email=s@example.org", "tag", "-m", "One", "v1"]);
    git(&source, &["branch", "other", "HEAD~1"]);
    let next = git(&source, &["rev-parse", "HEAD"]).trim().to_owned();
    for _ in 0..2 {
        let mirror = place.mirrors.fetch(name, DEADLINE).await.unwrap();
        for (asked, commit, branch) in [
            (None, &next, Some("main")),
            (Some("main"), &next, Some("main")),
            (Some("other"), &place.base.commit, Some("other")),
            (Some("v1"), &next, None),
            (Some("light"), &next, None),
            (Some(&*place.base.commit), &place.base.commit, None),
        ] {
            let base = mirror.resolve(asked).await.unwrap();
            assert_eq!((&base.commit, base.branch.as_deref()), (commit, branch), "{asked:?}");
        }
        assert!(mirror.resolve(Some("gone")).await.is_err());
    }
}

/// Git compares times in whole seconds, and looks into a file that is as young as the index that knows it.
#[tokio::test]
async fn an_edit_in_the_second_of_the_checkout_that_keeps_the_length_is_seen() {
    let place = Place::new().await;
    let workspace = place.checkout("hob/1-fix").await;
    // The time of a file's last change of any kind cannot be set; without it, the rest is as within one second.
    git(&workspace.0, &["config", "core.trustctime", "false"]);
    let then = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let age = |name: &str| std::fs::File::open(workspace.0.join(name)).unwrap().set_modified(then).unwrap();
    age("calc.py");
    git(&workspace.0, &["update-index", "--refresh"]);
    age(".git/index");
    let text = std::fs::read_to_string(workspace.0.join("calc.py")).unwrap();
    workspace.write("calc.py", &text.replace(" - ", " + "));
    age("calc.py");

    let diff = inside::diff(&workspace, &place.base.commit).await.unwrap();

    assert!(diff.contains("+    return a + b"), "{diff}");
}

#[tokio::test]
async fn a_live_diff_shows_untracked_files() {
    let place = Place::new().await;
    let workspace = place.checkout("hob/1-fix").await;
    workspace.write("new.txt", "hello\n");
    let diff = inside::diff(&workspace, &place.base.commit).await.unwrap();
    assert!(diff.contains("+++ b/new.txt\n@@ -0,0 +1 @@\n+hello"), "{diff}");
}

#[tokio::test]
async fn a_branch_goes_to_a_bare_remote_but_never_into_somebodys_checkout() {
    let place = Place::new().await;
    let workspace = place.checkout("hob/1-fix").await;
    workspace.write("calc.py", "fixed\n");
    let expected = workspace.commit(&place.base.commit).await;
    let bundle = inside::bundle(&workspace, &expected.commit, &place.base.commit).await.unwrap();
    place.mirror.receive(&bundle, &expected).await.unwrap();
    place.mirror.put_branch("hob/1-fix", Some(&expected.commit)).await.unwrap();
    let outcome = place.mirror.push("hob/1-fix", DEADLINE).await.unwrap();
    assert!(matches!(outcome, PushOutcome::NotPushed { ref reason } if reason.contains("hob pull")), "{outcome:?}");

    let bare = place.folder.path().join("remote.git");
    git(place.folder.path(), &["clone", "--quiet", "--bare", "source", "remote.git"]);
    let mirrors = Mirrors::new(place.folder.path().join("mirrors"));
    let mirror = mirrors.fetch(bare.to_str().unwrap(), DEADLINE).await.unwrap();
    mirror.receive(&bundle, &expected).await.unwrap();
    mirror.put_branch("hob/1-fix", Some(&expected.commit)).await.unwrap();
    let outcome = mirror.push("hob/1-fix", DEADLINE).await.unwrap();
    assert!(matches!(outcome, PushOutcome::Pushed { .. }), "{outcome:?}");
    assert_eq!(git(&bare, &["rev-parse", "hob/1-fix"]).trim(), expected.commit);
}

#[tokio::test]
async fn a_pulled_bundle_fetches_into_the_persons_checkout() {
    let place = Place::new().await;
    let workspace = place.checkout("hob/1-fix").await;
    workspace.write("calc.py", "fixed\n");
    let expected = workspace.commit(&place.base.commit).await;
    let bundle = inside::bundle(&workspace, &expected.commit, &place.base.commit).await.unwrap();
    place.mirror.receive(&bundle, &expected).await.unwrap();
    place.mirror.put_branch("hob/1-fix", Some(&expected.commit)).await.unwrap();

    let file = place.folder.path().join("pull.bundle");
    std::fs::write(&file, place.mirror.bundle("hob/1-fix", &place.base.commit).await.unwrap()).unwrap();
    let source = place.folder.path().join("source");
    git(&source, &["fetch", "--quiet", file.to_str().unwrap(), "refs/heads/hob/1-fix:refs/heads/hob/1-fix"]);
    assert_eq!(git(&source, &["rev-parse", "hob/1-fix"]).trim(), expected.commit);
}

#[tokio::test]
async fn a_base_is_a_branch_a_tag_or_a_commit_and_anything_else_is_told_with_the_branches() {
    let place = Place::new().await;
    let source = place.folder.path().join("source");
    git(&source, &["tag", "v1"]);
    git(&source, &["branch", "feature/x"]);
    let mirror = place.mirrors.fetch(source.to_str().unwrap(), DEADLINE).await.unwrap();
    let commit = place.base.commit.clone();
    for (asked, branch) in
        [("main", Some("main")), ("feature/x", Some("feature/x")), ("v1", None), (&commit[..10], None)]
    {
        let base = mirror.resolve(Some(asked)).await.unwrap();
        assert_eq!((base.commit.as_str(), base.branch.as_deref()), (commit.as_str(), branch), "{asked}");
    }
    for odd in ["nope", "--all", "@{-1}", ":/First", "", "HEAD~9"] {
        let error = mirror.resolve(Some(odd)).await.unwrap_err();
        assert!(
            matches!(error, GitError::UnknownBase { ref branches, .. } if branches.contains("feature/x")),
            "{odd}: {error}"
        );
    }
}

#[tokio::test]
async fn a_repository_that_is_not_there_or_has_no_commits_is_told_plainly() {
    let place = Place::new().await;
    let missing = place.mirrors.fetch("/nowhere/at/all", DEADLINE).await.unwrap_err().to_string();
    assert!(missing.starts_with("read the repository /nowhere/at/all:"), "{missing}");
    git(place.folder.path(), &["init", "--quiet", "empty"]);
    let empty = place.folder.path().join("empty");
    let empty = place.mirrors.fetch(empty.to_str().unwrap(), DEADLINE).await.unwrap_err();
    assert!(matches!(empty, GitError::Empty { .. }), "{empty}");
    for odd in ["--upload-pack=touch /tmp/owned", "ext::sh -c touch% /tmp/owned"] {
        let error = place.mirrors.fetch(odd, DEADLINE).await.unwrap_err();
        assert!(matches!(error, GitError::Unreachable { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_commit_with_another_parent_tree_or_author_is_refused_and_the_branch_stays() {
    let place = Place::new().await;
    let workspace = place.checkout("hob/1-fix").await;
    workspace.write("calc.py", "fixed\n");
    let made = workspace.commit(&place.base.commit).await;
    let bundle = inside::bundle(&workspace, &made.commit, &place.base.commit).await.unwrap();
    let stranger = Author { name: "Mallory".to_owned(), email: "m@example.org".to_owned() };
    let lies = [
        Expected { author: stranger, ..made.clone() },
        Expected { tree: place.base.commit.clone(), ..made.clone() },
        Expected { parent: made.commit.clone(), ..made.clone() },
        Expected { commit: place.base.commit.clone(), ..made.clone() },
    ];
    for expected in lies {
        let error = place.mirror.receive(&bundle, &expected).await.unwrap_err();
        assert!(matches!(error, GitError::Refused { .. }), "{error}");
    }
    assert_eq!(git(place.mirror.folder(), &["for-each-ref", "refs/heads", "refs/hob/incoming"]), "");
}

#[tokio::test]
async fn a_tree_that_would_overwrite_git_itself_is_refused() {
    let place = Place::new().await;
    let workspace = place.checkout("hob/1-fix").await;
    // A tree with an entry `.git` would plant hooks in whoever checks it out.
    let blob = git(&workspace.0, &["hash-object", "-w", "calc.py"]);
    let entry = format!("100644 blob {}\t.git\n", blob.trim());
    let tree = git_with_input(&workspace.0, &["mktree"], &entry);
    let new = NewCommit { tree: tree.trim().to_owned(), ..new_commit(&place.base.commit, String::new()) };
    let expected = inside::commit(&workspace, &new).await.unwrap();
    let bundle = inside::bundle(&workspace, &expected.commit, &place.base.commit).await.unwrap();

    let error = place.mirror.receive(&bundle, &expected).await.unwrap_err();
    assert!(matches!(error, GitError::Refused { ref reason } if reason.contains(".git")), "{error}");
}

#[tokio::test]
async fn a_branch_is_put_where_the_log_says() {
    let place = Place::new().await;
    let workspace = place.checkout("hob/1-fix").await;
    workspace.write("calc.py", "fixed\n");
    let expected = workspace.commit(&place.base.commit).await;
    let bundle = inside::bundle(&workspace, &expected.commit, &place.base.commit).await.unwrap();
    place.mirror.receive(&bundle, &expected).await.unwrap();
    place.mirror.put_branch("hob/1-fix", Some(&expected.commit)).await.unwrap();

    place.mirror.put_branch("hob/1-fix", Some(&place.base.commit)).await.unwrap();
    assert_eq!(git(place.mirror.folder(), &["rev-parse", "hob/1-fix"]).trim(), place.base.commit);
    place.mirror.put_branch("hob/1-fix", None).await.unwrap();
    place.mirror.put_branch("hob/1-fix", None).await.unwrap();
    assert_eq!(git(place.mirror.folder(), &["for-each-ref", "refs/heads"]), "");
}

#[tokio::test]
async fn bytes_that_are_no_bundle_are_refused() {
    let place = Place::new().await;
    let expected =
        Expected { commit: "0".repeat(40), parent: place.base.commit.clone(), tree: "0".repeat(40), author: ada() };
    for bytes in [&b""[..], b"# v2 git bundle\n", b"PACK\0\0\0\x02", &[0xff; 4_096]] {
        let error = place.mirror.receive(bytes, &expected).await.unwrap_err();
        assert!(matches!(error, GitError::Refused { .. }), "{error}");
    }
    let sneaky = Expected { commit: "../../../etc/passwd".to_owned(), ..expected };
    let error = place.mirror.receive(b"", &sneaky).await.unwrap_err();
    assert!(matches!(error, GitError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn two_sessions_that_start_at_once_share_a_mirror() {
    let place = Place::new().await;
    let source = place.folder.path().join("source");
    let mirrors = Mirrors::new(place.folder.path().join("others"));
    let (first, second) = tokio::join!(
        mirrors.fetch(source.to_str().unwrap(), DEADLINE),
        mirrors.fetch(source.to_str().unwrap(), DEADLINE)
    );
    assert_eq!(first.unwrap().folder(), second.unwrap().folder());
}

#[tokio::test]
async fn files_of_a_commit_are_listed_and_read_and_a_link_is_never_followed() {
    let place = Place::new().await;
    let source = place.folder.path().join("source");
    std::fs::write(source.join("package.json"), r#"{"scripts": {"test": "node --test"}}"#).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", source.join("Makefile")).unwrap();
    git(&source, &["add", "--all"]);
    git(&source, &["-c", "user.name=S", "-c", "user.email=s@example.org", "commit", "--quiet", "-m", "Tests"]);
    let mirror = place.mirrors.fetch(source.to_str().unwrap(), DEADLINE).await.unwrap();
    let base = mirror.resolve(None).await.unwrap();

    assert_eq!(mirror.file(&base.commit, "Makefile").await.unwrap(), None);
    assert_eq!(mirror.files(&base.commit).await.unwrap(), [".gitignore", "calc.py", "package.json"]);
}

#[tokio::test]
async fn hooks_of_the_workspace_do_not_run_when_the_commit_is_made() {
    let place = Place::new().await;
    let workspace = place.checkout("hob/1-fix").await;
    let canary = place.folder.path().join("hook-ran");
    let hooks = workspace.0.join(".git/hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    for hook in ["pre-commit", "post-commit", "reference-transaction", "post-index-change"] {
        let script = hooks.join(hook);
        std::fs::write(&script, format!("#!/bin/sh\ntouch {}\n", canary.display())).unwrap();
        std::process::Command::new("chmod").arg("+x").arg(&script).status().unwrap();
    }
    workspace.write("calc.py", "fixed\n");
    let expected = workspace.commit(&place.base.commit).await;
    inside::bundle(&workspace, &expected.commit, &place.base.commit).await.unwrap();
    assert!(!canary.exists());
}

/// A source repository with one commit, its mirror, and a folder for everything.
struct Place {
    folder: tempfile::TempDir,
    mirrors: Mirrors,
    mirror: Mirror,
    base: Base,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        git(folder.path(), &["init", "--quiet", "--initial-branch=main", "source"]);
        std::fs::write(source.join("calc.py"), "def add(a, b):\n    return a - b\n").unwrap();
        std::fs::write(source.join(".gitignore"), "*.log\n").unwrap();
        git(&source, &["add", "--all"]);
        git(&source, &["-c", "user.name=S", "-c", "user.email=s@example.org", "commit", "--quiet", "-m", "First"]);
        let mirrors = Mirrors::new(folder.path().join("mirrors"));
        let mirror = mirrors.fetch(source.to_str().unwrap(), DEADLINE).await.unwrap();
        let base = mirror.resolve(None).await.unwrap();
        assert_eq!(base.branch.as_deref(), Some("main"));
        Self { folder, mirrors, mirror, base }
    }

    async fn checkout(&self, branch: &str) -> Workspace {
        let target = self.folder.path().join("workspace");
        let mirror = self.mirror.folder().to_str().unwrap();
        git(self.folder.path(), &["clone", "--quiet", "--no-checkout", mirror, "workspace"]);
        git(&target, &["checkout", "--quiet", "-B", branch, &self.base.commit]);
        Workspace(target)
    }
}

/// A checkout on this machine in which the commands that a sandbox would run are run.
struct Workspace(PathBuf);

impl Workspace {
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    async fn commit(&self, parent: &str) -> Expected {
        let tree = inside::tree(self).await.unwrap();
        inside::commit(self, &new_commit(parent, tree)).await.unwrap()
    }
}

#[async_trait]
impl Workplace for Workspace {
    async fn run(&self, action: &'static str, command: Command, _limit_bytes: usize) -> Result<Bytes, GitError> {
        let mut process = tokio::process::Command::new(&command.argv[0]);
        process.args(&command.argv[1..]).envs(&command.env).current_dir(&self.0).stdin(Stdio::null());
        let output = process.output().await.unwrap();
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(output.stdout.into()) } else { Err(GitError::Command { action, reason }) }
    }
}

fn new_commit(parent: &str, tree: String) -> NewCommit {
    NewCommit {
        parent: parent.to_owned(),
        tree,
        author: ada(),
        co_authors: vec![Author { name: "Grace".to_owned(), email: "grace@example.org".to_owned() }],
        message: "Add instead of subtract\n".to_owned(),
        at_ms: 1_790_000_000_000,
    }
}

fn ada() -> Author {
    Author { name: "Ada Lovelace".to_owned(), email: "ada@example.org".to_owned() }
}

#[track_caller]
fn git(folder: &Path, arguments: &[&str]) -> String {
    git_with_input(folder, arguments, "")
}

#[track_caller]
fn git_with_input(folder: &Path, arguments: &[&str], input: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), input).unwrap();
    let stdin = std::fs::File::open(file.path()).unwrap();
    let output = std::process::Command::new("git").args(arguments).current_dir(folder).stdin(stdin).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

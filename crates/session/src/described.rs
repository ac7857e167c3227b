//! What a repository says of itself: its checks, its limits, what it may reach.
//!
//! Read from the base commit as the mirror holds it, so that an agent cannot make its own proof easier. A repository
//! whose base has no checks is looked at again as the agent left it: the first tests of a repository are a change too.

use std::collections::HashMap;
use std::time::Duration;

use hob_sandbox::{Command, Sandbox, SandboxError};

use crate::checks::{Check, detect};
use crate::environment::{self, Described};
use crate::git::{GitError, Mirror};
use crate::workspace::ROOT;

/// How long git may take to list the workspace.
const LIST_TIMEOUT: Duration = Duration::from_secs(120);

/// Files that detection may read.
const MANIFESTS_MAX: usize = 64;

/// The largest manifest that detection reads, in bytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// The longest listing of files that detection reads, in bytes.
const LISTING_BYTES_MAX: usize = 32 << 20;

/// Reads what a repository says of itself at a commit.
///
/// # Errors
/// The commit is not in the mirror.
pub(crate) async fn describe(mirror: &Mirror, commit: &str) -> Result<Described, GitError> {
    describe_with(mirror, commit, None).await
}

/// The same, with another text in place of the repository's own environment file.
///
/// # Errors
/// The commit is not in the mirror.
pub(crate) async fn describe_with(
    mirror: &Mirror,
    commit: &str,
    environment: Option<String>,
) -> Result<Described, GitError> {
    let files = mirror.files(commit).await?;
    let mut texts = Texts::default();
    if environment.is_some() {
        texts.known.insert(environment::PATH.to_owned(), environment);
    }
    while let Some(path) = texts.wanted(|read| drop(environment::describe(&files, read))) {
        let text = mirror.file(commit, &path).await?;
        texts.known.insert(path, text);
    }
    Ok(environment::describe(&files, |path| texts.get(path)))
}

/// Finds the checks of the workspace as the agent left it, for a repository that had none at its base.
///
/// # Errors
/// The sandbox is lost.
pub(crate) async fn detect_in_workspace(sandbox: &Sandbox) -> Result<Vec<Check>, SandboxError> {
    let list = Command::new(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let mut process = sandbox.exec(list.cwd(ROOT).timeout(LIST_TIMEOUT)).await?;
    let output = process.wait_output(LISTING_BYTES_MAX).await;
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let files: Vec<String> = listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    let mut texts = Texts::default();
    while let Some(path) = texts.wanted(|read| drop(detect::detect(&files, read))) {
        let bytes = sandbox.read_file(&format!("{ROOT}/{path}"), 0..MANIFEST_BYTES_MAX).await.ok();
        texts.known.insert(path, bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(detect::detect(&files, |path| texts.get(path)))
}

/// The texts that a pure reader has asked for. It reads at once, while a mirror and a sandbox take their time: so it is
/// asked again until it misses nothing.
#[derive(Default)]
struct Texts {
    known: HashMap<String, Option<String>>,
}

impl Texts {
    fn get(&self, path: &str) -> Option<String> {
        self.known.get(path).cloned().flatten()
    }

    /// A file that the reader would read and that is not known yet.
    fn wanted(&self, reader: impl FnOnce(&mut dyn FnMut(&str) -> Option<String>)) -> Option<String> {
        let mut wanted = None;
        reader(&mut |path| match self.known.get(path) {
            Some(text) => text.clone(),
            None => {
                wanted.get_or_insert_with(|| path.to_owned());
                None
            }
        });
        wanted.filter(|_| self.known.len() < MANIFESTS_MAX)
    }
}

//! What a repository says of itself: its checks, its limits, what it may reach.
//!
//! Read from the base commit as the mirror holds it, so that an agent cannot make its own proof easier. A repository
//! whose base has no checks is looked at again as the agent left it: the first tests of a repository are a change too.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hob_sandbox::{Command, Sandbox, SandboxError};

use crate::checks::{Check, detect};
use crate::environment::{self, Described};
use crate::git::{GitError, Mirror};
use crate::workspace::ROOT;

/// Commits whose descriptions are kept.
const DESCRIPTIONS_MAX: usize = 64;

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
    if let Some(known) = mirror.described.get(mirror, commit) {
        return Ok(known);
    }
    let described = describe_with(mirror, commit, None).await?;
    mirror.described.put(mirror, commit, described.clone());
    Ok(described)
}

/// What was read of commits lately: most sessions start from a commit that another one has started from.
#[derive(Debug, Default)]
pub(crate) struct Descriptions {
    /// By mirror and commit, the latest last.
    known: Mutex<VecDeque<(PathBuf, String, Described)>>,
}

impl Descriptions {
    fn get(&self, mirror: &Mirror, commit: &str) -> Option<Described> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|(folder, of, _)| of == commit && folder == mirror.folder());
        found.map(|(_, _, described)| described.clone())
    }

    fn put(&self, mirror: &Mirror, commit: &str, described: Described) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push_back((mirror.folder().to_owned(), commit.to_owned(), described));
        if known.len() > DESCRIPTIONS_MAX {
            known.pop_front();
        }
    }
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

//! What a repository says of itself: its checks, its limits, what it may reach.
//!
//! Read from the base commit as the mirror holds it, so that an agent cannot make its own proof easier. A repository
//! whose base has no checks is looked at again as the agent left it: the first tests of a repository are a change too.

use std::collections::HashMap;
use std::time::Duration;

use hob_sandbox::{Command, Sandbox, SandboxError};

use crate::checks::{Check, detect};
use crate::environment::{self, Environment};
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

/// What a repository says of itself at its base commit, or what its files show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    /// Its environment; the default where it has no file, or one that cannot be read.
    pub(crate) environment: Environment,
    /// Its checks, in the order they run.
    pub(crate) checks: Vec<Check>,
    /// What is wrong with its file, in words for the participants.
    pub(crate) problem: Option<String>,
}

/// Reads what a repository says of itself at a commit.
///
/// # Errors
/// The commit is not in the mirror.
pub(crate) async fn describe(mirror: &Mirror, commit: &str) -> Result<Described, GitError> {
    let files = mirror.files(commit).await?;
    let mut described = Described { environment: Environment::default(), checks: Vec::new(), problem: None };
    if let Some(text) = mirror.file(commit, environment::PATH).await? {
        match environment::parse(&text) {
            Ok(environment) => described.environment = environment,
            Err(error) => described.problem = Some(format!("failed to read {}: {error}", environment::PATH)),
        }
    }
    described.checks = match &described.environment.checks {
        Some(checks) => checks.clone(),
        None => {
            let mut texts = Texts::default();
            while let Some(path) = texts.wanted(&files) {
                let text = mirror.file(commit, &path).await?;
                texts.known.insert(path, text);
            }
            detect::detect(&files, |path| texts.known.get(path).cloned().flatten())
        }
    };
    Ok(described)
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
    while let Some(path) = texts.wanted(&files) {
        let bytes = sandbox.read_file(&format!("{ROOT}/{path}"), 0..MANIFEST_BYTES_MAX).await.ok();
        texts.known.insert(path, bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(detect::detect(&files, |path| texts.known.get(path).cloned().flatten()))
}

/// The texts that detection has asked for. Detection is pure and reads at once, while a mirror and a sandbox take their
/// time: so it is asked again until it misses nothing.
#[derive(Default)]
struct Texts {
    known: HashMap<String, Option<String>>,
}

impl Texts {
    /// A file that detection would read and that is not known yet.
    fn wanted(&self, files: &[String]) -> Option<String> {
        let mut wanted = None;
        detect::detect(files, |path| match self.known.get(path) {
            Some(text) => text.clone(),
            None => {
                wanted.get_or_insert_with(|| path.to_owned());
                None
            }
        });
        wanted.filter(|_| self.known.len() < MANIFESTS_MAX)
    }
}

//! Takes a commit out of a sandbox's bundle. The bundle is hostile until every object of it is checked and the commit
//! is exactly the one that was asked for.

use std::path::{Path, PathBuf};

use hob_agent::Author;

use super::GitError;
use super::mirror::Mirror;

/// The ref that a sandbox's bundle carries.
pub(super) const RESULT_REF: &str = "refs/hob/result";

/// What the commit in a bundle must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its full ID, as the sandbox told it.
    pub commit: String,
    /// Its only parent.
    pub parent: String,
    /// Its tree, as it was when the checks ran.
    pub tree: String,
    /// Its author and committer.
    pub author: Author,
}

impl Mirror {
    /// Takes the commit out of a bundle and puts the branch on it.
    ///
    /// Objects are checked as `git fsck` does (`transfer.fsckObjects`), and land in the mirror only when the commit has
    /// the expected ID, parent, tree and author. A branch that is there already moves only forward from the parent.
    ///
    /// # Errors
    /// [`GitError::Refused`] when the bundle holds anything else; the branch is then as it was.
    pub async fn receive(&self, bundle: &[u8], branch: &str, expected: &Expected) -> Result<(), GitError> {
        let file = self.keep(bundle, &expected.commit).await?;
        let incoming = format!("refs/hob/incoming/{}", expected.commit);
        let accepted = self.accept(&file, &incoming, branch, expected).await;
        let dropped = tokio::fs::remove_file(&file).await;
        if let Err(error) = dropped {
            tracing::warn!(file = %file.display(), "a received bundle was left behind: {error}");
        }
        // A refused bundle may not have got as far as this ref; then there is nothing to take back.
        if let Err(error) = self.local("drop the incoming ref").run(["update-ref", "-d", &incoming]).await {
            tracing::debug!(%incoming, "no incoming ref to drop: {error}");
        }
        accepted
    }

    async fn accept(&self, file: &Path, incoming: &str, branch: &str, expected: &Expected) -> Result<(), GitError> {
        let refspec = format!("+{RESULT_REF}:{incoming}");
        let fetch = self.local("check the sandbox's objects");
        let arguments = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--"];
        let places = [file.as_os_str(), refspec.as_ref()];
        fetch.run(arguments.iter().map(std::ffi::OsStr::new).chain(places)).await.map_err(refused)?;
        let commit = self.local("read the commit").line(["rev-parse", "--verify", incoming]).await?;
        let raw = self.local("read the commit").run(["cat-file", "commit", incoming]).await?;
        if commit != expected.commit {
            return Err(GitError::Refused { reason: format!("it is {commit} and not {}", expected.commit) });
        }
        verify(&String::from_utf8_lossy(&raw), expected)?;
        let tip = format!("refs/heads/{branch}");
        self.local("put the branch on the commit").run(["update-ref", &tip, &expected.commit]).await?;
        Ok(())
    }

    async fn keep(&self, bundle: &[u8], name: &str) -> Result<PathBuf, GitError> {
        if name.len() < 40 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(GitError::Refused { reason: format!("{name:?} is no commit ID") });
        }
        let file = self.folder().join(format!("hob-incoming-{name}.bundle"));
        tokio::fs::write(&file, bundle)
            .await
            .map_err(|error| GitError::Command { action: "keep the sandbox's bundle", reason: error.to_string() })?;
        Ok(file)
    }
}

fn refused(error: GitError) -> GitError {
    match error {
        GitError::Command { reason, .. } => GitError::Refused { reason },
        other => other,
    }
}

/// Compares a raw commit object's header with what was asked for.
fn verify(raw: &str, expected: &Expected) -> Result<(), GitError> {
    let header = raw.split("\n\n").next().unwrap_or_default();
    let all = |key: &str| -> Vec<&str> {
        header.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).collect()
    };
    let person = format!("{} <{}> ", expected.author.name, expected.author.email);
    let wrong = if all("tree") != [expected.tree.as_str()] {
        "its tree is not the one that was checked"
    } else if all("parent") != [expected.parent.as_str()] {
        "its parent is not the commit that the turn started from"
    } else if !all("author").iter().chain(&all("committer")).all(|line| line.starts_with(&person)) {
        "its author is not the person who prompted"
    } else {
        return Ok(());
    };
    Err(GitError::Refused { reason: wrong.to_owned() })
}

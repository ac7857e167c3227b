//! Takes a commit out of a sandbox's bundle. The bundle is hostile until every object of it is checked and the commit
//! is exactly the one that was asked for.

use std::path::{Path, PathBuf};

use hob_agent::Author;

use super::GitError;
use super::mirror::Mirror;

/// The ref that a sandbox's bundle carries.
pub(super) const RESULT_REF: &str = "refs/hob/result";

/// How a bundle begins.
const SIGNATURE: &[u8] = b"# v2 git bundle\n";

/// The longest header of a bundle: it names one ref and one commit that it builds on.
const HEADER_BYTES_MAX: usize = 64 << 10;

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
    /// Takes the commit out of a bundle. The branch stays where it is: [`Mirror::put_branch`] moves it when the log has
    /// the commit, so that a git that outlives a killed server moves nothing behind the next one's back.
    ///
    /// Every object is checked as `git fsck` does while it is unpacked (`git index-pack --strict`; a fetch from a bundle
    /// checks nothing before git 2.46). The commit has to have the expected ID, parent, tree and author, and everything
    /// that it names has to be there.
    ///
    /// # Errors
    /// [`GitError::Refused`] when the bundle holds anything else.
    pub async fn receive(&self, bundle: &[u8], expected: &Expected) -> Result<(), GitError> {
        let file = self.keep(pack_of(bundle)?, &expected.commit).await?;
        let accepted = self.accept(&file, expected).await;
        let dropped = tokio::fs::remove_file(&file).await;
        if let Err(error) = dropped {
            tracing::warn!(file = %file.display(), "a received pack was left behind: {error}");
        }
        accepted
    }

    async fn accept(&self, file: &Path, expected: &Expected) -> Result<(), GitError> {
        let opened = std::fs::File::open(file)
            .map_err(|error| GitError::Command { action: "read the sandbox's pack", reason: error.to_string() })?;
        let unpack = self.local("check the sandbox's objects");
        unpack.run_from(opened.into(), ["index-pack", "--stdin", "--strict", "--fix-thin"]).await.map_err(refused)?;
        let new = ["rev-list", "--objects", "--quiet", &expected.commit, "--not", &expected.parent];
        self.local("look for what the commit names").run(new).await.map_err(refused)?;
        let raw = self.local("read the commit").run(["cat-file", "commit", &expected.commit]).await.map_err(refused)?;
        verify(&String::from_utf8_lossy(&raw), expected)
    }

    async fn keep(&self, pack: &[u8], name: &str) -> Result<PathBuf, GitError> {
        if name.len() < 40 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(GitError::Refused { reason: format!("{name:?} is no commit ID") });
        }
        let file = self.folder().join(format!("hob-incoming-{name}.pack"));
        tokio::fs::write(&file, pack)
            .await
            .map_err(|error| GitError::Command { action: "keep the sandbox's pack", reason: error.to_string() })?;
        Ok(file)
    }
}

/// The pack in a bundle: what follows the first empty line (gitformat-bundle(5), version 2).
fn pack_of(bundle: &[u8]) -> Result<&[u8], GitError> {
    let header_end = bundle.windows(2).take(HEADER_BYTES_MAX).position(|pair| pair == b"\n\n");
    match header_end {
        Some(end) if bundle.starts_with(SIGNATURE) => Ok(bundle.get(end + 2..).unwrap_or_default()),
        _ => Err(GitError::Refused { reason: "it came as something else than a git bundle".to_owned() }),
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

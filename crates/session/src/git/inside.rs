//! Git inside the sandbox: what the workspace holds now, a commit of it, and a bundle to carry the commit out.
//!
//! What these calls give is the sandbox's own word. The server believes it only after
//! [`Mirror::receive`](super::Mirror::receive) has checked it.

use async_trait::async_trait;
use bytes::Bytes;
use hob_agent::Author;
use hob_sandbox::{Command, Sandbox};
use std::time::Duration;

use super::receive::RESULT_REF;
use super::run::last_words;
use super::{GitError, receive::Expected};

/// How long one git call inside may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// The largest bundle that is taken out of a sandbox, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 256 << 20;

/// The largest diff that is shown, in bytes.
pub const DIFF_BYTES_MAX: usize = 16 << 20;

/// Writes the whole workspace, untracked files included and ignored ones left out, as a tree. It uses an index of its
/// own, so that whatever the agent staged stays as it is. The copy keeps the time of the original: git looks into a file
/// that is not older than its index, and otherwise takes one of the same size and second for unchanged.
const WRITE_TREE: &str = r#"
set -e
index=$(mktemp /tmp/hob-index.XXXXXX)
trap 'rm -f "$index"' EXIT
cp -p "$(git rev-parse --git-path index)" "$index" 2>/dev/null || rm -f "$index"
export GIT_INDEX_FILE="$index"
git -c core.hooksPath=/dev/null -c advice.addEmbeddedRepo=false add --all . >&2
git -c core.hooksPath=/dev/null write-tree
"#;

/// Somewhere that git can be run in a workspace.
#[async_trait]
pub trait Workplace: Send + Sync {
    /// Runs a command in the workspace; gives its standard output, at most `limit_bytes` of it.
    ///
    /// # Errors
    /// It failed, took too long, or wrote more than the limit.
    async fn run(&self, action: &'static str, command: Command, limit_bytes: usize) -> Result<Bytes, GitError>;
}

#[async_trait]
impl Workplace for Sandbox {
    async fn run(&self, action: &'static str, command: Command, limit_bytes: usize) -> Result<Bytes, GitError> {
        let mut process = self.exec(command.timeout(DEADLINE)).await?;
        let output = process.wait_output(limit_bytes).await;
        match output.exit {
            Some(exit) if exit.timed_out => Err(GitError::Deadline { action, seconds: DEADLINE.as_secs() }),
            Some(exit) if exit.code != 0 => Err(GitError::Command { action, reason: last_words(&output.stderr) }),
            Some(_) if output.stdout.len() >= limit_bytes && output.truncated => {
                Err(GitError::TooLarge { what: action, limit_bytes })
            }
            Some(_) => Ok(output.stdout),
            None => Err(GitError::Command { action, reason: "the sandbox was lost".to_owned() }),
        }
    }
}

/// A commit to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCommit {
    /// The commit that it follows.
    pub parent: String,
    /// What it holds.
    pub tree: String,
    /// Its author and committer: the person who prompted.
    pub author: Author,
    /// Other participants, named in `Co-authored-by` trailers.
    pub co_authors: Vec<Author>,
    /// Subject, blank line, body; without trailers.
    pub message: String,
    /// When: milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
}

/// The ID of the tree that the workspace holds now; changes nothing that the agent sees.
///
/// # Errors
/// The workspace is no git checkout any more, or the disk is full.
pub async fn tree(workplace: &dyn Workplace) -> Result<String, GitError> {
    let output = workplace.run("read the workspace's tree", Command::new(["sh", "-c", WRITE_TREE]), 1_024).await?;
    object_id("tree", &output)
}

/// Makes the commit, without hooks and without moving any branch that the agent sees, and tells what to expect of it
/// outside.
///
/// # Errors
/// The parent or the tree is not there.
pub async fn commit(workplace: &dyn Workplace, new: &NewCommit) -> Result<Expected, GitError> {
    let author = Author { name: plain(&new.author.name), email: plain(&new.author.email) };
    let date = format!("@{} +0000", new.at_ms / 1_000);
    let message = message_with_trailers(&new.message, &new.co_authors);
    let command = git(["commit-tree", "-p", &new.parent, "-m", &message, &new.tree])
        .env("GIT_AUTHOR_NAME", &author.name)
        .env("GIT_AUTHOR_EMAIL", &author.email)
        .env("GIT_AUTHOR_DATE", &date)
        .env("GIT_COMMITTER_NAME", &author.name)
        .env("GIT_COMMITTER_EMAIL", &author.email)
        .env("GIT_COMMITTER_DATE", &date);
    let commit = object_id("commit", &workplace.run("make the commit", command, 1_024).await?)?;
    Ok(Expected { commit, parent: new.parent.clone(), tree: new.tree.clone(), author })
}

/// The commit and all that the parent does not have, as a bundle for [`Mirror::receive`](super::Mirror::receive).
///
/// # Errors
/// It would be larger than [`BUNDLE_BYTES_MAX`].
pub async fn bundle(workplace: &dyn Workplace, commit: &str, parent: &str) -> Result<Bytes, GitError> {
    workplace.run("name the result", git(["update-ref", RESULT_REF, commit]), 1_024).await?;
    let command = git(["bundle", "create", "--quiet", "-", RESULT_REF, "--not", parent]);
    workplace.run("a bundle of the commit", command, BUNDLE_BYTES_MAX).await
}

/// The change from a commit to what the workspace holds now, as a unified diff with untracked files.
///
/// # Errors
/// It is larger than [`DIFF_BYTES_MAX`].
pub async fn diff(workplace: &dyn Workplace, from: &str) -> Result<String, GitError> {
    let now = tree(workplace).await?;
    let command = git(["diff", "--no-color", "--no-ext-diff", "--no-textconv", "-M", "--end-of-options", from, &now]);
    let diff = workplace.run("the diff", command, DIFF_BYTES_MAX).await?;
    Ok(String::from_utf8_lossy(&diff).into_owned())
}

fn git<const N: usize>(arguments: [&str; N]) -> Command {
    Command::new(["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"].into_iter().chain(arguments))
}

/// A full object ID in hexadecimal, or the sandbox's word is not taken.
fn object_id(what: &str, output: &[u8]) -> Result<String, GitError> {
    let text = String::from_utf8_lossy(output).trim().to_owned();
    let fits = (text.len() == 40 || text.len() == 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let refused = || GitError::Refused { reason: format!("its {what} has no ID that git would give") };
    if fits { Ok(text) } else { Err(refused()) }
}

/// A name or address as a commit's header can hold it.
fn plain(text: &str) -> String {
    let kept: String = text.chars().filter(|c| !c.is_control() && !matches!(c, '<' | '>')).collect();
    // Git strips these from both ends of a name itself; what is verified outside must be what it wrote.
    let crud = |c: char| c.is_whitespace() || matches!(c, '.' | ',' | ':' | ';' | '"' | '\'' | '\\');
    let kept = kept.trim_matches(crud);
    if kept.is_empty() { "unknown".to_owned() } else { kept.to_owned() }
}

fn message_with_trailers(message: &str, co_authors: &[Author]) -> String {
    if co_authors.is_empty() {
        return message.trim_end().to_owned();
    }
    let trailers: Vec<String> = co_authors
        .iter()
        .map(|person| format!("Co-authored-by: {} <{}>", plain(&person.name), plain(&person.email)))
        .collect();
    format!("{}\n\n{}", message.trim_end(), trailers.join("\n"))
}

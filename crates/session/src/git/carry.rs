//! Carries commits into a sandbox: packed by git on the host, streamed through the wall, unpacked by git inside.
//!
//! Only what a commit needs goes in, and of its past the newest part. So a workspace knows nothing of the other
//! sessions' branches, which its mirror has too.

use std::time::Duration;

use hob_sandbox::{Command, Sandbox, SandboxError};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

use super::mirror::{Base, Mirror, is_remote};
use super::run::{Git, last_words};
use super::{GitError, display_name};
use crate::workspace::ROOT;

/// Commits of a workspace's past that it is given.
const DEPTH: &str = "100";

/// Bytes that are carried at once.
const PIECE: usize = 256 << 10;

/// Makes a repository of the empty workspace, with the commit that it is fed, checked out.
const CLONE: &str = r#"
set -e
git -c init.defaultBranch=main init --quiet --template= .
mkdir -p .git/info
if [ -n "$HOB_SHALLOW" ]; then printf '%s\n' $HOB_SHALLOW > .git/shallow; fi
if [ -n "$HOB_ORIGIN" ]; then git remote add origin "$HOB_ORIGIN"; fi
git index-pack --stdin > /dev/null
if [ -n "$HOB_TRACKED" ]; then git update-ref "refs/remotes/origin/$HOB_TRACKED" "$HOB_COMMIT"; fi
git -c core.hooksPath=/dev/null -c advice.detachedHead=false checkout --quiet --detach "$HOB_COMMIT"
"#;

/// Makes what commands changed in the repository's own files as it was, and what they added no part of anybody's change.
const SETTLE: &str = r#"
set -e
git -c core.hooksPath=/dev/null checkout --quiet --force --detach "$HOB_COMMIT"
git -c core.quotePath=false ls-files --others --exclude-standard --directory | sed 's/[*?[\\]/\\&/g; s/^/\//' >> .git/info/exclude
"#;

/// Puts the workspace, which is as [`CLONE`] or [`SETTLE`] left it, on a branch at the commit that it is fed.
const SYNC: &str = r#"
set -e
if [ -n "$HOB_FED" ]; then
  git index-pack --stdin > /dev/null
  if [ -n "$HOB_BRANCH" ]; then set -- -B "$HOB_BRANCH"; else set -- --detach; fi
  git -c core.hooksPath=/dev/null checkout --quiet --force "$@" "$HOB_COMMIT"
elif [ -n "$HOB_BRANCH" ]; then
  git update-ref "refs/heads/$HOB_BRANCH" "$HOB_COMMIT"
  git symbolic-ref HEAD "refs/heads/$HOB_BRANCH"
fi
if [ -n "$HOB_TRACKED" ]; then git update-ref "refs/remotes/origin/$HOB_TRACKED" "$HOB_COMMIT"; fi
"#;

/// What a workspace has of its repository.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Held {
    /// The commit that is checked out.
    pub commit: String,
    /// Where its past ends: commits whose parents it does not have.
    pub shallow: Vec<String>,
}

/// Clones a commit of a mirror into the empty workspace of a sandbox, with the newest part of its past.
///
/// # Errors
/// The commit is not in the mirror, git is not in the sandbox, or it took longer than `deadline`.
pub async fn clone(mirror: &Mirror, base: &Base, sandbox: &Sandbox, deadline: Duration) -> Result<Held, GitError> {
    let shallow = mirror.horizon(&base.commit).await?;
    let held = Held { commit: base.commit.clone(), shallow };
    let origin = mirror.shown_origin();
    let command =
        script(CLONE, base).env("HOB_SHALLOW", held.shallow.join(" ")).env("HOB_ORIGIN", origin.unwrap_or_default());
    let pack = mirror.pack(&held, None).await?;
    feed(pack, sandbox, command.timeout(deadline), "clone the repository in the sandbox").await?;
    Ok(held)
}

/// Ends the work on a workspace that others will begin from: its own files are as the commit has them, and others do not
/// count as a change.
///
/// # Errors
/// The workspace is no checkout any more, or it took longer than `deadline`.
pub async fn settle(held: &Held, sandbox: &Sandbox, deadline: Duration) -> Result<(), GitError> {
    let base = Base { commit: held.commit.clone(), branch: None };
    run(sandbox, script(SETTLE, &base).timeout(deadline), "settle the workspace").await
}

/// Moves a workspace that was settled from the commit that it has to `base`, on a new branch; on none, where its name is
/// empty.
///
/// # Errors
/// The commit is not in the mirror, the workspace is no checkout any more, or it took longer than `deadline`.
pub async fn sync(
    mirror: &Mirror,
    held: &Held,
    base: &Base,
    branch: &str,
    sandbox: &Sandbox,
    deadline: Duration,
) -> Result<(), GitError> {
    let action = "bring the workspace up to date";
    let command = script(SYNC, base).env("HOB_BRANCH", branch).timeout(deadline);
    if held.commit == base.commit {
        if branch_off(sandbox, base, branch).await? {
            return Ok(());
        }
        return run(sandbox, command, action).await;
    }
    let wanted = Held { commit: base.commit.clone(), shallow: held.shallow.clone() };
    let pack = mirror.pack(&wanted, Some(&held.commit)).await?;
    feed(pack, sandbox, command.env("HOB_FED", "1"), action).await
}

/// Puts a workspace that is at `base` on a branch there, by writing the references themselves: a shell and three processes
/// of git take ten times as long, and somebody waits. Gives whether it could; only a plain `HEAD` that names the commit
/// says that this git keeps its references in files.
async fn branch_off(sandbox: &Sandbox, base: &Base, branch: &str) -> Result<bool, GitError> {
    let head = format!("{ROOT}/.git/HEAD");
    let line = format!("{}\n", base.commit);
    match sandbox.read_file(&head, 0..128).await {
        Ok(now) if now == line.as_bytes() => {}
        Ok(_) | Err(SandboxError::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    if let Some(tracked) = &base.branch {
        sandbox.write_file(&format!("{ROOT}/.git/refs/remotes/origin/{tracked}"), line.clone().into()).await?;
    }
    if !branch.is_empty() {
        sandbox.write_file(&format!("{ROOT}/.git/refs/heads/{branch}"), line.into()).await?;
        // Last: a workspace on a branch that is not there would have no commit.
        sandbox.write_file(&head, format!("ref: refs/heads/{branch}\n").into()).await?;
    }
    Ok(true)
}

fn script(script: &str, base: &Base) -> Command {
    Command::new(["sh", "-c", script])
        .cwd(ROOT)
        .env("HOB_COMMIT", &base.commit)
        .env("HOB_TRACKED", base.branch.clone().unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1")
}

async fn run(sandbox: &Sandbox, command: Command, action: &'static str) -> Result<(), GitError> {
    judge(&sandbox.exec(command).await?.wait_output(64 << 10).await, action)
}

/// Runs a command in a sandbox on what a git of the host writes.
async fn feed(mut pack: Pack, sandbox: &Sandbox, command: Command, action: &'static str) -> Result<(), GitError> {
    let mut process = sandbox.exec(command.with_stdin()).await?;
    let stdin = process.stdin();
    let carry = async {
        let mut piece = vec![0; PIECE];
        while let Some(read) = pack.read(&mut piece).await? {
            // Whoever does not read any more says itself why.
            if stdin.write(piece.get(..read).unwrap_or_default()).await.is_err() {
                return Ok(());
            }
        }
        // Not before all is there, so that a pack that was cut short is never taken for a whole one.
        Ok(stdin.close().await?)
    };
    let (carried, output) = tokio::join!(
        async {
            let carried: Result<(), GitError> = carry.await;
            if carried.is_err() {
                stdin.close().await.ok();
            }
            carried
        },
        process.wait_output(64 << 10)
    );
    carried?;
    judge(&output, action)
}

fn judge(output: &hob_sandbox::Output, action: &'static str) -> Result<(), GitError> {
    let failed = |reason| Err(GitError::Command { action, reason });
    match output.exit {
        Some(exit) if exit.timed_out => failed("it took too long".to_owned()),
        Some(exit) if exit.code == 127 => failed("git is not in the sandbox; add it to `packages`".to_owned()),
        Some(exit) if exit.code != 0 => failed(last_words(&output.stderr)),
        Some(_) => Ok(()),
        None => failed("the sandbox was lost".to_owned()),
    }
}

/// A pack that a git of the host writes.
struct Pack {
    child: Child,
}

impl Pack {
    /// The next bytes of it; nothing after the last one.
    async fn read(&mut self, piece: &mut [u8]) -> Result<Option<usize>, GitError> {
        let failed = |reason: String| GitError::Command { action: PACK, reason };
        let Some(stdout) = self.child.stdout.as_mut() else { return Ok(None) };
        let read = stdout.read(piece).await.map_err(|error| failed(error.to_string()))?;
        if read > 0 {
            return Ok(Some(read));
        }
        let status = self.child.wait().await.map_err(|error| failed(error.to_string()))?;
        let mut said = Vec::new();
        if let Some(stderr) = self.child.stderr.as_mut() {
            stderr.take(4_096).read_to_end(&mut said).await.ok();
        }
        if status.success() { Ok(None) } else { Err(failed(last_words(&said))) }
    }
}

/// What packing is for, as errors name it.
const PACK: &str = "pack the repository's commits";

impl Mirror {
    /// Where a commit's past is cut off for a workspace: those of its newest commits that have a parent beyond them.
    async fn horizon(&self, commit: &str) -> Result<Vec<String>, GitError> {
        let list = self.local("read the repository's past");
        let arguments = ["rev-list", "--topo-order", "--parents", "--max-count", DEPTH, "--end-of-options", commit];
        Ok(horizon(&list.line(arguments).await?))
    }

    /// All that a commit needs and `than` does not have, with its past as far as `wanted` has it.
    async fn pack(&self, wanted: &Held, than: Option<&str>) -> Result<Pack, GitError> {
        let git: Git<'_> = self.local(PACK);
        let arguments = ["pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset", "--shallow"];
        let mut child = git.start(arguments)?;
        let mut asked: Vec<String> = wanted.shallow.iter().map(|commit| format!("--shallow {commit}")).collect();
        asked.push(wanted.commit.clone());
        asked.extend(than.map(|commit| format!("^{commit}")));
        if let Some(mut stdin) = child.stdin.take() {
            let text = asked.join("\n") + "\n";
            stdin.write_all(text.as_bytes()).await.map_err(|error| git.failed(error.to_string()))?;
        }
        Ok(Pack { child })
    }

    /// The repository's URL as a sandbox may see it; none for a folder of this machine.
    fn shown_origin(&self) -> Option<String> {
        is_remote(self.source()).then(|| display_name(self.source()))
    }
}

/// Of a listing of commits with their parents: those with a parent that is not listed.
fn horizon(listing: &str) -> Vec<String> {
    let commits: Vec<Vec<&str>> = listing.lines().map(|line| line.split(' ').collect()).collect();
    let listed: std::collections::HashSet<&str> = commits.iter().filter_map(|commit| commit.first().copied()).collect();
    let cut = |commit: &&Vec<&str>| commit.iter().skip(1).any(|parent| !listed.contains(parent));
    commits.iter().filter(cut).filter_map(|commit| commit.first().map(|&id| id.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::horizon;

    #[test]
    fn a_past_ends_where_a_parent_is_not_listed() {
        assert_eq!(horizon("c b\nb a"), ["b"]);
        assert_eq!(horizon("m b x\nb a\na"), ["m"]);
        assert_eq!(horizon("b a\na"), Vec::<String>::new());
        assert_eq!(horizon(""), Vec::<String>::new());
    }
}

//! Runs git on the host: no prompt, a deadline, and an error that says what git said.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::GitError;

/// Settings for every call. Hooks never run here, and no attribute of a repository names a program of the host.
const SETTINGS: [&str; 12] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "protocol.ext.allow=never",
    "-c",
    "transfer.fsckObjects=true",
    "-c",
    "gc.auto=0",
    "-c",
    "advice.detachedHead=false",
];

/// Whose configuration git reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// The person's own, for talking to a remote: credential helpers, proxies, SSH settings.
    Person,
    /// Nobody's, for everything that stays on this machine.
    Nobody,
}

/// One call of git.
pub(super) struct Git<'a> {
    /// The repository's folder, or where a new one is made.
    pub(super) folder: &'a Path,
    /// Whose configuration it reads.
    pub(super) identity: Identity,
    /// What it is for, as errors name it.
    pub(super) action: &'static str,
    /// How long it may take.
    pub(super) deadline: Duration,
}

impl Git<'_> {
    /// Runs git with these arguments and gives what it wrote.
    pub(super) async fn run<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Vec<u8>, GitError> {
        self.run_from(Stdio::null(), arguments).await
    }

    /// Runs git with these arguments on this input and gives what it wrote.
    pub(super) async fn run_from<S: AsRef<OsStr>>(
        &self,
        input: Stdio,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Vec<u8>, GitError> {
        let output = timeout(self.deadline, self.command(input, arguments).output())
            .await
            .map_err(|_| GitError::Deadline { action: self.action, seconds: self.deadline.as_secs() })?
            .map_err(|error| self.not_run(&error))?;
        if output.status.success() { Ok(output.stdout) } else { Err(self.failed(last_words(&output.stderr))) }
    }

    /// Starts git with these arguments, for whoever writes to it and reads of it.
    pub(super) fn start<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Child, GitError> {
        self.command(Stdio::piped(), arguments).spawn().map_err(|error| self.not_run(&error))
    }

    /// Why this call failed.
    pub(super) fn failed(&self, reason: String) -> GitError {
        GitError::Command { action: self.action, reason }
    }

    fn not_run(&self, error: &std::io::Error) -> GitError {
        self.failed(format!("git cannot be run ({error}); is it installed?"))
    }

    fn command<S: AsRef<OsStr>>(&self, input: Stdio, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("git");
        command.args(SETTINGS).args(arguments).current_dir(self.folder);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
        for inherited in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
            command.env_remove(inherited);
        }
        if self.identity == Identity::Nobody {
            command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        }
        command
    }

    /// Runs git and gives what it wrote as one trimmed line.
    pub(super) async fn line<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String, GitError> {
        let output = self.run(arguments).await?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    }
}

/// The end of what git wrote to standard error, for a person: at most 600 bytes, on one line.
pub(super) fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut words = lines[lines.len().saturating_sub(4)..].join("; ");
    while words.len() > 600 {
        words.pop();
    }
    if words.is_empty() { "git said nothing".to_owned() } else { words }
}

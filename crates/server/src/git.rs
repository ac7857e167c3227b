//! The few questions that the command line and the server ask of git.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use hob_agent::Author;

/// The person that `git config` of this process's user names.
pub fn configured_author() -> Option<Author> {
    let get = |key: &str| {
        let output = run(None, &["config", "--get", key]).ok().filter(|output| output.status.success())?;
        let value = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    };
    Some(Author { name: get("user.name")?, email: get("user.email")? })
}

/// The top folder of the checkout that `folder` lies in.
pub fn top_level(folder: &Path) -> Option<String> {
    let output = run(Some(folder), &["rev-parse", "--show-toplevel"]).ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim_end_matches('\n').to_owned())
}

/// Whether a checkout has a commit.
pub fn has_commit(folder: &Path, commit: &str) -> bool {
    run(Some(folder), &["cat-file", "-e", &format!("{commit}^{{commit}}")]).is_ok_and(|output| output.status.success())
}

/// Runs git and collects what it says.
///
/// # Errors
/// There is no git, or it cannot be started.
pub fn run(folder: Option<&Path>, arguments: &[&str]) -> std::io::Result<Output> {
    let mut git = Command::new("git");
    if let Some(folder) = folder {
        git.arg("-C").arg(folder);
    }
    git.args(arguments).stdin(Stdio::null()).output()
}

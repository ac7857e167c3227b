//! `hob diff` and `hob pull`: the change, and its branch into the local checkout.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;

use super::context::print;
use super::{Context, Failure};
use crate::api::SessionView;
use crate::git;
use crate::render::Style;
use crate::render::style::clean;

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The session
    id: String,
}

#[derive(Debug, Args)]
pub(super) struct Pull {
    /// The session
    id: String,
}

impl Diff {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let diff = context.client()?.bytes(&format!("/api/v1/sessions/{}/diff", self.id)).await?;
        let diff = String::from_utf8_lossy(&diff);
        // For a program the patch is as it is; for a terminal it is made harmless.
        if !std::io::stdout().is_terminal() {
            return print(&diff);
        }
        print(&painted(context.style(), &clean(&diff)))
    }
}

fn painted(style: Style, diff: &str) -> String {
    let paint = |line: &str| match line.as_bytes() {
        [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] | [b'd', b'i', b'f', b'f', ..] => style.bold(line),
        [b'+', ..] => style.green(line),
        [b'-', ..] => style.red(line),
        [b'@', b'@', ..] => style.cyan(line),
        _ => line.to_owned(),
    };
    diff.lines().map(|line| paint(line) + "\n").collect()
}

impl Pull {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let session: SessionView = client.get(&format!("/api/v1/sessions/{}", self.id)).await?;
        let Some(branch) = session.branch else {
            return Err(Failure::Failed(format!("session {} has no commit yet", self.id)));
        };
        let here = Path::new(".");
        let Some(checkout) = git::top_level(here) else {
            return Err(Failure::set_up("find a checkout around the current folder; go into the repository's"));
        };
        let checkout = Path::new(&checkout);
        let mut path = format!("/api/v1/sessions/{}/bundle", self.id);
        if let Some(base) = session.base_commit.filter(|base| git::has_commit(checkout, base)) {
            path.push_str(&format!("?have={base}"));
        }
        let bundle = client.bytes(&path).await?;
        fetch(checkout, &bundle, &branch)?;
        print(&format!("fetched {0}\nlook at it with: git log -p {0}\n", clean(&branch)))
    }
}

/// Fetches the branch out of a bundle. A local branch of that name that went elsewhere is not overwritten.
fn fetch(checkout: &Path, bundle: &[u8], branch: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("failed to keep the bundle: {error}"));
    let folder = std::env::temp_dir().join(format!("hob-pull-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let file = folder.join("branch.bundle");
    let fetched = std::fs::write(&file, bundle).and_then(|()| {
        let refspec = format!("refs/heads/{branch}:refs/heads/{branch}");
        Command::new("git")
            .arg("-C")
            .arg(checkout)
            .args(["fetch", "--quiet", "--no-tags"])
            .arg(&file)
            .arg(refspec)
            .stdin(Stdio::null())
            .status()
    });
    std::fs::remove_dir_all(&folder).map_err(failed)?;
    match fetched.map_err(failed)? {
        status if status.success() => Ok(()),
        status => Err(Failure::Failed(format!("failed to fetch {branch}: git ended with {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_painted_by_line() {
        let text = painted(Style::Colour, "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n z\n");
        assert_eq!(
            text,
            "\x1b[1m--- a\x1b[0m\n\x1b[1m+++ b\x1b[0m\n\x1b[36m@@ -1 +1 @@\x1b[0m\n\x1b[31m-x\x1b[0m\n\x1b[32m+y\x1b[0m\n z\n"
        );
    }
}

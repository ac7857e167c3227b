//! `hob env`: what a repository's sandboxes are made of.
//!
//! It reads the checkout as it lies there, so that a file can be tried before it is committed. Sessions read the commit
//! that they start from.

mod shown;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hob_session::environment::{self, PATH};

use super::context::{print, print_json, remark};
use super::run::Run;
use super::{Context, Failure, image, private};
use crate::api::BuildImage;
use crate::git;
use crate::wiring;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum Env {
    /// Draft .hob/environment.toml from what the repository's own files prove
    Init(Init),
    /// Say what the repository's environment means, build it from nothing, and run the checks in it
    Check(Check),
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The checkout; the one around the current folder when absent
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// Print the draft, and write nothing
    #[arg(long, conflicts_with = "force")]
    print: bool,
    /// Ask an agent to finish it: it tries the set-up in its sandbox, and hands back a branch
    #[arg(long, conflicts_with_all = ["force", "print"])]
    finish: bool,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The checkout; the one around the current folder when absent
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// Only read it; build nothing
    #[arg(long)]
    quick: bool,
}

impl Env {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Init(init) => init.run(context).await,
            Self::Check(check) => check.run(context).await,
        }
    }
}

impl Init {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let checkout = Checkout::find(self.repo.as_deref())?;
        let draft = environment::draft(&checkout.files, |path| checkout.read(path));
        if self.finish {
            return Run::on(&checkout.top, &finish(&draft, checkout.read(PATH).as_deref())).run(context).await;
        }
        if self.print {
            return print(&draft);
        }
        let file = checkout.top.join(PATH);
        if file.exists() && !self.force {
            return Err(Failure::set_up(format!("write {}: it is there already; --force replaces it", file.display())));
        }
        let failed = |error: std::io::Error| Failure::set_up(format!("write {}: {error}", file.display()));
        std::fs::create_dir_all(file.parent().unwrap_or(&checkout.top)).map_err(failed)?;
        std::fs::write(&file, draft).map_err(failed)?;
        remark(&format!("wrote {}; `hob env check` says what it means", file.display()));
        Ok(())
    }
}

/// What an agent is asked to do about an environment: `written` is what the checkout has of it.
fn finish(draft: &str, written: Option<&str>) -> String {
    let (whose, text) = written.map_or(("A draft from the repository's own files", draft), |text| ("As it is", text));
    format!(
        "Finish {PATH}, which says what this repository's sandboxes are made of: packages, set-up and warm-up commands, \
         services and checks. You are in such a sandbox. Install what is missing with the package managers that are \
         here, start the services, run the build and the tests until they pass, and write down in {PATH} exactly the \
         commands that made them pass: what is installed belongs into [packages] and setup, what is fetched and built \
         in the checkout into warm, databases and servers into [[services]] with a port or a ready command, and the \
         compiler, linter and tests into [[checks]]. Keep it short, change nothing else, and say in your last message \
         what you tried and what still fails.\n\n{whose}:\n\n```toml\n{text}\n```\n"
    )
}

impl Check {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let checkout = Checkout::find(self.repo.as_deref())?;
        let described = environment::describe(&checkout.files, |path| checkout.read(path));
        let notices = environment::not_yet(&described.environment, wiring::sandbox_limits(&context.config()?));
        if context.json() && self.quick {
            print_json(&shown::json(&described, &notices))?;
        } else if !context.json() {
            print(&shown::text(context.style(), &described, &notices))?;
        }
        if !described.problems.is_empty() {
            return Err(Failure::Exit(1));
        }
        if self.quick { Ok(()) } else { checkout.build(context).await }
    }
}

/// A checkout on this machine, as it lies there.
struct Checkout {
    top: PathBuf,
    /// Its files, those that git ignores left out.
    files: Vec<String>,
}

impl Checkout {
    fn find(folder: Option<&Path>) -> Result<Self, Failure> {
        let folder = folder.unwrap_or(Path::new("."));
        let none = || Failure::set_up(format!("find a git checkout at {}", folder.display()));
        let top = PathBuf::from(git::top_level(folder).ok_or_else(none)?);
        let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let failed =
            |reason: &dyn std::fmt::Display| Failure::set_up(format!("list the files of {}: {reason}", top.display()));
        let listing = git::run(Some(&top), &arguments).map_err(|error| failed(&error))?;
        if !listing.status.success() {
            return Err(failed(&String::from_utf8_lossy(&listing.stderr).trim()));
        }
        let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
        let files = listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
        Ok(Self { top, files })
    }

    /// Builds the image of the commit that is checked out, with the environment as it lies there, from nothing, and runs
    /// the checks in it.
    async fn build(&self, context: &Context) -> Result<(), Failure> {
        let head = git::run(Some(&self.top), &["rev-parse", "--verify", "HEAD"]).map_err(Failure::set_up)?;
        let commit = String::from_utf8_lossy(&head.stdout).trim().to_owned();
        if commit.is_empty() {
            return Err(Failure::set_up(format!("build {}: it has no commit; make a first one", self.top.display())));
        }
        let repository = self.top.display().to_string();
        let environment = self.read(PATH);
        let order = BuildImage { repository, base: Some(commit), fresh: true, check: true, environment };
        let client = private::client(context).await?;
        image::watch(context, &client, &order).await
    }

    /// A plain file's text; a link is not followed, as in a session.
    fn read(&self, path: &str) -> Option<String> {
        let file = self.top.join(path);
        let is_small = |data: &std::fs::Metadata| data.is_file() && data.len() <= FILE_BYTES_MAX;
        std::fs::symlink_metadata(&file).ok().filter(is_small)?;
        let bytes = std::fs::read(&file).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

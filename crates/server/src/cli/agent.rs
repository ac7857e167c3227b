//! `hob agent`: which agents there are, and how one is fetched.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Subcommand;
use hob_agent::catalogue;
use hob_session::BUILT_IN;
use serde_json::json;

use super::context::{print, print_json, remark, table};
use super::{Context, Failure};
use crate::install::{self, Progress};

/// How often lines tell of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(super) enum Agent {
    /// List agents
    List,
    /// Fetch an agent from npm, with every package's integrity checked
    Install {
        /// The agent
        name: String,
    },
}

impl Agent {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::List => list(context),
            Self::Install { name } => fetch(context, &name).await,
        }
    }
}

fn list(context: &Context) -> Result<(), Failure> {
    let toolchains = install::folder(&context.data_dir()?);
    let version = env!("CARGO_PKG_VERSION");
    let licence = "MIT OR Apache-2.0";
    if context.json() {
        let built_in =
            json!({ "name": BUILT_IN, "title": "Hob", "version": version, "licence": licence, "installed": true });
        let others = catalogue::entries().iter().map(|entry| {
            json!({
                "name": entry.name, "title": entry.title, "version": entry.version, "licence": entry.licence,
                "memory_mib": entry.memory_mib, "installed": install::is_installed(&toolchains, entry),
            })
        });
        return print_json(&[built_in].into_iter().chain(others).collect::<Vec<_>>());
    }
    let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![row([BUILT_IN, version, "built in", licence])];
    rows.extend(catalogue::entries().iter().map(|entry| {
        let state = if install::is_installed(&toolchains, entry) { "installed" } else { "not installed" };
        row([entry.name, entry.version, state, entry.licence])
    }));
    print(&table(&rows))
}

async fn fetch(context: &Context, name: &str) -> Result<(), Failure> {
    let Some(entry) = catalogue::entry(name) else {
        let names: Vec<_> = catalogue::entries().iter().map(|entry| entry.name).collect();
        return Err(Failure::SetUp(format!(
            "there is no agent named {name:?} to install; there are {}",
            names.join(", ")
        )));
    };
    let live = std::io::stderr().is_terminal();
    let mut told = Duration::ZERO;
    let progress = |progress: Progress| {
        let line = format!("{}: {} MiB, {} s", entry.title, progress.bytes >> 20, progress.elapsed.as_secs());
        if live {
            // Only a picture of progress: nothing depends on whether it is seen.
            drop(write!(std::io::stderr(), "\r\x1b[2K{line}"));
        } else if progress.elapsed >= told {
            told = progress.elapsed + LINE_EVERY;
            remark(&line);
        }
    };
    let installed = install::install(&install::folder(&context.data_dir()?), entry, progress).await;
    if live {
        remark("\r\x1b[2K");
    }
    let folder = installed.map_err(|error| Failure::Failed(format!("failed to {error}")))?;
    match context.json() {
        true => print_json(&json!({ "name": entry.name, "version": entry.version, "folder": folder })),
        false => print(&format!("{} {} is installed\n", entry.title, entry.version)),
    }
}

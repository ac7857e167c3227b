//! The checks of a turn: which there are, their runs on the change, and their runs on the base commit.
//!
//! On the base they run at most once in a session, in a copy of the workspace that is put back to the base commit: what
//! git ignores (installed dependencies, build caches) stays, so that a check finds what it needs. The copy is made when
//! the agent has ended its work, so that nothing is written while it is taken.

use std::collections::HashSet;
use std::time::Instant;

use hob_sandbox::{Command, Sandbox};
use tokio_util::sync::CancellationToken;

use crate::checks::compare::is_red;
use crate::checks::parse::{CheckOutput, parse};
use crate::checks::rounds::judge;
use crate::checks::{CHECK_ENV, Check};
use crate::config::BaseChecks;
use crate::described::{describe, detect_in_workspace};
use crate::event::{CheckRun, EventKind};
use crate::git::{Mirror, inside::Workplace};
use crate::owned::{Owned, millis};
use crate::workspace::ROOT;

/// Where the copy of the base lies inside the sandbox: on disk, since `/tmp` may be memory.
const BASE_COPY: &str = "/var/tmp/hob-base";

/// Puts a copy of the workspace (`$1`) back to a commit (`$2`).
const COPY_BASE: &str = r#"
set -e
rm -rf "$1"
cp -a --reflink=auto . "$1"
cd "$1"
git -c core.hooksPath=/dev/null reset --quiet --hard "$2"
git clean -fdq
"#;

/// Everything about the checks of one turn.
pub(super) struct Proof<'a> {
    owned: &'a Owned,
    sandbox: &'a Sandbox,
    pub(super) mirror: Mirror,
    /// The commit that the session works from.
    pub(super) base: String,
    /// The commit that the change follows: the session's last one, or the base.
    pub(super) parent: String,
    parent_tree: String,
    checks: Vec<Check>,
    max_rounds: u32,
    base_runs: Vec<CheckRun>,
    /// Checks whose preparation has succeeded, by folder and command.
    prepared: HashSet<(String, String)>,
    stop: &'a CancellationToken,
}

impl<'a> Proof<'a> {
    pub(super) async fn new(
        owned: &'a Owned,
        sandbox: &'a Sandbox,
        stop: &'a CancellationToken,
    ) -> Result<Self, String> {
        let read = |state: &crate::fold::SessionState| {
            let summary = &state.summary;
            (state.repository.clone(), summary.base_commit.clone(), summary.commit.clone(), state.base_runs.clone())
        };
        let (repository, base, commit, base_runs) = owned.log.read(read).await;
        let base = base.ok_or("the base commit is not known; the sandbox never started in order")?;
        let mirror = owned.house.mirrors.known(&repository);
        let parent = commit.unwrap_or_else(|| base.clone());
        let failed = |error: crate::git::GitError| format!("failed to {error}");
        let parent_tree = mirror.tree(&parent).await.map_err(failed)?;
        let described = describe(&mirror, &base).await.map_err(failed)?;
        let checks = match described.checks.is_empty() {
            true => detect_in_workspace(sandbox).await.map_err(|error| format!("failed to {error}"))?,
            false => described.checks,
        };
        Ok(Self {
            owned,
            sandbox,
            mirror,
            base,
            parent,
            parent_tree,
            checks,
            max_rounds: described.environment.max_rounds.unwrap_or(owned.house.config.max_rounds),
            base_runs,
            prepared: HashSet::new(),
            stop,
        })
    }

    pub(super) fn parent_tree(&self) -> &str {
        &self.parent_tree
    }

    pub(super) fn base_runs(&self) -> &[CheckRun] {
        &self.base_runs
    }

    pub(super) fn max_rounds(&self) -> u32 {
        self.max_rounds
    }

    /// Runs every check on the change, and on the base where that is still to be done.
    pub(super) async fn check(&mut self, round: u32) -> Result<Vec<CheckRun>, String> {
        if self.owned.house.config.base_checks == BaseChecks::Always {
            self.check_base(self.checks.clone()).await?;
        }
        let mut runs = Vec::new();
        for check in self.checks.clone() {
            let mut run = self.run(&check, ROOT, round).await?;
            if is_red(&run) {
                self.check_base(vec![check]).await?;
            }
            run.red_on_base = judge(&self.base_runs, &run).red_on_base;
            self.record(EventKind::CheckEnded(run.clone())).await?;
            runs.push(run);
        }
        Ok(runs)
    }

    /// Runs checks on the base commit that have not run there yet.
    async fn check_base(&mut self, checks: Vec<Check>) -> Result<(), String> {
        let is_new = |check: &Check| self.base_runs.iter().all(|run| run.name != check.name);
        let checks: Vec<Check> = checks.into_iter().filter(is_new).collect();
        if checks.is_empty() {
            return Ok(());
        }
        let copy = Command::new(["sh", "-c", COPY_BASE, "sh", BASE_COPY, &self.base]).cwd(ROOT);
        if let Err(error) = self.sandbox.run("copy the base commit", copy, 4_096).await {
            // Without it, every red check is blamed on the change, which is the careful side.
            let text = format!("The checks could not run on the base commit: failed to {error}");
            return self.record(EventKind::Notice { text }).await;
        }
        for check in checks {
            let run = self.run(&check, BASE_COPY, 0).await?;
            self.record(EventKind::CheckEnded(run.clone())).await?;
            self.base_runs.push(run);
        }
        let remove = Command::new(["rm", "-rf", BASE_COPY]);
        if let Err(error) = self.sandbox.run("remove the copy of the base commit", remove, 4_096).await {
            tracing::warn!(session.id = %self.owned.id, "a copy stays in the sandbox: failed to {error}");
        }
        Ok(())
    }

    /// Runs one check in a folder that holds the workspace or a copy of it.
    async fn run(&mut self, check: &Check, root: &str, round: u32) -> Result<CheckRun, String> {
        let (name, command) = (check.name.clone(), check.command.clone());
        self.record(EventKind::CheckStarted { name: name.clone(), command: command.clone(), round }).await?;
        let folder = if check.directory.is_empty() { root.to_owned() } else { format!("{root}/{}", check.directory) };
        let begun = Instant::now();
        let mut ended = None;
        if let Some(prepare) = &check.prepare {
            let key = (folder.clone(), prepare.clone());
            if !self.prepared.contains(&key) {
                let prepared = self.shell(prepare, &folder, check).await?;
                match prepared.exit {
                    Some(exit) if exit.code == 0 && !exit.timed_out => drop(self.prepared.insert(key)),
                    _ => ended = Some(prepared),
                }
            }
        }
        let output = match ended {
            Some(failed_to_prepare) => failed_to_prepare,
            None => self.shell(&check.command, &folder, check).await?,
        };
        let exit = output.exit.ok_or("the sandbox was lost while a check ran")?;
        let read = CheckOutput {
            stdout: &output.stdout,
            stderr: &output.stderr,
            exit_code: exit.code,
            workspace: root,
            directory: &check.directory,
        };
        Ok(CheckRun {
            name,
            command,
            round,
            exit_code: exit.code,
            timed_out: exit.timed_out,
            elapsed_ms: millis(begun.elapsed()),
            diagnostics: parse(check.parser, &read),
            red_on_base: false,
        })
    }

    async fn shell(&self, line: &str, folder: &str, check: &Check) -> Result<hob_sandbox::Output, String> {
        let mut command = Command::shell(line).cwd(folder).timeout(check.timeout);
        for (name, value) in CHECK_ENV {
            command = command.env(*name, *value);
        }
        let mut process = self.sandbox.exec(command).await.map_err(|error| format!("failed to {error}"))?;
        let output = tokio::select! {
            output = process.wait_output(self.owned.house.config.limits.output_bytes_max) => output,
            () = self.stop.cancelled() => {
                process.kill().await.map_err(|error| format!("failed to {error}"))?;
                return Err("stopped".to_owned());
            }
        };
        // A check that leaves a server behind would meet it again in the next round.
        if let Err(error) = process.kill().await {
            tracing::debug!(session.id = %self.owned.id, "nothing was left of a check: failed to {error}");
        }
        Ok(output)
    }

    async fn record(&self, event: EventKind) -> Result<(), String> {
        self.owned.record(vec![event]).await.map_err(|error| format!("failed to {error}"))
    }
}

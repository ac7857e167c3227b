//! Runs the repository's checks in a sandbox: on the workspace, and on a clean copy of the base commit.
//!
//! What runs is decided from the base commit as the mirror holds it, so that an agent cannot make its own proof easier.
//! A repository whose base has no checks is looked at again as the agent left it: the first tests of a repository are a
//! change too.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use hob_sandbox::{Command, Exit, Output, Sandbox, SandboxError};
use tokio_util::task::TaskTracker;

use crate::checks::parse::{CheckOutput, parse};
use crate::checks::{CHECK_ENV, Check, Diagnostic, Severity, TAIL_CODE, clip, detect};
use crate::environment::{self, Environment};
use crate::event::CheckRun;
use crate::git::{GitError, Mirror};
use crate::leash::Leash;
use crate::workspace::WORKSPACE;

/// Where the clean copy of the base commit lies inside the sandbox.
const BASE_COPY: &str = "/var/tmp/hob-base";

/// The repository's own description of its environment.
const ENVIRONMENT_FILE: &str = ".hob/environment.toml";

/// What making ready for a check, such as `npm ci`, may take.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How long git may take to copy the base commit, or to list the workspace.
const COPY_TIMEOUT: Duration = Duration::from_secs(120);

/// Files that detection may read.
const MANIFESTS_MAX: usize = 64;

/// The largest manifest that detection reads, in bytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// The longest listing of files that detection reads, in bytes.
const LISTING_BYTES_MAX: usize = 32 << 20;

/// What a repository says of itself at its base commit, or what its files show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its environment; the default where it has no file, or one that cannot be read.
    pub environment: Environment,
    /// Its checks, in the order they run.
    pub checks: Vec<Check>,
    /// What is wrong with its file, in words for the participants.
    pub problem: Option<String>,
}

/// Reads what a repository says of itself at a commit.
///
/// # Errors
/// The commit is not in the mirror.
pub async fn describe(mirror: &Mirror, commit: &str) -> Result<Described, GitError> {
    let files = mirror.files(commit).await?;
    let mut described = Described { environment: Environment::default(), checks: Vec::new(), problem: None };
    if let Some(text) = mirror.file(commit, ENVIRONMENT_FILE).await? {
        match environment::parse(&text) {
            Ok(environment) => described.environment = environment,
            Err(error) => described.problem = Some(format!("failed to read {ENVIRONMENT_FILE}: {error}")),
        }
    }
    described.checks = match &described.environment.checks {
        Some(checks) => checks.clone(),
        None => {
            let mut texts = Texts::default();
            while let Some(path) = texts.wanted(&files) {
                let text = mirror.file(commit, &path).await?;
                texts.known.insert(path, text);
            }
            detect::detect(&files, |path| texts.known.get(path).cloned().flatten())
        }
    };
    Ok(described)
}

/// Finds the checks of the workspace as the agent left it, for a repository that had none at its base.
///
/// # Errors
/// The sandbox is lost.
pub async fn detect_in_workspace(sandbox: &Sandbox) -> Result<Vec<Check>, SandboxError> {
    let list = Command::new(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let mut process = sandbox.exec(list.cwd(WORKSPACE).timeout(COPY_TIMEOUT)).await?;
    let output = process.wait_output(LISTING_BYTES_MAX).await;
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let files: Vec<String> = listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    let mut texts = Texts::default();
    while let Some(path) = texts.wanted(&files) {
        let bytes = sandbox.read_file(&format!("{WORKSPACE}/{path}"), 0..MANIFEST_BYTES_MAX).await.ok();
        texts.known.insert(path, bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(detect::detect(&files, |path| texts.known.get(path).cloned().flatten()))
}

/// The texts that detection has asked for. Detection is pure and reads at once, while a mirror and a sandbox take their
/// time: so it is asked again until it misses nothing.
#[derive(Default)]
struct Texts {
    known: HashMap<String, Option<String>>,
}

impl Texts {
    /// A file that detection would read and that is not known yet.
    fn wanted(&self, files: &[String]) -> Option<String> {
        let mut wanted = None;
        detect::detect(files, |path| match self.known.get(path) {
            Some(text) => text.clone(),
            None => {
                wanted.get_or_insert_with(|| path.to_owned());
                None
            }
        });
        wanted.filter(|_| self.known.len() < MANIFESTS_MAX)
    }
}

/// Makes the clean copy of the base commit inside the sandbox, without a trace in the agent's own checkout.
///
/// # Errors
/// Git failed inside, or the sandbox is lost.
pub async fn copy_base(sandbox: &Sandbox, commit: &str) -> Result<String, GitError> {
    let script = "rm -rf \"$2\" && git clone --quiet --shared --no-checkout . \"$2\" && git -C \"$2\" -c \
                  core.hooksPath=/dev/null checkout --quiet --detach \"$1\"";
    let copy = Command::new(["sh", "-c", script, "sh", commit, BASE_COPY]).cwd(WORKSPACE).timeout(COPY_TIMEOUT);
    let mut process = sandbox.exec(copy).await?;
    let output = process.wait_output(4 * 1_024).await;
    match output.exit {
        Some(Exit { code: 0, .. }) => Ok(BASE_COPY.to_owned()),
        _ => Err(GitError::Command {
            action: "copy the base commit",
            reason: clip(String::from_utf8_lossy(&output.stderr).trim(), 600),
        }),
    }
}

/// Runs checks in one sandbox. What a check needs before it can run is done once for each folder.
pub(crate) struct Prover {
    output_bytes_max: usize,
    prepared: HashSet<(String, String)>,
    tasks: TaskTracker,
}

impl Prover {
    /// Keeps at most so much of each stream of a check. A check whose future is dropped is killed on `tasks`.
    pub(crate) fn new(output_bytes_max: usize, tasks: TaskTracker) -> Self {
        Self { output_bytes_max, prepared: HashSet::new(), tasks }
    }

    /// Runs one check in a copy of the repository ([`WORKSPACE`] or what [`copy_base`] gave). A red check is no error.
    ///
    /// # Errors
    /// The sandbox is lost.
    pub(crate) async fn run(
        &mut self,
        sandbox: &Sandbox,
        check: &Check,
        copy: &str,
        round: u32,
    ) -> Result<CheckRun, SandboxError> {
        let began = Instant::now();
        let folder = if check.directory.is_empty() { copy.to_owned() } else { format!("{copy}/{}", check.directory) };
        let mut run = CheckRun {
            name: check.name.clone(),
            command: check.command.clone(),
            round,
            exit_code: 0,
            timed_out: false,
            elapsed_ms: 0,
            diagnostics: Vec::new(),
            red_on_base: false,
        };
        if let Some(failed) = self.prepare(sandbox, check, &folder).await? {
            (run.exit_code, run.timed_out) = (failed.exit.code, failed.exit.timed_out);
            run.diagnostics.push(failed.diagnostic);
        } else {
            let (output, exit) = self.execute(sandbox, &check.command, &folder, check.timeout).await?;
            (run.exit_code, run.timed_out) = (exit.code, exit.timed_out);
            run.diagnostics = read_findings(check.clone(), output, exit, copy.to_owned()).await;
        }
        run.elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(run)
    }

    async fn prepare(
        &mut self,
        sandbox: &Sandbox,
        check: &Check,
        folder: &str,
    ) -> Result<Option<Unprepared>, SandboxError> {
        let Some(line) = &check.prepare else { return Ok(None) };
        let step = (folder.to_owned(), line.clone());
        if self.prepared.contains(&step) {
            return Ok(None);
        }
        let (output, exit) = self.execute(sandbox, line, folder, PREPARE_TIMEOUT).await?;
        if exit.code == 0 {
            self.prepared.insert(step);
            return Ok(None);
        }
        let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        let text = String::from_utf8_lossy(said);
        let tail = &text[text.floor_char_boundary(text.len().saturating_sub(2_048))..];
        let message =
            format!("`{line}` failed with exit code {}, so the check could not run:\n{}", exit.code, tail.trim());
        let mut diagnostic = Diagnostic::new(Severity::Error, message);
        diagnostic.code = Some(TAIL_CODE.to_owned());
        Ok(Some(Unprepared { exit, diagnostic }))
    }

    async fn execute(
        &self,
        sandbox: &Sandbox,
        line: &str,
        folder: &str,
        timeout: Duration,
    ) -> Result<(Output, Exit), SandboxError> {
        let mut command = Command::shell(line).cwd(folder).timeout(timeout);
        for (name, value) in CHECK_ENV {
            command = command.env(*name, *value);
        }
        let mut process = Leash::new(sandbox.exec(command).await?, self.tasks.clone());
        let output = process.wait_output(self.output_bytes_max).await;
        let Some(exit) = output.exit else {
            let reason = format!("it ended while `{}` ran", clip(line, 200));
            return Err(SandboxError::Lost { id: sandbox.id().clone(), reason });
        };
        // A test that leaves a server behind must not hold a port for the next round: dropping the leash kills it.
        drop(process);
        Ok((output, exit))
    }
}

/// Reads a check's output beside the runtime: a flood of it takes a parser its time.
async fn read_findings(check: Check, output: Output, exit: Exit, copy: String) -> Vec<Diagnostic> {
    let reading = tokio::task::spawn_blocking(move || {
        let read = CheckOutput {
            stdout: &output.stdout,
            stderr: &output.stderr,
            exit_code: exit.code,
            workspace: &copy,
            directory: &check.directory,
        };
        parse(check.parser, &read)
    });
    reading.await.unwrap_or_else(|error| {
        tracing::error!("a check's output could not be read: {error}");
        vec![Diagnostic::new(Severity::Error, "the check's output could not be read; see the server's log")]
    })
}

/// What a check needs before it can run did not succeed.
struct Unprepared {
    exit: Exit,
    diagnostic: Diagnostic,
}

//! Installs agents of the catalogue: npm fetches exactly what the lockfile says, into a folder of its own that appears
//! whole or not at all.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use hob_agent::catalogue::{Entry, InstallPlan};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// Longest installation: some agents are half a gigabyte.
const DEADLINE: Duration = Duration::from_mins(20);
const TICK: Duration = Duration::from_secs(1);

/// Why an agent was not installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The toolchain folder cannot be written.
    #[error("write {}: {source}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// npm is not there.
    #[error("run {program}: {source}; `hob doctor` says what this machine lacks")]
    Program {
        /// The program.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// npm failed.
    #[error("fetch {agent}: npm ended with {status}; its last words: {last_words}")]
    Npm {
        /// The agent.
        agent: &'static str,
        /// How npm ended.
        status: String,
        /// What it said last.
        last_words: String,
    },
    /// What was fetched is not what the catalogue expects.
    #[error("find {} in what npm fetched; is this machine's processor one that the agent runs on?", path.display())]
    Incomplete {
        /// The program that is not there.
        path: PathBuf,
    },
}

/// How far an installation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Since its beginning.
    pub elapsed: Duration,
    /// Bytes in the folder so far.
    pub bytes: u64,
}

/// The folder of all toolchains.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("agents")
}

/// Whether an agent is installed, in the catalogue's version.
pub fn is_installed(toolchains: &Path, entry: &Entry) -> bool {
    toolchains.join(entry.install_plan().folder).is_dir()
}

/// Installs an agent, unless it is there.
///
/// # Errors
/// It was not fetched; nothing is left behind.
pub async fn install(
    toolchains: &Path,
    entry: &'static Entry,
    mut progress: impl FnMut(Progress),
) -> Result<PathBuf, InstallError> {
    let plan = entry.install_plan();
    let target = toolchains.join(&plan.folder);
    if target.is_dir() {
        return Ok(target);
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| InstallError::Folder { path, source }
    };
    std::fs::create_dir_all(toolchains).map_err(failed(toolchains))?;
    let new = toolchains.join(format!(".{}.{}", plan.folder, std::process::id()));
    std::fs::create_dir(&new).map_err(failed(&new))?;
    let fetched = fetch(entry.name, &plan, &new, &mut progress).await;
    let finished = match fetched {
        Ok(()) => std::fs::rename(&new, &target).map_err(failed(&target)),
        Err(error) => Err(error),
    };
    if finished.is_err()
        && let Err(error) = std::fs::remove_dir_all(&new)
    {
        tracing::warn!(folder = %new.display(), %error, "a half-made toolchain stays behind");
    }
    // Another process may have been faster; what it made is the same.
    if target.is_dir() { Ok(target) } else { finished.map(|()| target) }
}

async fn fetch(
    agent: &'static str,
    plan: &InstallPlan,
    folder: &Path,
    progress: &mut impl FnMut(Progress),
) -> Result<(), InstallError> {
    for (name, text) in &plan.files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|source| InstallError::Folder { path, source })?;
    }
    run(agent, plan, folder, progress).await?;
    for path in plan.prune.iter().map(|path| folder.join(path)) {
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(InstallError::Folder { path, source });
            }
            _ => {}
        }
    }
    let runs = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0);
    match plan.programs.iter().map(|program| folder.join(program)).find(|path| !runs(path)) {
        Some(path) => Err(InstallError::Incomplete { path }),
        None => Ok(()),
    }
}

async fn run(
    agent: &'static str,
    plan: &InstallPlan,
    folder: &Path,
    progress: &mut impl FnMut(Progress),
) -> Result<(), InstallError> {
    let Some((program, arguments)) = plan.argv.split_first() else { return Ok(()) };
    let mut npm = Command::new(program);
    npm.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = npm.kill_on_drop(true).spawn().map_err(|source| InstallError::Program { program, source })?;
    let mut errors = child.stderr.take().map(|stderr| BufReader::new(stderr).lines());
    let started = Instant::now();
    let mut tick = tokio::time::interval(TICK);
    let mut last_words = String::new();
    let status = loop {
        tokio::select! {
            line = async { match &mut errors { Some(errors) => errors.next_line().await, None => Ok(None) } }, if errors.is_some() => {
                match line {
                    Ok(Some(line)) if !line.trim().is_empty() => last_words = line.chars().take(500).collect(),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => errors = None,
                }
            }
            status = child.wait(), if errors.is_none() => {
                break status.map_err(|source| InstallError::Program { program, source })?;
            }
            _ = tick.tick() => {
                if started.elapsed() > DEADLINE {
                    let status = format!("no end within {} s", DEADLINE.as_secs());
                    return Err(InstallError::Npm { agent, status, last_words });
                }
                progress(Progress { elapsed: started.elapsed(), bytes: size(folder) });
            }
        }
    };
    match status.success() {
        true => Ok(()),
        false => Err(InstallError::Npm { agent, status: status.to_string(), last_words }),
    }
}

/// Bytes of all files in a folder. What vanishes meanwhile does not count.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

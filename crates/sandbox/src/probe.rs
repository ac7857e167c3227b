//! What a machine has and lacks for sandboxes, in words for a person, each with the words that mend it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::cgroup::Cgroups;
use crate::disk;
use crate::ids::{Ids, find_program};

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What, such as `bubblewrap`.
    pub name: String,
    /// How it is.
    pub grade: Grade,
    /// What was found.
    pub detail: String,
    /// What to do; empty where nothing is to be done.
    pub fix: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Sandboxes work, with less than they could have.
    Warn,
    /// Sandboxes do not work.
    Fail,
}

impl Finding {
    pub(crate) fn new(name: &str, grade: Grade, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        let fix = if grade == Grade::Ok { String::new() } else { fix.into() };
        Self { name: name.to_owned(), grade, detail: detail.into(), fix }
    }
}

/// Looks at everything that sandboxes need.
pub(crate) async fn probe(data_dir: &Path) -> Vec<Finding> {
    let mut findings = vec![bubblewrap().await, user_namespaces().await];
    findings.push(ranges(&Ids::of_this_process()));
    findings.extend(limits());
    findings.push(number("inotify instances", "fs.inotify.max_user_instances", 512));
    findings.push(number("process numbers", "kernel.pid_max", 65_536));
    findings.push(free_disk(data_dir));
    findings
}

async fn bubblewrap() -> Finding {
    let name = "bubblewrap";
    let install = "apt-get install bubblewrap";
    let Some(program) = find_program("bwrap") else {
        return Finding::new(name, Grade::Fail, "bwrap is not on the PATH", install);
    };
    let output = Command::new(&program).arg("--version").stdin(Stdio::null()).output().await;
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let version: Vec<u32> =
        said.rsplit(' ').next().unwrap_or_default().split('.').filter_map(|n| n.parse().ok()).collect();
    let grade = if version.as_slice() >= [0, 8].as_slice() { Grade::Ok } else { Grade::Fail };
    let fix = format!("version 0.8 or later is needed: {install}");
    Finding::new(name, grade, format!("{said} at {}", program.display()), fix)
}

/// Tries what a sandbox does first; the kernel has too many reasons to refuse it to guess.
async fn user_namespaces() -> Finding {
    let name = "user namespaces";
    let arguments = ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "true"];
    let output = Command::new("unshare").args(arguments).stdin(Stdio::null()).output().await;
    match output {
        Ok(output) if output.status.success() => Finding::new(name, Grade::Ok, "a new one can be entered", ""),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Finding::new(name, Grade::Fail, said, user_namespaces_fix())
        }
        Err(error) => Finding::new(
            name,
            Grade::Warn,
            format!("unshare(1) could not be run: {error}"),
            "apt-get install util-linux",
        ),
    }
}

fn user_namespaces_fix() -> &'static str {
    let is = |key: &str, value: &str| sysctl(key).is_some_and(|text| text == value);
    if is("kernel.apparmor_restrict_unprivileged_userns", "1") {
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run hob as root"
    } else if is("kernel.unprivileged_userns_clone", "0") {
        "sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is("user.max_user_namespaces", "0") {
        "sysctl -w user.max_user_namespaces=15000"
    } else {
        "inside a container: start it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined, or run hob on the host"
    }
}

fn ranges(ids: &Ids) -> Finding {
    let name = "user ID ranges";
    match ids {
        Ids::Owned => Finding::new(name, Grade::Ok, "root: each sandbox has a range of its own", ""),
        Ids::Borrowed { users, groups, .. } if users.1 > 0 && groups.1 > 0 => {
            Finding::new(name, Grade::Ok, format!("{} IDs from /etc/subuid", users.1.min(groups.1)), "")
        }
        Ids::Borrowed { .. } => Finding::new(
            name,
            Grade::Warn,
            "none: inside there is only root, so packages that make users cannot be installed",
            "apt-get install uidmap && usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
        ),
    }
}

fn limits() -> Vec<Finding> {
    let cgroups = Cgroups::probe("hob-doctor");
    let mut findings = Vec::new();
    for limit in [crate::Limit::Cpu, crate::Limit::Memory, crate::Limit::Processes] {
        let name = format!("limit on {}", format!("{limit:?}").to_lowercase());
        let reason = cgroups.unheld.iter().find(|(unheld, _)| *unheld == limit).map(|(_, reason)| reason);
        let fix = "run hob as a systemd service with Delegate=yes, or as root";
        findings.push(match reason {
            None => Finding::new(&name, Grade::Ok, "holds", ""),
            Some(reason) => Finding::new(&name, Grade::Warn, reason.clone(), fix),
        });
    }
    findings.push(Finding::new(
        "limit on disk",
        Grade::Ok,
        "is watched: what writes beyond it is killed within a second",
        "",
    ));
    findings
}

fn sysctl(key: &str) -> Option<String> {
    let path = PathBuf::from("/proc/sys").join(key.replace('.', "/"));
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(name: &str, key: &str, wanted: u64) -> Finding {
    let Some(value) = sysctl(key).and_then(|text| text.parse::<u64>().ok()) else {
        return Finding::new(name, Grade::Warn, format!("{key} could not be read"), "");
    };
    let grade = if value >= wanted { Grade::Ok } else { Grade::Warn };
    Finding::new(name, grade, format!("{key} = {value}"), format!("sysctl -w {key}={wanted}"))
}

fn free_disk(data_dir: &Path) -> Finding {
    let existing = data_dir.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let name = "free disk";
    match disk::free_bytes(existing) {
        Ok(free) => {
            let grade = if free >= 5 << 30 { Grade::Ok } else { Grade::Warn };
            let detail = format!("{} MiB at {}", free >> 20, existing.display());
            Finding::new(name, grade, detail, "free some space, or set another data folder with --data-dir")
        }
        Err(error) => Finding::new(name, Grade::Warn, error.to_string(), "set another data folder with --data-dir"),
    }
}

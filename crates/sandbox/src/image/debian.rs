//! Debian systems made of their packages, for those who have no registry at hand: by `debootstrap`, once for each suite.
//!
//! The packages come from Debian's own archive and their signatures are checked, so what runs as root here while they
//! are set up is Debian's. It runs in mount and process namespaces of its own: when it is ended early, all that it
//! started and mounted goes with it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::config::ImageConfig;
use super::digest::Digest;
use super::error::ImageError;
use super::layers::{Fresh, failed};
use super::manifest::machine;
use super::store::{ImageStore, Pulled, Rootfs};
use super::unpack::Facts;
use crate::ids::find_program;

/// How long the packages may take to come and to be set up.
const LIMIT: Duration = Duration::from_secs(1_800);

/// What of the server's environment is handed on.
const HANDED_ON: [&str; 4] = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"];

/// Files that say something of this machine.
const OURS: [&str; 2] = ["etc/hostname", "etc/resolv.conf"];

impl ImageStore {
    /// A small Debian of a suite, such as `bookworm`: found in the store, or made there.
    ///
    /// # Errors
    /// This is not root, `debootstrap` is not installed or does not know the suite, or a package did not come.
    pub async fn debian(&self, suite: &str) -> Result<Rootfs, ImageError> {
        if !is_suite(suite) {
            return Err(refused(suite, "a suite is a word of small letters and digits, such as bookworm"));
        }
        let digest = Digest::of(format!("debian {suite} {}", machine()).as_bytes());
        let inner = self.inner();
        let _pulling = inner.pulls().read().await;
        let turn = inner.turn_of(&digest);
        let _turn = turn.lock().await;
        if let Some(known) = self.find(&digest)? {
            return Ok(known);
        }
        let fresh = inner.layers().fresh()?;
        bootstrap(suite, &fresh).await?;
        let pulled = Pulled { digest: digest.clone(), layers: vec![digest.clone()], config: ImageConfig::default() };
        let layers = std::sync::Arc::clone(inner.layers());
        let kept = tokio::task::spawn_blocking(move || {
            forget_this_machine(&fresh)?;
            layers.keep(&fresh, &digest, &Facts::default())?;
            layers.remember(&digest, &pulled)?;
            Ok(pulled)
        });
        let pulled = kept.await.map_err(|error| refused(suite, &error.to_string()))??;
        inner.assemble(pulled)?.ok_or_else(|| refused(suite, "it was removed while it was made"))
    }
}

fn refused(suite: &str, reason: &str) -> ImageError {
    ImageError::Debian { suite: suite.chars().take(100).collect(), reason: reason.to_owned() }
}

/// `debootstrap` has a script for each suite, and takes a path for one.
fn is_suite(suite: &str) -> bool {
    let is_first = suite.starts_with(|c: char| c.is_ascii_lowercase());
    is_first && suite.len() <= 40 && suite.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

async fn bootstrap(suite: &str, fresh: &Fresh) -> Result<(), ImageError> {
    if !rustix::process::geteuid().is_root() {
        return Err(refused(suite, "this needs root; name an image of a registry instead, such as docker.io/debian"));
    }
    let sbin = Path::new("/usr/sbin/debootstrap").to_owned();
    let program = find_program("debootstrap").or_else(|| sbin.is_file().then_some(sbin));
    let program = program.ok_or_else(|| refused(suite, "find debootstrap: install the package debootstrap"))?;
    let log = fresh.blob();
    let said = File::create(&log).map_err(failed("create", &log))?;
    let again = said.try_clone().map_err(failed("create", &log))?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "--"])
        .arg(program)
        .args(["--force-check-gpg", "--variant=minbase", suite])
        .arg(fresh.root())
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .envs(HANDED_ON.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))))
        .stdin(Stdio::null())
        .stdout(said)
        .stderr(again)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| refused(suite, &format!("run unshare: {error}")))?;
    match tokio::time::timeout(LIMIT, child.wait()).await {
        Ok(Ok(status)) if status.success() => fs::remove_file(&log).map_err(failed("remove", &log)),
        Ok(Ok(_)) => Err(refused(suite, &last_lines(&log))),
        Ok(Err(error)) => Err(refused(suite, &error.to_string())),
        Err(_) => Err(refused(suite, "it took longer than half an hour")),
    }
}

/// What `debootstrap` complained of, or else what it said last.
fn last_lines(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes.get(bytes.len().saturating_sub(4_096)..).unwrap_or_default());
    let complaints: Vec<&str> = text.lines().filter(|line| line.starts_with("E:") || line.contains("error")).collect();
    let last: Vec<&str> = text.lines().rev().take(1).collect();
    let lines = if complaints.is_empty() { last } else { complaints };
    lines.iter().map(|line| line.trim_start_matches("E: ").trim()).collect::<Vec<_>>().join("; ")
}

/// Takes away what was copied from this machine.
fn forget_this_machine(fresh: &Fresh) -> Result<(), ImageError> {
    for file in OURS {
        let path = fresh.root().join(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("remove", &path)(error)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_a_word_and_never_a_path() {
        for (suite, expect) in [("bookworm", true), ("trixie-backports", true), ("sid2", true)] {
            assert_eq!(is_suite(suite), expect, "{suite}");
        }
        for suite in ["", "../x", "/etc/x", "a b", "--help", "A", "a.b", "2a", &"a".repeat(41)] {
            assert!(!is_suite(suite), "{suite}");
        }
    }
}

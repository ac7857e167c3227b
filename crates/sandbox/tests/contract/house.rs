//! One provider in a data folder of its own, with the few things that the suite has to know of each kind: how to open it
//! again, how to end a sandbox behind its back, and where to look for what was left behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hob_sandbox::{Base, Docker, DockerConfig, Local, LocalConfig, Provider, Sandbox, SandboxId, Spec, Token};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::common;
use crate::daemon;
use crate::root;

/// What is put through the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Local,
    Docker,
}

/// A provider and its data folder.
pub struct House {
    kind: Kind,
    provider: Arc<dyn Provider>,
    local: Option<Local>,
    pub folder: TempDir,
}

/// Runs a check in a house of this kind; says so and returns where this machine has none.
pub async fn within(kind: Kind, check: impl AsyncFnOnce(&mut House)) {
    if kind == Kind::Docker && daemon::socket().is_none() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("hob-test-").tempdir().unwrap();
    let (provider, local) = open(kind, &folder.path().join("data")).await;
    let mut house = House { kind, provider, local, folder };
    check(&mut house).await;
    house.close().await;
}

async fn open(kind: Kind, data: &Path) -> (Arc<dyn Provider>, Option<Local>) {
    match kind {
        Kind::Local => {
            let local = Local::open(LocalConfig::new(data)).await.expect("sandboxes work on this machine");
            (Arc::new(local.clone()), Some(local))
        }
        Kind::Docker => {
            let socket = daemon::socket().unwrap();
            let runtime = std::env::var("HOB_TEST_DOCKER_RUNTIME").ok();
            let config = DockerConfig { data_dir: data.to_owned(), socket, runtime, image: None };
            let docker = Docker::open(config).await.unwrap_or_else(|error| panic!("failed to {error}"));
            (Arc::new(docker), None)
        }
    }
}

impl House {
    pub fn provider(&self) -> &dyn Provider {
        self.provider.as_ref()
    }

    /// As after a restart of the owner: another provider on the same folder. Handles of the one before are of no use.
    pub async fn open_again(&mut self) {
        let (provider, local) = open(self.kind, &self.data()).await;
        (self.provider, self.local) = (provider, local);
    }

    pub fn spec(&self, name: &str) -> Spec {
        Spec { base: Base::Directory(root::root()), ..common::spec(name) }
    }

    pub async fn sandbox(&self, name: &str) -> Sandbox {
        self.create(self.spec(name)).await
    }

    pub async fn create(&self, spec: Spec) -> Sandbox {
        self.provider.create(spec).await.unwrap_or_else(|error| panic!("failed to {error}"))
    }

    pub async fn attach(&self, name: &str, epoch: u64) -> Option<Sandbox> {
        let token = Token(format!("token of epoch {epoch}"));
        let attached = self.provider.attach(&common::id(name), epoch, token).await;
        attached.unwrap_or_else(|error| panic!("failed to {error}"))
    }

    /// A folder of the host with these files.
    pub fn host_folder(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.folder.path().join(name);
        for (path, text) in files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    /// Seconds to sleep that nobody else on this machine sleeps for, but for their last digit.
    pub fn nap(&self) -> String {
        static NAPS: AtomicU32 = AtomicU32::new(0);
        format!("9{:07}{:03}", std::process::id(), NAPS.fetch_add(1, Ordering::Relaxed))
    }

    /// Kills every process of a sandbox without a word to its provider.
    pub fn kill(&self, id: &SandboxId) {
        match self.kind {
            Kind::Local => {
                for group in groups(&self.data().join("sandboxes").join(id.as_str())) {
                    let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                    for pid in members.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
                        // One that is gone already is as good.
                        rustix::process::kill_process(pid, Signal::KILL).ok();
                    }
                }
            }
            Kind::Docker => daemon::kill(&self.data(), id),
        }
    }

    /// What this machine still has of a sandbox, in words for whoever reads the failure.
    pub fn left(&self, id: &SandboxId) -> Vec<String> {
        let named = |folder: &str, begin: &str| -> Vec<String> {
            let entries = std::fs::read_dir(self.data().join(folder)).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.path().display().to_string());
            names
                .filter(|name| Path::new(name).file_name().is_some_and(|n| n.to_string_lossy().starts_with(begin)))
                .collect()
        };
        let mut left = named("sandboxes", id.as_str());
        match self.kind {
            Kind::Local => {
                left.extend(named("layers", &format!("{id}.")));
                let groups = groups(&self.data().join("sandboxes").join(id.as_str()));
                left.extend(groups.iter().map(|group| group.display().to_string()));
            }
            Kind::Docker => left.extend(daemon::left(&self.data(), id)),
        }
        left
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    async fn close(self) {
        match &self.local {
            Some(local) => local.shutdown().await.unwrap(),
            None => {
                for listed in self.provider.list().await.unwrap() {
                    self.provider.destroy(&listed.id).await.unwrap();
                }
            }
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // Of a check that failed.
        if self.kind == Kind::Docker && std::thread::panicking() {
            daemon::remove_all(&self.data());
        }
    }
}

/// The control groups that the local provider has noted for a sandbox.
fn groups(folder: &Path) -> Vec<PathBuf> {
    let record = std::fs::read(folder.join("record.json")).unwrap_or_default();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
    record["groups"].as_array().into_iter().flatten().filter_map(|group| group.as_str().map(PathBuf::from)).collect()
}

/// Processes of the host that have this word among their arguments.
pub fn host_processes(word: &str) -> Vec<String> {
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(word)).collect()
}

/// Waits until something is so.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + common::LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

//! A provider in a folder of its own, and sandboxes that are gone when the test is.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on says so")]

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hob_sandbox::{Base, Command, Exit, Limits, Local, LocalConfig, Provider, Sandbox, SandboxId, Spec, Token};
use tempfile::TempDir;

/// Everything that a sandbox test waits for ends within this.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A provider and its data folder.
pub struct Bench {
    pub local: Local,
    pub folder: TempDir,
}

/// What a shell line did.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Bench {
    /// Fails, and does not skip, where bwrap is missing or the machine forbids namespaces: Hob cannot work there.
    pub async fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("hob-test-").tempdir().unwrap();
        let local =
            Local::open(LocalConfig::new(folder.path().join("data"))).await.expect("sandboxes work on this machine");
        Self { local, folder }
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn spec(&self, name: &str) -> Spec {
        spec(name)
    }

    pub async fn sandbox(&self, name: &str) -> Sandbox {
        self.create(self.spec(name)).await
    }

    pub async fn create(&self, spec: Spec) -> Sandbox {
        self.local.create(spec).await.unwrap_or_else(|error| panic!("failed to {error}"))
    }

    /// A sandbox in which nobody writes to the workspace.
    pub async fn create_closed(&self, spec: Spec) -> Sandbox {
        self.local.create_closed(spec).await.unwrap_or_else(|error| panic!("failed to {error}"))
    }

    /// Ends everything. A test that panics before leaves its helper to the drop.
    pub async fn close(self) {
        self.local.shutdown().await.unwrap();
    }
}

impl Bench {
    /// Kills the helper as a machine that runs out of memory would.
    pub fn kill_helper(&self) {
        // The helper outlives its server by design; one of a test that failed must not. Its lock names nobody, so it is
        // found by the data folder among its arguments.
        let data = self.data().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            if line.contains("helper-run") && line.contains(&data) {
                let pid = entry.file_name().to_string_lossy().parse().ok().and_then(rustix::process::Pid::from_raw);
                pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
            }
        }
    }
}

impl Bench {
    /// Removes the control groups that a killed helper has left.
    fn remove_groups(&self) {
        let sandboxes = std::fs::read_dir(self.data().join("sandboxes"));
        for entry in sandboxes.into_iter().flatten().flatten() {
            let record = std::fs::read(entry.path().join("record.json")).unwrap_or_default();
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
            for group in record["groups"].as_array().into_iter().flatten().filter_map(|group| group.as_str()) {
                let deadline = Instant::now() + Duration::from_secs(5);
                while std::fs::remove_dir(group).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy) {
                    assert!(Instant::now() < deadline || std::thread::panicking(), "{group} is busy");
                    if Instant::now() > deadline {
                        break;
                    }
                    std::thread::yield_now();
                }
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.kill_helper();
        self.remove_groups();
    }
}

pub fn id(name: &str) -> SandboxId {
    SandboxId::new(name).unwrap()
}

pub fn spec(name: &str) -> Spec {
    Spec {
        id: id(name),
        epoch: 1,
        token: Token("first".to_owned()),
        base: Base::Host,
        layers: Vec::new(),
        workspace: None,
        mounts: Vec::new(),
        env: [].into(),
        limits: Limits::default(),
        gateway: None,
    }
}

/// Runs a shell line to its end.
pub async fn run(sandbox: &Sandbox, line: &str) -> Ran {
    let command = Command::shell(line).cwd("/").timeout(LIMIT);
    let mut process = sandbox.exec(command).await.unwrap_or_else(|error| panic!("failed to {error}"));
    let output =
        tokio::time::timeout(LIMIT + Duration::from_secs(5), process.wait_output(1 << 20)).await.expect("it ends");
    let Exit { code, timed_out } = output.exit.expect("the sandbox lives");
    assert!(!timed_out, "{line} took too long");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code, out: text(&output.stdout), err: text(&output.stderr) }
}

/// Runs a shell line that has to work, and returns what it printed.
pub async fn ok(sandbox: &Sandbox, line: &str) -> String {
    let ran = run(sandbox, line).await;
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
    ran.out.trim_end().to_owned()
}

/// Runs a shell line that must not work, and returns what it complained of.
pub async fn fails(sandbox: &Sandbox, line: &str) -> String {
    let ran = run(sandbox, line).await;
    assert_ne!(ran.code, 0, "{line} worked: {ran:?}");
    ran.err
}

/// Everything about a tree that a person or a program could notice.
const LOOK: &str = "cd /workspace && find . -printf '%p %y %m %U:%G %s %T@ %l\\n' | grep -v '^. ' | sort; \
                    find . -type f -exec sha256sum {} + | sort";

/// Makes files of every kind, some owned by others, some old.
pub const MAKE: &str = "cd /workspace && mkdir -p deep/er .cache && echo one > deep/er/one && head -c 300000 /dev/zero > big && \
                    ln deep/er/one hard && ln -s /nowhere soft && mkfifo pipe && chmod 4755 big && touch -d @1 deep/er && \
                    printf '.cache\\n' > .gitignore && echo kept > .cache/ignored && chown 12:34 deep && chown -h 5:6 soft && \
                    echo x > \"odd \\\"name\\\" $(printf '\\n')\" && chmod 0 .cache/ignored";

/// What a sandbox sees of its workspace.
pub async fn look(sandbox: &Sandbox) -> String {
    ok(sandbox, LOOK).await
}

//! Sandboxes as the configuration wants them, and what the machine can hold of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use hob_sandbox::{Docker, DockerConfig, Finding, Local, LocalConfig, Provider, SandboxError};
use hob_session::{Capacity, PoolRules};
use tokio_util::task::TaskTracker;

use crate::config::{self, Config, SandboxProvider};

/// Where sandboxes of this machine's own have their files.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("sandboxes")
}

/// Where the server keeps what it knows of containers, whose files the daemon has.
fn containers_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("containers")
}

/// Opens the provider of sandboxes, and prepares what the first one would wait for in the background.
///
/// # Errors
/// What this machine lacks, in words.
pub async fn open(config: &Config, data_dir: &Path, tasks: &TaskTracker) -> Result<Arc<dyn Provider>, String> {
    let opened = match config.sandbox.provider {
        SandboxProvider::Local => local(data_dir, tasks).await,
        SandboxProvider::Docker => docker(&config.sandbox.docker, data_dir).await,
    };
    let provider = opened.map_err(|error| error.to_string())?;
    for (limit, reason) in provider.capabilities().unheld {
        tracing::warn!("sandboxes run without a limit on {limit:?}: {reason}");
    }
    Ok(provider)
}

async fn local(data_dir: &Path, tasks: &TaskTracker) -> Result<Arc<dyn Provider>, SandboxError> {
    let local = Local::open(LocalConfig::new(folder(data_dir))).await?;
    let warmed = local.clone();
    tasks.spawn(async move {
        if let Err(error) = warmed.warm().await {
            tracing::warn!("failed to {error}: the first sandbox takes longer, or says why it cannot start");
        }
    });
    Ok(Arc::new(local))
}

async fn docker(config: &config::Docker, data_dir: &Path) -> Result<Arc<dyn Provider>, SandboxError> {
    let config::Docker { socket, runtime, image } = config.clone();
    let config = DockerConfig { data_dir: containers_folder(data_dir), socket, runtime, image };
    Ok(Arc::new(Docker::open(config).await?))
}

/// How large this machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Memory in bytes; `None` where it is not known.
    pub memory_bytes: Option<u64>,
    /// Processors that this process may use.
    pub cpus: u64,
}

impl Machine {
    /// The one that this process runs on.
    pub fn this() -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let cpus = available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        Self { memory_bytes: total_memory(&meminfo), cpus }
    }
}

/// `MemTotal` of `/proc/meminfo` (proc(5)), in bytes.
fn total_memory(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"))?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// What all sandboxes together may be promised. What is not configured is more than the machine has: few sandboxes ever
/// use what they may, least of all at the same time.
pub fn capacity(config: &config::Capacity, machine: &Machine) -> Capacity {
    let memory = config.memory.map(|size| size.0).or(machine.memory_bytes.map(|bytes| bytes.saturating_mul(2)));
    Capacity {
        sandboxes: config.sandboxes.unwrap_or(u32::MAX),
        memory_bytes: memory.unwrap_or(u64::MAX),
        cpu_millicores: config.cpus.map_or(machine.cpus * 8_000, |cpus| u64::from(super::millicores(cpus))),
    }
}

/// How many sandboxes are kept warm.
pub fn pool(config: &config::Pool, machine: &Machine) -> PoolRules {
    PoolRules {
        max: config.sandboxes,
        per_repository: config.per_repository,
        per_person: config.per_person,
        typing_for: config.typing_for.0,
        memory_reserve_bytes: config.reserve.map_or(machine.memory_bytes.unwrap_or(0) / 8, |size| size.0),
        ..PoolRules::default()
    }
}

/// What this machine has and lacks for the sandboxes that are configured.
pub async fn probe(config: &config::Sandbox, data_dir: &Path) -> Vec<Finding> {
    match config.provider {
        SandboxProvider::Local => Local::probe(&folder(data_dir)).await,
        SandboxProvider::Docker => {
            let config::Docker { socket, runtime, image } = &config.docker;
            Docker::probe(socket, runtime.as_deref(), image.as_deref()).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_configured_follows_the_machine() {
        let memory_bytes = total_memory("MemFree: 1 kB\nMemTotal:        8388608 kB\n");
        let machine = Machine { memory_bytes, cpus: 2 };
        let default = capacity(&config::Capacity::default(), &machine);
        let expect = Capacity { sandboxes: u32::MAX, memory_bytes: 16 << 30, cpu_millicores: 16_000 };
        assert_eq!(default, expect);
        let said = config::Capacity {
            sandboxes: Some(3),
            memory: Some(config::ByteSize(1 << 30)),
            cpus: Some(1.5),
            ..config::Capacity::default()
        };
        let expect = Capacity { sandboxes: 3, memory_bytes: 1 << 30, cpu_millicores: 1_500 };
        assert_eq!(capacity(&said, &machine), expect);
    }
}

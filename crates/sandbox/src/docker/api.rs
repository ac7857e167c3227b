//! What of the daemon's API is used, as it stands on the wire. Docker and Podman differ in what they leave out, so every
//! field of an answer may be missing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET /info`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Info {
    pub(super) server_version: Option<String>,
    pub(super) driver: Option<String>,
    pub(super) docker_root_dir: Option<String>,
    pub(super) memory_limit: Option<bool>,
    pub(super) pids_limit: Option<bool>,
    pub(super) cpu_cfs_quota: Option<bool>,
    pub(super) security_options: Option<Vec<String>>,
    pub(super) runtimes: Option<BTreeMap<String, serde_json::Value>>,
    pub(super) default_runtime: Option<String>,
}

/// `GET /containers/{id}/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) state: State,
    pub(super) size_rw: Option<u64>,
}

/// How a container is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct State {
    pub(super) running: bool,
    pub(super) pid: Option<u32>,
    pub(super) exit_code: Option<i64>,
    #[serde(rename = "OOMKilled")]
    pub(super) oom_killed: Option<bool>,
}

/// One of `GET /containers/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Summary {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// `GET /images/{name}/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Image {
    #[serde(rename = "RootFS")]
    pub(super) root_fs: Option<RootFs>,
    pub(super) config: Option<ImageConfig>,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RootFs {
    pub(super) layers: Option<Vec<String>>,
}

/// What an image says of its containers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ImageConfig {
    pub(super) env: Option<Vec<String>>,
    pub(super) labels: Option<BTreeMap<String, String>>,
}

impl Image {
    /// How many layers it has.
    pub(super) fn depth(&self) -> usize {
        self.root_fs.as_ref().and_then(|root| root.layers.as_ref()).map_or(0, Vec::len)
    }

    /// Its search path for programs.
    pub(super) fn path(&self) -> Option<&str> {
        let env = self.config.as_ref()?.env.as_ref()?;
        env.iter().find_map(|pair| pair.strip_prefix("PATH="))
    }

    /// One of its labels.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.config.as_ref()?.labels.as_ref()?.get(name).map(String::as_str)
    }
}

/// One of `GET /images/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ImageSummary {
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) labels: Option<BTreeMap<String, String>>,
}

/// One of `GET /containers/{id}/changes`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Change {}

/// The answer to what makes something.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Made {
    pub(super) id: String,
}

/// The answer to a wait.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Waited {}

/// `POST /containers/create`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Create {
    pub(super) hostname: String,
    pub(super) image: String,
    pub(super) user: String,
    pub(super) working_dir: String,
    pub(super) entrypoint: Vec<String>,
    pub(super) cmd: Vec<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) healthcheck: Healthcheck,
    pub(super) host_config: HostConfig,
}

/// An image's check of its containers: none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Healthcheck {
    pub(super) test: Vec<String>,
}

/// What a container is given of the host.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HostConfig {
    pub(super) network_mode: String,
    pub(super) ipc_mode: String,
    pub(super) cap_drop: Vec<String>,
    pub(super) cap_add: Vec<String>,
    pub(super) security_opt: Vec<String>,
    pub(super) memory: u64,
    pub(super) memory_swap: u64,
    pub(super) cpu_period: u64,
    pub(super) cpu_quota: u64,
    pub(super) pids_limit: u32,
    pub(super) shm_size: u64,
    pub(super) ulimits: Vec<Ulimit>,
    pub(super) mounts: Vec<BindMount>,
    pub(super) log_config: LogConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) runtime: Option<String>,
}

/// A limit of each process.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Ulimit {
    pub(super) name: String,
    pub(super) soft: u64,
    pub(super) hard: u64,
}

/// A folder of the host.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct BindMount {
    #[serde(rename = "Type")]
    pub(super) kind: String,
    pub(super) source: String,
    pub(super) target: String,
    pub(super) read_only: bool,
}

/// What becomes of what process 1 writes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LogConfig {
    #[serde(rename = "Type")]
    pub(super) kind: String,
    pub(super) config: BTreeMap<String, String>,
}

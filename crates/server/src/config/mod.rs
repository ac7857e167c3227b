//! The server's configuration: `hob.toml`, the environment, and the defaults under both.
//!
//! Every key has a default, so `hob serve` works with no file. Secrets never stand in the file: a key names where it
//! lies (`env:NAME` or `file:PATH`). The table of all keys, from which the reference is generated, is in [`keys`].

mod keys;
mod models;
mod parse;
mod quantity;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use keys::{KEYS, reference};
pub use models::{Environment, add_known_models};
pub(crate) use parse::nearest;
pub use parse::{ConfigError, Place};
pub use quantity::{ByteSize, Timespan};

/// Everything that `hob.toml` can say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How the server is reached.
    pub server: Server,
    /// Whose name is on commits when a request does not say.
    pub owner: Owner,
    /// What a session starts with.
    pub session: Session,
    /// What a sandbox may use.
    pub sandbox: Sandbox,
    /// What all sandboxes together may use.
    pub capacity: Capacity,
    /// How many sandboxes are kept warm.
    pub pool: Pool,
    /// How images are built and kept.
    pub images: Images,
    /// Who the server is at registries of images, by the registry's name.
    pub registries: BTreeMap<String, Registry>,
    /// What a sandbox may reach.
    pub egress: Egress,
    /// Where models are served, by name.
    pub providers: BTreeMap<String, Provider>,
    /// The models, by ID.
    pub models: BTreeMap<String, Model>,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port.
    pub listen: String,
    /// Where everything is kept; the user's data folder when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Further names under which browsers reach the server.
    pub hosts: Vec<String>,
    /// Longest wait for running work at shutdown.
    pub shutdown_after: Timespan,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:4660".into(),
            data_dir: None,
            hosts: Vec::new(),
            shutdown_after: Timespan::from_secs(10),
        }
    }
}

/// `[owner]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Owner {
    /// The name; `git config user.name` of the server's user when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address; `git config user.email` of the server's user when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// `[session]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// The agent when a request names none.
    pub agent: String,
    /// The model when a request names none; the first one configured when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// When the checks run on the base commit.
    pub base_checks: BaseChecks,
    /// How often red checks go back to the agent.
    pub max_rounds: u32,
    /// Who answers an agent's permission requests.
    pub permissions: Permissions,
    /// Whether finished branches are pushed.
    pub push: Push,
    /// Longest silence of an agent in a turn.
    pub agent_idle: Timespan,
    /// Longest wait for a person's answer.
    pub answer_deadline: Timespan,
    /// Idle time after which a sandbox is put away.
    pub suspend_after: Timespan,
    /// What a sandbox may have written for a turn's end to be followed by a snapshot.
    pub turn_snapshot_max: ByteSize,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            agent: "hob".into(),
            model: None,
            base_checks: BaseChecks::Always,
            max_rounds: 3,
            permissions: Permissions::Allow,
            push: Push::Auto,
            agent_idle: Timespan::from_secs(900),
            answer_deadline: Timespan::from_secs(600),
            suspend_after: Timespan::from_secs(600),
            turn_snapshot_max: ByteSize(128 << 20),
        }
    }
}

/// Whether finished branches are pushed to the repository's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Push {
    /// Where the origin is a URL or a bare repository; never the base branch.
    Auto,
    /// The branch stays on the server until somebody pulls it.
    Never,
}

/// Who answers an agent's permission requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    /// They are granted and recorded: the sandbox is the boundary.
    Allow,
    /// A participant answers.
    Ask,
}

/// When the checks run on the base commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseChecks {
    /// Before the checks of the session's first change.
    Always,
    /// Only after a check came back red.
    WhenRed,
}

/// `[sandbox]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// What makes sandboxes.
    pub provider: SandboxProvider,
    /// Processor time, in cores.
    pub cpus: f64,
    /// Memory.
    pub memory: ByteSize,
    /// Processes and threads at once.
    pub processes: u32,
    /// What may be written.
    pub disk: ByteSize,
    /// Longest wait for a sandbox to come up.
    pub start_deadline: Timespan,
    /// How containers are made, where they are the sandboxes.
    pub docker: Docker,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            provider: SandboxProvider::Local,
            cpus: 2.0,
            memory: ByteSize(4 << 30),
            processes: 4_096,
            disk: ByteSize(10 << 30),
            start_deadline: Timespan::from_secs(60),
            docker: Docker::default(),
        }
    }
}

/// `[sandbox.docker]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Docker {
    /// The daemon's unix socket.
    pub socket: PathBuf,
    /// The runtime of the containers; the daemon's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The image that stands for this machine's own system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl Default for Docker {
    fn default() -> Self {
        Self { socket: "/var/run/docker.sock".into(), runtime: None, image: None }
    }
}

/// `[capacity]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capacity {
    /// Sandboxes that run at once; as many as the rest allows when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandboxes: Option<u32>,
    /// Memory that may be promised; twice the machine's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Processor time that may be promised, in cores; eight times the machine's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Longest wait for a place.
    pub wait: Timespan,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { sandboxes: None, memory: None, cpus: None, wait: Timespan::from_secs(3_600) }
    }
}

/// `[pool]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// Warm sandboxes in all; 0 keeps none.
    pub sandboxes: u32,
    /// Those of one repository.
    pub per_repository: u32,
    /// Those that one person's typing keeps.
    pub per_person: u32,
    /// How long after its last sign typing counts.
    pub typing_for: Timespan,
    /// Memory that is left to others; an eighth of the machine's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<ByteSize>,
}

impl Default for Pool {
    fn default() -> Self {
        Self { sandboxes: 4, per_repository: 2, per_person: 2, typing_for: Timespan::from_secs(120), reserve: None }
    }
}

/// `[images]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Images {
    /// Registries that images are pulled from, beside those in `[registries]`.
    pub registries: Vec<String>,
    /// Images that are built at once.
    pub at_once: u32,
    /// Longest time to build one.
    pub build_deadline: Timespan,
    /// How often it is looked whether a branch with an image has moved on.
    pub rebuild_every: Timespan,
    /// How long an image stays that no session starts from.
    pub keep_for: Timespan,
    /// What all images together may take.
    pub size: ByteSize,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            registries: KNOWN_REGISTRIES.map(str::to_owned).to_vec(),
            at_once: 2,
            build_deadline: Timespan::from_secs(3_600),
            rebuild_every: Timespan::from_secs(30 * 60),
            keep_for: Timespan::from_secs(14 * 24 * 3_600),
            size: ByteSize(100 << 30),
        }
    }
}

/// Public registries that most images come from.
const KNOWN_REGISTRIES: [&str; 6] =
    ["docker.io", "ghcr.io", "quay.io", "gcr.io", "mcr.microsoft.com", "registry.gitlab.com"];

/// `[registries.NAME]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// The name to sign in with.
    pub username: String,
    /// Where the password or token lies: `env:NAME` or `file:PATH`.
    pub password: String,
}

/// What makes sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxProvider {
    /// Namespaces of this machine.
    Local,
    /// Containers of a daemon.
    Docker,
}

/// `[egress]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Whether the package registries of the usual languages are allowed.
    pub registries: bool,
    /// Further hosts: `host`, `host:port` or `*.domain`.
    pub allow: Vec<String>,
    /// Further hosts that may lead to addresses of private networks.
    pub private: Vec<String>,
    /// Whether a session may reach the host of its repository's URL.
    pub forge: bool,
    /// Whether a repository's environment may add hosts.
    pub repositories_may_add: bool,
    /// A proxy that this machine itself must use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            registries: true,
            allow: Vec::new(),
            private: Vec::new(),
            forge: true,
            repositories_may_add: true,
            proxy: None,
        }
    }
}

/// `[providers.NAME]`: where models are served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Whose interface it speaks.
    pub kind: ProviderKind,
    /// Its address, with or without the version as last segment; the vendor's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Where its key lies: `env:NAME` or `file:PATH`; none for a local server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Whose interface a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// Anthropic messages.
    Anthropic,
    /// OpenAI chat completions and responses; most local servers speak the former.
    Openai,
    /// Gemini.
    Gemini,
}

/// `[models.ID]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The provider's name in `[providers]`.
    pub provider: String,
    /// The model's name at the provider; the ID when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Tokens that fit its window.
    #[serde(default = "default_context_tokens")]
    pub context_tokens: u64,
    /// Tokens of its longest answer.
    #[serde(default = "default_max_output_tokens")]
    pub max_output_tokens: u32,
    /// Models that stand in, in order, when the provider fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<String>,
    /// Price of a million tokens read, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_usd: Option<f64>,
    /// Price of a million tokens read from the provider's cache; `input_usd` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_usd: Option<f64>,
    /// Price of a million tokens written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_usd: Option<f64>,
}

fn default_context_tokens() -> u64 {
    128_000
}

fn default_max_output_tokens() -> u32 {
    8_192
}

impl Config {
    /// Reads a file's text. `file` is only named in errors.
    ///
    /// # Errors
    /// The text is no TOML, holds an unknown key or a value of the wrong kind, or refers to what is not there.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        parse::parse(text, file)
    }

    /// Reads the file at `file`, or the defaults when there is none and none was asked for.
    ///
    /// # Errors
    /// The file cannot be read, or [`Config::parse`] refuses it.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        let config = match file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
                Self::parse(&text, file)?
            }
            None => match default_file(environment) {
                Some(file) if file.is_file() => return Self::load(Some(&file), environment),
                _ => Self::default(),
            },
        };
        Ok(add_known_models(config, environment))
    }

    /// Where everything is kept.
    pub fn data_dir(&self, environment: &Environment) -> PathBuf {
        self.server.data_dir.clone().unwrap_or_else(|| default_data_dir(environment))
    }

    /// The model when a request names none: `session.model`, or the first one configured.
    pub fn default_model(&self) -> Option<&str> {
        self.session.model.as_deref().or_else(|| self.models.keys().next().map(String::as_str))
    }
}

/// The file that is read when none is named: `hob/hob.toml` in the user's configuration folder. The folder that a
/// person happens to stand in is not looked at: a checkout of somebody else's could point the server elsewhere.
pub fn default_file(environment: &Environment) -> Option<PathBuf> {
    let folder = environment
        .get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| environment.get("HOME").map(|home| Path::new(home).join(".config")))?;
    Some(folder.join("hob/hob.toml"))
}

/// Where everything is kept when nothing says otherwise: `hob` in the user's data folder.
pub fn default_data_dir(environment: &Environment) -> PathBuf {
    environment
        .get("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| environment.get("HOME").map(|home| Path::new(home).join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("hob")
}

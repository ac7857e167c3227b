//! What a sandbox is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::layer::LayerId;

/// Where every sandbox has its workspace.
pub(crate) const WORKSPACE: &str = "/workspace";

/// Names a sandbox: lower-case letters, digits and `-`, at most 64. Creating the same ID twice gives the same sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(String);

impl SandboxId {
    /// Takes a name, or says what is wrong with it.
    ///
    /// # Errors
    /// The name is empty, too long, or holds anything but `a-z`, `0-9` and `-`.
    pub fn new(name: impl Into<String>) -> Result<Self, String> {
        let name = name.into();
        let fits = !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(Self(name)) } else { Err(format!("a sandbox cannot be named {name:?}")) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SandboxId {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Self::new(name)
    }
}

impl From<SandboxId> for String {
    fn from(id: SandboxId) -> Self {
        id.0
    }
}

/// What the guest shows when it dials home: made for one sandbox and one epoch, useless for any other.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Everything that a provider needs to make a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub id: SandboxId,
    /// The owner's epoch. A guest that shows a token of an older epoch is refused.
    pub epoch: u64,
    /// What the guest shows when it dials home in this epoch.
    pub token: Token,
    /// The read-only system under everything.
    pub base: Base,
    /// Frozen layers above the base, topmost first: those of a [`Snapshot`](crate::Snapshot). A sandbox that has files
    /// already goes on from its own.
    #[serde(default)]
    pub layers: Vec<LayerId>,
    /// A folder of the host that becomes the lower layer of `/workspace`; it is never written to.
    pub workspace: Option<PathBuf>,
    /// Further folders of the host, read-only.
    pub mounts: Vec<Mount>,
    /// Environment of every command, beside what the provider sets itself (`PATH`, `HOME`, proxies).
    pub env: BTreeMap<String, String>,
    /// What it may use.
    pub limits: Limits,
    /// The unix socket of the host that is the one way out; without it there is none. The guest listens on
    /// `127.0.0.1:3128` inside and joins every connection to this socket.
    pub gateway: Option<PathBuf>,
}

impl Spec {
    /// The same, fit to be written to disk.
    pub(crate) fn without_token(self) -> Self {
        Self { token: Token(String::new()), ..self }
    }
}

/// Whether the processes of a sandbox can write to `/workspace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// As any other folder.
    Open,
    /// It is read-only for all of them, root included, until [`Provider::open_gate`](crate::Provider::open_gate). Only
    /// a [writer](crate::Provider::writer) changes it.
    Closed,
}

/// The read-only system under a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// This machine's own system, with everything private left out.
    Host,
    /// An unpacked root filesystem.
    Directory(PathBuf),
    /// The unpacked layers of one, topmost first, as [`image`](crate::image) keeps them.
    Layers(Vec<PathBuf>),
}

/// A folder of the host that a sandbox sees, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The folder on the host.
    pub source: PathBuf,
    /// Where the sandbox sees it; absolute.
    pub target: PathBuf,
}

/// What a sandbox may use. A limit that the machine cannot hold is named in
/// [`Capabilities::unheld`](crate::Capabilities::unheld).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processor time, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Memory in bytes, page cache included.
    pub memory_bytes: u64,
    /// Processes and threads at once.
    pub processes: u32,
    /// Bytes that the sandbox may write to its layers.
    pub disk_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpu_millicores: 2_000, memory_bytes: 4 << 30, processes: 4_096, disk_bytes: 10 << 30 }
    }
}

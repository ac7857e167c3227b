//! What the server, the sandbox helper and a sandbox's first stage say to each other.
//!
//! The helper carries out plans: the server decides every folder, mount, limit and argument. All three trust each
//! other; nothing from inside a sandbox reaches the helper.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version of these messages. A server of another version starts its own helper beside the old one.
pub const PROTOCOL: u32 = 1;

/// The helper's socket in the data folder.
pub const HELPER_SOCKET: &str = "helper-1.sock";

/// To the helper.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToHelper {
    /// Start a sandbox. Answered by `Started` or `Failed`.
    Start {
        /// Answered with this.
        request: u64,
        /// How.
        plan: Box<Plan>,
    },
    /// Start a writer beside the running sandbox of this name, in place of the one that it may have: processes with a root
    /// of their own, and the sandbox's gated folder in it, open for them alone. Answered by `Started` or `Failed`.
    Writer {
        /// Answered with this.
        request: u64,
        /// How.
        plan: Box<Plan>,
    },
    /// Kill a sandbox's writer, then open its gate. Answered by `Done` or `Failed`; one that is open is left as it is.
    Open {
        /// Answered with this.
        request: u64,
        /// Which sandbox.
        id: String,
    },
    /// Kill every process of a sandbox. Answered by `Done` when all are gone, also when none ran.
    Kill {
        /// Answered with this.
        request: u64,
        /// Which.
        id: String,
    },
    /// Tell what runs. Answered by `Running`.
    List {
        /// Answered with this.
        request: u64,
    },
    /// End the helper and with it every sandbox.
    Shutdown,
}

/// From the helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromHelper {
    /// The process 1 was started.
    Started {
        /// Of the request.
        request: u64,
        /// Whether the sandbox's gate is closed. A helper that knows of no gates does not say so.
        #[serde(default)]
        closed: bool,
    },
    /// It failed.
    Failed {
        /// Of the request.
        request: u64,
        /// Why.
        reason: String,
    },
    /// It is done.
    Done {
        /// Of the request.
        request: u64,
    },
    /// What runs.
    Running {
        /// Of the request.
        request: u64,
        /// Names of sandboxes.
        ids: Vec<String>,
        /// Those of them whose gate is closed.
        #[serde(default)]
        closed: Vec<String>,
    },
    /// A sandbox ended, or its writer. Told to every connection.
    Ended {
        /// Which sandbox.
        id: String,
        /// Whether it was only its writer, which ended by itself.
        #[serde(default)]
        writer: bool,
        /// Why, in words.
        reason: String,
    },
}

/// How to start a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub id: String,
    /// User and group IDs: inside, outside (as the helper sees them), how many.
    pub ids: Vec<(u32, u32, u32)>,
    /// Control groups to make and to enter.
    pub cgroups: Vec<Cgroup>,
    /// Folders of the host that the sandbox is built of.
    pub trees: Vec<Tree>,
    /// What to build of them, in order.
    pub steps: Vec<Step>,
    /// The folder whose writers can be held back, where there is one.
    #[serde(default)]
    pub gate: Option<Gate>,
    /// Arguments of `bwrap`, program first; the file descriptors are added by the stage.
    pub bwrap: Vec<String>,
    /// The whole environment of process 1.
    pub env: BTreeMap<String, String>,
    /// The longest file that may be written.
    pub file_bytes: u64,
    /// The seccomp filters, inside the finished root.
    pub filters: Vec<PathBuf>,
    /// Where messages of the stages go.
    pub log: PathBuf,
}

/// A folder inside that is a mount of its own, so that it can be closed to everybody who writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Where, in the root; made where it is missing. A link there is not closed but refused.
    pub target: String,
    /// Whether it is read-only for every process, from the first on.
    pub closed: bool,
}

/// A control group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Its folder.
    pub folder: PathBuf,
    /// Files and what to write to them.
    pub limits: Vec<(String, String)>,
}

/// A folder of the host, or a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Where it is.
    pub source: PathBuf,
    /// Whether it is a mount of the sandbox that a writer is started for, and not of the host.
    #[serde(default)]
    pub inside: bool,
    /// Whether owners are shifted into the sandbox's range by the mount.
    pub shifted: bool,
    /// Whether it can be written to.
    pub writable: bool,
}

/// A folder within a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which of [`Plan::trees`].
    pub tree: usize,
    /// The folder in it; empty for the tree itself.
    pub path: String,
}

/// A step in building the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Step {
    /// Mount an overlay.
    Overlay {
        /// Read-only layers, topmost first.
        lower: Vec<Part>,
        /// The writable layer.
        upper: Part,
        /// The overlay's own folder, beside the writable layer.
        work: Part,
        /// Where, in the root; made where it is missing.
        target: String,
    },
    /// Mount an overlay whose writable layer is in memory and gone with the last process.
    Fleeting {
        /// Read-only layers, topmost first.
        lower: Vec<Part>,
        /// Where, in the root; made where it is missing.
        target: String,
    },
    /// Mount a tree.
    Attach {
        /// Which of [`Plan::trees`].
        tree: usize,
        /// Where, in the root; made where it is missing.
        target: String,
    },
    /// Mount a small `/dev`: the six devices that hold nothing of the host, terminals of its own, shared memory.
    Devices,
}

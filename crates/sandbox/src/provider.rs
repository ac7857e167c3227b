//! What every kind of sandbox can do: the seam between those who want sandboxes and those who make them.
//!
//! A provider only makes, finds and ends sandboxes. Commands, terminals, files and ports ride on the connection that
//! the guest opens, which is the same for every provider: see [`Sandbox`].
//!
//! `local` and `docker` make them on this machine. One that makes them elsewhere, such as in a Kubernetes cluster, has to
//! give its guest two things: a way to the server, and who it is. What a [`Spec`] names of this machine (the workspace,
//! mounts, the gateway's socket) it carries over the connection that the guest has opened.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::layer::LayerId;
use crate::sandbox::Sandbox;
use crate::spec::{SandboxId, Spec, Token};

/// Makes, finds and ends sandboxes.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What this provider can hold on this machine and what it cannot.
    fn capabilities(&self) -> Capabilities;

    /// Makes the sandbox, or finds the running one of this name, and waits until its guest has dialled home. The gate of
    /// one that runs stays as it is, see [`Sandbox::gate`].
    ///
    /// Idempotent: a sandbox that was suspended, or that died, comes back with its files. A guest that shows an older
    /// epoch than `spec.epoch` is refused from now on.
    ///
    /// # Errors
    /// The machine cannot make it, or the guest did not come up in time.
    async fn create(&self, spec: Spec) -> Result<Sandbox, SandboxError>;

    /// The same, but for the gate of one that is made: it is closed before the first process runs. So `/workspace` is read
    /// at once, and changed by nobody but a [writer](Provider::writer) until [`Provider::open_gate`].
    ///
    /// # Errors
    /// As [`Provider::create`], or the provider has no gates.
    async fn create_closed(&self, spec: Spec) -> Result<Sandbox, SandboxError> {
        let reason = format!("the provider {} has no gates", self.capabilities().provider);
        Err(SandboxError::Start { id: spec.id, reason })
    }

    /// Takes over a running sandbox after a restart of the owner, under a new epoch; `None` where none runs.
    ///
    /// # Errors
    /// It runs, but its guest did not dial home in time.
    async fn attach(&self, id: &SandboxId, epoch: u64, token: Token) -> Result<Option<Sandbox>, SandboxError>;

    /// Gives a hand that writes to `/workspace` while the sandbox's gate is closed: commands and files of processes that
    /// are not in the sandbox. Their workspace, limits and layers are the sandbox's; of what the sandbox itself has written
    /// elsewhere they see nothing, so that nothing in it can lead them. They reach no network, and what they write
    /// elsewhere is gone with them. The handle bears the sandbox's name, and is lost with it, with the next writer, and
    /// when the gate is opened. The guest shows `token`.
    ///
    /// # Errors
    /// The sandbox does not run, its gate is open, or the provider has no gates.
    async fn writer(&self, id: &SandboxId, token: Token) -> Result<Sandbox, SandboxError> {
        drop(token);
        let reason = format!("the provider {} has no gates", self.capabilities().provider);
        Err(SandboxError::Refused { what: format!("a writer of sandbox {id}"), reason })
    }

    /// Lets the sandbox write to `/workspace`, once nothing of a writer is left. A gate that is open stays so.
    ///
    /// # Errors
    /// The sandbox does not run, or the kernel refused.
    async fn open_gate(&self, id: &SandboxId) -> Result<(), SandboxError> {
        tracing::debug!(sandbox.id = %id, "there are no gates here: it is open");
        Ok(())
    }

    /// Every sandbox that runs or has files, sorted by name.
    ///
    /// # Errors
    /// The machine could not be asked.
    async fn list(&self) -> Result<Vec<Listed>, SandboxError>;

    /// Removes what a crash left of sandboxes that do not run: processes and limits, but not their files. A provider
    /// whose platform does that has nothing to do.
    ///
    /// # Errors
    /// Something could not be removed.
    async fn sweep(&self) -> Result<(), SandboxError> {
        Ok(())
    }

    /// Ends every process of the sandbox and keeps its files. One that does not run, or is unknown, is left as it is.
    ///
    /// # Errors
    /// A process could not be ended.
    async fn suspend(&self, id: &SandboxId) -> Result<(), SandboxError>;

    /// Ends every process of the sandbox and freezes its files. It goes on from there when it is made again, and so does
    /// any other sandbox whose [`Spec::layers`] names the snapshot's.
    ///
    /// # Errors
    /// There is no such sandbox, a process could not be ended, or the disk did not take it.
    async fn snapshot(&self, id: &SandboxId) -> Result<Snapshot, SandboxError>;

    /// Freezes the files of a sandbox that runs, as they are at one moment, and lets it run on. Any other sandbox whose
    /// [`Spec::layers`] names the snapshot's goes on from there. The provider keeps the last live snapshot of a sandbox
    /// until it takes another one; [`Provider::pin`] keeps it for longer. Where nothing was written since the last one, it
    /// is that one.
    ///
    /// A provider that cannot do it says so in [`Capabilities::no_live_snapshots`].
    ///
    /// # Errors
    /// This provider cannot do it, there is no such sandbox or it does not run, or the disk did not take it.
    async fn snapshot_live(&self, id: &SandboxId) -> Result<LiveSnapshot, SandboxError> {
        let reason = self.capabilities().no_live_snapshots.unwrap_or_else(|| "this provider takes none".to_owned());
        Err(SandboxError::Refused { what: format!("a live snapshot of sandbox {id}"), reason })
    }

    /// Writes frozen layers, topmost first, as one archive, packed with gzip. They stay for as long as a sandbox or a pin
    /// needs them.
    ///
    /// # Errors
    /// This provider has no archives, a layer is torn or gone, or the archive could not be written.
    async fn export(&self, layers: &[LayerId], to: Box<dyn Write + Send>) -> Result<(), SandboxError> {
        drop((layers, to));
        Err(no_archives())
    }

    /// Takes in an archive of [`Provider::export`] and gives its layers, topmost first, which are kept under a name as by
    /// [`Provider::pin`]. Whoever made it is not believed: it is bounded, nothing of it leads outside, and its layers are
    /// held against what it says of them.
    ///
    /// # Errors
    /// This provider has no archives, it is cut off, altered or hostile, or the disk did not take it.
    async fn import(&self, name: &SandboxId, from: Box<dyn Read + Send>) -> Result<Vec<LayerId>, SandboxError> {
        drop((name, from));
        Err(no_archives())
    }

    /// What the files of a sandbox take on disk, also while it does not run; nothing where the provider does not know.
    ///
    /// # Errors
    /// The disk could not be asked.
    async fn disk_use(&self, id: &SandboxId) -> Result<Option<DiskUse>, SandboxError> {
        drop(id.clone());
        Ok(None)
    }

    /// Keeps layers under a name of its own, also when no sandbox needs them any more. Another pin of that name is
    /// replaced.
    ///
    /// # Errors
    /// A layer is gone, or the disk did not take it.
    async fn pin(&self, name: &SandboxId, layers: &[LayerId]) -> Result<(), SandboxError>;

    /// Drops a pin. Layers that nothing else needs are removed. One that is unknown is no error.
    ///
    /// # Errors
    /// The disk did not take it.
    async fn unpin(&self, name: &SandboxId) -> Result<(), SandboxError>;

    /// Ends every process of the sandbox and removes its files, mounts and limits. One that is unknown is no error.
    ///
    /// # Errors
    /// Something of it could not be removed.
    async fn destroy(&self, id: &SandboxId) -> Result<(), SandboxError>;
}

/// A sandbox as [`Provider::list`] shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub id: SandboxId,
    /// Whether processes of it run; otherwise it only has files.
    pub running: bool,
}

/// A sandbox's files, frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its layers, topmost first.
    pub layers: Vec<LayerId>,
    /// Files, folders and all else that this one added.
    pub entries: u64,
    /// Bytes in those files.
    pub bytes: u64,
}

/// What the files of a sandbox take on disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskUse {
    /// What it has written itself, frozen or not.
    pub own_bytes: u64,
    /// What it stands on and others may stand on too: the layers of its image, or of what it was forked from.
    pub shared_bytes: u64,
}

/// The files of a sandbox that runs on, frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSnapshot {
    /// The files.
    pub snapshot: Snapshot,
    /// For how long the sandbox stood still for it; nothing where the last one is still it.
    pub paused_ms: Option<u64>,
}

/// What a provider can hold and what it cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The provider's name, such as `local`.
    pub provider: String,
    /// Limits that this machine cannot hold, each with the reason in words for a person.
    pub unheld: Vec<(Limit, String)>,
    /// Whether it can close a sandbox's [`Gate`](crate::Gate).
    #[serde(default)]
    pub gates: bool,
    /// Why the files of a sandbox that runs cannot be frozen, in words for a person; absent where they can.
    #[serde(default)]
    pub no_live_snapshots: Option<String>,
}

/// A limit by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// Processes.
    Processes,
    /// Disk.
    Disk,
}

/// Why a sandbox could not be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The sandbox is gone, or never came up.
    #[error("reach sandbox {id}: {reason}")]
    Lost {
        /// Its name.
        id: SandboxId,
        /// What happened.
        reason: String,
    },
    /// The machine could not make it.
    #[error("start sandbox {id}: {reason}")]
    Start {
        /// Its name.
        id: SandboxId,
        /// What happened, and what to do.
        reason: String,
    },
    /// Layers that it was to stand on are gone or torn.
    #[error("start sandbox {id}: {reason}")]
    Layers {
        /// Its name.
        id: SandboxId,
        /// Which layer, and what is wrong with it.
        reason: String,
    },
    /// This machine cannot make any sandbox, or not now.
    #[error("make sandboxes on this machine: {reason}")]
    Machine {
        /// What happened, and what to do.
        reason: String,
    },
    /// There is no such file, folder, command or process in the sandbox.
    #[error("find {what}")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// It is there, but the sandbox's kernel refused.
    #[error("use {what}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// What the kernel said.
        reason: String,
    },
    /// It took longer than it may.
    #[error("{what} within {seconds} s")]
    Deadline {
        /// What was waited for.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// A file or folder of the host could not be used.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `create`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the host's kernel said.
        source: std::io::Error,
    },
}

fn no_archives() -> SandboxError {
    SandboxError::Refused { what: "archives".to_owned(), reason: "this provider has none".to_owned() }
}

impl SandboxError {
    /// For what came of using a file or folder of the host.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

//! What every kind of sandbox can do: the seam for `local` now, `docker` and `kubernetes` later.
//!
//! A provider only makes, finds and ends sandboxes. Commands, terminals, files and ports ride on the connection that
//! the guest opens, which is the same for every provider.

use serde::{Deserialize, Serialize};

use crate::spec::SandboxId;

/// What a provider can hold and what it cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The provider's name, such as `local`.
    pub provider: String,
    /// Limits that this machine cannot hold, each with the reason in words for a person.
    pub unheld: Vec<(Limit, String)>,
}

/// A limit by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// Makes, finds and ends sandboxes.
pub trait Provider {}

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
}

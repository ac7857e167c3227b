//! A repository's environment: what its sandboxes are made of, what runs in them, what proves work in them.
//!
//! `.hob/environment.toml` says it, or where there is none, a `devcontainer.json`. Pure: texts go in, an
//! [`Environment`] comes out, and whoever builds images, starts services or runs checks works from that. Reading is
//! strict: a key that nobody knows is an error with its place, since a check that silently misses the service it needs
//! is red for a reason that nobody sees.

use std::collections::BTreeMap;
use std::time::Duration;

use hob_sandbox::Limits;
use serde::Serialize;

use crate::checks::Check;

mod described;
pub mod devcontainer;
mod draft;
mod error;
mod fingerprint;
mod keys;
mod notices;
mod parse;
mod reader;
mod services;
mod values;

pub use described::{Described, describe};
pub use draft::draft;
pub use error::{EnvironmentError, Place};
pub use fingerprint::{Fingerprints, fingerprint, fingerprints};
pub use keys::{EXAMPLE, KEYS, reference};
pub use notices::not_yet;
pub use parse::parse;

/// Where a repository keeps it.
pub const PATH: &str = ".hob/environment.toml";

/// Bytes that are read of it.
pub const BYTES_MAX: usize = 256 * 1024;

/// How long a service may take until it is ready, when the repository does not say.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// What a repository says of its environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    /// The system under everything.
    pub base: Base,
    /// What is installed on it.
    pub packages: Packages,
    /// Commands that run once for an image, before the repository is there.
    pub setup: Vec<String>,
    /// Commands that run once for an image, in the checkout, so that what they fetch and build is there already.
    pub warm: Vec<String>,
    /// Commands that run in the checkout whenever a sandbox starts, before its services.
    pub start: Vec<String>,
    /// Programs that run beside the agent, in the order of the file.
    pub services: Vec<Service>,
    /// Variables of every command.
    pub env: BTreeMap<String, String>,
    /// The user that commands run as; root when absent.
    pub user: Option<String>,
    /// Ports that people want to reach from outside.
    pub ports: Vec<u16>,
    /// Secrets that it uses, by name.
    pub secrets: Vec<String>,
    /// Its checks, in the order they run; absent where it names none, and they are detected.
    pub checks: Option<Vec<Check>>,
    /// How often red checks go back to the agent; the operator's choice when absent.
    pub max_rounds: Option<u32>,
    /// Sandboxes that are kept warm for the next sessions; by use when absent.
    pub pool: Option<u32>,
    /// Hosts that it wants to reach beside those that every sandbox may: `host`, `host:port` or `*.host`. Whoever can
    /// push to the repository writes this: the operator's policy has the last word.
    pub egress: Vec<String>,
    /// What it wants its sandboxes to use.
    pub wants: Wants,
}

impl Environment {
    /// The same on top of what another file says, whose base it takes.
    #[must_use]
    pub fn with(self, below: Self) -> Self {
        let joined = |first: Vec<String>, then: Vec<String>| first.into_iter().chain(then).collect();
        let (under, over) = (below.packages, self.packages);
        let packages = Packages {
            apt: joined(under.apt, over.apt),
            pip: joined(under.pip, over.pip),
            npm: joined(under.npm, over.npm),
            features: under.features.into_iter().chain(over.features).collect(),
            commands: joined(under.commands, over.commands),
        };
        Self {
            base: below.base,
            packages,
            setup: joined(below.setup, self.setup),
            warm: joined(below.warm, self.warm),
            start: joined(below.start, self.start),
            env: below.env.into_iter().chain(self.env).collect(),
            user: self.user.or(below.user),
            ports: below.ports.into_iter().chain(self.ports).collect(),
            ..self
        }
    }
}

/// The system under a sandbox, as a repository names it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// The system of the machine that Hob runs on, or what the operator put in its place.
    #[default]
    Host,
    /// Debian, made from its packages.
    Debian {
        /// The suite, such as `bookworm`.
        suite: String,
    },
    /// An OCI image.
    Image {
        /// Its reference as it was written, such as `ghcr.io/acme/dev:1`.
        reference: String,
    },
    /// An image that is built from a file of the repository.
    Dockerfile(Dockerfile),
    /// What a `devcontainer.json` of the repository says. [`Environment::with`] puts that in its place.
    Devcontainer {
        /// The file, from the repository's top folder.
        path: String,
    },
}

/// An image that is built from a file of the repository. Paths are relative to its top folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Dockerfile {
    /// The file.
    pub path: String,
    /// The folder that is sent to the builder; empty for the top folder.
    pub context: String,
    /// The stage that is built; the last one when absent.
    pub target: Option<String>,
    /// Its build arguments.
    pub args: BTreeMap<String, String>,
}

/// What is installed on the base, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Packages {
    /// Debian packages: `name`, `name=version` or `name/suite`.
    pub apt: Vec<String>,
    /// Python packages, as pip takes them.
    pub pip: Vec<String>,
    /// Node packages, installed globally.
    pub npm: Vec<String>,
    /// Features of a `devcontainer.json`.
    pub features: Vec<Feature>,
    /// Whatever else, as command lines.
    pub commands: Vec<String>,
}

impl Packages {
    /// Whether nothing is to be installed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A feature of a `devcontainer.json`: an install script with options, published as an OCI artifact or kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// Where it is: a reference such as `ghcr.io/devcontainers/features/node:1`, or a folder from the top folder on.
    pub id: String,
    /// Its options as the script finds them in its environment.
    pub options: BTreeMap<String, String>,
}

/// A program that runs beside the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its name, such as `postgres`; unique in the repository.
    pub name: String,
    /// The command line; it stays in the foreground.
    pub command: String,
    /// The folder that it runs in, relative to the workspace; empty for the workspace itself.
    pub directory: String,
    /// A command line that exits with 0 as soon as the service is ready.
    pub ready: Option<String>,
    /// The port on the sandbox's loopback that it listens on.
    pub port: Option<u16>,
    /// Services that must be ready before it starts, by name.
    pub after: Vec<String>,
    /// How long it may take until it is ready.
    pub ready_within: Duration,
    /// Variables beside the environment's own.
    pub env: BTreeMap<String, String>,
}

/// What a repository wants its sandboxes to use; what it does not say is the operator's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// Processor time, in thousandths of a core.
    pub cpu_millicores: Option<u32>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Bytes that a sandbox may write.
    pub disk_bytes: Option<u64>,
    /// Processes and threads at once.
    pub processes: Option<u32>,
}

impl Wants {
    /// The limits of a sandbox: what the repository wants, and never more than the operator allows.
    pub fn within(&self, allowed: Limits) -> Limits {
        Limits {
            cpu_millicores: self.cpu_millicores.map_or(allowed.cpu_millicores, |n| n.min(allowed.cpu_millicores)),
            memory_bytes: self.memory_bytes.map_or(allowed.memory_bytes, |n| n.min(allowed.memory_bytes)),
            processes: self.processes.map_or(allowed.processes, |n| n.min(allowed.processes)),
            disk_bytes: self.disk_bytes.map_or(allowed.disk_bytes, |n| n.min(allowed.disk_bytes)),
        }
    }
}

#[cfg(test)]
mod tests;

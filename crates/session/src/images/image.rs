//! One image, as the catalogue keeps it and as people see it.

use std::collections::BTreeMap;

use hob_sandbox::{Base, LayerId};
use serde::{Deserialize, Serialize};

use crate::environment::Fingerprints;
use crate::git::carry::Held;
use crate::git::display_name;

/// An image of a repository's branch. New fields must have a default: records of earlier versions are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its name: 1 to 32 characters of `a-z` and `0-9`.
    pub image_id: String,
    /// The repository as it was asked for; it may hold credentials and is not for people.
    pub repository: String,
    /// The branch, tag or commit that it was built for, as it was asked for.
    pub asked: Option<String>,
    /// The commit that it was built for.
    #[serde(default)]
    pub commit: String,
    /// How it stands.
    pub state: ImageState,
    /// Why it failed.
    #[serde(default)]
    pub reason: Option<String>,
    /// What is to be known of it, in words for a person.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What it was built from, layer by layer.
    pub fingerprints: Fingerprints,
    /// What its base is made of.
    pub base_digest: String,
    /// The system under it.
    pub base: Base,
    /// Variables that the base wants set.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What its workspace has of the repository.
    #[serde(default)]
    pub held: Held,
    /// What is whole of it, topmost first.
    #[serde(default)]
    pub layers: Vec<LayerId>,
    /// The steps of its making that are done, in order.
    #[serde(default)]
    pub stages: Vec<Stage>,
    /// Bytes in the files of the layers that were made for it.
    #[serde(default)]
    pub bytes: u64,
    /// When its building began, in milliseconds since 1970-01-01 UTC.
    pub begun_ms: u64,
    /// When it ended.
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// When a session last started from it.
    #[serde(default)]
    pub used_ms: u64,
    /// Whether it was built to be looked at, and no session starts from it.
    #[serde(default)]
    pub trial: bool,
    /// What the repository's checks came to in it; empty where they were not run.
    #[serde(default)]
    pub checks: Vec<CheckOutcome>,
    /// How often it was brought up to date on top of an older one.
    #[serde(default)]
    pub refreshes: u32,
}

/// What a check came to in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// The check's name.
    pub name: String,
    /// Its exit code; -1 where it did not end by itself.
    pub exit_code: i32,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// How an image stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// It is being built.
    Building,
    /// Sessions start from it.
    Ready,
    /// It could not be built.
    Failed,
}

/// A step of an image's making.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Which.
    pub name: StageName,
    /// How many of the image's layers are there after it, counted from below.
    pub layers: usize,
    /// How long it took, in milliseconds; 0 where it was there already.
    pub elapsed_ms: u64,
    /// Whether another image had made it.
    pub reused: bool,
}

/// The steps of an image's making, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageName {
    /// The system under everything is there.
    Base,
    /// Packages are installed.
    Packages,
    /// The commands of `setup` have run.
    Setup,
    /// The repository is checked out.
    Clone,
    /// The commands of `warm` have run in it.
    Warm,
}

impl StageName {
    /// Its name in events and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Packages => "packages",
            Self::Setup => "setup",
            Self::Clone => "clone",
            Self::Warm => "warm",
        }
    }
}

impl Image {
    /// Whether sessions start from it.
    pub fn is_ready(&self) -> bool {
        self.state == ImageState::Ready && !self.trial
    }

    /// Whether a step of its making is done.
    pub fn has(&self, stage: StageName) -> bool {
        self.stages.iter().any(|done| done.name == stage)
    }

    /// Its layers after a step, topmost first; `None` where the step is not done.
    pub fn layers_after(&self, stage: StageName) -> Option<&[LayerId]> {
        let done = self.stages.iter().find(|done| done.name == stage)?;
        self.layers.get(self.layers.len().checked_sub(done.layers)?..)
    }

    /// What its repository is called, without credentials.
    pub fn repository_name(&self) -> String {
        display_name(&self.repository)
    }

    /// The name that its layers are pinned under.
    pub(crate) fn pin(&self) -> String {
        format!("image-{}", self.image_id)
    }
}

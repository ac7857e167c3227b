//! What people ask of an engine, and what they are told.

use hob_agent::Author;
use serde::{Deserialize, Serialize};

use crate::id::SessionId;
use crate::state::State;

/// A session to be made.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// The repository: an absolute path of the server's machine, or a URL.
    pub repository: String,
    /// The branch, tag or commit that work starts from; the repository's default branch when absent.
    pub base: Option<String>,
    /// The agent's name in the catalogue; `hob` is the built-in one.
    pub agent: String,
    /// The model's ID.
    pub model: String,
    /// Who makes it.
    pub author: Author,
    /// What people see in a list; made from the first prompt when absent.
    pub title: Option<String>,
    /// The first prompt; the session waits for one when absent.
    pub prompt: Option<NewPrompt>,
    /// A second request with this key gives the session that the first one made.
    pub idempotency_key: Option<String>,
}

/// A prompt to be queued.
#[derive(Debug, Clone)]
pub struct NewPrompt {
    /// Its words.
    pub text: String,
    /// Who sends it.
    pub author: Author,
    /// Its pictures.
    pub attachments: Vec<NewAttachment>,
    /// The model for this prompt, when it is not the session's.
    pub model: Option<String>,
    /// A second request with this key in the same session gives the answer of the first one.
    pub idempotency_key: Option<String>,
}

/// A picture that belongs to a prompt.
#[derive(Debug, Clone)]
pub struct NewAttachment {
    /// Its file name.
    pub name: String,
    /// Its media type, such as `image/png`.
    pub media_type: String,
    /// Its bytes.
    pub bytes: bytes::Bytes,
}

/// A session that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The session.
    pub session: SessionId,
    /// Its first prompt, where it has one.
    pub prompt: Option<Queued>,
}

/// A prompt that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Its ID.
    pub prompt_id: String,
    /// How many prompts come before it, the one that runs included.
    pub position: u32,
}

/// A session as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The session.
    pub id: SessionId,
    /// What people see in a list.
    pub title: String,
    /// Where it stands.
    pub state: State,
    /// The repository: a path or a URL, without credentials.
    pub repository: String,
    /// The branch, tag or commit that was asked for.
    pub base: Option<String>,
    /// The commit that work started from, once it is known.
    pub base_commit: Option<String>,
    /// The agent's name.
    pub agent: String,
    /// The model's ID.
    pub model: String,
    /// Who made it.
    pub author: Author,
    /// Who takes part, its maker first.
    pub participants: Vec<Author>,
    /// When it was made, in milliseconds since 1970-01-01 UTC.
    pub created_ms: u64,
    /// When something last happened in it.
    pub updated_ms: u64,
    /// The sequence number of the last event that this was read from.
    pub seq: u64,
    /// Prompts that wait.
    pub queue: Vec<QueuedPrompt>,
    /// The prompt whose turn runs.
    pub running_prompt: Option<String>,
    /// How the last turn ended.
    pub last_outcome: Option<crate::event::TurnOutcome>,
    /// The branch of the result, once there is one.
    pub branch: Option<String>,
    /// The last commit on it.
    pub commit: Option<String>,
    /// Lines and files of the change against the base, as of the last commit.
    pub change: Option<Change>,
    /// Model calls so far.
    pub usage: Usage,
    /// Permission requests and questions that wait for an answer, by ID.
    pub waiting_for: Vec<String>,
    /// Where its sandbox stands among those that wait for a place to run, while it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub place: Option<crate::admission::Place>,
    /// The phases of the last start that have ended, and of the agent's, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub phases: Vec<PhaseTime>,
    /// Services of the sandbox, as they stand or stood when it was put away.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub services: Vec<ServiceState>,
}

/// How long a phase of a start took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// The phase.
    pub name: String,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// A service of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub status: crate::event::ServiceStatus,
    /// Why it ended or failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// A prompt that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedPrompt {
    /// Its ID.
    pub prompt_id: String,
    /// Who sent it.
    pub author: Author,
    /// Its words.
    pub text: String,
    /// Artifact IDs of its pictures.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub attachments: Vec<String>,
    /// The model for this prompt, when it is not the session's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
}

/// The size of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Change {
    /// Files changed.
    pub files_changed: u32,
    /// Lines added.
    pub insertions: u32,
    /// Lines removed.
    pub deletions: u32,
}

/// What the models took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Model calls.
    pub calls: u64,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Of those, tokens read from the provider's cache.
    pub cached_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar, of the calls whose price is known.
    pub cost_micro_usd: u64,
    /// Calls whose price is not known.
    pub unpriced_calls: u64,
}

/// What a sandbox uses now, and what it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxUse {
    /// What is counted; the processor time since its start.
    pub stats: hob_sandbox::Stats,
    /// Processor time of this moment, in thousandths of a core.
    pub cpu_millicores: Option<u64>,
    /// What it may use.
    pub limits: hob_sandbox::Limits,
}

/// Which sessions a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those in this state; when absent, all but archived ones.
    pub state: Option<State>,
    /// Only those of this repository.
    pub repository: Option<String>,
    /// Only those that this address made.
    pub author_email: Option<String>,
    /// Sessions on a page, from 1 to 200; 50 when absent.
    pub limit: Option<u32>,
}

/// A page of a list, the session that changed last first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The sessions.
    pub sessions: Vec<Summary>,
    /// Where the next page begins; absent on the last one.
    pub next: Option<String>,
}

/// An entry of the log as the store holds it: the JSON goes to clients as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log, from 1, without gaps.
    pub seq: u64,
    /// When it was recorded: milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The whole [`Event`](crate::Event) as JSON, `seq` and `at_ms` included.
    pub json: std::sync::Arc<str>,
}

impl Record {
    /// The event, read from the JSON. A kind that a later version wrote cannot be read.
    ///
    /// # Errors
    /// The JSON is not an event that this version knows.
    pub fn event(&self) -> Result<crate::event::Event, serde_json::Error> {
        serde_json::from_str(&self.json)
    }
}

/// A file that a session made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its ID.
    pub artifact_id: String,
    /// What it is: `evidence`, `diff`, `image`, `file`.
    pub kind: String,
    /// Its file name.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// When it was kept, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
}

/// Where `hob pull` fetches a session's branch from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchRef {
    /// The bare repository on the server's machine.
    pub mirror: std::path::PathBuf,
    /// The branch, such as `hob/k3v9m2pq-fix-the-parser`.
    pub branch: String,
    /// Its commit.
    pub commit: String,
}

/// An image to build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewImage {
    /// A path of this machine or a URL.
    pub repository: String,
    /// A branch, tag or commit; the repository's own default branch when absent.
    pub base: Option<String>,
    /// Builds everything anew, whatever is there already.
    pub fresh: bool,
    /// Runs the repository's checks in it when it is there.
    pub check: bool,
    /// The text of an environment file to try in place of the repository's own; no session starts from such an image.
    pub environment: Option<String>,
}

/// A command for a session's sandbox.
#[derive(Debug, Clone)]
pub struct NewExec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its folder; the checkout when absent.
    pub cwd: Option<String>,
    /// Environment beside the sandbox's own.
    pub env: std::collections::BTreeMap<String, String>,
    /// Whether its standard input stays open.
    pub stdin: bool,
    /// After this time it is killed with all it started.
    pub timeout: Option<std::time::Duration>,
}

//! The resources of the interface, as JSON shows them. They follow the engine's words and change by rule: a new field
//! is optional, nothing is renamed.

use hob_session as engine;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A person as a commit names them.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Person {
    /// The name.
    pub name: String,
    /// The address.
    pub email: String,
}

/// A session to be made.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct CreateSession {
    /// An absolute path on the server's machine, or a URL.
    pub repository: String,
    /// The branch, tag or commit that work starts from; the default branch when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The agent's name; the configured one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The model's ID; the configured one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What people see in a list; made from the prompt when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The first prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Pictures that belong to the first prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// How many sessions try it side by side. Only 1 is taken now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
}

/// A session that somebody begins to write the prompt of.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Typing {
    /// An absolute path on the server's machine, or a URL.
    pub repository: String,
    /// The branch, tag or commit that work starts from; the default branch when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The agent's name; the configured one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The model's ID; the configured one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// A picture.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// Its file name.
    pub name: String,
    /// Its media type, such as `image/png`.
    pub media_type: String,
    /// Its bytes in base64.
    pub base64: String,
}

/// A session that was made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionCreated {
    /// The session's ID.
    pub id: String,
    /// Its first prompt, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<PromptAccepted>,
}

/// A prompt that was accepted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PromptAccepted {
    /// Its ID.
    pub prompt_id: String,
    /// How many prompts come before it, the one that runs included.
    pub position: u32,
}

/// A session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    /// Its ID.
    pub id: String,
    /// What people see in a list.
    pub title: String,
    /// `starting`, `idle`, `running`, `suspending`, `suspended`, `failed` or `archived`.
    pub state: String,
    /// The repository: a path or a URL, without credentials.
    pub repository: String,
    /// The branch, tag or commit that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The commit that work started from, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// The agent's name.
    pub agent: String,
    /// The model's ID.
    pub model: String,
    /// Who takes part, its maker first.
    pub participants: Vec<Person>,
    /// When it was made, in milliseconds since 1970-01-01 UTC.
    pub created_ms: u64,
    /// When something last happened in it.
    pub updated_ms: u64,
    /// The sequence number of the last event that this was read from.
    pub seq: u64,
    /// Prompts that wait.
    pub queue: Vec<QueuedPromptView>,
    /// The prompt whose turn runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_prompt: Option<String>,
    /// How the last turn ended: `done`, `checks_failed`, `stopped`, `failed` or `interrupted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_outcome: Option<String>,
    /// The branch of the result, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The last commit on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The size of the change, as of the last commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeView>,
    /// Model calls so far.
    pub usage: UsageView,
    /// Permission requests and questions that wait for an answer, by ID.
    pub waiting_for: Vec<String>,
    /// Where its sandbox stands among those that wait for a place to run, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<PlaceView>,
    /// The phases of the last start that have ended, and of the agent's, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseTimeView>,
    /// Services of its sandbox, as they stand or stood when it was put away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceView>,
}

/// What a session's sandbox uses now. What this machine does not count is absent.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct StatsView {
    /// Whether there is a sandbox now; all but what lies on disk is absent where there is none.
    pub running: bool,
    /// Processor time of this moment, in thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millicores: Option<u64>,
    /// Memory in bytes, page cache included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Bytes that it has written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Bytes on disk that are this session's alone, snapshots included; also while it is put away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_own_bytes: Option<u64>,
    /// Bytes on disk under those, which other sessions may share: the layers of its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_shared_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// How often the kernel ended a process of it because memory was full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsView>,
}

/// A session's files, frozen.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    /// The layers that hold them, topmost first.
    pub layers: Vec<String>,
    /// Files, folders and all else in the topmost layer.
    pub entries: u64,
    /// Bytes in those files.
    pub bytes: u64,
    /// For how long the sandbox stood still for it; absent where nothing was written since the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_ms: Option<u64>,
}

/// What a sandbox may use.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LimitsView {
    /// Processor time, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Bytes that it may write.
    pub disk_bytes: u64,
    /// Processes and threads.
    pub processes: u32,
}

/// How long a phase of the last start took.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PhaseTimeView {
    /// `queue`, `workspace`, `sandbox`, `agent` and others.
    pub name: String,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// A place in the queue of sandboxes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PlaceView {
    /// Its place, from 1.
    pub position: u32,
    /// How many wait.
    pub of: u32,
}

/// A service of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// `starting`, `ready`, `ended` (it is started again) or `failed`.
    pub status: String,
    /// Why it ended or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A prompt that waits.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueuedPromptView {
    /// Its ID.
    pub prompt_id: String,
    /// Who sent it.
    pub author: Person,
    /// Its words.
    pub text: String,
}

/// The size of a change.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangeView {
    /// Files changed.
    pub files_changed: u32,
    /// Lines added.
    pub insertions: u32,
    /// Lines removed.
    pub deletions: u32,
}

/// What the models took.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    /// Model calls.
    pub calls: u64,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Of those, tokens read from a cache.
    pub cached_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar, of the calls whose price is known.
    pub cost_micro_usd: u64,
    /// Calls whose price is not known.
    pub unpriced_calls: u64,
}

/// A page of sessions, the one that changed last first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionPage {
    /// The sessions.
    pub sessions: Vec<SessionView>,
    /// The `cursor` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An event of a session's log. Beside these fields it has those of its type; `docs/events.md` describes them.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(super) struct EventView {
    /// Its place in the log, from 1, without gaps.
    pub seq: u64,
    /// When it was recorded, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What happened, such as `message` or `turn_ended`. Types that a client does not know are to be skipped.
    #[serde(rename = "type")]
    pub kind: String,
}

/// The word that JSON has for a plain enum of the engine.
fn word<T: Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

impl From<hob_agent::Author> for Person {
    fn from(author: hob_agent::Author) -> Self {
        Self { name: author.name, email: author.email }
    }
}

impl From<engine::Queued> for PromptAccepted {
    fn from(queued: engine::Queued) -> Self {
        Self { prompt_id: queued.prompt_id, position: queued.position }
    }
}

impl From<engine::Summary> for SessionView {
    fn from(session: engine::Summary) -> Self {
        let usage = session.usage;
        Self {
            id: session.id.to_string(),
            title: session.title,
            state: word(session.state),
            repository: session.repository,
            base: session.base,
            base_commit: session.base_commit,
            agent: session.agent,
            model: session.model,
            participants: session.participants.into_iter().map(Person::from).collect(),
            created_ms: session.created_ms,
            updated_ms: session.updated_ms,
            seq: session.seq,
            queue: session
                .queue
                .into_iter()
                .map(|queued| QueuedPromptView {
                    prompt_id: queued.prompt_id,
                    author: queued.author.into(),
                    text: queued.text,
                })
                .collect(),
            running_prompt: session.running_prompt,
            last_outcome: session.last_outcome.map(word),
            branch: session.branch,
            commit: session.commit,
            change: session.change.map(|change| ChangeView {
                files_changed: change.files_changed,
                insertions: change.insertions,
                deletions: change.deletions,
            }),
            usage: UsageView {
                calls: usage.calls,
                input_tokens: usage.input_tokens,
                cached_tokens: usage.cached_tokens,
                output_tokens: usage.output_tokens,
                cost_micro_usd: usage.cost_micro_usd,
                unpriced_calls: usage.unpriced_calls,
            },
            waiting_for: session.waiting_for,
            phases: session
                .phases
                .into_iter()
                .map(|phase| PhaseTimeView { name: phase.name, elapsed_ms: phase.elapsed_ms })
                .collect(),
            place: session.place.map(|place| PlaceView { position: place.position, of: place.of }),
            services: session
                .services
                .into_iter()
                .map(|service| ServiceView { name: service.name, status: word(service.status), detail: service.detail })
                .collect(),
        }
    }
}

impl From<hob_sandbox::LiveSnapshot> for SnapshotView {
    fn from(taken: hob_sandbox::LiveSnapshot) -> Self {
        let hob_sandbox::LiveSnapshot { snapshot, paused_ms } = taken;
        let layers = snapshot.layers.iter().map(ToString::to_string).collect();
        Self { layers, entries: snapshot.entries, bytes: snapshot.bytes, paused_ms }
    }
}

impl From<engine::SandboxUse> for StatsView {
    fn from(used: engine::SandboxUse) -> Self {
        let engine::SandboxUse { stats, cpu_millicores, limits } = used;
        Self {
            running: true,
            cpu_millicores,
            memory_bytes: stats.memory_bytes,
            disk_bytes: stats.disk_bytes,
            disk_own_bytes: None,
            disk_shared_bytes: None,
            processes: stats.processes,
            oom_kills: stats.oom_kills,
            limits: Some(LimitsView {
                cpu_millicores: limits.cpu_millicores,
                memory_bytes: limits.memory_bytes,
                disk_bytes: limits.disk_bytes,
                processes: limits.processes,
            }),
        }
    }
}

impl From<engine::Page> for SessionPage {
    fn from(page: engine::Page) -> Self {
        Self { sessions: page.sessions.into_iter().map(SessionView::from).collect(), next: page.next }
    }
}

/// An image to be built.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct BuildImage {
    /// An absolute path on the server's machine, or a URL.
    pub repository: String,
    /// The branch, tag or commit; the default branch when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Builds everything anew, whatever is there already.
    #[serde(default)]
    pub fresh: bool,
    /// Runs the repository's checks in it when it is there.
    #[serde(default)]
    pub check: bool,
    /// The text of an environment file to try in place of the repository's own; no session starts from such an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// Images.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImageList {
    /// The oldest first.
    pub images: Vec<ImageView>,
}

/// What sessions of a repository's branch start from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    /// Its ID.
    pub id: String,
    /// The repository, without credentials.
    pub repository: String,
    /// The branch, tag or commit that it was built for; the default branch when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The commit that it was built for.
    pub commit: String,
    /// `building`, `ready` or `failed`.
    pub state: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is to be known of it.
    pub notes: Vec<String>,
    /// The steps of its making that are done, in order.
    pub stages: Vec<StageView>,
    /// What the repository's checks came to in it; empty where they were not run.
    pub checks: Vec<CheckOutcomeView>,
    /// Whether it was built to be looked at, and no session starts from it.
    pub trial: bool,
    /// Bytes in the files that were made for it.
    pub bytes: u64,
    /// When its building began, in milliseconds since 1970-01-01 UTC.
    pub begun_ms: u64,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// When a session last started from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_ms: Option<u64>,
}

/// A step of an image's making.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StageView {
    /// `base`, `packages`, `setup`, `clone` or `warm`.
    pub name: String,
    /// How long it took; 0 where another image had made it.
    pub elapsed_ms: u64,
    /// Whether another image had made it.
    pub reused: bool,
}

/// What a check came to in an image.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CheckOutcomeView {
    /// The check's name.
    pub name: String,
    /// Its exit code.
    pub exit_code: i32,
    /// How long it took.
    pub elapsed_ms: u64,
}

impl From<&engine::Image> for ImageView {
    fn from(image: &engine::Image) -> Self {
        let state = match image.state {
            engine::ImageState::Building => "building",
            engine::ImageState::Ready => "ready",
            engine::ImageState::Failed => "failed",
        };
        let stage = |stage: &engine::Stage| StageView {
            name: stage.name.as_str().to_owned(),
            elapsed_ms: stage.elapsed_ms,
            reused: stage.reused,
        };
        let check = |check: &engine::CheckOutcome| CheckOutcomeView {
            name: check.name.clone(),
            exit_code: check.exit_code,
            elapsed_ms: check.elapsed_ms,
        };
        Self {
            id: image.image_id.clone(),
            repository: image.repository_name(),
            base: image.asked.clone(),
            commit: image.commit.clone(),
            state: state.to_owned(),
            reason: image.reason.clone(),
            notes: image.notes.clone(),
            stages: image.stages.iter().map(stage).collect(),
            checks: image.checks.iter().map(check).collect(),
            trial: image.trial,
            bytes: image.bytes,
            begun_ms: image.begun_ms,
            ended_ms: image.ended_ms,
            used_ms: Some(image.used_ms).filter(|used_ms| *used_ms > 0),
        }
    }
}

//! An entry of a session's log: what happened, when, with a gap-free sequence number.
//!
//! The log is the only truth of a session: state, timeline, cost and evidence are read from it. The JSON here is what
//! the store holds and what every client gets. It changes by rule: a new field is optional, a new kind is ignored by
//! old readers, nothing is renamed.

use hob_agent::{Author, PermissionOption, PlanEntry, RawDirection, StopReason, ToolCall};
use hob_sandbox::LayerId;
use serde::{Deserialize, Serialize};

use crate::checks::Diagnostic;
use crate::state::State;

/// An entry of a session's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the log, from 1, without gaps.
    pub seq: u64,
    /// When it was recorded: milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened in a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The session was made.
    SessionCreated {
        /// The repository: a local path or a URL.
        repository: String,
        /// The branch, tag or commit that work starts from; the repository's default branch when absent.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        base: Option<String>,
        /// The agent's name in the catalogue.
        agent: String,
        /// The model's ID.
        model: String,
        /// Who made it.
        author: Author,
    },
    /// The session went from one state to another.
    StateChanged {
        /// The state before.
        from: State,
        /// The state after.
        to: State,
        /// Why, in words for a person.
        cause: String,
    },
    /// A prompt was accepted and waits for its turn.
    PromptQueued {
        /// The prompt's ID.
        prompt_id: String,
        /// Who sent it.
        author: Author,
        /// Its words.
        text: String,
        /// Artifact IDs of its pictures.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        attachments: Vec<String>,
        /// The model for this prompt, when it is not the session's.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        model: Option<String>,
    },
    /// A prompt was taken back before it started.
    PromptCancelled {
        /// The prompt's ID.
        prompt_id: String,
        /// Who took it back.
        by: Author,
    },
    /// A phase of getting ready began or ended: `queue`, `workspace`, `sandbox`, `services`, `agent`.
    Phase {
        /// The phase.
        name: String,
        /// How far it is.
        status: PhaseStatus,
        /// How long it took; absent while it runs.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        elapsed_ms: Option<u64>,
        /// What there is to say: the commit, the cause of a failure.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        detail: Option<String>,
    },
    /// More sandboxes are wanted than may run at once: where this session stands among those that wait. Told again when
    /// it moves, but not more often than every two seconds.
    WaitingForPlace {
        /// Its place, from 1.
        position: u32,
        /// How many wait.
        of: u32,
    },
    /// A service of the environment began, became ready, ended or failed.
    Service {
        /// Its name, such as `postgres`.
        name: String,
        /// How it stands.
        status: ServiceStatus,
        /// How long it took until it was ready.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        elapsed_ms: Option<u64>,
        /// What there is to say: why it ended or failed, and whether it is started again.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        detail: Option<String>,
        /// The last lines that it wrote before it ended or failed, at most 4 KiB of them.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        log: Option<String>,
    },
    /// The sandbox's memory was full, and the kernel ended processes in it. The sandbox lives on.
    OutOfMemory {
        /// How many were ended since this was last told.
        kills: u64,
        /// What the sandbox may use, in bytes.
        limit_bytes: u64,
    },
    /// The session was given a name for lists.
    Titled {
        /// The name.
        title: String,
    },
    /// It is known which commit the session works from.
    BaseResolved {
        /// The commit's full ID.
        commit: String,
        /// The branch that results go to.
        branch: String,
    },
    /// A turn began.
    TurnStarted {
        /// The turn's ID.
        turn_id: String,
        /// The prompt that it answers.
        prompt_id: String,
    },
    /// Red checks went back to the agent within the turn.
    RoundStarted {
        /// The turn's ID.
        turn_id: String,
        /// The round, from 2 (the first round is the prompt's own).
        round: u32,
        /// What the agent was told.
        text: String,
    },
    /// The next piece of a message of the agent.
    Message {
        /// The message.
        message_id: String,
        /// Where the piece begins in the message, in bytes of UTF-8.
        offset: u64,
        /// The piece.
        text: String,
    },
    /// The next piece of the agent's thinking.
    Thought {
        /// The thought.
        message_id: String,
        /// Where the piece begins, in bytes of UTF-8.
        offset: u64,
        /// The piece.
        text: String,
    },
    /// A tool call began or changed: the whole of it as it is now.
    ToolCall(ToolCall),
    /// The plan as it is now.
    Plan {
        /// Its steps.
        entries: Vec<PlanEntry>,
    },
    /// The agent asks whether a tool call may go on.
    PermissionRequested {
        /// The request's ID.
        request_id: String,
        /// What it wants to do.
        tool_call: ToolCall,
        /// The answers that it takes.
        options: Vec<PermissionOption>,
    },
    /// A permission request was answered, or nobody did in time.
    PermissionResolved {
        /// The request's ID.
        request_id: String,
        /// The chosen option; absent when the turn was stopped or the deadline passed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        option_id: Option<String>,
        /// Who chose; absent when policy or the deadline did.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<Author>,
    },
    /// The agent asks the participants something.
    QuestionAsked {
        /// The question's ID.
        question_id: String,
        /// The question.
        text: String,
        /// Answers to choose from; empty for free text.
        choices: Vec<String>,
    },
    /// A question was answered, or nobody did in time.
    QuestionAnswered {
        /// The question's ID.
        question_id: String,
        /// The answer; absent when the turn was stopped or the deadline passed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        text: Option<String>,
        /// Who answered.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<Author>,
    },
    /// Older turns were replaced by a summary, so that the conversation fits the model's window.
    Compaction {
        /// Tokens before, as estimated.
        before_tokens: u64,
        /// Tokens after, as estimated.
        after_tokens: u64,
        /// What stands in for the turns that went.
        summary: String,
    },
    /// How full the model's window is.
    Context {
        /// Tokens used.
        used_tokens: u64,
        /// Tokens that fit.
        size_tokens: u64,
    },
    /// The sandbox's files were frozen. A sandbox can go on from them, this session's or another's.
    SnapshotTaken {
        /// The layers that hold them, topmost first.
        layers: Vec<LayerId>,
        /// Files, folders and all else that this snapshot added.
        entries: u64,
        /// Bytes in those files.
        bytes: u64,
        /// The turn that had just ended, where it was taken for that.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        turn_id: Option<String>,
        /// For how long the sandbox stood still for it, where it runs on.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        paused_ms: Option<u64>,
    },
    /// Files of the session could not be brought back as they were.
    FilesLost {
        /// What is lost, and what stands in for it.
        text: String,
    },
    /// The gateway carried one model call.
    ModelCall(ModelCall),
    /// The gateway refused to let something out.
    EgressRefused {
        /// The host that was asked for.
        host: String,
        /// The port.
        port: u16,
        /// Which rule refused, and how to allow it.
        reason: String,
    },
    /// A remark for the participants.
    Notice {
        /// The remark.
        text: String,
    },
    /// A check began.
    CheckStarted {
        /// Its name, such as `test`.
        name: String,
        /// The command line.
        command: String,
        /// The round of the turn that it proves; 0 for the run on the base commit.
        round: u32,
    },
    /// A check ended.
    CheckEnded(CheckRun),
    /// The turn's change was committed.
    Committed {
        /// The commit's full ID.
        commit: String,
        /// The branch that it is on.
        branch: String,
        /// Its first line.
        subject: String,
        /// The author of the commit.
        author: Author,
        /// Other participants of the session.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        co_authors: Vec<Author>,
        /// Files changed against the base.
        files_changed: u32,
        /// Lines added against the base.
        insertions: u32,
        /// Lines removed against the base.
        deletions: u32,
    },
    /// The branch was pushed to the repository's remote, or was not, and why.
    Pushed {
        /// The branch.
        branch: String,
        /// The remote, without credentials; absent when it was not pushed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        remote: Option<String>,
        /// Why it was not pushed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<String>,
    },
    /// A file that the session made was kept.
    ArtifactAdded {
        /// Its ID.
        artifact_id: String,
        /// What it is: `evidence`, `diff`, `image`, `file`.
        kind: String,
        /// Its file name.
        name: String,
        /// Its media type.
        media_type: String,
        /// Its size in bytes.
        size_bytes: u64,
        /// Its SHA-256, in hexadecimal.
        sha256: String,
    },
    /// The turn is over: exactly one for each turn, and the message to whoever asked.
    TurnEnded {
        /// The turn's ID.
        turn_id: String,
        /// The prompt that it answered.
        prompt_id: String,
        /// How it ended.
        outcome: TurnOutcome,
        /// The agent's stop reason; absent when it did not get that far.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        stop_reason: Option<StopReason>,
        /// The closing message.
        message: String,
        /// How long the turn took.
        elapsed_ms: u64,
    },
    /// The external agent's own ID of the conversation.
    AgentSession {
        /// The ID.
        id: String,
    },
    /// A raw protocol message of an external agent.
    AgentRaw {
        /// Who sent it.
        direction: RawDirection,
        /// The line.
        json: String,
    },
    /// The session is to be closed for good as soon as its turn has ended.
    ArchiveRequested {
        /// Who asked for it.
        by: Author,
    },
    /// The session was closed for good; its log stays.
    Archived {
        /// Who did it.
        by: Author,
    },
}

/// How far a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseStatus {
    /// It runs.
    Started,
    /// It is done.
    Ended,
    /// It failed.
    Failed,
}

/// How a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceStatus {
    /// It was started, and is not ready yet.
    Starting,
    /// It is ready.
    Ready,
    /// It has ended, and is started again.
    Ended,
    /// It has failed, and is not started again in this life of the sandbox.
    Failed,
}

impl ServiceStatus {
    /// Whether nothing is to be waited for: it is ready, or it will not be.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Ready | Self::Failed)
    }

    /// Its name in events and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }
}

/// How a turn ended, for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnOutcome {
    /// The agent is done and no check is red because of the change.
    Done,
    /// The agent is done, and checks are still red.
    ChecksFailed,
    /// A participant stopped it.
    Stopped,
    /// Something broke; the message says what.
    Failed,
    /// The server ended in the middle of it.
    Interrupted,
}

/// One model call, as the gateway measured it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCall {
    /// The model that answered.
    pub model: String,
    /// The provider's name in `hob.toml`.
    pub provider: String,
    /// The provider's HTTP status; 0 when it could not be reached.
    pub status: u16,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Of those, tokens read from the provider's cache.
    pub cached_tokens: u64,
    /// Tokens written, thinking included.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar; absent when the model has no price.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost_micro_usd: Option<u64>,
    /// From the request to the first byte of the answer.
    pub first_byte_ms: u64,
    /// From the request to the last byte of the answer.
    pub elapsed_ms: u64,
    /// Requests that it took, retries and fallbacks included.
    pub attempts: u32,
}

/// One run of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRun {
    /// The check's name, such as `test`.
    pub name: String,
    /// The command line.
    pub command: String,
    /// The round of the turn; 0 for the run on the base commit.
    pub round: u32,
    /// Its exit code, or 128 + the signal that ended it.
    pub exit_code: i32,
    /// Whether its time limit ended it.
    pub timed_out: bool,
    /// How long it took.
    pub elapsed_ms: u64,
    /// What it found, at most 200 of them.
    pub diagnostics: Vec<Diagnostic>,
    /// Red, but just as red on the base commit: not blamed on the change.
    pub red_on_base: bool,
}

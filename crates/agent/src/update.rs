//! What an agent says in a turn: messages, thoughts, tool calls, plans, permission requests.
//!
//! The words and the shapes are those of the Agent Client Protocol v1; what it does not name is marked.

use serde::{Deserialize, Serialize};

/// One thing that an agent says.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The next piece of a message to the participants.
    Message {
        /// The message that the piece belongs to; pieces of one message are contiguous.
        message_id: String,
        /// The piece.
        text: String,
    },
    /// The next piece of the agent's thinking.
    Thought {
        /// The thought that the piece belongs to.
        message_id: String,
        /// The piece.
        text: String,
    },
    /// A tool call began, or changed: the whole of it as it is now. The last one with an ID counts.
    ToolCall(ToolCall),
    /// The plan as it is now; it replaces the one before.
    Plan(Vec<PlanEntry>),
    /// Older turns were replaced by a summary, so that the conversation fits the model's window (not in ACP v1).
    Compaction {
        /// Tokens in the window before, as estimated.
        before_tokens: u64,
        /// Tokens in the window after, as estimated.
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
    /// A remark of the driver for the participants: a retry, a fallback, a reply that could not be read.
    Notice(String),
    /// The agent's own ID of the conversation, with which a later process loads it again.
    AgentSession(String),
    /// One raw protocol message of an external agent, kept so that nothing is lost.
    Raw {
        /// Who sent it.
        direction: RawDirection,
        /// The line, at most 64 KiB of it.
        json: String,
    },
}

/// Who sent a raw protocol message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawDirection {
    /// Hob sent it.
    ToAgent,
    /// The agent sent it.
    FromAgent,
}

/// A use of a tool, as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The call's ID, unique in the session.
    pub id: String,
    /// The tool's name as the agent knows it, such as `shell` or `Edit`.
    pub name: String,
    /// What a person reads in one line, such as `edit calc.py` or `cargo test`.
    pub title: String,
    /// What sort of tool it is.
    pub kind: ToolKind,
    /// How far it is.
    pub status: ToolStatus,
    /// The arguments as the model wrote them.
    pub input: serde_json::Value,
    /// What it gave, ready to show.
    pub content: Vec<ToolContent>,
    /// Files it touches.
    pub locations: Vec<Location>,
}

/// Sorts of tools (Agent Client Protocol v1, `ToolKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    /// Reads files or data.
    Read,
    /// Changes files.
    Edit,
    /// Removes files.
    Delete,
    /// Moves or renames files.
    Move,
    /// Looks for something.
    Search,
    /// Runs a command.
    Execute,
    /// Thinks or plans.
    Think,
    /// Fetches from outside.
    Fetch,
    /// Switches the agent's mode.
    SwitchMode,
    /// Anything else.
    #[serde(other)]
    Other,
}

/// How far a tool call is (Agent Client Protocol v1, `ToolCallStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolStatus {
    /// Not started: its arguments still stream, or it waits for permission.
    Pending,
    /// Under way.
    InProgress,
    /// Done.
    Completed,
    /// Failed; the model was told.
    Failed,
}

/// What a tool call gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToolContent {
    /// Words, such as a command's output; at most 64 KiB, the middle left out where it was longer.
    Text {
        /// The words.
        text: String,
    },
    /// A change of one file.
    Diff {
        /// The file.
        path: String,
        /// Its text before; absent for a new file.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        old_text: Option<String>,
        /// Its text after.
        new_text: String,
    },
    /// A picture, in base64.
    Image {
        /// Its media type.
        media_type: String,
        /// Its bytes in base64.
        base64: String,
    },
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The file.
    pub path: String,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u32>,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanEntry {
    /// What is to be done.
    pub content: String,
    /// How far it is.
    pub status: PlanStatus,
}

/// How far a step of a plan is (Agent Client Protocol v1, `PlanEntryStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanStatus {
    /// Not begun.
    Pending,
    /// Under way.
    InProgress,
    /// Done.
    Completed,
}

/// An agent asks whether a tool call may go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PermissionRequest {
    /// The request's ID, unique in the session.
    pub request_id: String,
    /// What it wants to do.
    pub tool_call: ToolCall,
    /// The answers that the agent takes.
    pub options: Vec<PermissionOption>,
}

/// An answer that an agent takes to a permission request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionOption {
    /// What goes back to the agent. IDs differ between agents; choose by `kind`.
    pub id: String,
    /// What a person reads.
    pub name: String,
    /// What it means.
    pub kind: PermissionOptionKind,
}

/// What an answer to a permission request means (Agent Client Protocol v1, `PermissionOptionKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PermissionOptionKind {
    /// This once.
    AllowOnce,
    /// From now on.
    AllowAlways,
    /// Not this once.
    RejectOnce,
    /// Never.
    RejectAlways,
}

/// What became of a permission request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermissionOutcome {
    /// One of its options was chosen.
    Selected {
        /// The option's ID.
        option_id: String,
    },
    /// The turn was stopped, or nobody answered in time.
    Cancelled,
}

/// A question of the agent to the participants (not in ACP v1; the built-in agent's `ask` tool).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The question's ID, unique in the session.
    pub question_id: String,
    /// The question.
    pub text: String,
    /// Answers to choose from; empty for free text.
    pub choices: Vec<String>,
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Somebody answered.
    Text(String),
    /// The turn was stopped, or nobody answered in time.
    None {
        /// Why, in words for the model.
        reason: String,
    },
}

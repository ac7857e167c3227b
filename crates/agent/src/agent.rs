//! The one interface of every agent: a prompt goes in, updates come out, a stop reason ends the turn.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::update::{Answer, PermissionOutcome, PermissionRequest, Question, Update};

/// An agent that works on one session. One prompt is in flight at a time; the queue belongs to the session.
#[async_trait]
pub trait Agent: Send {
    /// Runs one turn to its end. Every update goes to `host` in order, and the returned [`TurnEnd`] comes last.
    ///
    /// When `stop` is cancelled the turn ends within a second with [`StopReason::Cancelled`]; this is no error.
    /// A tool that fails is told to the model and does not end the turn.
    async fn prompt(
        &mut self,
        prompt: Prompt,
        host: &dyn TurnHost,
        stop: CancellationToken,
    ) -> Result<TurnEnd, AgentError>;

    /// Gets ready for the first prompt, as far as that can be done without it. An agent that has nothing to do for it is
    /// ready.
    ///
    /// # Errors
    /// It cannot be prompted.
    async fn get_ready(&mut self, _host: &dyn TurnHost) -> Result<(), AgentError> {
        Ok(())
    }

    /// Ends the agent and whatever it holds. An external agent's process is asked to leave before it is killed.
    async fn close(self: Box<Self>);
}

/// What a turn asks of the session that runs it.
#[async_trait]
pub trait TurnHost: Send + Sync {
    /// Records an update. Waits while the session's log is full: back-pressure reaches the agent.
    async fn update(&self, update: Update);

    /// Asks a participant whether a tool call may go on, and waits for the answer or its deadline.
    async fn permission(&self, request: PermissionRequest) -> PermissionOutcome;

    /// Asks the participants a question, and waits for the answer or its deadline.
    async fn ask(&self, question: Question) -> Answer;
}

/// A person as a commit names them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Author {
    /// The name that a commit shows.
    pub name: String,
    /// The address that a commit shows.
    pub email: String,
}

/// What a participant sends, ready for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The words.
    pub text: String,
    /// Pictures that belong to the words.
    pub images: Vec<Image>,
    /// Who sent it. Checks that came back red are sent in the name of whoever's prompt they belong to.
    pub author: Author,
    /// The model for this turn, when it is not the session's.
    pub model: Option<String>,
}

/// A picture in a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its media type, such as `image/png`.
    pub media_type: String,
    /// Its bytes, decoded.
    pub bytes: bytes::Bytes,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnEnd {
    /// The reason, in the words of the Agent Client Protocol.
    pub stop_reason: StopReason,
    /// The agent's closing words, when it has any beyond its messages.
    pub summary: Option<String>,
}

/// Why a turn ended (Agent Client Protocol v1, `StopReason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The agent is done.
    EndTurn,
    /// The model's output limit was reached.
    MaxTokens,
    /// The limit of model requests in one turn was reached.
    MaxTurnRequests,
    /// The model refused.
    Refusal,
    /// A participant stopped the turn.
    Cancelled,
}

/// Why a turn could not go on. Each is something that a person can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The model's provider failed after all retries and fallbacks.
    #[error("reach the model {model}: {reason}")]
    Model {
        /// The model's ID as the session names it.
        model: String,
        /// What the provider or the gateway said, shortened.
        reason: String,
    },
    /// The agent's process ended in the middle of a turn.
    #[error("keep the agent {agent} running: its process ended ({reason})")]
    Died {
        /// The agent's name in the catalogue.
        agent: String,
        /// The exit code or the last lines that it wrote.
        reason: String,
    },
    /// The agent broke the protocol beyond what lenient reading can mend.
    #[error("understand the agent {agent}: {reason}")]
    Protocol {
        /// The agent's name in the catalogue.
        agent: String,
        /// What was wrong.
        reason: String,
    },
    /// The agent refused to start, to open a conversation or to take a prompt.
    #[error("have the agent {agent} {request}: {reason}")]
    Refused {
        /// The agent's name in the catalogue.
        agent: String,
        /// What was asked of it.
        request: &'static str,
        /// What it said.
        reason: String,
    },
    /// The agent did not answer in time.
    #[error("hear from the agent {agent} within {seconds} s while waiting for {waiting_for}")]
    Deadline {
        /// The agent's name in the catalogue.
        agent: String,
        /// What was awaited.
        waiting_for: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The workspace is gone or refuses to work.
    #[error("use the workspace: {0}")]
    Workspace(#[from] crate::workspace::WorkspaceError),
}

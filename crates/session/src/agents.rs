//! The seam to agents: how a session gets the one that works on it.

use std::sync::Arc;

use async_trait::async_trait;
use hob_agent::{Agent, AgentError, Author, Workspace};

use crate::config::Access;
use crate::event::Event;
use crate::id::SessionId;
use crate::waiting::WaitingSandbox;

/// Makes agents by name.
#[async_trait]
pub trait AgentFactory: Send + Sync {
    /// Whether there is an agent of that name, with what to do when there is not.
    ///
    /// # Errors
    /// Words for a person, such as `there is no agent named x; hob agent list shows those that are`.
    fn check(&self, agent: &str, model: &str) -> Result<(), String>;

    /// Makes an agent ready to be prompted. The session gives it [`Timeouts::agent_start`](crate::Timeouts).
    async fn start(&self, start: AgentStart) -> Result<Box<dyn Agent>, AgentError>;
}

/// What an agent is made from.
pub struct AgentStart {
    /// The session.
    pub session: SessionId,
    /// The agent's name in the catalogue; `hob` is the built-in one.
    pub agent: String,
    /// The model's ID.
    pub model: String,
    /// Who made the session.
    pub author: Author,
    /// The door to the models.
    pub access: Access,
    /// The checkout; its calls wait for the sandbox.
    pub workspace: Arc<dyn Workspace>,
    /// The sandbox that may still be getting ready, for an agent that runs inside.
    pub sandbox: WaitingSandbox,
    /// What happened in the session so far, pieces of messages joined.
    pub history: Vec<Event>,
    /// The agent's own ID of the conversation, where an earlier process gave one.
    pub resume: Option<String>,
}

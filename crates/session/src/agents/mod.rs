//! The seam to agents: how a session gets the one that works on it.

mod built_in;
mod external;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use hob_agent::catalogue::{self, Permissions};
use hob_agent::{Agent, AgentError, Author, ModelFormat, Workspace};
use hob_sandbox::Mount;
use tokio_util::task::TaskTracker;

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

    /// Folders of the host that the agent needs in its sandbox, read-only.
    fn mounts(&self, agent: &str) -> Vec<Mount>;

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
    /// Whether an external agent asks before it acts.
    pub permissions: Permissions,
    /// Part of every ID that the agent gives out; another one for each start of an agent in a session.
    pub id_prefix: String,
}

/// The name of the built-in agent.
pub const BUILT_IN: &str = "hob";

/// What the agents need to know of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// The formats that its provider speaks, the preferred one first; never empty.
    pub formats: Vec<ModelFormat>,
    /// Its window, in tokens.
    pub context_tokens: u64,
    /// Its longest answer, in tokens.
    pub max_output_tokens: u32,
}

impl ModelFacts {
    /// The format that the built-in agent uses.
    pub fn first_format(&self) -> ModelFormat {
        self.formats.first().copied().unwrap_or(ModelFormat::OpenAiChat)
    }
}

/// The agents that Hob has: the built-in one, and those of the catalogue that are installed.
pub struct Agents {
    models: BTreeMap<String, ModelFacts>,
    agents_dir: PathBuf,
    tasks: TaskTracker,
}

impl Agents {
    /// Agents on these models, by the IDs that sessions name them with. External agents are looked for in `agents_dir`,
    /// in the folders that [`InstallPlan`](hob_agent::catalogue::InstallPlan) names; their pipes are served on `tasks`.
    pub fn new(models: BTreeMap<String, ModelFacts>, agents_dir: impl Into<PathBuf>, tasks: TaskTracker) -> Self {
        Self { models, agents_dir: agents_dir.into(), tasks }
    }
}

#[async_trait]
impl AgentFactory for Agents {
    fn check(&self, agent: &str, model: &str) -> Result<(), String> {
        let Some(facts) = self.models.get(model) else {
            let known: Vec<&str> = self.models.keys().map(String::as_str).collect();
            return Err(format!("there is no model named {model:?}; hob.toml has {}", known.join(", ")));
        };
        if agent == BUILT_IN {
            return Ok(());
        }
        let Some(entry) = catalogue::entry(agent) else {
            return Err(format!("there is no agent named {agent:?}; `hob agent list` shows those that are"));
        };
        if !entry.formats.iter().any(|format| facts.formats.contains(format)) {
            let speaks: Vec<String> = entry.formats.iter().map(|format| format!("{format:?}")).collect();
            let speaks = speaks.join(", ");
            return Err(format!("{agent} cannot use the model {model}: it speaks {speaks}, and the model does not"));
        }
        if !external::toolchain(&self.agents_dir, entry).is_dir() {
            return Err(format!("{agent} is not installed; `hob agent install {agent}` does it"));
        }
        Ok(())
    }

    fn mounts(&self, agent: &str) -> Vec<Mount> {
        catalogue::entry(agent).map(|entry| external::mount(&self.agents_dir, entry)).into_iter().collect()
    }

    async fn start(&self, start: AgentStart) -> Result<Box<dyn Agent>, AgentError> {
        let facts = self.models.get(&start.model).ok_or_else(|| AgentError::Model {
            model: start.model.clone(),
            reason: "hob.toml no longer has it".to_owned(),
        })?;
        match catalogue::entry(&start.agent) {
            Some(entry) => external::start(start, entry, facts, &self.tasks).await,
            None => built_in::start(start, facts),
        }
    }
}

//! The built-in agent: a native loop that runs in the server and works in the sandbox through a [`Workspace`].
//!
//! The model is asked at once, while the sandbox is still getting ready; tools wait inside the workspace's calls. What
//! the model sees of a tool is what the participants see, so that the conversation can be rebuilt from the session's
//! log with [`PastTurn::from_updates`].
//!
//! It leaves to others: retries of refused requests, keys and prices (the gateway), the queue, the log and the checks
//! (the session), and isolation (the sandbox).

mod answer;
mod calls;
mod chat_calls;
mod compaction;
mod conversation;
mod genai_client;
mod history;
mod ids;
mod instructions;
mod model;
mod step;
mod system_prompt;
mod tokens;
mod tools;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use history::{PastCall, PastStep, PastTurn};
pub use model::{ModelEndpoint, ModelFormat, Reasoning};

use conversation::Item;
use genai_client::GenaiClient;
use ids::Ids;
use instructions::Instructions;
use model::{ModelClient, ToolSpec};
use tokens::Calibration;
use tools::Background;
use turn::Turn;

use crate::agent::{Agent, AgentError, Prompt, TurnEnd, TurnHost};
use crate::update::PlanEntry;
use crate::workspace::Workspace;

const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What the built-in agent is told at its start.
#[derive(Debug, Clone)]
pub struct BuiltInConfig {
    /// Where the model is reached.
    pub endpoint: ModelEndpoint,
    /// The model's ID as the endpoint knows it; a prompt may name another of the same endpoint.
    pub model: String,
    /// The model's window, in tokens.
    pub context_tokens: u64,
    /// The longest answer, in tokens; a part of the window.
    pub max_output_tokens: u32,
    /// After so many requests to the model the turn ends.
    pub max_requests_per_turn: u32,
    /// How long the model may be silent before the request counts as cut.
    pub model_patience: Duration,
    /// How much the model thinks, where one can choose; its own default when absent.
    pub reasoning: Option<Reasoning>,
    /// Words at the end of the system prompt, such as the repository's checks.
    pub extra_instructions: String,
    /// Part of each ID that the agent gives out. Two agents of one session, such as before and after a restart, must
    /// not have the same: the session's epoch is a good one.
    pub id_prefix: String,
}

impl BuiltInConfig {
    /// A configuration with usual limits: a window of 128,000 tokens, answers of 8,192, 200 requests in a turn.
    pub fn new(endpoint: ModelEndpoint, model: impl Into<String>) -> Self {
        Self {
            endpoint,
            model: model.into(),
            context_tokens: 128_000,
            max_output_tokens: 8_192,
            max_requests_per_turn: 200,
            model_patience: Duration::from_secs(300),
            reasoning: None,
            extra_instructions: String::new(),
            id_prefix: String::new(),
        }
    }
}

/// The built-in agent of one session.
pub struct BuiltIn {
    config: BuiltInConfig,
    client: Arc<dyn ModelClient>,
    workspace: Arc<dyn Workspace>,
    system: String,
    tools: Vec<ToolSpec>,
    /// Tokens of the system prompt and the tools.
    preamble_tokens: u64,
    items: Vec<Item>,
    plan: Vec<PlanEntry>,
    instructions: Instructions,
    background: Background,
    calibration: Calibration,
    ids: Ids,
}

impl BuiltIn {
    /// An agent that goes on after `history`. Nothing is sent or started before the first prompt.
    ///
    /// # Errors
    ///
    /// When the HTTP client cannot be made, which is a fault of the build.
    pub fn new(
        config: BuiltInConfig,
        workspace: Arc<dyn Workspace>,
        history: Vec<PastTurn>,
    ) -> Result<Self, AgentError> {
        let client = GenaiClient::new(config.endpoint.clone())
            .map_err(|error| AgentError::Model { model: config.model.clone(), reason: error.to_string() })?;
        let system = system_prompt::system_prompt(workspace.root(), &config.extra_instructions);
        let tools: Vec<ToolSpec> = tools::all().iter().map(|tool| tool.spec()).collect();
        Ok(Self {
            preamble_tokens: tokens::of_preamble(&system, &tools),
            ids: Ids::new(&config.id_prefix),
            instructions: Instructions::new(Arc::clone(&workspace)),
            items: conversation::from_history(history),
            client: Arc::new(client),
            background: Background::new(),
            calibration: Calibration::default(),
            plan: Vec::new(),
            config,
            workspace,
            system,
            tools,
        })
    }
}

#[async_trait]
impl Agent for BuiltIn {
    async fn prompt(
        &mut self,
        prompt: Prompt,
        host: &dyn TurnHost,
        stop: CancellationToken,
    ) -> Result<TurnEnd, AgentError> {
        Turn::new(self, &prompt, host, &stop).run(prompt).await
    }

    async fn close(self: Box<Self>) {
        self.background.close(CLOSE_PATIENCE).await;
    }
}

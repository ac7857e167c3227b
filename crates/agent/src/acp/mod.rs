//! The ACP client: one external agent process behind two pipes (Agent Client Protocol v1, newline-delimited JSON-RPC).
//!
//! It spawns nothing and kills nothing: it is handed the pipes of a process that runs in a sandbox. After an error the
//! agent is of no further use, and whoever started the process ends it and starts another, which loads the
//! conversation again ([`Resume`]). Neither the file system nor a terminal is offered: an agent works in its sandbox.
//!
//! Everything the agent sends is kept as [`Update::Raw`], but for pieces of messages, which say nothing beyond their
//! text, and for a conversation that is told again when it is loaded.

mod clip;
mod map;
mod message;
mod pipes;
mod serve;
mod start;
mod tool_calls;

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, AgentError, Prompt, StopReason, TurnEnd, TurnHost};
use crate::update::Update;
use map::Mapper;
use pipes::Pipes;
pub use pipes::{Input, Output};
use serve::{Answer, OnStop, Wait};
use start::Session;

/// What a driver must know of an agent before it speaks with it. Most of it comes from the catalogue.
#[derive(Debug, Clone)]
pub struct AcpConfig {
    /// The agent's name in the catalogue.
    pub agent: String,
    /// The folder it works in, inside the sandbox.
    pub cwd: String,
    /// Makes the IDs of this process unique in the session, such as `p3:`; no two processes of one session share it.
    pub id_prefix: String,
    /// The conversation to go on with.
    pub resume: Option<Resume>,
    /// What to set once a conversation is open, in order. What the agent refuses becomes a notice.
    pub settings: Vec<Setting>,
    /// What stands before a model's ID where the agent is told to change it, such as `hob/`.
    pub model_prefix: String,
    /// MCP servers, as `session/new` takes them.
    pub mcp_servers: Vec<Value>,
    /// How long the agent may take.
    pub deadlines: Deadlines,
}

/// A conversation that an earlier process of the agent had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// What [`Update::AgentSession`] said.
    pub agent_session: String,
    /// What was said and done so far, for an agent that cannot load the conversation.
    pub transcript: String,
}

/// Something to set in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// A mode, by its ID: what the agent may do without asking.
    Mode(String),
    /// The model, by the agent's own name for it.
    Model(String),
    /// The conversation's title, for agents that would ask a model of their own choice for one.
    Title(String),
    /// A configuration option.
    Option {
        /// Its ID.
        id: String,
        /// Its value.
        value: String,
    },
}

/// How long an agent may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// To answer `initialize`: the process starts.
    pub initialize: Duration,
    /// To open or load a conversation.
    pub session: Duration,
    /// To set one thing.
    pub setting: Duration,
    /// To say anything at all during a turn, while nobody is asked for permission.
    pub silence: Duration,
    /// To end a turn that was stopped.
    pub stop: Duration,
    /// To leave once its input is closed.
    pub close: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            initialize: Duration::from_secs(60),
            session: Duration::from_secs(60),
            setting: Duration::from_secs(30),
            silence: Duration::from_secs(45 * 60),
            stop: Duration::from_secs(1),
            close: Duration::from_secs(2),
        }
    }
}

/// An external agent.
pub struct AcpAgent {
    config: AcpConfig,
    pipes: Pipes,
    mapper: Mapper,
    state: State,
    last_request: u64,
    /// What goes before the first prompt: the transcript of a conversation that could not be loaded.
    preface: Option<String>,
    /// The last lines that were no messages: what a dying agent said.
    noise: Vec<String>,
    notices_left: u32,
}

enum State {
    Unstarted,
    Open(Session),
    /// An error, or a stop at a bad moment, made it useless.
    Broken(String),
}

/// Lines that are no messages and become notices, in each turn.
const NOTICES_MAX: u32 = 20;

impl AcpAgent {
    /// An agent that reads from `input` and writes to `output`. Nothing is sent yet.
    #[must_use]
    pub fn new(output: Output, input: Input, config: AcpConfig) -> Self {
        Self {
            pipes: Pipes::new(output, input),
            mapper: Mapper::new(config.id_prefix.clone()),
            config,
            state: State::Unstarted,
            last_request: 0,
            preface: None,
            noise: Vec::new(),
            notices_left: NOTICES_MAX,
        }
    }

    /// Opens the conversation, so that the first prompt need not wait for it. [`Agent::prompt`] does it otherwise.
    ///
    /// `Ok(false)` when `stop` came first.
    pub async fn start(&mut self, host: &dyn TurnHost, stop: &CancellationToken) -> Result<bool, AgentError> {
        if matches!(self.state, State::Open(_)) {
            return Ok(true);
        }
        self.check_usable()?;
        match self.open(host, stop).await {
            Ok(Some(session)) => {
                self.state = State::Open(session);
                Ok(true)
            }
            Ok(None) => {
                self.state = State::Broken("it was stopped while it started".into());
                Ok(false)
            }
            Err(error) => Err(self.broken(error)),
        }
    }

    /// Whether it can take another prompt. Once it cannot, its process is to be ended.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !matches!(self.state, State::Broken(_))
    }

    fn check_usable(&self) -> Result<(), AgentError> {
        match &self.state {
            State::Broken(reason) => Err(AgentError::Died { agent: self.config.agent.clone(), reason: reason.clone() }),
            _ => Ok(()),
        }
    }

    fn broken(&mut self, error: AgentError) -> AgentError {
        self.state = State::Broken(format!("it failed before: {error}"));
        error
    }

    async fn turn(
        &mut self,
        prompt: Prompt,
        host: &dyn TurnHost,
        stop: &CancellationToken,
    ) -> Result<TurnEnd, AgentError> {
        self.change_model(prompt.model.as_deref(), host, stop).await?;
        let State::Open(session) = &self.state else {
            return Ok(cancelled());
        };
        if !session.takes_images && !prompt.images.is_empty() {
            let notice = format!("{} takes no pictures; it gets the words alone", self.config.agent);
            host.update(Update::Notice(notice)).await;
        }
        let content = content(&prompt, session.takes_images, self.preface.take());
        let params = json!({"sessionId": session.id, "prompt": content});
        let wait = Wait {
            what: "the end of the turn",
            on_stop: OnStop::CancelTurn,
            ..Wait::new(self.config.deadlines.silence)
        };
        let answer = self.request("session/prompt", params, wait, host, stop).await?;
        for update in self.mapper.end_turn() {
            host.update(update).await;
        }
        match answer {
            Answer::Result(_) | Answer::Refused(_) if stop.is_cancelled() => Ok(cancelled()),
            Answer::Stopped => Ok(cancelled()),
            Answer::Result(result) => {
                let reason = result["stopReason"].as_str().unwrap_or_default();
                let stop_reason = serde_json::from_value(json!(reason)).unwrap_or(StopReason::EndTurn);
                Ok(TurnEnd { stop_reason, summary: None })
            }
            Answer::Refused(error) => Err(AgentError::Refused {
                agent: self.config.agent.clone(),
                request: "work on the prompt",
                reason: error.to_string(),
            }),
        }
    }
}

fn cancelled() -> TurnEnd {
    TurnEnd { stop_reason: StopReason::Cancelled, summary: None }
}

/// The prompt as content blocks (Agent Client Protocol v1, `ContentBlock`).
fn content(prompt: &Prompt, takes_images: bool, preface: Option<String>) -> Vec<Value> {
    let mut blocks: Vec<Value> = preface.into_iter().map(|text| json!({"type": "text", "text": text})).collect();
    blocks.push(json!({"type": "text", "text": prompt.text}));
    if takes_images {
        blocks.extend(prompt.images.iter().map(|image| {
            let data = base64::engine::general_purpose::STANDARD.encode(&image.bytes);
            json!({"type": "image", "mimeType": image.media_type, "data": data})
        }));
    }
    blocks
}

#[async_trait]
impl Agent for AcpAgent {
    async fn prompt(
        &mut self,
        prompt: Prompt,
        host: &dyn TurnHost,
        stop: CancellationToken,
    ) -> Result<TurnEnd, AgentError> {
        self.notices_left = NOTICES_MAX;
        if stop.is_cancelled() || !self.start(host, &stop).await? {
            return Ok(cancelled());
        }
        match self.turn(prompt, host, &stop).await {
            // A refusal ends the turn, not the process.
            Err(error @ AgentError::Refused { .. }) => Err(error),
            Err(error) => {
                for update in self.mapper.end_turn() {
                    host.update(update).await;
                }
                Err(self.broken(error))
            }
            ended => ended,
        }
    }

    async fn get_ready(&mut self, host: &dyn TurnHost) -> Result<(), AgentError> {
        self.start(host, &CancellationToken::new()).await.map(drop)
    }

    async fn close(mut self: Box<Self>) {
        let deadline = self.config.deadlines.close;
        let leave = async {
            self.pipes.close_input().await;
            while self.pipes.next().await.is_ok() {}
        };
        if tokio::time::timeout(deadline, leave).await.is_err() {
            tracing::debug!(agent.name = %self.config.agent, "an agent did not leave by itself");
        }
    }
}

//! Waiting for the answer to a request, and serving the agent meanwhile: updates, permission requests, questions that
//! nobody here answers. One request of ours is under way at a time.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clip::{self, TEXT_BYTES_MAX};
use super::message::{self, Incoming, METHOD_NOT_FOUND, RpcError};
use super::pipes::PipeError;
use super::{AcpAgent, State};
use crate::agent::{AgentError, TurnHost};
use crate::update::{PermissionOutcome, PermissionRequest, RawDirection, Update};

/// Permission requests that may be open at once.
const PERMISSIONS_MAX: usize = 64;
/// A conversation that was loaded is told to its end when nothing came for this long.
const QUIET: Duration = Duration::from_millis(150);
/// Lines of a dying agent's last words.
const LAST_WORDS: usize = 5;

/// How to wait for an answer.
pub(super) struct Wait {
    /// For what, in words that follow "while waiting for".
    pub(super) what: &'static str,
    /// How long. For a turn: how long nothing at all may come.
    pub(super) deadline: Duration,
    pub(super) on_stop: OnStop,
    /// Whether updates tell again what is known already.
    pub(super) is_replay: bool,
}

impl Wait {
    pub(super) fn new(deadline: Duration) -> Self {
        Self { what: "an answer", deadline, on_stop: OnStop::Leave, is_replay: false }
    }
}

/// What to do when the turn is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnStop {
    /// Wait no longer.
    Leave,
    /// Send `session/cancel` and wait for the end of the turn, for a short while.
    CancelTurn,
}

/// How a request ended.
pub(super) enum Answer {
    Result(Value),
    Refused(RpcError),
    Stopped,
}

impl AcpAgent {
    /// Sends a request and serves the agent until the answer is there.
    pub(super) async fn request(
        &mut self,
        method: &'static str,
        params: Value,
        wait: Wait,
        host: &dyn TurnHost,
        stop: &CancellationToken,
    ) -> Result<Answer, AgentError> {
        self.last_request += 1;
        let id = self.last_request;
        self.send(&message::request(id, method, &params), host).await?;
        self.answer(id, &wait, host, stop).await
    }

    async fn answer(
        &mut self,
        our_id: u64,
        wait: &Wait,
        host: &dyn TurnHost,
        stop: &CancellationToken,
    ) -> Result<Answer, AgentError> {
        let mut permissions = FuturesUnordered::new();
        let mut asking: Vec<Value> = Vec::new();
        let mut stopping = false;
        let mut deadline = Deadline::new(wait.what, wait.deadline);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    if wait.on_stop == OnStop::Leave {
                        return Ok(Answer::Stopped);
                    }
                    stopping = true;
                    deadline = Deadline::new("the end of a stopped turn", self.config.deadlines.stop);
                    permissions.clear();
                    self.cancel_turn(std::mem::take(&mut asking), host).await?;
                }
                Some((id, outcome)) = permissions.next(), if !permissions.is_empty() => {
                    asking.retain(|open| *open != id);
                    deadline.start_again();
                    self.send(&message::response(&id, &outcome_json(outcome)), host).await?;
                }
                // A person may take long; the host has a deadline of its own for that.
                () = tokio::time::sleep_until(deadline.at), if permissions.is_empty() => {
                    return Err(deadline.passed(&self.config.agent));
                }
                line = self.pipes.next() => {
                    let line = line.map_err(|error| self.lost(&error))?;
                    if wait.on_stop == OnStop::CancelTurn && !stopping {
                        deadline.start_again();
                    }
                    match self.hear(line, wait.is_replay, host).await? {
                        Heard::Answer(id, result) if id == our_id => return Ok(match result {
                            Ok(result) => Answer::Result(result),
                            Err(error) => Answer::Refused(error),
                        }),
                        // An answer that nobody waits for: given twice, or after its request was given up.
                        Heard::Answer(..) | Heard::Nothing => {}
                        Heard::Permission(id, _) if stopping || asking.len() >= PERMISSIONS_MAX => {
                            self.send(&message::response(&id, &outcome_json(PermissionOutcome::Cancelled)), host).await?;
                        }
                        Heard::Permission(id, request) => {
                            asking.push(id.clone());
                            permissions.push(async move { (id, host.permission(*request).await) });
                        }
                    }
                }
            }
        }
    }

    /// Reads until nothing more comes for a moment, and forgets updates. Gemini CLI answers `session/load` before it
    /// tells the conversation again; the protocol has it the other way round.
    pub(super) async fn settle(&mut self, host: &dyn TurnHost) -> Result<(), AgentError> {
        let give_up = Instant::now() + self.config.deadlines.session;
        while Instant::now() < give_up {
            let Ok(line) = tokio::time::timeout(QUIET, self.pipes.next()).await else { break };
            let line = line.map_err(|error| self.lost(&error))?;
            if let Heard::Permission(id, _) = self.hear(line, true, host).await? {
                self.send(&message::response(&id, &outcome_json(PermissionOutcome::Cancelled)), host).await?;
            }
        }
        Ok(())
    }

    /// Takes one line of the agent: records it, maps it, answers what can be answered at once.
    async fn hear(&mut self, line: String, is_replay: bool, host: &dyn TurnHost) -> Result<Heard, AgentError> {
        match message::read(&line) {
            Incoming::Notification { method, params } if method == "session/update" => {
                if !is_replay {
                    self.hear_update(&line, &params, host).await;
                }
                Ok(Heard::Nothing)
            }
            Incoming::Notification { .. } => {
                host.update(raw(RawDirection::FromAgent, &line)).await;
                Ok(Heard::Nothing)
            }
            Incoming::Response { id, result } => {
                host.update(raw(RawDirection::FromAgent, &line)).await;
                Ok(Heard::Answer(id, result))
            }
            Incoming::Request { id, method, params } => {
                host.update(raw(RawDirection::FromAgent, &line)).await;
                self.hear_request(id, &method, &params, host).await
            }
            Incoming::Noise => {
                self.hear_noise(&line, host).await;
                Ok(Heard::Nothing)
            }
        }
    }

    async fn hear_update(&mut self, line: &str, params: &Value, host: &dyn TurnHost) {
        // What a sub-agent's session says is in the log, but it is not this conversation.
        let is_other = match &self.state {
            State::Open(session) => params["sessionId"].as_str().is_some_and(|id| id != session.id),
            _ => false,
        };
        if is_other {
            return host.update(raw(RawDirection::FromAgent, line)).await;
        }
        let mapped = self.mapper.update(&params["update"]);
        if !mapped.complete {
            host.update(raw(RawDirection::FromAgent, line)).await;
        }
        for update in mapped.updates {
            host.update(update).await;
        }
    }

    async fn hear_request(
        &mut self,
        id: Value,
        method: &str,
        params: &Value,
        host: &dyn TurnHost,
    ) -> Result<Heard, AgentError> {
        if method != "session/request_permission" {
            let reply = message::error(&id, METHOD_NOT_FOUND, "the client does not offer this");
            self.send(&reply, host).await?;
            return Ok(Heard::Nothing);
        }
        let Some((request, updates)) = self.mapper.permission(&id, params) else {
            self.send(&message::response(&id, &outcome_json(PermissionOutcome::Cancelled)), host).await?;
            return Ok(Heard::Nothing);
        };
        for update in updates {
            host.update(update).await;
        }
        Ok(Heard::Permission(id, Box::new(request)))
    }

    async fn hear_noise(&mut self, line: &str, host: &dyn TurnHost) {
        let short = clip::start(line, 300).to_owned();
        host.update(raw(RawDirection::FromAgent, line)).await;
        if self.notices_left > 0 {
            self.notices_left -= 1;
            host.update(Update::Notice(format!("{} printed: {short}", self.config.agent))).await;
        }
        if self.noise.len() == LAST_WORDS {
            self.noise.remove(0);
        }
        self.noise.push(short);
    }

    async fn cancel_turn(&mut self, asking: Vec<Value>, host: &dyn TurnHost) -> Result<(), AgentError> {
        if let State::Open(session) = &self.state {
            let cancel = message::notification("session/cancel", &json!({"sessionId": session.id}));
            self.send(&cancel, host).await?;
        }
        for id in asking {
            self.send(&message::response(&id, &outcome_json(PermissionOutcome::Cancelled)), host).await?;
        }
        Ok(())
    }

    async fn send(&mut self, line: &str, host: &dyn TurnHost) -> Result<(), AgentError> {
        self.pipes.send(line).map_err(|error| self.lost(&error))?;
        host.update(raw(RawDirection::ToAgent, line)).await;
        Ok(())
    }

    fn lost(&self, error: &PipeError) -> AgentError {
        let agent = self.config.agent.clone();
        match error {
            PipeError::LineTooLong | PipeError::Unread => AgentError::Protocol { agent, reason: error.to_string() },
            PipeError::Ended | PipeError::Broken(_) if self.noise.is_empty() => {
                AgentError::Died { agent, reason: error.to_string() }
            }
            PipeError::Ended | PipeError::Broken(_) => {
                AgentError::Died { agent, reason: format!("{error}; its last words: {}", self.noise.join(" / ")) }
            }
        }
    }
}

/// What a line asks of whoever waits.
enum Heard {
    Nothing,
    Answer(u64, Result<Value, RpcError>),
    Permission(Value, Box<PermissionRequest>),
}

struct Deadline {
    at: Instant,
    what: &'static str,
    length: Duration,
}

impl Deadline {
    fn new(what: &'static str, length: Duration) -> Self {
        Self { at: Instant::now() + length, what, length }
    }

    fn start_again(&mut self) {
        self.at = Instant::now() + self.length;
    }

    fn passed(&self, agent: &str) -> AgentError {
        AgentError::Deadline { agent: agent.to_owned(), waiting_for: self.what, seconds: self.length.as_secs() }
    }
}

fn outcome_json(outcome: PermissionOutcome) -> Value {
    match outcome {
        PermissionOutcome::Selected { option_id } => json!({"outcome": {"outcome": "selected", "optionId": option_id}}),
        PermissionOutcome::Cancelled => json!({"outcome": {"outcome": "cancelled"}}),
    }
}

fn raw(direction: RawDirection, line: &str) -> Update {
    Update::Raw { direction, json: clip::start(line, TEXT_BYTES_MAX).to_owned() }
}

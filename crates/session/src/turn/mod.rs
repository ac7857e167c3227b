//! The work on one turn: the agent is prompted, its change is proven by the repository's checks, committed and taken
//! out of the sandbox.
//!
//! A turn records what happens in it, but not its end: it reports to the driver, and that records one closing message.

mod host;
mod proof;
mod result;

use std::sync::Arc;
use std::time::Duration;

use hob_agent::{Agent, AgentError, Image, Prompt, StopReason, TurnEnd, TurnHost as _, catalogue};
use tokio_util::sync::CancellationToken;

use crate::agents::AgentStart;
use crate::checks::clip;
use crate::checks::rounds::{self, Decision, Round};
use crate::config::Permissions;
use crate::decide::TurnReport;
use crate::event::{Event, EventKind, TurnOutcome};
use crate::fold::Turn;
use crate::git::inside;
use crate::owned::Owned;
use crate::pool::{Begun, WarmAgent};
use crate::requests::Usage;
use host::Host;
use proof::Proof;
pub(crate) use result::added;

/// Bytes of a closing message.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// How long the turn's leftovers may take to die after a stop.
const KILL_DEADLINE: Duration = Duration::from_secs(1);

/// How long an agent that was stopped may take to leave by itself. Some do not end what they have started before they
/// go (Goose), and a stop is to be over within a second.
const LEAVE_AFTER_STOP: Duration = Duration::from_millis(250);

/// A turn's work.
pub(crate) struct Work {
    owned: Arc<Owned>,
    turn: Turn,
    stop: CancellationToken,
    host: Host,
    usage_before: Usage,
}

/// How the agent's and the checks' part of a turn came out.
struct Outcome {
    outcome: TurnOutcome,
    stop_reason: Option<StopReason>,
    message: String,
}

/// Why a turn's work ended before its end.
enum Halt {
    /// Somebody stopped it; the driver knows why.
    Stopped,
    /// Something broke; words for a person.
    Failed(String),
}

impl From<String> for Halt {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

impl Work {
    pub(crate) async fn new(
        owned: Arc<Owned>,
        turn: Turn,
        stop: CancellationToken,
        told: tokio::sync::mpsc::Sender<crate::driver::Message>,
    ) -> Self {
        owned.workspace.begin_turn();
        let host = Host::new(Arc::clone(&owned), stop.clone(), told);
        let usage_before = owned.log.read(|state| state.summary.usage).await;
        Self { owned, turn, stop, host, usage_before }
    }

    /// Does the work, and reports how it went.
    pub(crate) async fn run(self) -> TurnReport {
        let outcome = match self.go().await {
            Ok(outcome) => outcome,
            // The driver says who stopped it.
            Err(Halt::Stopped) => {
                Outcome { outcome: TurnOutcome::Stopped, stop_reason: None, message: "Stopped.".to_owned() }
            }
            Err(Halt::Failed(reason)) => Outcome {
                outcome: TurnOutcome::Failed,
                stop_reason: None,
                message: clip(&format!("The turn broke off: {reason}"), MESSAGE_BYTES_MAX),
            },
        };
        if let Err(error) = self.host.flush().await {
            tracing::warn!(session.id = %self.owned.id, "the last words of a turn are lost: failed to {error}");
        }
        if self.stop.is_cancelled() {
            self.clean_up().await;
        }
        TurnReport {
            turn_id: self.turn.turn_id.clone(),
            outcome: outcome.outcome,
            stop_reason: outcome.stop_reason,
            message: outcome.message,
        }
    }

    /// After a stop: nothing that the turn started goes on. An agent that lives in the sandbox goes too, since only it
    /// knows what it has started; the next turn starts it again with its conversation.
    async fn clean_up(&self) {
        let kill = async {
            self.owned.workspace.kill_running().await;
            if self.owned.agent_sandbox.was_taken() {
                self.owned.close_agent_within(LEAVE_AFTER_STOP).await;
            }
        };
        if tokio::time::timeout(KILL_DEADLINE * 5, kill).await.is_err() {
            tracing::warn!(session.id = %self.owned.id, "commands of a stopped turn may still run");
        }
    }

    async fn go(&self) -> Result<Outcome, Halt> {
        let mut agent = self.take_agent().await?;
        let worked = self.work_with(agent.as_mut()).await;
        match &worked {
            // What an agent that died or went silent still holds is of no use.
            Err(Halt::Failed(_)) => drop(tokio::time::timeout(KILL_DEADLINE, agent.close()).await),
            _ => *self.owned.agent.lock().await = Some(agent),
        }
        worked
    }

    async fn work_with(&self, agent: &mut dyn Agent) -> Result<Outcome, Halt> {
        let prompt = self.prompt().await?;
        let author = prompt.author.clone();
        let end = self.prompt_agent(agent, prompt).await?;
        self.host.flush().await.map_err(|error| format!("failed to {error}"))?;
        if !self.owned.workspace.was_used() && !self.owned.agent_sandbox.was_taken() {
            return Ok(self.done(&end, TurnOutcome::Done, ""));
        }
        let sandbox = self.stoppable(self.owned.sandbox_ready()).await??;
        let mut proof = Proof::new(&self.owned, &sandbox, &self.stop).await?;
        let mut rounds = Vec::new();
        let mut end = end;
        let verdict = loop {
            let tree = self.stoppable(inside::tree(&sandbox)).await?.map_err(|error| format!("failed to {error}"))?;
            if rounds.is_empty() && tree == proof.parent_tree() {
                return Ok(self.done(&end, TurnOutcome::Done, ""));
            }
            let round = u32::try_from(rounds.len() + 1).unwrap_or(u32::MAX);
            self.stoppable(self.owned.services.settled()).await?;
            let runs = self.stoppable(proof.check(round)).await??;
            rounds.push(Round { tree, runs });
            match rounds::decide(proof.base_runs(), &rounds, proof.max_rounds()) {
                Decision::Green => break Verdict { outcome: TurnOutcome::Done, gave_up: None },
                Decision::GiveUp(why) => {
                    break Verdict { outcome: TurnOutcome::ChecksFailed, gave_up: Some(why.to_string()) };
                }
                Decision::SendBack(text) => {
                    let text = self.with_news(text);
                    let round = round + 1;
                    let turn_id = self.turn.turn_id.clone();
                    let event = EventKind::RoundStarted { turn_id, round, text: text.clone() };
                    self.owned.record(vec![event]).await.map_err(|error| format!("failed to {error}"))?;
                    let model = self.turn.prompt.model.clone();
                    let again = Prompt { text, images: Vec::new(), author: author.clone(), model };
                    end = self.prompt_agent(agent, again).await?;
                    self.host.flush().await.map_err(|error| format!("failed to {error}"))?;
                }
            }
        };
        let note = self.stoppable(self.keep_result(&sandbox, &proof, &rounds, &verdict, &end)).await??;
        Ok(self.done(&end, verdict.outcome, &note))
    }

    /// The closing message: the agent's own words, and what became of the change.
    fn done(&self, end: &TurnEnd, outcome: TurnOutcome, note: &str) -> Outcome {
        let words = end.summary.clone().unwrap_or_else(|| self.host.last_message());
        let words = if words.trim().is_empty() { "Done.".to_owned() } else { words.trim().to_owned() };
        let words = clip(&words, MESSAGE_BYTES_MAX - note.len().min(1_024));
        let message = if note.is_empty() { words } else { format!("{words}\n\n{note}") };
        Outcome { outcome, stop_reason: Some(end.stop_reason), message }
    }

    /// The agent of the turn before, or a new one.
    async fn take_agent(&self) -> Result<Box<dyn Agent>, Halt> {
        if let Some(agent) = self.owned.agent.lock().await.take() {
            return Ok(agent);
        }
        if let Some(warm) = self.stoppable(self.owned.take_warm_agent()).await?
            && let Some(agent) = self.take_warm(warm).await?
        {
            return Ok(agent);
        }
        let access = self.owned.access().await.map_err(|reason| format!("failed to open the gateway: {reason}"))?;
        let (agent, model, author, resume) = self
            .owned
            .log
            .read(|state| {
                let summary = &state.summary;
                (summary.agent.clone(), summary.model.clone(), summary.author.clone(), state.agent_session.clone())
            })
            .await;
        self.owned.services.forget_told();
        let start = AgentStart {
            session: self.owned.id.clone(),
            agent: agent.clone(),
            model,
            author,
            access: access.clone(),
            workspace: Arc::clone(&self.owned.workspace) as Arc<dyn hob_agent::Workspace>,
            sandbox: self.owned.agent_sandbox.clone(),
            history: self.history().await?,
            resume,
            permissions: match self.owned.house.config.permissions {
                Permissions::Allow => catalogue::Permissions::Unattended,
                Permissions::Ask => catalogue::Permissions::Ask,
            },
            id_prefix: format!("{}-", self.owned.house.deps.ids.next().get(..6).unwrap_or("a")),
        };
        let limit = self.owned.house.config.timeouts.agent_start;
        let late = async {
            // An agent that runs inside waits for the sandbox first, which has a deadline of its own.
            self.owned.agent_sandbox.settled().await;
            tokio::time::sleep(limit).await;
        };
        let begin = async {
            tokio::select! {
                started = self.owned.house.deps.agents.start(start) => {
                    started.map(|agent| (agent, None)).map_err(|error| format!("failed to {error}"))
                }
                () = late => Err(format!("failed to start the agent {agent} within {} s", limit.as_secs())),
            }
        };
        Ok(self.stoppable(self.owned.phase("agent", begin)).await??)
    }

    /// The agent that began in the warm sandbox. Where it could not, that is told, and another is started.
    async fn take_warm(&self, warm: WarmAgent) -> Result<Option<Box<dyn Agent>>, Halt> {
        let limit = self.owned.house.config.timeouts.agent_start;
        let ready = async { Ok::<_, String>((warm.ready(limit).await?, Some("warm".to_owned()))) };
        let Ok(Begun { agent, updates }) = self.stoppable(self.owned.phase("agent", ready)).await? else {
            return Ok(None);
        };
        for update in updates {
            self.host.update(update).await;
        }
        Ok(Some(agent))
    }

    /// What happened before this turn, for an agent that starts anew.
    async fn history(&self) -> Result<Vec<Event>, Halt> {
        let mut events: Vec<Event> = Vec::new();
        let mut since = 0;
        loop {
            let page = self.owned.house.store.events(&self.owned.id, since, 1_000).await;
            let page = page.map_err(|error| format!("failed to {error}"))?;
            let Some(last) = page.last() else { return Ok(events) };
            since = last.seq;
            for event in page.iter().filter_map(|record| record.event().ok()) {
                match &event.kind {
                    EventKind::TurnStarted { turn_id, .. } if *turn_id == self.turn.turn_id => return Ok(events),
                    // Raw lines say again what the other events say.
                    EventKind::AgentRaw { .. } => {}
                    _ => events.push(event),
                }
            }
        }
    }

    async fn prompt(&self) -> Result<Prompt, Halt> {
        let queued = &self.turn.prompt;
        let kept = match queued.attachments.is_empty() {
            true => Vec::new(),
            false => {
                self.owned.house.store.artifacts(&self.owned.id).await.map_err(|error| format!("failed to {error}"))?
            }
        };
        let mut images = Vec::new();
        for artifact in kept.iter().filter(|artifact| queued.attachments.contains(&artifact.artifact_id)) {
            let bytes = self.owned.house.artifacts.read(artifact).await;
            let bytes = bytes.map_err(|error| format!("failed to read the attachment {}: {error}", artifact.name))?;
            images.push(Image { media_type: artifact.media_type.clone(), bytes });
        }
        let (text, author, model) = (self.with_news(queued.text.clone()), queued.author.clone(), queued.model.clone());
        Ok(Prompt { text, images, author, model })
    }

    /// A prompt with what the agent was not told yet of the services.
    fn with_news(&self, text: String) -> String {
        match self.owned.services.news() {
            Some(news) => format!("{text}\n\n{news}"),
            None => text,
        }
    }

    /// Prompts the agent, and ends the wait when it gives no sign of life.
    async fn prompt_agent(&self, agent: &mut dyn Agent, prompt: Prompt) -> Result<TurnEnd, Halt> {
        let limit = self.owned.house.config.timeouts.agent_idle;
        let prompted = agent.prompt(prompt, &self.host, self.stop.clone());
        let ended = tokio::select! {
            ended = prompted => ended,
            () = self.host.silent_for(limit, &self.owned.workspace) => {
                return Err(Halt::Failed(format!("the agent gave no sign of life for {} s", limit.as_secs())));
            }
            reason = self.host.broken() => return Err(Halt::Failed(reason)),
        };
        match ended {
            _ if self.stop.is_cancelled() => Err(Halt::Stopped),
            Ok(TurnEnd { stop_reason: StopReason::Cancelled, .. }) => Err(Halt::Stopped),
            Ok(end) => Ok(end),
            Err(AgentError::Workspace(error)) => Err(Halt::Failed(format!("failed to {error}"))),
            Err(error) => Err(Halt::Failed(format!("failed to {error}"))),
        }
    }

    /// Waits for something, but not when the turn is stopped.
    async fn stoppable<T>(&self, work: impl Future<Output = T>) -> Result<T, Halt> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Halt::Stopped),
            done = work => Ok(done),
        }
    }
}

/// What the checks came to.
pub(super) struct Verdict {
    pub(super) outcome: TurnOutcome,
    pub(super) gave_up: Option<String>,
}

//! One turn, as small steps: the agent works, the checks judge, red ones go back to it, the result is committed and
//! taken out of the sandbox.
//!
//! What follows a round is decided by [`rounds::decide`]; here it is only carried out. When a turn starts and how its
//! end is told is the driver's: it appends `TurnStarted`, `TurnEnded` and the session's states, everything between
//! comes from here.

mod bounds;
mod closing;
mod deliver;
mod record;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hob_agent::{
    Agent, AgentError, Answer, Author, PermissionOutcome, PermissionRequest, Prompt, Question, StopReason, TurnEnd,
};
use hob_sandbox::{Sandbox, SandboxError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::checks::rounds::{self, Decision, GiveUp, Round};
use crate::checks::{Check, compare};
use crate::clock::Clock;
use crate::config::{BaseChecks, EngineConfig};
use crate::error::EngineError;
use crate::event::{CheckRun, EventKind, TurnOutcome};
use crate::git::{Base, GitError, Mirror, inside};
use crate::id::SessionId;
use crate::proof::{self, Described, Prover};
use crate::requests::Usage;
use crate::waiting::WaitingSandbox;
use crate::workspace::WORKSPACE;

/// Where a turn writes down what happens, and where it asks people. The session's driver is behind it.
#[async_trait]
pub(crate) trait Journal: Send + Sync {
    /// Appends events; they are on disk when this returns.
    async fn append(&self, kinds: Vec<EventKind>) -> Result<(), EngineError>;

    /// Keeps a file, and appends that it did.
    async fn artifact(&self, kind: &str, name: &str, media_type: &str, bytes: Bytes) -> Result<String, EngineError>;

    /// Asks whether a tool call may go on; the request and its outcome are in the log when this returns.
    async fn permission(&self, request: PermissionRequest) -> PermissionOutcome;

    /// Asks the participants; the question and its answer are in the log when this returns.
    async fn ask(&self, question: Question) -> Answer;

    /// What the models of this turn took so far.
    async fn usage(&self) -> Usage;
}

/// What a turn works with.
pub(crate) struct TurnContext {
    /// The session.
    pub(crate) session: SessionId,
    /// The turn's ID.
    pub(crate) turn_id: String,
    /// What the agent is asked.
    pub(crate) prompt: Prompt,
    /// Other participants of the session.
    pub(crate) co_authors: Vec<Author>,
    /// The repository as people know it, without credentials.
    pub(crate) repository: String,
    /// The agent's name.
    pub(crate) agent: String,
    /// The model's ID.
    pub(crate) model: String,
    /// The sandbox, which may still be getting ready.
    pub(crate) sandbox: WaitingSandbox,
    /// The server's copy of the repository.
    pub(crate) mirror: Mirror,
    /// Where the session's work started.
    pub(crate) base: Base,
    /// The commit that this turn's commit follows: the session's last one, or the base.
    pub(crate) parent: String,
    /// The session's branch.
    pub(crate) branch: String,
    /// What the repository says of itself.
    pub(crate) described: Described,
    /// What the checks said on the base commit; kept from one turn to the next.
    pub(crate) base_runs: Vec<CheckRun>,
    /// How the engine works.
    pub(crate) config: Arc<EngineConfig>,
    /// Tells the time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Where tasks run that outlive a step, such as the killing of a command.
    pub(crate) tasks: TaskTracker,
}

/// How a turn went, for the driver to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TurnResult {
    /// How it ended.
    pub(crate) outcome: TurnOutcome,
    /// The agent's stop reason; absent when it did not get that far.
    pub(crate) stop_reason: Option<StopReason>,
    /// The closing message.
    pub(crate) message: String,
    /// The commit that it made.
    pub(crate) commit: Option<String>,
    /// The agent is of no more use: it must be closed, and another one started for the next turn.
    pub(crate) agent_spent: bool,
}

/// Why a turn broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnError {
    #[error("the turn was stopped")]
    Stopped,
    #[error("failed to {0}")]
    Agent(#[from] AgentError),
    #[error("failed to hear from the agent: it gave no sign of life for {seconds} s")]
    Silent { seconds: u64 },
    #[error("failed to {0}")]
    Git(#[from] GitError),
    #[error("failed to reach the sandbox: {0}")]
    NoSandbox(String),
    #[error("failed to {0}")]
    Sandbox(#[from] SandboxError),
    #[error("failed to {0}")]
    Engine(#[from] EngineError),
}

/// Runs one turn. Cancelling `stop` ends it within a second or so; whatever it started is killed.
pub(crate) async fn run(
    context: &mut TurnContext,
    agent: &mut dyn Agent,
    journal: &dyn Journal,
    stop: CancellationToken,
) -> TurnResult {
    let started_at_ms = context.clock.now_ms();
    let mut work = Work { context, journal, stop: &stop, started_at_ms, rounds: Vec::new(), end: None };
    match work.carry_out(agent).await {
        Ok(result) => result,
        Err(error) => closing::broken(&error, work.end.as_ref()),
    }
}

/// A turn under way.
struct Work<'a> {
    context: &'a mut TurnContext,
    journal: &'a dyn Journal,
    stop: &'a CancellationToken,
    started_at_ms: u64,
    rounds: Vec<Round>,
    end: Option<TurnEnd>,
}

/// What the rounds of a turn came to.
enum Judged {
    /// No file differs from the commit before.
    Unchanged,
    /// Files differ, and this is what the checks say.
    Changed { tree: String, gave_up: Option<GiveUp> },
}

impl Work<'_> {
    async fn carry_out(&mut self, agent: &mut dyn Agent) -> Result<TurnResult, TurnError> {
        if let Some(problem) = self.context.described.problem.clone() {
            self.journal.append(vec![EventKind::Notice { text: problem }]).await?;
        }
        self.let_agent_work(agent, self.context.prompt.clone()).await?;
        let mut prover = Prover::new(self.context.config.limits.output_bytes_max, self.context.tasks.clone());
        let judged = loop {
            let (sandbox, tree) = self.look().await?;
            let Some(tree) = tree else { break Judged::Unchanged };
            self.prove(&sandbox, &tree, &mut prover).await?;
            let decision =
                rounds::decide(&self.context.base_runs, &self.rounds, self.context.described.environment.max_rounds);
            match decision {
                Decision::Green => break Judged::Changed { tree, gave_up: None },
                Decision::GiveUp(reason) => break Judged::Changed { tree, gave_up: Some(reason) },
                Decision::SendBack(text) => self.send_back(agent, text).await?,
            }
        };
        match judged {
            Judged::Unchanged => Ok(closing::unchanged(self.end.as_ref())),
            Judged::Changed { tree, gave_up } => {
                let stop = self.stop;
                let delivered = unless_stopped(stop, self.deliver(&tree, gave_up)).await??;
                Ok(delivered)
            }
        }
    }

    /// One round of the agent, recorded as it goes.
    async fn let_agent_work(&mut self, agent: &mut dyn Agent, prompt: Prompt) -> Result<(), TurnError> {
        let timeouts = &self.context.config.timeouts;
        let end = record::prompt(agent, prompt, self.journal, self.stop, timeouts).await?;
        let cancelled = end.stop_reason == StopReason::Cancelled;
        self.end = Some(end);
        if cancelled { Err(TurnError::Stopped) } else { Ok(()) }
    }

    async fn send_back(&mut self, agent: &mut dyn Agent, text: String) -> Result<(), TurnError> {
        let round = self.round() + 1;
        let turn_id = self.context.turn_id.clone();
        self.journal.append(vec![EventKind::RoundStarted { turn_id, round, text: text.clone() }]).await?;
        let prompt = Prompt { text, images: Vec::new(), ..self.context.prompt.clone() };
        self.let_agent_work(agent, prompt).await
    }

    /// The sandbox, and the tree that it holds now when that differs from the commit before.
    async fn look(&self) -> Result<(Sandbox, Option<String>), TurnError> {
        let sandbox = unless_stopped(self.stop, self.context.sandbox.ready()).await?.map_err(TurnError::NoSandbox)?;
        let tree = unless_stopped(self.stop, inside::tree(&sandbox)).await??;
        let before = self.context.mirror.tree(&self.context.parent).await?;
        Ok((sandbox, (tree != before).then_some(tree)))
    }

    /// Runs every check on the tree; afterwards `rounds` holds one more.
    async fn prove(&mut self, sandbox: &Sandbox, tree: &str, prover: &mut Prover) -> Result<(), TurnError> {
        if self.context.described.checks.is_empty() {
            self.context.described.checks = unless_stopped(self.stop, proof::detect_in_workspace(sandbox)).await??;
        }
        let checks = self.context.described.checks.clone();
        let round = u32::try_from(self.rounds.len()).unwrap_or(u32::MAX).saturating_add(1);
        if self.context.config.base_checks == BaseChecks::Always {
            self.prove_base(sandbox, &checks, prover).await?;
        }
        let mut runs = Vec::new();
        for check in &checks {
            let mut run = self.run_check(sandbox, check, WORKSPACE, round, prover).await?;
            if compare::is_red(&run) {
                self.prove_base(sandbox, std::slice::from_ref(check), prover).await?;
                run.red_on_base = rounds::judge(&self.context.base_runs, &run).red_on_base;
            }
            self.journal.append(vec![EventKind::CheckEnded(run.clone())]).await?;
            runs.push(run);
        }
        self.rounds.push(Round { tree: tree.to_owned(), runs });
        Ok(())
    }

    /// Runs those of the checks on the base commit that have not run there yet.
    async fn prove_base(&mut self, sandbox: &Sandbox, checks: &[Check], prover: &mut Prover) -> Result<(), TurnError> {
        let known = |check: &&Check| !self.context.base_runs.iter().any(|run| run.name == check.name);
        let missing: Vec<Check> = checks.iter().filter(known).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let copy = unless_stopped(self.stop, proof::copy_base(sandbox, &self.context.base.commit)).await??;
        for check in &missing {
            let run = self.run_check(sandbox, check, &copy, 0, prover).await?;
            self.journal.append(vec![EventKind::CheckEnded(run.clone())]).await?;
            self.context.base_runs.push(run);
        }
        Ok(())
    }

    async fn run_check(
        &self,
        sandbox: &Sandbox,
        check: &Check,
        copy: &str,
        round: u32,
        prover: &mut Prover,
    ) -> Result<CheckRun, TurnError> {
        let started = EventKind::CheckStarted { name: check.name.clone(), command: check.command.clone(), round };
        self.journal.append(vec![started]).await?;
        Ok(unless_stopped(self.stop, prover.run(sandbox, check, copy, round)).await??)
    }

    /// The rounds of the agent so far, the prompt's own included.
    fn round(&self) -> u32 {
        u32::try_from(self.rounds.len()).unwrap_or(u32::MAX).max(1)
    }
}

/// Waits for a step, but no longer than until the turn is stopped. The step is then dropped, and with it what it ran.
async fn unless_stopped<T>(stop: &CancellationToken, step: impl Future<Output = T>) -> Result<T, TurnError> {
    stop.run_until_cancelled(step).await.ok_or(TurnError::Stopped)
}

//! What a session's log says: its state, its queue, its turn, and what lists show of it, read from one event after the
//! other.

use std::collections::{BTreeMap, VecDeque};

use hob_agent::Author;
use hob_sandbox::Snapshot;

use crate::admission::Place;
use crate::checks::clip;
use crate::decide::Step;
use crate::event::{CheckRun, EventKind, ModelCall, PhaseStatus};
use crate::git::display_name;
use crate::id::SessionId;
use crate::places;
use crate::requests::{Change, PhaseTime, QueuedPrompt, ServiceState, Summary, Usage};
use crate::state::State;

/// Bytes of a title and of a waiting prompt's words as lists show them.
const TITLE_BYTES_MAX: usize = 120;
const EXCERPT_BYTES_MAX: usize = 400;

/// Everything that decides what a session does next.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionState {
    /// What lists show.
    pub summary: Summary,
    /// The repository as it was given, with the credentials that a URL may carry.
    pub repository: String,
    /// Prompts that wait, the next one first, in full.
    pub queue: VecDeque<QueuedPrompt>,
    /// The turn that runs.
    pub turn: Option<Turn>,
    /// Open permission requests with the options that they take.
    pub permissions: BTreeMap<String, Vec<String>>,
    /// Open questions.
    pub questions: Vec<String>,
    /// Checks that ran on the base commit.
    pub base_runs: Vec<CheckRun>,
    /// The agent's own ID of the conversation.
    pub agent_session: Option<String>,
    /// Whether its workspace was brought to the base commit.
    pub synced: bool,
    /// Since when nothing runs.
    pub idle_since_ms: u64,
    /// The last snapshot.
    pub snapshot: Option<Snapshot>,
    /// What was last told of files that are lost.
    pub files_lost: Option<String>,
    /// Whoever asked to close the session while a turn ran; the closing follows when the turn has ended.
    pub archiving: Option<Author>,
    /// Whether somebody waits for the sandbox. Not in the log.
    pub wanted: bool,
}

/// A turn that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Its ID.
    pub turn_id: String,
    /// The prompt that it answers.
    pub prompt: QueuedPrompt,
    /// When it began.
    pub started_ms: u64,
    /// Why it is being ended, where it is. Not in the log: a turn that is not over when the server ends is interrupted.
    pub ending: Option<Ending>,
}

/// Why a turn is being ended before the agent is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// A participant stopped it, or closed the session.
    Stopped(Author),
    /// The sandbox is gone, or did not come up.
    SandboxLost(String),
    /// The server shuts down.
    Shutdown,
}

impl SessionState {
    /// A session before its first event.
    pub fn new(id: SessionId, at_ms: u64) -> Self {
        let nobody = Author { name: String::new(), email: String::new() };
        let summary = Summary {
            id,
            title: String::new(),
            state: State::Starting,
            repository: String::new(),
            base: None,
            base_commit: None,
            agent: String::new(),
            model: String::new(),
            author: nobody,
            participants: Vec::new(),
            created_ms: at_ms,
            updated_ms: at_ms,
            seq: 0,
            queue: Vec::new(),
            running_prompt: None,
            last_outcome: None,
            branch: None,
            commit: None,
            change: None,
            usage: Usage::default(),
            waiting_for: Vec::new(),
            place: None,
            phases: Vec::new(),
            services: Vec::new(),
        };
        Self {
            summary,
            repository: String::new(),
            queue: VecDeque::new(),
            turn: None,
            permissions: BTreeMap::new(),
            questions: Vec::new(),
            base_runs: Vec::new(),
            agent_session: None,
            synced: false,
            idle_since_ms: at_ms,
            snapshot: None,
            files_lost: None,
            archiving: None,
            wanted: false,
        }
    }

    /// Whether it is closed for good, or about to be.
    pub fn is_closing(&self) -> bool {
        self.archiving.is_some() || self.summary.state == State::Archived
    }

    /// Whether there is a sandbox and nothing for it to do.
    pub fn rests(&self) -> bool {
        self.summary.state == State::Idle && self.turn.is_none() && self.queue.is_empty() && !self.wanted
    }

    /// Reads the next event. Tells whether what lists show has changed.
    pub fn apply(&mut self, at_ms: u64, event: &EventKind) -> bool {
        match event {
            EventKind::SessionCreated { repository, base, agent, model, author } => {
                self.created(repository, base.as_deref(), agent, model, author);
            }
            EventKind::Titled { title } => self.summary.title = title_of(title),
            EventKind::StateChanged { to, .. } => self.enter(*to, at_ms),
            EventKind::PromptQueued { prompt_id, author, text, attachments, model } => {
                self.queued(QueuedPrompt {
                    prompt_id: prompt_id.clone(),
                    author: author.clone(),
                    text: text.clone(),
                    attachments: attachments.clone(),
                    model: model.clone(),
                });
            }
            EventKind::PromptCancelled { prompt_id, .. } => drop(self.unqueue(prompt_id)),
            EventKind::TurnStarted { turn_id, prompt_id } => self.turn_started(turn_id, prompt_id, at_ms),
            EventKind::TurnEnded { outcome, .. } => {
                self.turn = None;
                self.summary.running_prompt = None;
                self.summary.last_outcome = Some(*outcome);
                self.idle_since_ms = at_ms;
            }
            EventKind::PermissionRequested { request_id, options, .. } => {
                let ids = options.iter().map(|option| option.id.clone()).collect();
                self.permissions.insert(request_id.clone(), ids);
                self.summary.waiting_for.push(request_id.clone());
            }
            EventKind::PermissionResolved { request_id, .. } => {
                self.permissions.remove(request_id);
                self.summary.waiting_for.retain(|waiting| waiting != request_id);
            }
            EventKind::QuestionAsked { question_id, .. } => {
                self.questions.push(question_id.clone());
                self.summary.waiting_for.push(question_id.clone());
            }
            EventKind::QuestionAnswered { question_id, .. } => {
                self.questions.retain(|open| open != question_id);
                self.summary.waiting_for.retain(|waiting| waiting != question_id);
            }
            EventKind::ArchiveRequested { by } => self.archiving = Some(by.clone()),
            EventKind::BaseResolved { commit, branch } => {
                self.summary.base_commit = Some(commit.clone());
                self.summary.branch = Some(branch.clone());
            }
            EventKind::Committed { commit, branch, files_changed, insertions, deletions, .. } => {
                self.summary.commit = Some(commit.clone());
                self.summary.branch = Some(branch.clone());
                let (files_changed, insertions, deletions) = (*files_changed, *insertions, *deletions);
                self.summary.change = Some(Change { files_changed, insertions, deletions });
            }
            EventKind::WaitingForPlace { position, of } => {
                self.summary.place = Some(Place { position: *position, of: *of });
            }
            EventKind::Phase { name, status: PhaseStatus::Started, .. } => self.synced &= name != "sync",
            EventKind::Phase { name, status, elapsed_ms, .. } => {
                self.synced |= name == "sync" && *status == PhaseStatus::Ended;
                self.phase_over(name, elapsed_ms.unwrap_or_default());
            }
            EventKind::Service { name, status, detail, .. } => {
                self.service(ServiceState { name: name.clone(), status: *status, detail: detail.clone() });
            }
            EventKind::ModelCall(call) => count(&mut self.summary.usage, call),
            EventKind::CheckEnded(run) => {
                if run.round == 0 {
                    self.base_runs.push(run.clone());
                }
                return false;
            }
            EventKind::SnapshotTaken { layers, entries, bytes, .. } => {
                self.snapshot = Some(Snapshot { layers: layers.clone(), entries: *entries, bytes: *bytes });
                return false;
            }
            EventKind::FilesLost { text } => {
                self.files_lost = Some(text.clone());
                return false;
            }
            EventKind::AgentSession { id } => {
                self.agent_session = Some(id.clone());
                return false;
            }
            _ => return false,
        }
        self.summary.updated_ms = at_ms;
        true
    }

    /// Whether an event of this kind says nothing about the session's state. Pieces of messages and raw protocol lines
    /// are most of a log; whoever reads it for the state passes them over.
    pub fn passes_over(kind: &str) -> bool {
        matches!(kind, "message" | "thought" | "agent_raw" | "tool_call" | "context")
    }

    /// Notes a step that the log does not tell of.
    pub fn note(&mut self, step: &Step) {
        match step {
            Step::StopTurn(why) => {
                if let Some(turn) = &mut self.turn {
                    turn.ending.get_or_insert_with(|| why.clone());
                }
            }
            Step::RememberWant => self.wanted = true,
            _ => {}
        }
    }

    fn created(&mut self, repository: &str, base: Option<&str>, agent: &str, model: &str, author: &Author) {
        self.repository = repository.to_owned();
        let summary = &mut self.summary;
        summary.repository = display_name(repository);
        summary.title = format!("New session in {}", summary.repository);
        summary.base = base.map(str::to_owned);
        summary.agent = agent.to_owned();
        summary.model = model.to_owned();
        summary.author = author.clone();
        summary.participants = vec![author.clone()];
    }

    fn enter(&mut self, to: State, at_ms: u64) {
        if to == State::Suspended && self.summary.state != State::Suspending {
            // Its sandbox is gone, and may have written something since.
            self.snapshot = None;
        }
        self.summary.state = to;
        self.summary.place = None;
        match to {
            // Whoever waited for the sandbox has it now.
            State::Idle => (self.idle_since_ms, self.wanted) = (at_ms, false),
            State::Running => self.wanted = false,
            // Whoever waited for the sandbox waits for this start.
            State::Starting => {
                self.wanted = false;
                self.summary.services.clear();
                self.summary.phases.clear();
            }
            State::Archived => self.archiving = None,
            _ => {}
        }
    }

    fn service(&mut self, now: ServiceState) {
        match self.summary.services.iter_mut().find(|before| before.name == now.name) {
            Some(before) => *before = now,
            None => self.summary.services.push(now),
        }
    }

    fn phase_over(&mut self, name: &str, elapsed_ms: u64) {
        if name == places::PHASE {
            self.summary.place = None;
        }
        // The agent of a later turn may have started anew.
        self.summary.phases.retain(|phase| phase.name != name);
        self.summary.phases.push(PhaseTime { name: name.to_owned(), elapsed_ms });
    }

    fn queued(&mut self, prompt: QueuedPrompt) {
        if self.summary.title.starts_with("New session in ") {
            self.summary.title = title_of(&prompt.text);
        }
        if !self.summary.participants.contains(&prompt.author) {
            self.summary.participants.push(prompt.author.clone());
        }
        let excerpt = clip(&prompt.text, EXCERPT_BYTES_MAX);
        self.summary.queue.push(QueuedPrompt { text: excerpt, ..prompt.clone() });
        self.queue.push_back(prompt);
    }

    fn unqueue(&mut self, prompt_id: &str) -> Option<QueuedPrompt> {
        self.summary.queue.retain(|waiting| waiting.prompt_id != prompt_id);
        let at = self.queue.iter().position(|waiting| waiting.prompt_id == prompt_id)?;
        self.queue.remove(at)
    }

    fn turn_started(&mut self, turn_id: &str, prompt_id: &str, at_ms: u64) {
        let Some(prompt) = self.unqueue(prompt_id) else { return };
        self.summary.running_prompt = Some(prompt_id.to_owned());
        self.turn = Some(Turn { turn_id: turn_id.to_owned(), prompt, started_ms: at_ms, ending: None });
    }
}

/// A prompt's first line that says something, as a list shows it.
pub fn title_of(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("Untitled");
    let plain: String = line.chars().filter(|c| !c.is_control()).collect();
    clip(&plain, TITLE_BYTES_MAX)
}

fn count(usage: &mut Usage, call: &ModelCall) {
    usage.calls += 1;
    usage.input_tokens = usage.input_tokens.saturating_add(call.input_tokens);
    usage.cached_tokens = usage.cached_tokens.saturating_add(call.cached_tokens);
    usage.output_tokens = usage.output_tokens.saturating_add(call.output_tokens);
    match call.cost_micro_usd {
        Some(cost) => usage.cost_micro_usd = usage.cost_micro_usd.saturating_add(cost),
        None => usage.unpriced_calls += 1,
    }
}

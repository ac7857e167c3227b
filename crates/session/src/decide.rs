//! Decides what a session does next: which requests are accepted in which state, and which step follows.
//!
//! Pure: it carries nothing out and reads no clock. The driver does both. Every rule of a session is a line here.

use hob_agent::{Author, StopReason};

use crate::event::{EventKind, TurnOutcome};
use crate::fold::{Ending, SessionState, Turn};
use crate::requests::QueuedPrompt;
use crate::state::State;

/// Something that happened to a session, or is asked of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An engine took the session over. Whether its sandbox still runs.
    Opened {
        /// A sandbox of this session runs.
        alive: bool,
    },
    /// A participant sends a prompt.
    Prompt(QueuedPrompt),
    /// A participant takes a prompt back.
    CancelPrompt {
        /// The prompt's ID.
        prompt_id: String,
        /// Who takes it back.
        by: Author,
    },
    /// A participant stops the turn.
    Stop {
        /// Who stops it.
        by: Author,
    },
    /// A participant closes the session for good.
    Archive {
        /// Who closes it.
        by: Author,
    },
    /// A participant answers a permission request.
    AnswerPermission {
        /// The request's ID.
        request_id: String,
        /// The chosen option's ID.
        option_id: String,
        /// Who answers.
        by: Author,
    },
    /// A participant answers a question.
    AnswerQuestion {
        /// The question's ID.
        question_id: String,
        /// The answer.
        text: String,
        /// Who answers.
        by: Author,
    },
    /// Nobody answered a permission request or a question in time.
    Expired {
        /// Its ID.
        request_id: String,
    },
    /// Somebody needs the sandbox for a command or a file.
    Want,
    /// The sandbox is there.
    SandboxReady,
    /// The start was taken back while it waited for a place.
    Withdrawn,
    /// The sandbox could not be started.
    SandboxFailed {
        /// Why, in words for a person.
        reason: String,
    },
    /// The sandbox is gone.
    SandboxLost {
        /// Why, in words for a person.
        reason: String,
    },
    /// The sandbox was put away.
    Suspended,
    /// The agent's work on a turn is over.
    TurnFinished(TurnReport),
    /// The server shuts down.
    Shutdown,
    /// Time has passed. Whether somebody uses the sandbox.
    Tick {
        /// A command or a terminal of a person runs in it.
        in_use: bool,
    },
    /// Others wait for a place, and this session's sandbox is the one that was used longest ago. Whether somebody uses
    /// it after all.
    Spare {
        /// A command or a terminal of a person runs in it.
        in_use: bool,
    },
    /// Nothing happened: whatever can go on, goes on. Follows every other input.
    Next {
        /// The ID of the turn that may begin.
        turn_id: String,
    },
}

/// How the work on a turn went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnReport {
    /// The turn.
    pub turn_id: String,
    /// How it ended.
    pub outcome: TurnOutcome,
    /// The agent's stop reason; absent when it did not get that far.
    pub stop_reason: Option<StopReason>,
    /// The closing message.
    pub message: String,
}

/// What follows an input: events to record in one step, and then steps to carry out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    /// Events, oldest first.
    pub record: Vec<EventKind>,
    /// Steps, to be carried out when the events are on disk.
    pub then: Vec<Step>,
}

/// A step of the driver.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Gets a sandbox: the running one, one started from kept files, or a new one.
    StartSandbox,
    /// Takes the start back, if it still waits for a place.
    WithdrawStart,
    /// Puts the sandbox away and keeps its files.
    SuspendSandbox,
    /// Removes the sandbox and its files, and closes the door.
    DestroySandbox,
    /// Lets the agent work on the turn that has begun.
    RunTurn,
    /// Ends the work on the turn; its tools are killed.
    StopTurn(Ending),
    /// Remembers that somebody waits for the sandbox.
    RememberWant,
    /// Hands an answer to the turn that waits for it.
    Release {
        /// The permission request or question.
        request_id: String,
        /// The option or the words; nothing when nobody answered in time.
        answer: Option<String>,
    },
}

/// Why a request is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The session is closed for good, or about to be.
    Archived,
    /// Too many prompts wait.
    QueueFull,
    /// No such prompt waits.
    NoSuchPrompt {
        /// The ID that was given.
        prompt_id: String,
    },
    /// No such permission request or question is open, or it has no such option.
    NoSuchRequest {
        /// The ID that was given.
        request_id: String,
    },
}

/// What an operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Prompts that may wait.
    pub queue_len_max: usize,
    /// A sandbox that is idle for this long is put away.
    pub suspend_after_ms: u64,
}

/// Decides what follows an input.
///
/// # Errors
/// The request is not accepted; nothing is to be done then.
pub fn decide(session: &SessionState, rules: &Rules, input: Input, now_ms: u64) -> Result<Decision, Denial> {
    let state = session.summary.state;
    match input {
        Input::Opened { alive } => Ok(opened(session, alive, now_ms)),
        Input::Prompt(_) if session.is_closing() => Err(Denial::Archived),
        Input::Prompt(_) if session.queue.len() >= rules.queue_len_max => Err(Denial::QueueFull),
        Input::Prompt(prompt) => Ok(record(vec![queued(prompt)])),
        Input::CancelPrompt { prompt_id, by } => cancel(session, prompt_id, by),
        Input::Stop { by } => Ok(stop(session, Ending::Stopped(by))),
        Input::Archive { by } => Ok(archive(session, by)),
        Input::AnswerPermission { request_id, option_id, by } => permit(session, request_id, option_id, by),
        Input::AnswerQuestion { question_id, text, by } => answer(session, question_id, text, by),
        Input::Expired { request_id } => Ok(expire(session, &request_id)),
        Input::Want if session.is_closing() => Err(Denial::Archived),
        Input::Want if matches!(state, State::Suspending | State::Suspended | State::Failed) => {
            Ok(then(vec![Step::RememberWant]))
        }
        // The start may be about to be taken back.
        Input::Want if session.summary.place.is_some() => Ok(then(vec![Step::RememberWant])),
        Input::Want => Ok(Decision::default()),
        Input::SandboxReady => Ok(sandbox_ready(session)),
        Input::Withdrawn => Ok(withdrawn(session)),
        Input::SandboxFailed { reason } => Ok(sandbox_gone(session, State::Starting, State::Failed, &reason)),
        // Whatever is lost now is not the one that is on its way.
        Input::SandboxLost { .. } if state == State::Starting => Ok(Decision::default()),
        Input::SandboxLost { reason } => Ok(sandbox_gone(session, state, State::Suspended, &reason)),
        Input::Suspended if state == State::Suspending => Ok(record(vec![moved(state, State::Suspended, "put away")])),
        Input::Suspended => Ok(Decision::default()),
        Input::TurnFinished(report) => Ok(turn_finished(session, report, now_ms)),
        Input::Shutdown => Ok(stop(session, Ending::Shutdown)),
        Input::Tick { in_use } => Ok(tick(session, rules, in_use, now_ms)),
        Input::Spare { in_use } => Ok(put_away(session, in_use, "others wait for a place")),
        Input::Next { turn_id } => Ok(next(session, turn_id)),
    }
}

/// After a restart: what was under way is told as interrupted, and the sandbox is taken over or started again.
fn opened(session: &SessionState, alive: bool, now_ms: u64) -> Decision {
    let state = session.summary.state;
    let mut decision = Decision::default();
    if let Some(turn) = &session.turn {
        decision.record = unanswered(session);
        let report = TurnReport {
            turn_id: turn.turn_id.clone(),
            outcome: TurnOutcome::Interrupted,
            stop_reason: None,
            message:
                "The server ended in the middle of this turn. Files that were changed are kept; prompt again to go on."
                    .to_owned(),
        };
        decision.record.push(ended(turn, report, now_ms));
    }
    if let Some(by) = &session.archiving {
        decision.record.extend(closed(session, by.clone()));
        decision.then.push(Step::DestroySandbox);
        return decision;
    }
    match state {
        State::Idle | State::Running | State::Suspending => {
            decision.record.push(moved(state, State::Suspended, "the server was started again"));
        }
        State::Starting => decision.then.push(Step::StartSandbox),
        State::Suspended | State::Failed | State::Archived => {}
    }
    match state {
        State::Archived if alive => decision.then.push(Step::DestroySandbox),
        State::Starting | State::Archived => {}
        _ if alive => decision.then.push(Step::RememberWant),
        _ => {}
    }
    decision
}

fn cancel(session: &SessionState, prompt_id: String, by: Author) -> Result<Decision, Denial> {
    if session.queue.iter().any(|waiting| waiting.prompt_id == prompt_id) {
        let others = session.queue.len() > 1;
        let record = vec![EventKind::PromptCancelled { prompt_id, by }];
        Ok(Decision { record, then: withdraw(session, session.turn.is_some() || others) })
    } else {
        Err(Denial::NoSuchPrompt { prompt_id })
    }
}

fn stop(session: &SessionState, why: Ending) -> Decision {
    match &session.turn {
        Some(Turn { ending: None, .. }) => then(vec![Step::StopTurn(why)]),
        _ => Decision::default(),
    }
}

fn archive(session: &SessionState, by: Author) -> Decision {
    if session.is_closing() {
        return Decision::default();
    }
    if session.turn.is_none() {
        return Decision { record: closed(session, by), then: vec![Step::DestroySandbox] };
    }
    let mut decision = stop(session, Ending::Stopped(by.clone()));
    // On disk, so that a server that dies before the turn's end leaves it to the next one.
    decision.record.push(EventKind::ArchiveRequested { by });
    decision
}

fn permit(session: &SessionState, request_id: String, option_id: String, by: Author) -> Result<Decision, Denial> {
    let is_open = session.permissions.get(&request_id).is_some_and(|options| options.contains(&option_id));
    if !is_open {
        return Err(Denial::NoSuchRequest { request_id });
    }
    let resolved = EventKind::PermissionResolved {
        request_id: request_id.clone(),
        option_id: Some(option_id.clone()),
        by: Some(by),
    };
    Ok(Decision { record: vec![resolved], then: vec![Step::Release { request_id, answer: Some(option_id) }] })
}

fn answer(session: &SessionState, question_id: String, text: String, by: Author) -> Result<Decision, Denial> {
    if !session.questions.contains(&question_id) {
        return Err(Denial::NoSuchRequest { request_id: question_id });
    }
    let answered =
        EventKind::QuestionAnswered { question_id: question_id.clone(), text: Some(text.clone()), by: Some(by) };
    let release = Step::Release { request_id: question_id, answer: Some(text) };
    Ok(Decision { record: vec![answered], then: vec![release] })
}

fn expire(session: &SessionState, request_id: &str) -> Decision {
    let record: Vec<EventKind> = unanswered(session).into_iter().filter(|event| names(event, request_id)).collect();
    if record.is_empty() {
        return Decision::default();
    }
    Decision { record, then: vec![Step::Release { request_id: request_id.to_owned(), answer: None }] }
}

fn sandbox_ready(session: &SessionState) -> Decision {
    match session.summary.state {
        State::Starting => {
            let to = if session.turn.is_some() { State::Running } else { State::Idle };
            record(vec![moved(State::Starting, to, "the sandbox is ready")])
        }
        // The session was closed while its sandbox was on the way.
        State::Archived => then(vec![Step::DestroySandbox]),
        _ => Decision::default(),
    }
}

/// The sandbox is gone (`expected` is the state in which that matters): whatever runs cannot go on.
fn sandbox_gone(session: &SessionState, expected: State, to: State, reason: &str) -> Decision {
    let state = session.summary.state;
    if state != expected || !state.leads_to(to) || state == State::Suspending {
        return Decision::default();
    }
    let mut decision = stop(session, Ending::SandboxLost(reason.to_owned()));
    decision.record.push(moved(state, to, reason));
    decision
}

fn turn_finished(session: &SessionState, report: TurnReport, now_ms: u64) -> Decision {
    // A report of a turn that was ended otherwise says nothing any more.
    let Some(turn) = session.turn.as_ref().filter(|turn| turn.turn_id == report.turn_id) else {
        return Decision::default();
    };
    let report = match &turn.ending {
        None => report,
        Some(Ending::Stopped(by)) => {
            TurnReport { outcome: TurnOutcome::Stopped, message: format!("Stopped by {}.", by.name), ..report }
        }
        Some(Ending::SandboxLost(reason)) => TurnReport {
            outcome: TurnOutcome::Failed,
            message: format!("The sandbox was not there: {reason}. Prompt again to go on with a fresh one."),
            ..report
        },
        Some(Ending::Shutdown) => TurnReport {
            outcome: TurnOutcome::Interrupted,
            message: "The server was shut down in the middle of this turn. Files that were changed are kept."
                .to_owned(),
            ..report
        },
    };
    let mut record = unanswered(session);
    record.push(ended(turn, report, now_ms));
    if let Some(by) = &session.archiving {
        record.extend(closed(session, by.clone()));
        return Decision { record, then: vec![Step::DestroySandbox] };
    }
    if session.summary.state == State::Running && session.queue.is_empty() {
        record.push(moved(State::Running, State::Idle, "the turn has ended"));
    }
    Decision { record, then: withdraw(session, !session.queue.is_empty()) }
}

/// A start that still waits for a place, when nobody needs it any more.
fn withdraw(session: &SessionState, needed: bool) -> Vec<Step> {
    let idle = session.summary.place.is_some() && !needed && !session.wanted;
    if idle { vec![Step::WithdrawStart] } else { Vec::new() }
}

fn withdrawn(session: &SessionState) -> Decision {
    match session.summary.state {
        // Somebody came in the same moment.
        State::Starting if session.turn.is_some() || !session.queue.is_empty() || session.wanted => {
            then(vec![Step::StartSandbox])
        }
        State::Starting => {
            record(vec![moved(State::Starting, State::Suspended, "nobody waits for the sandbox any more")])
        }
        _ => Decision::default(),
    }
}

fn tick(session: &SessionState, rules: &Rules, in_use: bool, now_ms: u64) -> Decision {
    match now_ms.saturating_sub(session.idle_since_ms) >= rules.suspend_after_ms {
        true => put_away(session, in_use, "idle"),
        false => Decision::default(),
    }
}

/// Puts the sandbox away, unless somebody needs it.
fn put_away(session: &SessionState, in_use: bool, cause: &str) -> Decision {
    if !session.rests() || in_use {
        return Decision::default();
    }
    let put_away = moved(State::Idle, State::Suspending, cause);
    Decision { record: vec![put_away], then: vec![Step::SuspendSandbox] }
}

fn next(session: &SessionState, turn_id: String) -> Decision {
    let state = session.summary.state;
    if session.turn.is_some() || session.is_closing() {
        return Decision::default();
    }
    match (state, session.queue.front()) {
        (State::Suspended | State::Failed, Some(_)) => wake(state, "a prompt waits"),
        (State::Suspended | State::Failed, None) if session.wanted => wake(state, "the sandbox is needed"),
        (State::Idle | State::Running | State::Starting, Some(prompt)) => {
            let mut record = Vec::new();
            if state == State::Idle {
                record.push(moved(State::Idle, State::Running, "a prompt"));
            }
            record.push(EventKind::TurnStarted { turn_id, prompt_id: prompt.prompt_id.clone() });
            Decision { record, then: vec![Step::RunTurn] }
        }
        (State::Running, None) => record(vec![moved(State::Running, State::Idle, "the queue is empty")]),
        _ => Decision::default(),
    }
}

fn wake(from: State, cause: &str) -> Decision {
    Decision { record: vec![moved(from, State::Starting, cause)], then: vec![Step::StartSandbox] }
}

/// Every open request of the turn, told as unanswered.
fn unanswered(session: &SessionState) -> Vec<EventKind> {
    let permissions = session.permissions.keys().map(|request_id| EventKind::PermissionResolved {
        request_id: request_id.clone(),
        option_id: None,
        by: None,
    });
    let questions = session.questions.iter().map(|question_id| EventKind::QuestionAnswered {
        question_id: question_id.clone(),
        text: None,
        by: None,
    });
    permissions.chain(questions).collect()
}

fn names(event: &EventKind, request_id: &str) -> bool {
    match event {
        EventKind::PermissionResolved { request_id: named, .. } => named == request_id,
        EventKind::QuestionAnswered { question_id: named, .. } => named == request_id,
        _ => false,
    }
}

fn closed(session: &SessionState, by: Author) -> Vec<EventKind> {
    let cancelled = session
        .queue
        .iter()
        .map(|waiting| EventKind::PromptCancelled { prompt_id: waiting.prompt_id.clone(), by: by.clone() });
    let mut record: Vec<EventKind> = cancelled.collect();
    record.push(EventKind::Archived { by });
    record.push(moved(session.summary.state, State::Archived, "closed for good"));
    record
}

fn queued(prompt: QueuedPrompt) -> EventKind {
    let QueuedPrompt { prompt_id, author, text, attachments, model } = prompt;
    EventKind::PromptQueued { prompt_id, author, text, attachments, model }
}

fn ended(turn: &Turn, report: TurnReport, now_ms: u64) -> EventKind {
    EventKind::TurnEnded {
        turn_id: report.turn_id,
        prompt_id: turn.prompt.prompt_id.clone(),
        outcome: report.outcome,
        stop_reason: report.stop_reason,
        message: report.message,
        elapsed_ms: now_ms.saturating_sub(turn.started_ms),
    }
}

fn moved(from: State, to: State, cause: &str) -> EventKind {
    EventKind::StateChanged { from, to, cause: cause.to_owned() }
}

fn record(record: Vec<EventKind>) -> Decision {
    Decision { record, then: Vec::new() }
}

fn then(then: Vec<Step>) -> Decision {
    Decision { record: Vec::new(), then }
}

//! The closing message of a turn: what whoever asked is told, in a sentence or two.

use hob_agent::{StopReason, TurnEnd};

use super::{TurnError, TurnResult};
use crate::event::TurnOutcome;
use crate::evidence::{CheckOutcome, Evidence};

/// A turn that changed files.
pub(super) fn changed(evidence: &Evidence, end: Option<&TurnEnd>) -> TurnResult {
    let mut message = with_summary(end, String::new());
    let commit = evidence.commit.as_deref().map_or("the change", |commit| commit.get(..12).unwrap_or(commit));
    message.push_str(&format!("{} {}", proof(evidence), at(commit, evidence.branch.as_deref())));
    TurnResult {
        outcome: evidence.outcome,
        stop_reason: end.map(|end| end.stop_reason),
        message,
        commit: evidence.commit.clone(),
        agent_spent: false,
    }
}

/// A turn after which no file differs.
pub(super) fn unchanged(end: Option<&TurnEnd>) -> TurnResult {
    let message = with_summary(end, "No file was changed.".to_owned());
    TurnResult {
        outcome: TurnOutcome::Done,
        stop_reason: end.map(|end| end.stop_reason),
        message,
        commit: None,
        agent_spent: false,
    }
}

/// A turn that broke off. What it did to the workspace is kept there.
pub(super) fn broken(error: &TurnError, end: Option<&TurnEnd>) -> TurnResult {
    let outcome = if matches!(error, TurnError::Stopped) { TurnOutcome::Stopped } else { TurnOutcome::Failed };
    let message = match outcome {
        TurnOutcome::Stopped => "Stopped. What was done so far is kept in the workspace.".to_owned(),
        _ => format!("The turn broke off: {error}. What was done so far is kept in the workspace."),
    };
    let stop_reason = match error {
        TurnError::Stopped => Some(StopReason::Cancelled),
        _ => end.map(|end| end.stop_reason),
    };
    // An agent that was interrupted may still hold half a turn, or a command that it started.
    TurnResult { outcome, stop_reason, message, commit: None, agent_spent: true }
}

fn with_summary(end: Option<&TurnEnd>, otherwise: String) -> String {
    let Some(end) = end else { return otherwise };
    let mut message = match end.summary.as_deref().map(str::trim) {
        Some(summary) if !summary.is_empty() => format!("{summary}\n\n"),
        _ => String::new(),
    };
    message.push_str(match end.stop_reason {
        StopReason::EndTurn | StopReason::Cancelled => "",
        StopReason::MaxTokens => "The model reached its output limit. ",
        StopReason::MaxTurnRequests => "The agent reached its limit of model requests in one turn. ",
        StopReason::Refusal => "The model refused to go on. ",
    });
    message.push_str(&otherwise);
    message
}

fn proof(evidence: &Evidence) -> String {
    let named = |wanted: CheckOutcome| -> Vec<&str> {
        let found = evidence.checks.iter().filter(move |check| check.outcome == wanted);
        found.map(|check| check.name.as_str()).collect()
    };
    let (red, fixed, on_base) = (named(CheckOutcome::Red), named(CheckOutcome::Fixed), named(CheckOutcome::RedOnBase));
    let mut parts = Vec::new();
    if evidence.checks.is_empty() {
        parts.push("No check was found that could prove it.".to_owned());
    } else if !red.is_empty() {
        let why = evidence.gave_up.as_deref().map_or_else(String::new, |why| format!(" ({why})"));
        parts.push(format!("Still red: {}{why}.", red.join(", ")));
    } else if on_base.is_empty() {
        parts.push("All checks are green.".to_owned());
    }
    if !fixed.is_empty() {
        parts.push(format!("Red before, green now: {}.", fixed.join(", ")));
    }
    if !on_base.is_empty() {
        parts.push(format!("As red as before the change, and not because of it: {}.", on_base.join(", ")));
    }
    parts.join(" ")
}

fn at(commit: &str, branch: Option<&str>) -> String {
    branch.map_or_else(|| format!("Commit {commit}."), |branch| format!("Commit {commit} on {branch}."))
}

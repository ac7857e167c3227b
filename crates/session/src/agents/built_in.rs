//! The built-in agent for a session: its endpoint at the gateway, and its conversation out of the session's log.

use std::collections::HashMap;

use hob_agent::{Agent, AgentError, Author, BuiltIn, BuiltInConfig, ModelEndpoint, PastTurn, Update};

use super::{AgentStart, ModelFacts};
use crate::event::{Event, EventKind};

/// Makes the built-in agent ready. Nothing is sent before its first prompt.
pub(super) fn start(start: AgentStart, facts: &ModelFacts) -> Result<Box<dyn Agent>, AgentError> {
    let endpoint = ModelEndpoint::at(&start.access.base_url, &start.access.token, facts.first_format());
    let mut config = BuiltInConfig::new(endpoint, &start.model);
    config.context_tokens = facts.context_tokens;
    config.max_output_tokens = facts.max_output_tokens;
    config.id_prefix = start.id_prefix;
    let agent = BuiltIn::new(config, start.workspace, past_turns(&start.history))?;
    Ok(Box::new(agent))
}

/// The turns of a log, as the built-in agent goes on after them. A round that red checks began is a turn of its own for
/// the agent: it was prompted anew.
pub(crate) fn past_turns(history: &[Event]) -> Vec<PastTurn> {
    let mut prompts: HashMap<&str, (&Author, &str)> = HashMap::new();
    let mut turns: Vec<Open> = Vec::new();
    for event in history {
        match &event.kind {
            EventKind::PromptQueued { prompt_id, author, text, .. } => {
                prompts.insert(prompt_id, (author, text));
            }
            EventKind::TurnStarted { prompt_id, .. } => {
                let Some((author, text)) = prompts.get(prompt_id.as_str()) else { continue };
                turns.push(Open { author: (*author).clone(), text: (*text).to_owned(), updates: Vec::new() });
            }
            EventKind::RoundStarted { text, .. } => {
                let Some(author) = turns.last().map(|turn| turn.author.clone()) else { continue };
                turns.push(Open { author, text: text.clone(), updates: Vec::new() });
            }
            kind => {
                if let (Some(turn), Some(update)) = (turns.last_mut(), as_update(kind)) {
                    turn.updates.push(update);
                }
            }
        }
    }
    turns.into_iter().map(Open::close).collect()
}

/// A turn whose updates are still being gathered.
struct Open {
    author: Author,
    text: String,
    updates: Vec<Update>,
}

impl Open {
    fn close(self) -> PastTurn {
        PastTurn::from_updates(self.author, self.text, Vec::new(), &self.updates)
    }
}

/// What the agent said, from what the log kept of it.
fn as_update(kind: &EventKind) -> Option<Update> {
    match kind {
        EventKind::Message { message_id, text, .. } => {
            Some(Update::Message { message_id: message_id.clone(), text: text.clone() })
        }
        EventKind::ToolCall(call) => Some(Update::ToolCall(call.clone())),
        EventKind::Notice { text } => Some(Update::Notice(text.clone())),
        EventKind::Context { used_tokens, size_tokens } => {
            Some(Update::Context { used_tokens: *used_tokens, size_tokens: *size_tokens })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, kind: EventKind) -> Event {
        Event { seq, at_ms: 0, kind }
    }

    fn ada() -> Author {
        Author { name: "Ada".to_owned(), email: "ada@example.org".to_owned() }
    }

    #[test]
    fn turns_and_rounds_come_back_with_what_was_said_in_them() {
        let message = |seq, id: &str, offset, text: &str| {
            event(seq, EventKind::Message { message_id: id.to_owned(), offset, text: text.to_owned() })
        };
        let queued = |seq, id: &str, text: &str| {
            let kind = EventKind::PromptQueued {
                prompt_id: id.to_owned(),
                author: ada(),
                text: text.to_owned(),
                attachments: Vec::new(),
                model: None,
            };
            event(seq, kind)
        };
        let started = |seq, id: &str| {
            event(seq, EventKind::TurnStarted { turn_id: format!("turn-{id}"), prompt_id: id.to_owned() })
        };
        let context = |seq| event(seq, EventKind::Context { used_tokens: 1, size_tokens: 2 });
        let round =
            EventKind::RoundStarted { turn_id: "turn-a".to_owned(), round: 2, text: "The checks are red".to_owned() };
        let log = [
            queued(1, "a", "Fix it"),
            queued(2, "b", "Then this"),
            started(3, "a"),
            message(4, "m1", 0, "I am "),
            message(5, "m1", 5, "on it."),
            context(6),
            event(7, round),
            message(8, "m2", 0, "Mended."),
            context(9),
            started(10, "b"),
        ];

        let turns = past_turns(&log);

        let told: Vec<(&str, Vec<&str>)> = turns
            .iter()
            .map(|turn| (turn.text.as_str(), turn.steps.iter().map(|step| step.text.as_str()).collect()))
            .collect();
        assert_eq!(
            told,
            [("Fix it", vec!["I am on it."]), ("The checks are red", vec!["Mended."]), ("Then this", vec![])]
        );
    }

    #[test]
    fn a_log_that_begins_in_the_middle_is_read_as_far_as_it_goes() {
        let orphan = EventKind::TurnStarted { turn_id: "t".to_owned(), prompt_id: "unknown".to_owned() };
        assert!(past_turns(&[event(1, orphan)]).is_empty());
    }
}

//! The conversation with the model: what was asked, answered, called and found.
//!
//! A tool call and its result are one value, so that no compaction and no restart can part them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::history::PastTurn;
use crate::agent::{Author, Image};
use crate::update::ToolContent;

/// One entry of the conversation, in the order in which the model reads them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    /// A participant's words.
    Prompt { author: Author, text: String, images: Vec<Image> },
    /// Words of the loop itself.
    Note { kind: NoteKind, text: String },
    /// An answer of the model, with the results of all its tool calls.
    Step(Step),
}

/// What a note of the loop is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoteKind {
    /// The text of an `AGENTS.md`.
    Instructions,
    /// Stands in for what was compacted.
    Summary,
    /// The plan, where the call that wrote it was compacted.
    Plan,
    /// Asks the model to go on in another way.
    Nudge,
}

/// An answer of the model and what its tool calls gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Step {
    pub(super) text: String,
    /// Goes back to the provider within the turn, and only then.
    pub(super) thoughts: Vec<Thought>,
    pub(super) calls: Vec<FinishedCall>,
}

/// A tool call with its result.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FinishedCall {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) input: Value,
    pub(super) signatures: Vec<String>,
    pub(super) output: String,
    pub(super) images: Vec<Image>,
}

/// A piece of the model's thinking in the form that its provider wants back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Thought {
    Signature(String),
    Words(String),
    /// A block that only the provider can read.
    Opaque(Value),
}

/// What the model reads of a tool call's content. The participants see the same.
pub(super) fn output_for_model(content: &[ToolContent]) -> String {
    let mut parts = Vec::new();
    for part in content {
        match part {
            ToolContent::Text { text } => parts.push(text.clone()),
            ToolContent::Diff { path, old_text: Some(_), .. } => parts.push(format!("changed {path}")),
            ToolContent::Diff { path, old_text: None, .. } => parts.push(format!("created {path}")),
            ToolContent::Image { media_type, .. } => parts.push(format!("an image ({media_type}) follows")),
        }
    }
    if parts.is_empty() { "done".to_owned() } else { parts.join("\n") }
}

/// The conversation so far, from the session's log.
pub(super) fn from_history(history: Vec<PastTurn>) -> Vec<Item> {
    let mut items = Vec::new();
    for turn in history {
        items.push(Item::Prompt { author: turn.author, text: turn.text, images: turn.images });
        for step in turn.steps {
            let calls = step.calls.into_iter().map(|call| FinishedCall {
                id: call.id,
                name: call.name,
                input: call.input,
                signatures: Vec::new(),
                output: call.output,
                images: call.images,
            });
            items.push(Item::Step(Step { text: step.text, thoughts: Vec::new(), calls: calls.collect() }));
        }
    }
    items
}

/// Drops what a provider wants back only within the turn that it came from.
pub(super) fn forget_thoughts(items: &mut [Item]) {
    for item in items {
        if let Item::Step(step) = item {
            step.thoughts.clear();
            for call in &mut step.calls {
                call.signatures.clear();
            }
        }
    }
}

/// Whether prompts of more than one person are in it, so that each must say whose it is.
pub(super) fn has_several_authors(items: &[Item]) -> bool {
    let mut authors = items.iter().filter_map(|item| match item {
        Item::Prompt { author, .. } => Some(author),
        _ => None,
    });
    authors.next().is_some_and(|first| authors.any(|author| author != first))
}

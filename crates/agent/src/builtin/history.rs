//! Turns that are over, as the session's log tells them, for an agent that starts anew.

use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;

use super::conversation::output_for_model;
use crate::agent::{Author, Image};
use crate::update::{ToolCall, ToolContent, ToolStatus, Update};

/// How a notice begins that says that the answer so far does not count.
pub(super) const BROKE_OFF: &str = "the model's answer broke off";

/// A turn that is over, or was interrupted.
#[derive(Debug, Clone, PartialEq)]
pub struct PastTurn {
    /// Who sent the prompt.
    pub author: Author,
    /// The prompt's words.
    pub text: String,
    /// The prompt's pictures.
    pub images: Vec<Image>,
    /// What the agent did, in order.
    pub steps: Vec<PastStep>,
}

/// An answer of the model in a past turn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PastStep {
    /// Its words.
    pub text: String,
    /// Its tool calls.
    pub calls: Vec<PastCall>,
}

/// A tool call of a past turn.
#[derive(Debug, Clone, PartialEq)]
pub struct PastCall {
    /// Its ID in the log.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// Its arguments.
    pub input: Value,
    /// What the model was told.
    pub output: String,
    /// Pictures that it gave.
    pub images: Vec<Image>,
}

impl PastTurn {
    /// Rebuilds a turn from its prompt and the updates that the built-in agent gave in it, in their order.
    ///
    /// The conversation that comes of it is the one that the model saw, but for its hidden thinking and the hints of
    /// the loop. An answer that broke off and was asked for again is left out, as it was for the model. A call that
    /// never ended says so.
    pub fn from_updates<'a>(
        author: Author,
        text: String,
        images: Vec<Image>,
        updates: impl IntoIterator<Item = &'a Update>,
    ) -> Self {
        let mut fold = Fold::default();
        for update in updates {
            fold.add(update);
        }
        Self { author, text, images, steps: fold.finish() }
    }
}

/// The steps found so far. An [`Update::Context`] ends each answer; what follows it is another step.
#[derive(Default)]
struct Fold {
    steps: Vec<PastStep>,
    open: PastStep,
    message_id: Option<String>,
    answered: bool,
}

impl Fold {
    fn add(&mut self, update: &Update) {
        match update {
            Update::Message { message_id, text } => self.message(message_id, text),
            Update::ToolCall(call) => self.call(call),
            Update::Context { .. } => self.answered = true,
            Update::Notice(text) if text.starts_with(BROKE_OFF) => self.open = PastStep::default(),
            _ => {}
        }
    }

    fn message(&mut self, message_id: &str, text: &str) {
        if self.message_id.as_deref() != Some(message_id) {
            if self.answered {
                self.close();
            } else {
                // The answer before broke off.
                self.open = PastStep::default();
            }
            self.message_id = Some(message_id.to_owned());
        }
        self.open.text.push_str(text);
    }

    fn call(&mut self, call: &ToolCall) {
        let past = past_call(call);
        if let Some(known) = self.open.calls.iter_mut().find(|known| known.id == past.id) {
            *known = past;
            return;
        }
        if self.answered {
            self.close();
        }
        self.open.calls.push(past);
    }

    fn close(&mut self) {
        let step = std::mem::take(&mut self.open);
        self.message_id = None;
        self.answered = false;
        if !step.text.is_empty() || !step.calls.is_empty() {
            self.steps.push(step);
        }
    }

    fn finish(mut self) -> Vec<PastStep> {
        self.close();
        self.steps
    }
}

fn past_call(call: &ToolCall) -> PastCall {
    let output = match call.status {
        ToolStatus::Completed | ToolStatus::Failed => output_for_model(&call.content),
        ToolStatus::Pending | ToolStatus::InProgress => "interrupted: the result is not known".to_owned(),
    };
    let images = call.content.iter().filter_map(image).collect();
    PastCall { id: call.id.clone(), name: call.name.clone(), input: call.input.clone(), output, images }
}

fn image(content: &ToolContent) -> Option<Image> {
    let ToolContent::Image { media_type, base64 } = content else { return None };
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64).ok()?;
    Some(Image { media_type: media_type.clone(), bytes: Bytes::from(bytes) })
}

//! How many tokens a conversation takes: four characters each, corrected by what the provider counted.

use serde_json::Value;

use super::conversation::{Item, Step, Thought};
use super::model::{ToolSpec, Usage};

/// What providers charge for a picture of usual size, to the safe side.
const IMAGE_TOKENS: u64 = 1_600;
/// Roles, separators and names around an item or a call.
const FRAME_TOKENS: u64 = 8;
const BYTES_PER_TOKEN: u64 = 4;

/// An estimate that learns from each answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Calibration {
    /// Tokens as the provider counts them, for each token as estimated here.
    ratio: f64,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { ratio: 1.0 }
    }
}

impl Calibration {
    /// What an estimate means in the provider's tokens.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an estimate"
    )]
    pub(super) fn real(self, estimated: u64) -> u64 {
        (estimated as f64 * self.ratio) as u64
    }

    /// How many estimated tokens fill a window of the provider's tokens.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an estimate"
    )]
    pub(super) fn estimated(self, real: u64) -> u64 {
        (real as f64 / self.ratio) as u64
    }

    /// Moves halfway to what the provider counted. Counts that cannot be true are kept from spoiling it.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn learn(&mut self, estimated: u64, usage: Usage) {
        if estimated == 0 {
            return;
        }
        let seen = usage.input_tokens as f64 / estimated as f64;
        self.ratio = f64::midpoint(self.ratio, seen.clamp(0.5, 3.0));
    }
}

/// Tokens of all items.
pub(super) fn of_items(items: &[Item]) -> u64 {
    items.iter().map(of_item).sum()
}

/// Tokens of one item.
pub(super) fn of_item(item: &Item) -> u64 {
    FRAME_TOKENS
        + match item {
            Item::Prompt { author, text, images } => {
                of_text(&author.name) + of_text(text) + IMAGE_TOKENS * images.len() as u64
            }
            Item::Note { text, .. } => of_text(text),
            Item::Step(step) => of_step(step),
        }
}

/// Tokens of what stands before the conversation.
pub(super) fn of_preamble(system: &str, tools: &[ToolSpec]) -> u64 {
    let tools = tools.iter().map(|tool| FRAME_TOKENS + of_text(tool.description) + of_json(&tool.schema));
    of_text(system) + tools.sum::<u64>()
}

fn of_step(step: &Step) -> u64 {
    let thoughts = step.thoughts.iter().map(|thought| match thought {
        Thought::Signature(text) | Thought::Words(text) => of_text(text),
        Thought::Opaque(block) => of_json(block),
    });
    let calls = step.calls.iter().map(|call| {
        let signatures = call.signatures.iter().map(|signature| of_text(signature)).sum::<u64>();
        2 * FRAME_TOKENS
            + of_json(&call.input)
            + of_text(&call.output)
            + signatures
            + IMAGE_TOKENS * call.images.len() as u64
    });
    of_text(&step.text) + thoughts.sum::<u64>() + calls.sum::<u64>()
}

/// Bytes rather than characters: scripts with long encodings also take more tokens.
fn of_text(text: &str) -> u64 {
    (text.len() as u64).div_ceil(BYTES_PER_TOKEN)
}

fn of_json(value: &Value) -> u64 {
    (value.to_string().len() as u64).div_ceil(BYTES_PER_TOKEN)
}

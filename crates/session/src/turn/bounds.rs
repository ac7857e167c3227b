//! How much of what an agent says goes into the log. An agent is not trusted: one that floods is cut, never believed.

use hob_agent::{PlanEntry, ToolCall, ToolContent};
use serde_json::json;

use crate::checks::clip;

/// Bytes of one piece of a message.
pub(super) const PIECE_BYTES_MAX: usize = 64 << 10;

/// Bytes of a text in a tool call, a notice or a raw message.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Bytes of a file's text in a diff, of a picture, or of a tool call's arguments.
const CONTENT_BYTES_MAX: usize = 1 << 20;

/// Parts of a tool call's content, its locations, and steps of a plan.
const PARTS_MAX: usize = 64;

/// A long text in pieces that the log takes.
pub(super) fn pieces(text: String) -> Vec<String> {
    if text.len() <= PIECE_BYTES_MAX {
        return vec![text];
    }
    let mut pieces = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES_MAX));
        pieces.push(piece.to_owned());
        rest = after;
    }
    pieces
}

/// A text that fits.
pub(super) fn text(text: String) -> String {
    if text.len() <= TEXT_BYTES_MAX { text } else { clip(&text, TEXT_BYTES_MAX) }
}

/// A plan that fits.
pub(super) fn plan(mut entries: Vec<PlanEntry>) -> Vec<PlanEntry> {
    entries.truncate(PARTS_MAX);
    for entry in &mut entries {
        entry.content = clip(&entry.content, 2_048);
    }
    entries
}

/// A tool call that fits. What is cut is said to be.
pub(super) fn tool_call(mut call: ToolCall) -> ToolCall {
    call.title = clip(&call.title, 1_024);
    call.name = clip(&call.name, 256);
    call.locations.truncate(PARTS_MAX);
    call.content.truncate(PARTS_MAX);
    for part in &mut call.content {
        let replaced = match part {
            ToolContent::Text { text } if text.len() > TEXT_BYTES_MAX => {
                Some(ToolContent::Text { text: clip(text, TEXT_BYTES_MAX) })
            }
            ToolContent::Diff { path, old_text, new_text }
                if new_text.len() + old_text.as_deref().map_or(0, str::len) > CONTENT_BYTES_MAX =>
            {
                Some(left_out(&format!("the change of {}", clip(path, 256))))
            }
            ToolContent::Image { base64, .. } if base64.len() > CONTENT_BYTES_MAX => Some(left_out("a picture")),
            _ => None,
        };
        if let Some(replaced) = replaced {
            *part = replaced;
        }
    }
    if call.input.to_string().len() > CONTENT_BYTES_MAX {
        call.input = json!({ "left_out": "the arguments are too long for the log" });
    }
    call
}

fn left_out(what: &str) -> ToolContent {
    ToolContent::Text { text: format!("({what} is too long for the log)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_into_pieces_that_make_it_up() {
        let long = "é".repeat(PIECE_BYTES_MAX);
        let pieces = pieces(long.clone());
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES_MAX));
        assert_eq!(pieces.concat(), long);
    }
}

//! The wire formats: reading a request, writing an answer whole or as server-sent events.

mod anthropic;
mod chat;
mod gemini;
mod responses;

use serde::Serialize;
use serde_json::{Value, json};

use crate::conversation::Conversation;
use crate::play::{Part, Reply};
use crate::record::Usage;
use crate::tools::CallInput;

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// OpenAI chat completions.
    Chat,
    /// OpenAI responses.
    Responses,
    /// Anthropic messages.
    Anthropic,
    /// Gemini `generateContent` and `streamGenerateContent`.
    Gemini,
}

/// What an answer says beside the [`Reply`].
pub(crate) struct Answer<'a> {
    pub(crate) reply: &'a Reply,
    pub(crate) model: &'a str,
    pub(crate) usage: Usage,
    /// The request, for what the answer repeats or depends on.
    pub(crate) request: &'a Value,
}

impl Wire {
    /// Reads a request. Whatever is wrong with it becomes one of the conversation's problems.
    pub(crate) fn read(self, body: &Value) -> Conversation {
        match self {
            Wire::Chat => chat::read(body),
            Wire::Responses => responses::read(body),
            Wire::Anthropic => anthropic::read(body),
            Wire::Gemini => gemini::read(body),
        }
    }

    /// The answer as one JSON value.
    pub(crate) fn whole(self, answer: &Answer) -> Value {
        match self {
            Wire::Chat => chat::whole(answer),
            Wire::Responses => responses::whole(answer),
            Wire::Anthropic => anthropic::whole(answer),
            Wire::Gemini => gemini::whole(answer),
        }
    }

    /// The answer as server-sent events, each ready to be written.
    pub(crate) fn events(self, answer: &Answer) -> Vec<String> {
        match self {
            Wire::Chat => chat::events(answer),
            Wire::Responses => responses::events(answer),
            Wire::Anthropic => anthropic::events(answer),
            Wire::Gemini => gemini::events(answer),
        }
    }

    /// An error's body.
    pub(crate) fn error(self, status: u16, message: &str) -> Value {
        let kind = match status {
            401 | 403 => "authentication_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        match self {
            Wire::Chat | Wire::Responses => json!({"error": {"message": message, "type": kind, "code": null}}),
            Wire::Anthropic => json!({"type": "error", "error": {"type": kind, "message": message}}),
            Wire::Gemini => json!({"error": {"code": status, "message": message, "status": "UNAVAILABLE"}}),
        }
    }
}

/// The tokens of an answer: a quarter of the bytes.
pub(crate) fn usage(body_bytes: usize, reply: &Reply) -> Usage {
    let said: usize = reply
        .parts
        .iter()
        .map(|part| match part {
            Part::Thought(text) | Part::Text(text) => text.len(),
            Part::Call(call) => call.name.len() + arguments(&call.input).len(),
        })
        .sum();
    Usage { input_tokens: body_bytes as u64 / 4 + 1, output_tokens: said as u64 / 4 + 1 }
}

/// A call's input as the text that goes over the wire.
fn arguments(input: &CallInput) -> String {
    match input {
        CallInput::Json(value) => value.to_string(),
        CallInput::Text(text) | CallInput::LocalShell(text) => text.clone(),
    }
}

/// A call's input as the JSON object that Anthropic and Gemini want.
fn arguments_json(input: &CallInput) -> Value {
    match input {
        CallInput::Json(value) => value.clone(),
        CallInput::Text(text) | CallInput::LocalShell(text) => json!({"input": text}),
    }
}

/// Pieces of a text, as a model would stream it. Long texts come in longer pieces.
fn pieces(text: &str) -> Vec<&str> {
    let size = if text.len() > 16_384 { 4_096 } else { 16 };
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = size.min(rest.len());
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        let (piece, tail) = rest.split_at(end);
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

/// An event with data only.
fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// An event whose name is its data's `type`.
fn named(value: &Value) -> String {
    format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default())
}

/// Text that is a string, or a list of parts with `text`.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_put_together_are_the_text() {
        for text in ["", "a", "äöü€𝄞 and so on, and so on, until it is long", &"€".repeat(20_000)] {
            assert_eq!(pieces(text).concat(), text);
        }
    }
}

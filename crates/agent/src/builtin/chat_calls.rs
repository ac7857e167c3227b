//! Puts the tool calls of a streamed chat completion together from their pieces.
//!
//! `genai` could do it, but sizes a list by the index that the other side sends: one number would end the server.

use super::model::AskedCall;
use serde_json::{Value, json};

/// More calls than this in one answer are dropped.
const CALLS_MAX: usize = 128;

/// The calls of an answer so far, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct ChatCalls {
    calls: Vec<Partial>,
}

#[derive(Debug)]
struct Partial {
    id: String,
    name: String,
    arguments: String,
}

impl ChatCalls {
    /// Adds a piece, and says whether a new call began with it.
    ///
    /// The first piece of a call has its ID and the tool's name. Later ones have neither, and come here with an ID
    /// made of their index, `call_{index}`; some providers repeat the ID, or the name too.
    pub(super) fn add(&mut self, id: &str, name: &str, arguments: &str) -> bool {
        let known = self.calls.iter().rposition(|call| call.id == id).or_else(|| self.meant(id, name));
        if let Some(call) = known.and_then(|index| self.calls.get_mut(index)) {
            call.arguments.push_str(arguments);
            return false;
        }
        if name.is_empty() || self.calls.len() >= CALLS_MAX {
            return false;
        }
        self.calls.push(Partial { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() });
        true
    }

    /// Which call a piece without ID and name goes on with.
    fn meant(&self, id: &str, name: &str) -> Option<usize> {
        if !name.is_empty() {
            return None;
        }
        let index = id.strip_prefix("call_").and_then(|index| index.parse::<usize>().ok());
        index.filter(|index| *index < self.calls.len()).or_else(|| self.calls.len().checked_sub(1))
    }

    /// The calls, whole as far as they came.
    pub(super) fn finish(self) -> Vec<AskedCall> {
        let calls = self.calls.into_iter().map(|call| AskedCall {
            name: call.name,
            input: parsed(call.arguments),
            signatures: Vec::new(),
        });
        calls.collect()
    }
}

/// Arguments as JSON, or as the text that they are. Some models send nothing for a tool without arguments.
fn parsed(arguments: String) -> Value {
    if arguments.trim().is_empty() {
        return json!({});
    }
    serde_json::from_str(&arguments).unwrap_or(Value::String(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[(&str, &str, &str)], expect: &str) {
        let mut calls = ChatCalls::default();
        let begun = pieces.iter().filter(|(id, name, arguments)| calls.add(id, name, arguments)).count();
        let calls = calls.finish();
        assert_eq!(begun, calls.len());
        let shown = calls.iter().map(|call| format!("{} {}", call.name, call.input));
        assert_eq!(shown.collect::<Vec<_>>().join("; "), expect);
    }

    #[test]
    fn pieces_find_their_call() {
        check(&[("a", "read", "{\"x\""), ("call_0", "", ":1}")], r#"read {"x":1}"#);
        check(&[("a", "read", "{"), ("b", "list", "{"), ("call_0", "", "}"), ("call_1", "", "}")], "read {}; list {}");
    }

    #[test]
    fn an_id_or_a_name_may_be_repeated() {
        check(&[("a", "read", "{"), ("a", "", "}")], "read {}");
        check(&[("a", "read", "{"), ("a", "read", "}")], "read {}");
    }

    #[test]
    fn calls_without_ids_are_told_apart_by_their_index() {
        check(&[("call_0", "read", "{}"), ("call_1", "list", "{}")], "read {}; list {}");
    }

    #[test]
    fn calls_that_share_an_index_stay_two() {
        check(&[("a", "read", "{}"), ("b", "read", "{}")], "read {}; read {}");
    }

    #[test]
    fn a_piece_of_no_call_and_a_boundless_index_do_no_harm() {
        check(&[("call_4294967295", "", "{}")], "");
        check(&[("a", "read", "{"), ("call_4294967295", "", "}")], "read {}");
    }

    #[test]
    fn arguments_that_are_missing_or_cut_are_kept_as_they_are() {
        check(&[("a", "list", "")], "list {}");
        check(&[("a", "list", "{\"pa")], r#"list "{\"pa""#);
    }

    #[test]
    fn there_is_an_end_to_calls() {
        let mut calls = ChatCalls::default();
        let begun = (0..1_000).filter(|number| calls.add(&format!("c{number}"), "read", "{}")).count();
        assert_eq!(begun, CALLS_MAX);
        assert_eq!(calls.finish().len(), CALLS_MAX);
    }
}

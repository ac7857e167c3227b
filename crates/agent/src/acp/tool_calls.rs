//! Tool calls as external agents report them in parts, merged into whole states.
//!
//! Agents differ in what they leave out; what stands for the missing is chosen here. Pure.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::clip::{self, DIFF_BYTES_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX};
use crate::update::{Location, PlanEntry, PlanStatus, ToolCall, ToolContent, ToolKind, ToolStatus};

/// Calls of one turn that are remembered; more of them are reported each on its own.
const CALLS_MAX: usize = 10_000;
/// Contents and places of one call.
const PARTS_MAX: usize = 200;

/// The calls of the turn so far.
#[derive(Debug, Default)]
pub(super) struct ToolCalls {
    calls: HashMap<String, Known>,
    order: Vec<String>,
}

#[derive(Debug)]
struct Known {
    call: ToolCall,
    /// Output that was streamed beside the contents (Codex).
    terminal: String,
}

impl ToolCalls {
    /// Merges a `tool_call`, a `tool_call_update` or the call of a permission request. What is left out stays as it
    /// was. `None` when nothing that a participant can see has changed, or when it names no call.
    pub(super) fn merge(&mut self, prefix: &str, update: &Value) -> Option<ToolCall> {
        let id = format!("{prefix}{}", clip::start(update["toolCallId"].as_str()?, NAME_BYTES_MAX));
        if self.calls.len() >= CALLS_MAX && !self.calls.contains_key(&id) {
            let mut known = Known { call: new_call(id, update), terminal: String::new() };
            apply(&mut known, update);
            return Some(known.call);
        }
        let is_new = !self.calls.contains_key(&id);
        let known = self.calls.entry(id.clone()).or_insert_with(|| {
            self.order.push(id.clone());
            Known { call: new_call(id, update), terminal: String::new() }
        });
        let before = known.call.clone();
        apply(known, update);
        (is_new || known.call != before).then(|| known.call.clone())
    }

    /// The call that an update is about, as it is.
    pub(super) fn get(&self, prefix: &str, update: &Value) -> Option<ToolCall> {
        let id = format!("{prefix}{}", clip::start(update["toolCallId"].as_str()?, NAME_BYTES_MAX));
        self.calls.get(&id).map(|known| known.call.clone())
    }

    /// Forgets the turn's calls, and gives those that never ended, as failed.
    pub(super) fn end_turn(&mut self) -> Vec<ToolCall> {
        let mut calls = std::mem::take(&mut self.calls);
        let order = std::mem::take(&mut self.order);
        let ended = |status| matches!(status, ToolStatus::Completed | ToolStatus::Failed);
        let open = order.iter().filter_map(|id| calls.remove(id)).filter(|known| !ended(known.call.status));
        open.map(|known| ToolCall { status: ToolStatus::Failed, ..known.call }).collect()
    }
}

fn new_call(id: String, update: &Value) -> ToolCall {
    let name = name(update);
    ToolCall {
        id,
        title: name.clone(),
        kind: kind_of_name(&name),
        name,
        status: ToolStatus::Pending,
        input: Value::Null,
        content: Vec::new(),
        locations: Vec::new(),
    }
}

fn apply(known: &mut Known, update: &Value) {
    let call = &mut known.call;
    // Goose calls a run of calls that ended by one title of what they were about.
    let has_ended = matches!(call.status, ToolStatus::Completed | ToolStatus::Failed);
    if let Some(title) = update["title"].as_str().filter(|title| !title.is_empty() && !has_ended) {
        clip::start(title, NAME_BYTES_MAX).clone_into(&mut call.title);
    }
    if let Some(kind) = update["kind"].as_str() {
        call.kind = kind_of(kind);
    }
    if let Some(status) = update["status"].as_str().and_then(status_of) {
        call.status = status;
    }
    if let Some(input) = update.get("rawInput").filter(|input| !input.is_null()) {
        call.input = clip::input(input.clone());
    }
    if let Some(locations) = update["locations"].as_array() {
        call.locations = locations.iter().take(PARTS_MAX).filter_map(location).collect();
    }
    if let Some(content) = update["content"].as_array() {
        call.content = content.iter().take(PARTS_MAX).filter_map(content_of).collect();
    }
    if let Some(delta) = update["_meta"]["terminal_output_delta"]["data"].as_str() {
        known.terminal = clip::middle(&format!("{}{delta}", known.terminal), TEXT_BYTES_MAX);
        call.content.retain(|content| !matches!(content, ToolContent::Text { .. }));
        call.content.push(ToolContent::Text { text: known.terminal.clone() });
    }
    // Some agents give the output only beside the contents.
    if call.content.is_empty()
        && let Some(text) = raw_output(&update["rawOutput"])
    {
        call.content.push(ToolContent::Text { text });
    }
    call.content.extend(described_change(call));
}

/// The change that an edit's arguments describe, for agents that show none (Goose).
fn described_change(call: &ToolCall) -> Option<ToolContent> {
    let is_edit = call.kind == ToolKind::Edit && call.status == ToolStatus::Completed;
    let has_diff = call.content.iter().any(|content| matches!(content, ToolContent::Diff { .. }));
    let (path, old, new) = (&call.input["path"], &call.input["before"], &call.input["after"]);
    let diff = json!({"type": "diff", "path": path, "oldText": old.as_str()?, "newText": new.as_str()?});
    (is_edit && !has_diff).then(|| content_of(&diff))?
}

/// The tool's name as the agent knows it: no agent says it where another does.
fn name(update: &Value) -> String {
    let said = update["name"]
        .as_str()
        .or_else(|| update["_meta"]["claudeCode"]["toolName"].as_str())
        .or_else(|| update["_meta"]["goose"]["toolCall"]["toolName"].as_str())
        // Gemini CLI: `read_file__read_file_1795216715615_0`.
        .or_else(|| Some(update["toolCallId"].as_str()?.split_once("__")?.0))
        .or_else(|| update["title"].as_str().filter(|title| !title.is_empty()))
        .or_else(|| update["kind"].as_str());
    clip::start(said.unwrap_or("tool"), 128).to_owned()
}

/// What sort of tool a name means, for agents that do not say.
fn kind_of_name(name: &str) -> ToolKind {
    match name {
        "read" | "read_file" | "Read" | "view" => ToolKind::Read,
        "edit" | "write" | "apply_patch" | "text_editor" => ToolKind::Edit,
        "shell" | "bash" | "Bash" => ToolKind::Execute,
        "search" | "grep" | "glob" | "tree" => ToolKind::Search,
        _ => ToolKind::Other,
    }
}

fn kind_of(kind: &str) -> ToolKind {
    serde_json::from_value(Value::String(kind.to_owned())).unwrap_or(ToolKind::Other)
}

fn status_of(status: &str) -> Option<ToolStatus> {
    serde_json::from_value(Value::String(status.to_owned())).ok()
}

fn location(location: &Value) -> Option<Location> {
    let path = clip::start(location["path"].as_str()?, NAME_BYTES_MAX).to_owned();
    Some(Location { path, line: location["line"].as_u64().and_then(|line| line.try_into().ok()) })
}

fn content_of(content: &Value) -> Option<ToolContent> {
    match content["type"].as_str()? {
        "diff" => {
            let path = clip::start(content["path"].as_str()?, NAME_BYTES_MAX).to_owned();
            let (old, new) = (content["oldText"].as_str(), content["newText"].as_str().unwrap_or_default());
            if new.len().max(old.unwrap_or_default().len()) > DIFF_BYTES_MAX {
                return Some(ToolContent::Text { text: format!("{path} changed by more than fits here") });
            }
            Some(ToolContent::Diff { path, old_text: old.map(str::to_owned), new_text: new.to_owned() })
        }
        "content" => block(&content["content"]),
        // Only agents with a terminal of ours would send `terminal`; we offer none.
        _ => None,
    }
}

/// A content block (Agent Client Protocol v1, `ContentBlock`) of a tool call.
fn block(block: &Value) -> Option<ToolContent> {
    match block["type"].as_str()? {
        "image" => Some(ToolContent::Image {
            media_type: clip::start(block["mimeType"].as_str()?, 128).to_owned(),
            base64: block["data"].as_str()?.to_owned(),
        }),
        _ => Some(ToolContent::Text { text: block_text(block)? }),
    }
}

/// A content block's words.
pub(super) fn block_text(block: &Value) -> Option<String> {
    let text = match block["type"].as_str()? {
        "text" => block["text"].as_str()?.to_owned(),
        "resource_link" => format!("[{}]({})", block["name"].as_str().unwrap_or("link"), block["uri"].as_str()?),
        "resource" => block["resource"]["text"].as_str()?.to_owned(),
        _ => return None,
    };
    Some(clip::middle(&text, TEXT_BYTES_MAX))
}

fn raw_output(output: &Value) -> Option<String> {
    let text = output
        .as_str()
        .or_else(|| output["output"].as_str())
        .or_else(|| output["formatted_output"].as_str())
        .or_else(|| output["stdout"].as_str())?;
    (!text.is_empty()).then(|| clip::middle(text, TEXT_BYTES_MAX))
}

/// The plan in the arguments of a tool that keeps one, for agents that send no `plan` (OpenCode's `todowrite`).
pub(super) fn plan_of(call: &ToolCall) -> Option<Vec<PlanEntry>> {
    let is_plan = call.name.to_ascii_lowercase().replace('_', "") == "todowrite";
    let entries = call.input["todos"].as_array().filter(|_| is_plan)?;
    Some(plan(entries))
}

/// Entries of a plan (Agent Client Protocol v1, `PlanEntry`).
pub(super) fn plan(entries: &[Value]) -> Vec<PlanEntry> {
    let entry = |entry: &Value| {
        Some(PlanEntry {
            content: clip::start(entry["content"].as_str()?, NAME_BYTES_MAX).to_owned(),
            status: match entry["status"].as_str() {
                Some("completed" | "cancelled") => PlanStatus::Completed,
                Some("in_progress") => PlanStatus::InProgress,
                _ => PlanStatus::Pending,
            },
        })
    };
    entries.iter().take(PARTS_MAX).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_one_whole() {
        let mut calls = ToolCalls::default();
        calls.merge("1:", &json!({"toolCallId": "a", "title": "edit", "kind": "edit", "status": "pending"}));
        calls.merge(
            "1:",
            &json!({"toolCallId": "a", "rawInput": {"path": "x"}, "locations": [{"path": "x", "line": 3}]}),
        );
        let call = calls
            .merge(
                "1:",
                &json!({"toolCallId": "a", "status": "completed", "title": null, "content": [
                {"type": "diff", "path": "x", "oldText": null, "newText": "new"}, {"type": "unheard of"}]}),
            )
            .expect("it changed");
        let expected = ToolCall {
            id: "1:a".into(),
            name: "edit".into(),
            title: "edit".into(),
            kind: ToolKind::Edit,
            status: ToolStatus::Completed,
            input: json!({"path": "x"}),
            content: vec![ToolContent::Diff { path: "x".into(), old_text: None, new_text: "new".into() }],
            locations: vec![Location { path: "x".into(), line: Some(3) }],
        };
        assert_eq!(call, expected);
        assert_eq!(calls.merge("1:", &json!({"toolCallId": "a", "status": "completed"})), None, "nothing changed");
        assert_eq!(calls.end_turn(), []);
    }

    #[test]
    fn output_that_comes_in_pieces_is_put_together_and_bounded() {
        let mut calls = ToolCalls::default();
        let piece = |text: &str| json!({"toolCallId": "a", "_meta": {"terminal_output_delta": {"data": text}}});
        calls.merge("", &piece("one "));
        let call = calls.merge("", &piece("two")).expect("it changed");
        assert_eq!(call.content, [ToolContent::Text { text: "one two".into() }]);
        for _ in 0..100 {
            calls.merge("", &piece(&"x".repeat(5_000)));
        }
        let call = calls.merge("", &piece("the end")).expect("it changed");
        let [ToolContent::Text { text }] = &call.content[..] else { panic!("{call:?}") };
        assert!(text.len() <= TEXT_BYTES_MAX && text.starts_with("one") && text.ends_with("the end"));
    }

    #[test]
    fn a_call_that_never_ended_failed() {
        let mut calls = ToolCalls::default();
        calls.merge("", &json!({"toolCallId": "a", "status": "in_progress"}));
        let open = calls.end_turn();
        assert_eq!((open.len(), open[0].status), (1, ToolStatus::Failed));
        assert_eq!(calls.end_turn(), []);
    }

    #[test]
    fn what_is_no_call_or_too_much_does_no_harm() {
        let mut calls = ToolCalls::default();
        assert_eq!(calls.merge("", &json!({"title": "x"})), None);
        assert_eq!(calls.merge("", &json!("x")), None);
        let flood = json!({"toolCallId": "a".repeat(5_000), "kind": "dance", "status": "asleep", "title": "t".repeat(99_999),
            "rawInput": "x".repeat(1_000_000), "content": vec![json!({"type": "content", "content":
                {"type": "text", "text": "y".repeat(100_000)}}); 300]});
        let call = calls.merge("", &flood).expect("a call");
        assert_eq!((call.kind, call.status), (ToolKind::Other, ToolStatus::Pending));
        assert!(call.id.len() <= NAME_BYTES_MAX && call.title.len() <= NAME_BYTES_MAX);
        assert!(call.input.to_string().len() <= TEXT_BYTES_MAX && call.content.len() == PARTS_MAX);
    }
}

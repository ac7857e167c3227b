//! Maps what an agent tells (`session/update`, `session/request_permission`) to updates of ours. Pure.
//!
//! IDs get a prefix, since an agent's own are only unique in one of its processes. Pieces of a message get an ID of
//! ours: some agents give none, others the same one to a thought and to a message.

use serde_json::Value;

use super::clip::{self, NAME_BYTES_MAX, TEXT_BYTES_MAX};
use super::tool_calls::{self, ToolCalls, block_text};
use crate::update::{
    PermissionOption, PermissionOptionKind, PermissionRequest, PlanEntry, ToolCall, ToolKind, ToolStatus, Update,
};

/// Permission options that a person can be shown.
const OPTIONS_MAX: usize = 20;

/// What is remembered of a conversation to read the next update.
#[derive(Debug)]
pub(super) struct Mapper {
    id_prefix: String,
    calls: ToolCalls,
    messages: u64,
    /// The message that the last piece belonged to.
    open: Option<Open>,
    plan: Vec<PlanEntry>,
    context: Option<(u64, u64)>,
}

#[derive(Debug, PartialEq)]
struct Open {
    is_thought: bool,
    agents_id: Option<String>,
}

/// What an update became.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Mapped {
    pub(super) updates: Vec<Update>,
    /// Whether the updates say all that the message said, so that the raw message need not be kept.
    pub(super) complete: bool,
}

impl Mapper {
    pub(super) fn new(id_prefix: String) -> Self {
        let calls = ToolCalls::default();
        Self { id_prefix, calls, messages: 0, open: None, plan: Vec::new(), context: None }
    }

    /// Maps the `update` of a `session/update`. What has no counterpart gives nothing, and is kept as a raw message.
    pub(super) fn update(&mut self, update: &Value) -> Mapped {
        let updates = match update["sessionUpdate"].as_str().unwrap_or_default() {
            "agent_message_chunk" => return self.piece(update, false),
            "agent_thought_chunk" => return self.piece(update, true),
            "tool_call" | "tool_call_update" => self.tool_call(update),
            "plan" => self.plan(tool_calls::plan(update["entries"].as_array().map_or(&[], Vec::as_slice))),
            "usage_update" => self.context(update),
            "notice" => vec![Update::Notice(notice(update))],
            "compaction_update" if update["status"] == "completed" => {
                vec![Update::Notice("the agent replaced older turns by a summary".into())]
            }
            _ => Vec::new(),
        };
        Mapped { updates, complete: false }
    }

    /// Maps the parameters of a `session/request_permission`, with the updates that its tool call makes.
    /// `None` when there is nothing to choose from.
    pub(super) fn permission(
        &mut self,
        request_id: &Value,
        params: &Value,
    ) -> Option<(PermissionRequest, Vec<Update>)> {
        let options: Vec<PermissionOption> =
            params["options"].as_array()?.iter().take(OPTIONS_MAX).filter_map(option).collect();
        if options.is_empty() {
            return None;
        }
        let merged = self.calls.merge(&self.id_prefix, &params["toolCall"]);
        let updates = merged.iter().cloned().map(Update::ToolCall).collect();
        self.open = None;
        // A request about a call that did not change, or that names none, is still a request.
        let tool_call = merged.or_else(|| self.calls.get(&self.id_prefix, &params["toolCall"]));
        let tool_call = tool_call.unwrap_or_else(|| unknown_call(&self.id_prefix, request_id));
        let request_id = format!("{}permission-{}", self.id_prefix, plain(request_id));
        Some((PermissionRequest { request_id, tool_call, options }, updates))
    }

    /// Ends the turn: calls that never ended are told as failed.
    pub(super) fn end_turn(&mut self) -> Vec<Update> {
        self.open = None;
        self.calls.end_turn().into_iter().map(Update::ToolCall).collect()
    }

    fn piece(&mut self, update: &Value, is_thought: bool) -> Mapped {
        let whole = update["content"]["text"].as_str().map(str::to_owned);
        let Some(text) = whole.or_else(|| block_text(&update["content"])) else {
            let what = update["content"]["type"].as_str().unwrap_or("something");
            let notice = format!("the agent showed {} that cannot be shown here", clip::start(what, 64));
            return Mapped { updates: vec![Update::Notice(notice)], complete: false };
        };
        let agents_id = update["messageId"].as_str().map(|id| clip::start(id, NAME_BYTES_MAX).to_owned());
        let open = Open { is_thought, agents_id };
        if self.open.as_ref() != Some(&open) {
            self.messages += 1;
            self.open = Some(open);
        }
        let message_id = format!("{}message-{}", self.id_prefix, self.messages);
        let complete = update.get("_meta").is_none_or(Value::is_null) && update["content"]["type"] == "text";
        let mut rest = text.as_str();
        let mut updates = Vec::new();
        while !rest.is_empty() {
            let piece = clip::start(rest, TEXT_BYTES_MAX);
            rest = &rest[piece.len()..];
            let (message_id, text) = (message_id.clone(), piece.to_owned());
            updates.push(match is_thought {
                true => Update::Thought { message_id, text },
                false => Update::Message { message_id, text },
            });
        }
        Mapped { updates, complete }
    }

    fn tool_call(&mut self, update: &Value) -> Vec<Update> {
        // A new call ends a message; news of an old one may come in the middle of it.
        if self.calls.get(&self.id_prefix, update).is_none() {
            self.open = None;
        }
        let Some(call) = self.calls.merge(&self.id_prefix, update) else {
            return Vec::new();
        };
        let plan = tool_calls::plan_of(&call).map(|plan| self.plan(plan)).unwrap_or_default();
        std::iter::once(Update::ToolCall(call)).chain(plan).collect()
    }

    fn plan(&mut self, plan: Vec<PlanEntry>) -> Vec<Update> {
        if plan == self.plan {
            return Vec::new();
        }
        self.plan.clone_from(&plan);
        vec![Update::Plan(plan)]
    }

    fn context(&mut self, update: &Value) -> Vec<Update> {
        let (Some(used_tokens), Some(size_tokens)) = (update["used"].as_u64(), update["size"].as_u64()) else {
            return Vec::new();
        };
        if self.context.replace((used_tokens, size_tokens)) == Some((used_tokens, size_tokens)) {
            return Vec::new();
        }
        vec![Update::Context { used_tokens, size_tokens }]
    }
}

fn notice(update: &Value) -> String {
    let title = update["title"].as_str().unwrap_or("the agent has a notice");
    let text = match update["description"].as_str() {
        Some(description) => format!("{title}: {description}"),
        None => title.to_owned(),
    };
    clip::middle(&text, TEXT_BYTES_MAX)
}

fn option(option: &Value) -> Option<PermissionOption> {
    let id = option["optionId"].as_str()?.to_owned();
    // An ID goes back to the agent as it came, or not at all.
    (id.len() <= NAME_BYTES_MAX).then(|| PermissionOption {
        name: clip::start(option["name"].as_str().unwrap_or(&id), NAME_BYTES_MAX).to_owned(),
        kind: serde_json::from_value(option["kind"].clone()).unwrap_or(PermissionOptionKind::RejectOnce),
        id,
    })
}

fn unknown_call(prefix: &str, request_id: &Value) -> ToolCall {
    ToolCall {
        id: format!("{prefix}unknown-{}", plain(request_id)),
        name: "tool".into(),
        title: "something that the agent does not name".into(),
        kind: ToolKind::Other,
        status: ToolStatus::Pending,
        input: Value::Null,
        content: Vec::new(),
        locations: Vec::new(),
    }
}

fn plain(id: &Value) -> String {
    let text = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    clip::start(&text, 128).to_owned()
}

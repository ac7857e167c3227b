//! Anthropic messages (`POST /v1/messages`).

use serde_json::{Value, json};

use super::{Answer, arguments_json, named, pieces, string, text_of};
use crate::conversation::{Conversation, Item, Tool, ToolInput};
use crate::play::Part;

/// What thinking is signed with. A client must send it back as it came.
const SIGNATURE: &str = "c2NyaXB0ZWQ=";

pub(super) fn read(body: &Value) -> Conversation {
    let mut conversation = Conversation {
        model: string(&body["model"]),
        stream: body["stream"] == true,
        tools: body["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|t| t["input_schema"].is_object())
            .map(tool)
            .collect(),
        answer_schema: body["output_config"]["format"].get("schema").cloned(),
        ..Conversation::default()
    };
    if !body["max_tokens"].is_u64() {
        conversation.problems.push("it sets no max_tokens".into());
    }
    let system = text_of(&body["system"]);
    if !system.is_empty() {
        conversation.items.push(Item::System(system));
    }
    for message in body["messages"].as_array().into_iter().flatten() {
        match message["role"].as_str() {
            Some("user") => read_user(&message["content"], &mut conversation),
            Some("assistant") => read_assistant(&message["content"], &mut conversation),
            Some("system") => conversation.items.push(Item::System(text_of(&message["content"]))),
            _ => conversation.problems.push(format!("a message has the unknown role {}", message["role"])),
        }
    }
    conversation
}

fn tool(tool: &Value) -> Tool {
    Tool { name: string(&tool["name"]), namespace: None, input: ToolInput::Json, schema: tool["input_schema"].clone() }
}

fn read_user(content: &Value, conversation: &mut Conversation) {
    let mut results =
        content.as_array().into_iter().flatten().filter(|block| block["type"] == "tool_result").peekable();
    let has_results = results.peek().is_some();
    conversation
        .items
        .extend(results.map(|block| Item::Result { id: string(&block["tool_use_id"]), name: String::new() }));
    let text = text_of(content);
    if !text.is_empty() || !has_results {
        conversation.items.push(Item::User(text));
    }
}

fn read_assistant(content: &Value, conversation: &mut Conversation) {
    let text = text_of(content);
    if !text.is_empty() {
        conversation.items.push(Item::Assistant(text));
    }
    for block in content.as_array().into_iter().flatten() {
        match block["type"].as_str() {
            Some("tool_use") => {
                conversation.items.push(Item::Call { id: string(&block["id"]), name: string(&block["name"]) });
            }
            Some("thinking") if block["signature"] != SIGNATURE => {
                conversation.problems.push("a thought came back without its signature".into());
            }
            _ => {}
        }
    }
}

pub(super) fn whole(answer: &Answer) -> Value {
    let content: Vec<Value> = answer
        .reply
        .parts
        .iter()
        .map(|part| match part {
            Part::Thought(text) => json!({"type": "thinking", "thinking": text, "signature": SIGNATURE}),
            Part::Text(text) => json!({"type": "text", "text": text}),
            Part::Call(call) => json!({"type": "tool_use", "id": format!("toolu_{}", call.id), "name": call.name,
                                       "input": arguments_json(&call.input)}),
        })
        .collect();
    let mut message = message(answer);
    message["content"] = json!(content);
    message["stop_reason"] = json!(stop_reason(answer));
    message["usage"]["output_tokens"] = json!(answer.usage.output_tokens);
    message
}

fn stop_reason(answer: &Answer) -> &'static str {
    if answer.reply.has_calls() { "tool_use" } else { "end_turn" }
}

fn message(answer: &Answer) -> Value {
    json!({
        "id": format!("msg_{}", answer.reply.id), "type": "message", "role": "assistant", "model": answer.model,
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": answer.usage.input_tokens, "output_tokens": 1,
                  "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0},
    })
}

pub(super) fn events(answer: &Answer) -> Vec<String> {
    let mut events = vec![named(&json!({"type": "message_start", "message": message(answer)}))];
    for (index, part) in answer.reply.parts.iter().enumerate() {
        let start =
            |block: Value| named(&json!({"type": "content_block_start", "index": index, "content_block": block}));
        let delta = |delta: Value| named(&json!({"type": "content_block_delta", "index": index, "delta": delta}));
        match part {
            Part::Thought(text) => {
                events.push(start(json!({"type": "thinking", "thinking": "", "signature": ""})));
                events.extend(pieces(text).iter().map(|p| delta(json!({"type": "thinking_delta", "thinking": p}))));
                events.push(delta(json!({"type": "signature_delta", "signature": SIGNATURE})));
            }
            Part::Text(text) => {
                events.push(start(json!({"type": "text", "text": ""})));
                events.extend(pieces(text).iter().map(|p| delta(json!({"type": "text_delta", "text": p}))));
            }
            Part::Call(call) => {
                let id = format!("toolu_{}", call.id);
                events.push(start(json!({"type": "tool_use", "id": id, "name": call.name, "input": {}})));
                let input = arguments_json(&call.input).to_string();
                events.extend(
                    pieces(&input).iter().map(|p| delta(json!({"type": "input_json_delta", "partial_json": p}))),
                );
            }
        }
        events.push(named(&json!({"type": "content_block_stop", "index": index})));
    }
    events.push(named(&json!({
        "type": "message_delta", "delta": {"stop_reason": stop_reason(answer), "stop_sequence": null},
        "usage": {"output_tokens": answer.usage.output_tokens},
    })));
    events.push(named(&json!({"type": "message_stop"})));
    events
}

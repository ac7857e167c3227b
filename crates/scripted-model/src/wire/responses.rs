//! OpenAI responses (`POST /v1/responses`).

use serde_json::{Value, json};

use super::{Answer, arguments, named, pieces, string, text_of};
use crate::conversation::{Conversation, Item, Tool, ToolInput};
use crate::play::Part;
use crate::tools::CallInput;

pub(super) fn read(body: &Value) -> Conversation {
    let mut conversation = Conversation {
        model: string(&body["model"]),
        stream: body["stream"] == true,
        answer_schema: body["text"]["format"].get("schema").cloned(),
        ..Conversation::default()
    };
    for tool in body["tools"].as_array().into_iter().flatten() {
        read_tool(tool, None, &mut conversation.tools);
    }
    if body["previous_response_id"].is_string() {
        conversation.problems.push("it builds on a stored response, and nothing is stored here".into());
    }
    if let Some(instructions) = body["instructions"].as_str() {
        conversation.items.push(Item::System(instructions.to_owned()));
    }
    if let Some(text) = body["input"].as_str() {
        conversation.items.push(Item::User(text.to_owned()));
    }
    for item in body["input"].as_array().into_iter().flatten() {
        read_item(item, &mut conversation);
    }
    conversation
}

fn read_tool(tool: &Value, namespace: Option<&str>, tools: &mut Vec<Tool>) {
    let input = match tool["type"].as_str() {
        Some("function") => ToolInput::Json,
        Some("custom") => ToolInput::Text,
        Some("local_shell") => ToolInput::LocalShell,
        Some("namespace") => {
            for inner in tool["tools"].as_array().into_iter().flatten() {
                read_tool(inner, tool["name"].as_str(), tools);
            }
            return;
        }
        _ => return,
    };
    let name = tool["name"].as_str().unwrap_or("local_shell").to_owned();
    tools.push(Tool { name, namespace: namespace.map(str::to_owned), input, schema: tool["parameters"].clone() });
}

fn read_item(item: &Value, conversation: &mut Conversation) {
    let call_id = || string(&item["call_id"]);
    let items = &mut conversation.items;
    match item["type"].as_str().unwrap_or("message") {
        "message" => {
            let text = text_of(&item["content"]);
            match item["role"].as_str() {
                Some("system" | "developer") => items.push(Item::System(text)),
                Some("user") => items.push(Item::User(text)),
                Some("assistant") => items.push(Item::Assistant(text)),
                _ => conversation.problems.push(format!("a message has the unknown role {}", item["role"])),
            }
        }
        "function_call" | "custom_tool_call" | "local_shell_call" => {
            let is_json = |text: &Value| serde_json::from_str::<Value>(text.as_str().unwrap_or_default()).is_ok();
            if item["type"] == "function_call" && !is_json(&item["arguments"]) {
                conversation.problems.push(format!("the arguments of the call {} are no JSON", item["call_id"]));
            }
            items.push(Item::Call { id: call_id(), name: string(&item["name"]) });
        }
        "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => {
            items.push(Item::Result { id: call_id(), name: String::new() });
        }
        "reasoning" | "web_search_call" | "item_reference" | "compaction" | "additional_tools" => {}
        other => conversation.problems.push(format!("an item has the unknown type {other}")),
    }
}

fn item(answer: &Answer, index: usize, part: &Part) -> Value {
    let id = format!("{}_{index}", answer.reply.id);
    match part {
        Part::Thought(text) => json!({"type": "reasoning", "id": format!("rs_{id}"),
                                      "summary": [{"type": "summary_text", "text": text}]}),
        Part::Text(text) => json!({"type": "message", "id": format!("msg_{id}"), "role": "assistant",
            "status": "completed", "content": [{"type": "output_text", "text": text, "annotations": []}]}),
        Part::Call(call) => {
            let call_id = format!("call_{}", call.id);
            let mut item = match &call.input {
                CallInput::Json(_) => json!({"type": "function_call", "id": format!("fc_{id}"), "call_id": call_id,
                    "name": call.name, "arguments": arguments(&call.input), "status": "completed"}),
                CallInput::Text(text) => json!({"type": "custom_tool_call", "id": format!("ctc_{id}"),
                    "call_id": call_id, "name": call.name, "input": text, "status": "completed"}),
                CallInput::LocalShell(line) => json!({"type": "local_shell_call", "id": format!("lsh_{id}"),
                    "call_id": call_id, "status": "completed",
                    "action": {"type": "exec", "command": ["bash", "-c", line], "env": {}}}),
            };
            if let Some(namespace) = &call.namespace {
                item["namespace"] = json!(namespace);
            }
            item
        }
    }
}

fn response(answer: &Answer, status: &str, output: &[Value]) -> Value {
    let usage = answer.usage;
    json!({
        "id": format!("resp_{}", answer.reply.id), "object": "response", "created_at": 0, "status": status,
        "model": answer.model, "output": output, "error": null, "incomplete_details": null,
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "metadata": {},
        "usage": {"input_tokens": usage.input_tokens, "input_tokens_details": {"cached_tokens": 0},
                  "output_tokens": usage.output_tokens, "output_tokens_details": {"reasoning_tokens": 0},
                  "total_tokens": usage.input_tokens + usage.output_tokens},
    })
}

fn items(answer: &Answer) -> Vec<Value> {
    answer.reply.parts.iter().enumerate().map(|(index, part)| item(answer, index, part)).collect()
}

pub(super) fn whole(answer: &Answer) -> Value {
    response(answer, "completed", &items(answer))
}

pub(super) fn events(answer: &Answer) -> Vec<String> {
    let mut sequence = 0;
    let mut events = Vec::new();
    let mut push = |mut event: Value| {
        event["sequence_number"] = json!(sequence);
        sequence += 1;
        events.push(named(&event));
    };
    push(json!({"type": "response.created", "response": response(answer, "in_progress", &[])}));
    let items = items(answer);
    for (index, (part, item)) in answer.reply.parts.iter().zip(&items).enumerate() {
        let id = &item["id"];
        push(json!({"type": "response.output_item.added", "output_index": index, "item": started(item)}));
        let at = |kind: &str| json!({"type": kind, "item_id": id, "output_index": index});
        match part {
            Part::Thought(text) => {
                let of =
                    |kind: &str, key: &str, value: Value| with(at(kind), &[("summary_index", json!(0)), (key, value)]);
                let summary = |text: &str| json!({"type": "summary_text", "text": text});
                push(of("response.reasoning_summary_part.added", "part", summary("")));
                pieces(text).iter().for_each(|p| push(of("response.reasoning_summary_text.delta", "delta", json!(p))));
                push(of("response.reasoning_summary_text.done", "text", json!(text)));
                push(of("response.reasoning_summary_part.done", "part", summary(text)));
            }
            Part::Text(text) => {
                let of =
                    |kind: &str, key: &str, value: Value| with(at(kind), &[("content_index", json!(0)), (key, value)]);
                let content = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
                push(of("response.content_part.added", "part", content("")));
                pieces(text).iter().for_each(|p| push(of("response.output_text.delta", "delta", json!(p))));
                push(of("response.output_text.done", "text", json!(text)));
                push(of("response.content_part.done", "part", content(text)));
            }
            Part::Call(call) => {
                let (kind, key) = match &call.input {
                    CallInput::Json(_) => ("response.function_call_arguments", "arguments"),
                    CallInput::Text(_) => ("response.custom_tool_call_input", "input"),
                    CallInput::LocalShell(_) => ("", ""),
                };
                if !kind.is_empty() {
                    let text = arguments(&call.input);
                    pieces(&text).iter().for_each(|p| push(with(at(&format!("{kind}.delta")), &[("delta", json!(p))])));
                    push(with(at(&format!("{kind}.done")), &[(key, json!(text))]));
                }
            }
        }
        push(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
    }
    push(json!({"type": "response.completed", "response": response(answer, "completed", &items)}));
    events
}

/// An item as it is when it begins: nothing of its content is there yet.
fn started(item: &Value) -> Value {
    let mut item = item.clone();
    for (key, empty) in [("content", json!([])), ("summary", json!([])), ("arguments", json!("")), ("input", json!(""))]
    {
        if item.get(key).is_some() {
            item[key] = empty;
        }
    }
    if item.get("status").is_some() {
        item["status"] = json!("in_progress");
    }
    item
}

fn with(mut event: Value, fields: &[(&str, Value)]) -> Value {
    for (key, value) in fields {
        event[*key] = value.clone();
    }
    event
}

//! OpenAI chat completions (`POST /v1/chat/completions`).

use serde_json::{Value, json};

use super::{Answer, arguments, data, pieces, string, text_of};
use crate::conversation::{Conversation, Item, Tool, ToolInput};
use crate::play::{Call, Part};

pub(super) fn read(body: &Value) -> Conversation {
    let mut conversation = Conversation {
        model: string(&body["model"]),
        stream: body["stream"] == true,
        tools: body["tools"].as_array().into_iter().flatten().map(tool).collect(),
        answer_schema: body["response_format"]["json_schema"].get("schema").cloned(),
        ..Conversation::default()
    };
    for message in body["messages"].as_array().into_iter().flatten() {
        read_message(message, &mut conversation);
    }
    conversation
}

fn tool(tool: &Value) -> Tool {
    let function = &tool["function"];
    Tool {
        name: string(&function["name"]),
        namespace: None,
        input: ToolInput::Json,
        schema: function["parameters"].clone(),
    }
}

fn read_message(message: &Value, conversation: &mut Conversation) {
    let text = text_of(&message["content"]);
    let items = &mut conversation.items;
    match message["role"].as_str() {
        Some("system" | "developer") => items.push(Item::System(text)),
        Some("user") => items.push(Item::User(text)),
        Some("assistant") => {
            let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
            if !text.is_empty() || calls.is_empty() {
                items.push(Item::Assistant(text));
            }
            for call in calls {
                let function = &call["function"];
                if serde_json::from_str::<Value>(function["arguments"].as_str().unwrap_or_default()).is_err() {
                    conversation.problems.push(format!("the arguments of the call {} are no JSON", call["id"]));
                }
                items.push(Item::Call { id: string(&call["id"]), name: string(&function["name"]) });
            }
        }
        Some("tool") => items.push(Item::Result { id: string(&message["tool_call_id"]), name: String::new() }),
        _ => conversation.problems.push(format!("a message has the unknown role {}", message["role"])),
    }
}

pub(super) fn whole(answer: &Answer) -> Value {
    let mut message = json!({"role": "assistant", "content": null});
    let joined = |thoughts: bool| {
        let texts = answer.reply.parts.iter().filter_map(|part| match part {
            Part::Thought(text) if thoughts => Some(text.as_str()),
            Part::Text(text) if !thoughts => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<String>()
    };
    if !joined(false).is_empty() {
        message["content"] = json!(joined(false));
    }
    if !joined(true).is_empty() {
        message["reasoning_content"] = json!(joined(true));
    }
    if answer.reply.has_calls() {
        message["tool_calls"] = answer.reply.calls().map(|call| call_json(call, &arguments(&call.input))).collect();
    }
    json!({
        "id": format!("chatcmpl-{}", answer.reply.id), "object": "chat.completion", "created": 0, "model": answer.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason(answer)}],
        "usage": usage(answer),
    })
}

fn call_json(call: &Call, arguments: &str) -> Value {
    json!({"id": format!("call_{}", call.id), "type": "function",
           "function": {"name": call.name, "arguments": arguments}})
}

fn finish_reason(answer: &Answer) -> &'static str {
    if answer.reply.has_calls() { "tool_calls" } else { "stop" }
}

fn usage(answer: &Answer) -> Value {
    let usage = answer.usage;
    json!({"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens,
           "total_tokens": usage.input_tokens + usage.output_tokens,
           "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}})
}

pub(super) fn events(answer: &Answer) -> Vec<String> {
    let chunk = |delta: Value, finish: Value| {
        data(&json!({
            "id": format!("chatcmpl-{}", answer.reply.id), "object": "chat.completion.chunk", "created": 0,
            "model": answer.model, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }))
    };
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    let mut call_index = 0;
    for part in &answer.reply.parts {
        match part {
            Part::Thought(text) => {
                events.extend(pieces(text).iter().map(|p| chunk(json!({"reasoning_content": p}), Value::Null)));
            }
            Part::Text(text) => {
                events.extend(pieces(text).iter().map(|p| chunk(json!({"content": p}), Value::Null)));
            }
            Part::Call(call) => {
                let mut head = call_json(call, "");
                head["index"] = json!(call_index);
                events.push(chunk(json!({"tool_calls": [head]}), Value::Null));
                events.extend(pieces(&arguments(&call.input)).iter().map(|piece| {
                    let tail = json!({"index": call_index, "function": {"arguments": piece}});
                    chunk(json!({"tool_calls": [tail]}), Value::Null)
                }));
                call_index += 1;
            }
        }
    }
    events.push(chunk(json!({}), json!(finish_reason(answer))));
    if answer.request["stream_options"]["include_usage"] == true {
        events.push(data(&json!({
            "id": format!("chatcmpl-{}", answer.reply.id), "object": "chat.completion.chunk", "created": 0,
            "model": answer.model, "choices": [], "usage": usage(answer),
        })));
    }
    events.push("data: [DONE]\n\n".into());
    events
}

//! Replies in the four formats, as their providers stream them.

use serde_json::{Value, json};

use super::model::{Ending, Part};

/// The events of a reply, in the format of the path. A reply that does not end lacks the last ones.
pub(crate) fn events(path: &str, parts: &[Part], ending: Ending, input_tokens: usize) -> Vec<String> {
    let whole = matches!(ending, Ending::Done | Ending::OutputLimit);
    let limit = ending == Ending::OutputLimit;
    if path.ends_with("/chat/completions") {
        chat(parts, whole, limit, input_tokens)
    } else if path.ends_with("/responses") {
        responses(parts, whole, limit, input_tokens)
    } else if path.ends_with("/messages") {
        anthropic(parts, whole, limit, input_tokens)
    } else {
        gemini(parts, whole, limit, input_tokens)
    }
}

fn halves(text: &str) -> (&str, &str) {
    text.split_at(text.floor_char_boundary(text.len() / 2))
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn named(name: &str, mut value: Value) -> String {
    value["type"] = json!(name);
    format!("event: {name}\ndata: {value}\n\n")
}

fn chat(parts: &[Part], whole: bool, limit: bool, input_tokens: usize) -> Vec<String> {
    let delta = |delta: Value| data(&json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] }));
    let mut events = Vec::new();
    let mut index = 0;
    for part in parts {
        match part {
            Part::Text(text) => {
                let (first, second) = halves(text);
                events.extend([delta(json!({ "content": first })), delta(json!({ "content": second }))]);
            }
            Part::Thought(text, _) => events.push(delta(json!({ "reasoning_content": text }))),
            Part::Call(name, input) => {
                let (first, second) = halves(input);
                events.push(delta(json!({ "tool_calls": [{
                    "index": index, "id": format!("provider-{index}"), "type": "function",
                    "function": { "name": name, "arguments": first },
                }] })));
                events.push(delta(json!({ "tool_calls": [{ "index": index, "function": { "arguments": second } }] })));
                index += 1;
            }
        }
    }
    if whole {
        let reason = if limit {
            "length"
        } else if index > 0 {
            "tool_calls"
        } else {
            "stop"
        };
        events.push(data(&json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })));
        let usage =
            json!({ "prompt_tokens": input_tokens, "completion_tokens": 20, "total_tokens": input_tokens + 20 });
        events.push(data(&json!({ "choices": [], "usage": usage })));
        events.push("data: [DONE]\n\n".to_owned());
    }
    events
}

fn responses(parts: &[Part], whole: bool, limit: bool, input_tokens: usize) -> Vec<String> {
    let mut events = vec![named("response.created", json!({ "response": { "id": "resp_1" } }))];
    let mut output = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        match part {
            Part::Text(text) => {
                let (first, second) = halves(text);
                for delta in [first, second] {
                    events.push(named("response.output_text.delta", json!({ "output_index": index, "delta": delta })));
                }
            }
            Part::Thought(text, signature) => {
                let delta = json!({ "output_index": index, "delta": text });
                events.push(named("response.reasoning_summary_text.delta", delta));
                let item = json!({ "type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": signature });
                events.push(named("response.output_item.done", json!({ "output_index": index, "item": item })));
            }
            Part::Call(name, input) => {
                let item = |arguments: &str| {
                    json!({
                        "type": "function_call", "id": format!("fc_{index}"), "call_id": format!("provider-{index}"),
                        "name": name, "arguments": arguments,
                    })
                };
                events.push(named("response.output_item.added", json!({ "output_index": index, "item": item("") })));
                let (first, second) = halves(input);
                for delta in [first, second] {
                    let delta = json!({ "output_index": index, "delta": delta });
                    events.push(named("response.function_call_arguments.delta", delta));
                }
                if whole {
                    events.push(named(
                        "response.output_item.done",
                        json!({ "output_index": index, "item": item(input) }),
                    ));
                    output.push(item(input));
                }
            }
        }
    }
    if whole {
        let (name, status) =
            if limit { ("response.incomplete", "incomplete") } else { ("response.completed", "completed") };
        let usage = json!({ "input_tokens": input_tokens, "output_tokens": 20, "total_tokens": input_tokens + 20 });
        let response =
            json!({ "id": "resp_1", "model": "scripted-1", "status": status, "output": output, "usage": usage });
        events.push(named(name, json!({ "response": response })));
    }
    events
}

fn anthropic(parts: &[Part], whole: bool, limit: bool, input_tokens: usize) -> Vec<String> {
    let usage = json!({ "input_tokens": input_tokens, "output_tokens": 1 });
    let mut events = vec![named("message_start", json!({ "message": { "id": "msg_1", "usage": usage } }))];
    for (index, part) in parts.iter().enumerate() {
        let start = |block: Value| named("content_block_start", json!({ "index": index, "content_block": block }));
        let delta = |delta: Value| named("content_block_delta", json!({ "index": index, "delta": delta }));
        match part {
            Part::Text(text) => {
                let (first, second) = halves(text);
                events.push(start(json!({ "type": "text", "text": "" })));
                events.push(delta(json!({ "type": "text_delta", "text": first })));
                events.push(delta(json!({ "type": "text_delta", "text": second })));
            }
            Part::Thought(text, signature) => {
                events.push(start(json!({ "type": "thinking", "thinking": "", "signature": "" })));
                events.push(delta(json!({ "type": "thinking_delta", "thinking": text })));
                events.push(delta(json!({ "type": "signature_delta", "signature": signature })));
            }
            Part::Call(name, input) => {
                let id = format!("toolu_{index}");
                events.push(start(json!({ "type": "tool_use", "id": id, "name": name, "input": {} })));
                let (first, second) = halves(input);
                events.push(delta(json!({ "type": "input_json_delta", "partial_json": first })));
                events.push(delta(json!({ "type": "input_json_delta", "partial_json": second })));
            }
        }
        if whole {
            events.push(named("content_block_stop", json!({ "index": index })));
        }
    }
    if whole {
        let calling = parts.iter().any(|part| matches!(part, Part::Call(..)));
        let reason = if limit {
            "max_tokens"
        } else if calling {
            "tool_use"
        } else {
            "end_turn"
        };
        let usage = json!({ "output_tokens": 20 });
        events.push(named("message_delta", json!({ "delta": { "stop_reason": reason }, "usage": usage })));
        events.push(named("message_stop", json!({})));
    }
    events
}

fn gemini(parts: &[Part], whole: bool, limit: bool, input_tokens: usize) -> Vec<String> {
    let chunk = |parts: Value, reason: Option<&str>| {
        let mut candidate = json!({ "content": { "role": "model", "parts": parts } });
        if let Some(reason) = reason {
            candidate["finishReason"] = json!(reason);
        }
        let usage = json!({ "promptTokenCount": input_tokens, "candidatesTokenCount": 20, "totalTokenCount": input_tokens + 20 });
        data(&json!({ "candidates": [candidate], "usageMetadata": usage }))
    };
    let mut events = Vec::new();
    let mut signature_due = None;
    for part in parts {
        match part {
            Part::Text(text) => {
                let (first, second) = halves(text);
                events.push(chunk(json!([{ "text": first }]), None));
                events.push(chunk(json!([{ "text": second }]), None));
            }
            Part::Thought(text, signature) => {
                // This format signs the first call that follows.
                signature_due = Some(signature);
                events.push(chunk(json!([{ "text": text, "thought": true }]), None));
            }
            Part::Call(name, input) => {
                // The arguments of this format are never in pieces, so that they cannot be cut.
                let args: Value = serde_json::from_str(input).unwrap_or_else(|_| json!({}));
                let mut call = json!({ "functionCall": { "name": name, "args": args } });
                if let Some(signature) = signature_due.take() {
                    call["thoughtSignature"] = json!(signature);
                }
                events.push(chunk(json!([call]), None));
            }
        }
    }
    if whole {
        events.push(chunk(json!([]), Some(if limit { "MAX_TOKENS" } else { "STOP" })));
    }
    events
}

//! Gemini (`POST …/models/{model}:generateContent` and `:streamGenerateContent`).
//!
//! The path, not the body, says the model and whether to stream; the server fills both in.

use serde_json::{Value, json};

use super::{Answer, arguments_json, data, pieces, string, text_of};
use crate::conversation::{Conversation, Item, Tool, ToolInput};
use crate::play::Part;

pub(super) fn read(body: &Value) -> Conversation {
    let config = &body["generationConfig"];
    let schema = config.get("responseJsonSchema").or_else(|| config.get("responseSchema"));
    let declarations = body["tools"].as_array().into_iter().flatten().flat_map(|tool| {
        let declared = tool.get("functionDeclarations").or_else(|| tool.get("function_declarations"));
        declared.and_then(Value::as_array).into_iter().flatten()
    });
    let mut conversation = Conversation {
        tools: declarations.map(tool).collect(),
        answer_schema: schema.cloned(),
        ..Conversation::default()
    };
    let system = body.get("systemInstruction").or_else(|| body.get("system_instruction"));
    if let Some(system) = system {
        conversation.items.push(Item::System(text_of(&system["parts"])));
    }
    for content in body["contents"].as_array().into_iter().flatten() {
        match content["role"].as_str() {
            Some("user" | "function") | None => read_user(&content["parts"], &mut conversation.items),
            Some("model") => read_model(&content["parts"], &mut conversation.items),
            Some(role) => conversation.problems.push(format!("a content has the unknown role {role}")),
        }
    }
    conversation
}

fn tool(declaration: &Value) -> Tool {
    let schema = declaration.get("parametersJsonSchema").unwrap_or(&declaration["parameters"]);
    let mut schema = schema.clone();
    lower_types(&mut schema);
    Tool { name: string(&declaration["name"]), namespace: None, input: ToolInput::Json, schema }
}

/// Gemini's own schemas write `STRING` where JSON schema writes `string`.
fn lower_types(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(kind)) = map.get_mut("type") {
                kind.make_ascii_lowercase();
            }
            map.values_mut().for_each(lower_types);
        }
        Value::Array(list) => list.iter_mut().for_each(lower_types),
        _ => {}
    }
}

fn read_user(parts: &Value, items: &mut Vec<Item>) {
    let responses = parts.as_array().into_iter().flatten().filter_map(|part| part.get("functionResponse"));
    let before = items.len();
    items.extend(responses.map(|r| Item::Result { id: string(&r["id"]), name: string(&r["name"]) }));
    let text = text_of(parts);
    if !text.is_empty() || items.len() == before {
        items.push(Item::User(text));
    }
}

fn read_model(parts: &Value, items: &mut Vec<Item>) {
    let text = text_of(parts);
    let calls = parts.as_array().into_iter().flatten().filter_map(|part| part.get("functionCall"));
    if !text.is_empty() {
        items.push(Item::Assistant(text));
    }
    items.extend(calls.map(|call| Item::Call { id: string(&call["id"]), name: string(&call["name"]) }));
}

fn chunk(answer: &Answer, parts: &Value, finish: Option<&str>) -> Value {
    let usage = answer.usage;
    let mut candidate = json!({"index": 0, "content": {"role": "model", "parts": parts}});
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    json!({
        "candidates": [candidate], "modelVersion": answer.model, "responseId": answer.reply.id,
        "usageMetadata": {"promptTokenCount": usage.input_tokens, "candidatesTokenCount": usage.output_tokens,
                          "totalTokenCount": usage.input_tokens + usage.output_tokens},
    })
}

fn part_json(part: &Part) -> Value {
    match part {
        Part::Thought(text) => json!({"text": text, "thought": true}),
        Part::Text(text) => json!({"text": text}),
        Part::Call(call) => json!({"functionCall": {"id": format!("call_{}", call.id), "name": call.name,
                                                    "args": arguments_json(&call.input)}}),
    }
}

pub(super) fn whole(answer: &Answer) -> Value {
    let parts: Vec<Value> = answer.reply.parts.iter().map(part_json).collect();
    chunk(answer, &json!(parts), Some("STOP"))
}

pub(super) fn events(answer: &Answer) -> Vec<String> {
    let mut parts = Vec::new();
    for part in &answer.reply.parts {
        match part {
            Part::Thought(text) => parts.extend(pieces(text).iter().map(|p| json!({"text": p, "thought": true}))),
            Part::Text(text) => parts.extend(pieces(text).iter().map(|p| json!({"text": p}))),
            Part::Call(_) => parts.push(part_json(part)),
        }
    }
    let last = parts.len().saturating_sub(1);
    let event = |(at, part): (usize, &Value)| data(&chunk(answer, &json!([part]), (at == last).then_some("STOP")));
    parts.iter().enumerate().map(event).collect()
}

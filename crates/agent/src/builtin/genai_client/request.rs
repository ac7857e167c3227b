//! Writes the conversation as a request of `genai`, which writes it in the endpoint's format.

use base64::Engine as _;
use genai::chat::{
    CacheControl, ChatMessage, ChatRequest, ChatRole, ContentPart, MessageOptions, Tool, ToolCall, ToolResponse,
};
use serde_json::{Value, json};

use super::shortened;
use crate::agent::Image;
use crate::builtin::conversation::{Item, Step, Thought, has_several_authors};
use crate::builtin::model::{ModelFormat, Request};

pub(super) fn chat_request(request: &Request<'_>, format: ModelFormat) -> ChatRequest {
    let mut messages = vec![ChatMessage::system(request.system)];
    let named = has_several_authors(request.items);
    for item in request.items {
        match item {
            Item::Prompt { author, text, images } => {
                let text = if named { format!("{}: {text}", author.name) } else { text.clone() };
                push_user(&mut messages, text, images);
            }
            Item::Note { text, .. } => push_user(&mut messages, text.clone(), &[]),
            Item::Step(step) => push_step(&mut messages, step),
        }
    }
    if format == ModelFormat::Anthropic {
        // Two marks: the system prompt with the tools before it, and all of the conversation so far.
        let mark = || Some(MessageOptions::default().with_cache_control(CacheControl::Ephemeral));
        if let Some(first) = messages.first_mut() {
            first.options = mark();
        }
        if let Some(last) = messages.last_mut() {
            last.options = mark();
        }
    }
    let tools = request
        .tools
        .iter()
        .map(|tool| Tool::new(tool.name).with_description(tool.description).with_schema(tool.schema.clone()));
    let chat = ChatRequest::new(messages);
    if request.tools.is_empty() { chat } else { chat.with_tools(tools) }
}

/// Joins what users say one after the other: some providers want roles to alternate.
fn push_user(messages: &mut Vec<ChatMessage>, text: String, images: &[Image]) {
    // Some providers refuse a text without words.
    let text = match (text.trim().is_empty(), images.is_empty()) {
        (false, _) => Some(text),
        (true, true) => Some("[a prompt without words]".to_owned()),
        (true, false) => None,
    };
    let mut parts: Vec<ContentPart> = text.map(ContentPart::Text).into_iter().collect();
    parts.extend(images.iter().map(image_part));
    match messages.last_mut() {
        Some(last) if last.role == ChatRole::User => last.content.extend(parts),
        _ => messages.push(ChatMessage::user(parts)),
    }
}

fn push_step(messages: &mut Vec<ChatMessage>, step: &Step) {
    let mut parts: Vec<ContentPart> = step.thoughts.iter().map(thought_part).collect();
    if !step.text.trim().is_empty() {
        parts.push(ContentPart::Text(step.text.clone()));
    }
    parts.extend(step.calls.iter().map(|call| {
        ContentPart::ToolCall(ToolCall {
            call_id: call.id.clone(),
            fn_name: call.name.clone(),
            fn_arguments: object(&call.input),
            thought_signatures: (!call.signatures.is_empty()).then(|| call.signatures.clone()),
        })
    }));
    if parts.is_empty() {
        return;
    }
    messages.push(ChatMessage::assistant(parts));
    if step.calls.is_empty() {
        return;
    }
    let results = step.calls.iter().map(|call| ToolResponse::new(&call.id, &call.output).with_fn_name(&call.name));
    messages.push(ChatMessage::tool(results.map(ContentPart::ToolResponse).collect::<Vec<_>>()));
    // Results carry words only, so that pictures follow in a message of their own.
    for call in step.calls.iter().filter(|call| !call.images.is_empty()) {
        push_user(messages, format!("The image of the {} call {}:", call.name, call.id), &call.images);
    }
}

fn image_part(image: &Image) -> ContentPart {
    let base64 = base64::engine::general_purpose::STANDARD.encode(&image.bytes);
    ContentPart::from_binary_base64(image.media_type.clone(), base64, None)
}

fn thought_part(thought: &Thought) -> ContentPart {
    match thought {
        Thought::Signature(signature) => ContentPart::ThoughtSignature(signature.clone()),
        Thought::Words(words) => ContentPart::ReasoningContent(words.clone()),
        Thought::Opaque(block) => ContentPart::from_custom(block.clone(), None),
    }
}

/// Providers refuse arguments that are no object; the model shall still see what it wrote.
fn object(input: &Value) -> Value {
    match input {
        Value::Object(_) => input.clone(),
        Value::String(text) => json!({ "unreadable_arguments": shortened(text) }),
        other => json!({ "unreadable_arguments": shortened(&other.to_string()) }),
    }
}

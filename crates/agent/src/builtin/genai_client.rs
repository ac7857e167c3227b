//! Speaks to the model through the `genai` crate. Its types end here.
//!
//! Retries are not made here: the gateway makes them, with the provider's `retry-after`.

use std::collections::HashSet;
use std::sync::OnceLock;

use base64::Engine as _;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use genai::adapter::AdapterKind;
use genai::chat::{
    CacheControl, ChatMessage, ChatOptions, ChatRequest, ChatRole, ChatStream, ChatStreamEvent, ContentPart,
    MessageContent, MessageOptions, ReasoningEffort, StopReason, StreamEnd, Tool, ToolCall, ToolResponse,
};
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ModelIden, ServiceTarget};
use serde_json::{Value, json};

use super::chat_calls::ChatCalls;
use super::conversation::{Item, Step, Thought, has_several_authors};
use super::model::{
    Answer, AnswerStop, AskedCall, ModelClient, ModelEndpoint, ModelError, ModelEvent, ModelFormat, Reasoning, Request,
    Usage,
};
use crate::agent::Image;

/// An answer longer than this is cut off: no model writes so much, so the other side is broken.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// So many calls are told while they stream.
const CALLS_MAX: usize = 128;
const REASON_CHARS_MAX: usize = 600;

/// One for all sessions of the process: it keeps the pool of connections, and a session's start builds nothing.
static CLIENT: OnceLock<Client> = OnceLock::new();

/// A model behind one endpoint.
pub(super) struct GenaiClient {
    client: Client,
    endpoint: ModelEndpoint,
}

impl GenaiClient {
    pub(super) fn new(endpoint: ModelEndpoint) -> Result<Self, ModelError> {
        let client = match CLIENT.get() {
            Some(client) => client.clone(),
            None => {
                install_crypto();
                let built = Client::builder().build();
                let built = built.map_err(|error| ModelError::Refused(shortened(&error.to_string())))?;
                CLIENT.get_or_init(|| built).clone()
            }
        };
        Ok(Self { client, endpoint })
    }

    fn target(&self, model: &str) -> ServiceTarget {
        let kind = match self.endpoint.format {
            ModelFormat::OpenAiChat => AdapterKind::OpenAI,
            ModelFormat::OpenAiResponses => AdapterKind::OpenAIResp,
            ModelFormat::Anthropic => AdapterKind::Anthropic,
            ModelFormat::Gemini => AdapterKind::Gemini,
        };
        // Joined to the path as a URL: without the slash at its end the last segment would be replaced.
        let base = format!("{}/", self.endpoint.base_url.trim_end_matches('/'));
        ServiceTarget {
            endpoint: Endpoint::from_owned(base),
            auth: AuthData::from_single(self.endpoint.token.clone()),
            model: ModelIden::new(kind, model.to_owned()),
        }
    }

    fn options(&self, request: &Request<'_>) -> ChatOptions {
        let mut options = ChatOptions::default()
            .with_max_tokens(request.output_tokens_max)
            .with_capture_usage(true)
            .with_capture_content(true)
            // See `chat_calls` for the one format that is put together here.
            .with_capture_tool_calls(self.endpoint.format != ModelFormat::OpenAiChat)
            .with_capture_reasoning_content(true);
        if let Some(reasoning) = request.reasoning {
            options = options.with_reasoning_effort(match reasoning {
                Reasoning::Low => ReasoningEffort::Low,
                Reasoning::Medium => ReasoningEffort::Medium,
                Reasoning::High => ReasoningEffort::High,
            });
        }
        if self.endpoint.format != ModelFormat::Gemini {
            // Names that end in `-high` and the like are taken apart by the crate; the endpoint wants them whole.
            options = options.with_extra_body(json!({ "model": request.model }));
        }
        options
    }
}

impl ModelClient for GenaiClient {
    fn stream(&self, request: &Request<'_>) -> BoxStream<'static, Result<ModelEvent, ModelError>> {
        let client = self.client.clone();
        let target = self.target(request.model);
        let options = self.options(request);
        let chat = chat_request(request, self.endpoint.format);
        let format = self.endpoint.format;
        let opened = async move {
            match client.exec_chat_stream(target, chat, Some(&options)).await {
                Ok(response) => events(response.stream, format).boxed(),
                Err(error) => stream::iter([Err(model_error(&error))]).boxed(),
            }
        };
        stream::once(opened).flatten().boxed()
    }
}

/// Where another crate of the program asks for a TLS stack without saying which, as the gateway's does, a client
/// panics unless there is one. It is not used here: the endpoint is the gateway's, on this machine.
fn install_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails when another thread was faster, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}

fn events(inner: ChatStream, format: ModelFormat) -> impl stream::Stream<Item = Result<ModelEvent, ModelError>> {
    let chat_calls = ChatCalls::default();
    let reading = Reading { inner, format, begun: HashSet::new(), chat_calls, bytes: 0, over: false };
    stream::unfold(reading, |mut reading| async move { reading.next().await.map(|event| (event, reading)) })
}

/// An answer as it comes in.
struct Reading {
    inner: ChatStream,
    format: ModelFormat,
    begun: HashSet<String>,
    /// The calls of a chat completion; other formats bring theirs whole at the end.
    chat_calls: ChatCalls,
    bytes: usize,
    over: bool,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<ModelEvent, ModelError>> {
        while !self.over {
            let event = match self.inner.next().await? {
                Ok(event) => self.read(event),
                Err(error) => Some(Err(model_error(&error))),
            };
            self.over = matches!(event, Some(Err(_) | Ok(ModelEvent::End(_))));
            if event.is_some() {
                return event;
            }
        }
        None
    }

    fn read(&mut self, event: ChatStreamEvent) -> Option<Result<ModelEvent, ModelError>> {
        let event = match event {
            ChatStreamEvent::Start | ChatStreamEvent::ThoughtSignatureChunk(_) => return None,
            ChatStreamEvent::Heartbeat => ModelEvent::Alive,
            ChatStreamEvent::Chunk(chunk) => ModelEvent::Text(self.counted(chunk.content)),
            ChatStreamEvent::ReasoningChunk(chunk) => ModelEvent::Thought(self.counted(chunk.content)),
            ChatStreamEvent::ToolCallChunk(chunk) => self.read_call(chunk.tool_call),
            ChatStreamEvent::End(end) => {
                let chat_calls = std::mem::take(&mut self.chat_calls).finish();
                return Some(answer(end, chat_calls, self.format).map(ModelEvent::End));
            }
        };
        Some(if self.bytes > ANSWER_BYTES_MAX { Err(too_long()) } else { Ok(event) })
    }

    fn read_call(&mut self, call: ToolCall) -> ModelEvent {
        let ToolCall { call_id, fn_name, fn_arguments, .. } = call;
        let arguments = fn_arguments.as_str().unwrap_or_default();
        let began = if self.format == ModelFormat::OpenAiChat {
            self.bytes += arguments.len();
            self.chat_calls.add(&call_id, &fn_name, arguments)
        } else {
            // The arguments so far come each time, so that their length is no sum.
            self.bytes = self.bytes.max(arguments.len());
            !fn_name.is_empty() && self.begun.len() < CALLS_MAX && self.begun.insert(call_id)
        };
        if began { ModelEvent::CallBegan { name: fn_name } } else { ModelEvent::Alive }
    }

    fn counted(&mut self, text: String) -> String {
        self.bytes += text.len();
        text
    }
}

fn too_long() -> ModelError {
    ModelError::Refused(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes"))
}

fn answer(end: StreamEnd, calls: Vec<AskedCall>, format: ModelFormat) -> Result<Answer, ModelError> {
    let stop = match &end.captured_stop_reason {
        Some(StopReason::MaxTokens(_)) => AnswerStop::OutputLimit,
        Some(StopReason::ContentFilter(_)) => AnswerStop::Refused,
        // These two formats end their stream quietly when the connection breaks between two events.
        None if matches!(format, ModelFormat::OpenAiResponses | ModelFormat::Gemini) => {
            return Err(ModelError::Cut("the stream ended without a reason".to_owned()));
        }
        _ => AnswerStop::Done,
    };
    let usage = end.captured_usage.as_ref().and_then(|usage| {
        let input = usage.prompt_tokens.and_then(|tokens| u64::try_from(tokens).ok())?;
        let output = usage.completion_tokens.and_then(|tokens| u64::try_from(tokens).ok()).unwrap_or(0);
        (input > 0).then_some(Usage { input_tokens: input, output_tokens: output })
    });
    let mut answer = Answer { calls, stop, usage, ..Answer::default() };
    let mut words_kept = false;
    for part in end.captured_content.map(MessageContent::into_parts).unwrap_or_default() {
        match part {
            ContentPart::Text(text) => answer.text.push_str(&text),
            ContentPart::ToolCall(call) => answer.calls.push(asked(call)),
            ContentPart::ThoughtSignature(signature) => answer.thoughts.push(Thought::Signature(signature)),
            ContentPart::ReasoningContent(words) => {
                words_kept = true;
                answer.thoughts.push(Thought::Words(words));
            }
            ContentPart::Custom(custom) => answer.thoughts.push(Thought::Opaque(custom.data)),
            _ => {}
        }
    }
    if let Some(words) = end.captured_reasoning_content.filter(|_| !words_kept && format == ModelFormat::OpenAiChat) {
        answer.thoughts.push(Thought::Words(words));
    }
    Ok(answer)
}

fn asked(call: ToolCall) -> AskedCall {
    let input = match call.fn_arguments {
        // Some models send nothing at all for a tool without arguments.
        Value::String(text) if text.trim().is_empty() => json!({}),
        Value::Null => json!({}),
        other => other,
    };
    AskedCall { name: call.fn_name, input, signatures: call.thought_signatures.unwrap_or_default() }
}

fn chat_request(request: &Request<'_>, format: ModelFormat) -> ChatRequest {
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

fn model_error(error: &genai::Error) -> ModelError {
    let inner = match error {
        genai::Error::WebStream { error: inner, .. } => inner.downcast_ref::<genai::Error>(),
        _ => None,
    };
    let error = inner.unwrap_or(error);
    match error {
        genai::Error::HttpError { status, body, .. } => {
            let said = format!("HTTP {}: {}", status.as_u16(), shortened(body));
            if is_overflow(status.as_u16(), body) { ModelError::Overflow(said) } else { ModelError::Refused(said) }
        }
        genai::Error::ChatResponse { body, .. } => {
            let body = body.to_string();
            if is_overflow(400, &body) {
                ModelError::Overflow(shortened(&body))
            } else {
                ModelError::Cut(shortened(&body))
            }
        }
        genai::Error::WebStream { cause, .. } => ModelError::Cut(shortened(cause)),
        genai::Error::StreamParse { serde_error, .. } => ModelError::Cut(shortened(&serde_error.to_string())),
        other => ModelError::Refused(shortened(&other.to_string())),
    }
}

/// Providers have no common code for it; these are the words of the four formats and their imitators.
fn is_overflow(status: u16, body: &str) -> bool {
    const SAYINGS: [&str; 6] = [
        "context_length_exceeded",
        "maximum context length",
        "prompt is too long",
        "exceeds the maximum number of tokens",
        "context window",
        "input token count",
    ];
    let body = body.to_lowercase();
    matches!(status, 400 | 413 | 422) && SAYINGS.iter().any(|saying| body.contains(saying))
}

fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

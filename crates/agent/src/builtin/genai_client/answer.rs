//! Reads an answer as it streams in, and puts the whole of it together.

use std::collections::HashSet;

use futures_util::{StreamExt as _, stream};
use genai::chat::{ChatStream, ChatStreamEvent, ContentPart, MessageContent, StopReason, StreamEnd, ToolCall};
use serde_json::{Value, json};

use super::model_error;
use crate::builtin::chat_calls::ChatCalls;
use crate::builtin::conversation::Thought;
use crate::builtin::model::{Answer, AnswerStop, AskedCall, ModelError, ModelEvent, ModelFormat, Usage};

/// An answer longer than this is cut off: no model writes so much, so the other side is broken.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// So many calls are told while they stream.
const CALLS_MAX: usize = 128;

/// The answer's events, up to its end or its first error.
pub(super) fn events(
    inner: ChatStream,
    format: ModelFormat,
) -> impl stream::Stream<Item = Result<ModelEvent, ModelError>> {
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

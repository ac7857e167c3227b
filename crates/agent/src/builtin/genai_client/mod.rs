//! Speaks to the model through the `genai` crate. Its types end here.
//!
//! Retries are not made here: the gateway makes them, with the provider's `retry-after`.

mod answer;
mod request;

use std::sync::OnceLock;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use genai::adapter::AdapterKind;
use genai::chat::{ChatOptions, ReasoningEffort};
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ModelIden, ServiceTarget};
use serde_json::json;

use super::model::{ModelClient, ModelEndpoint, ModelError, ModelEvent, ModelFormat, Reasoning, Request};

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
        let chat = request::chat_request(request, self.endpoint.format);
        let format = self.endpoint.format;
        let opened = async move {
            match client.exec_chat_stream(target, chat, Some(&options)).await {
                Ok(response) => answer::events(response.stream, format).boxed(),
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

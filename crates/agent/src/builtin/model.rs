//! The model as the loop sees it: a request goes in, events come out, a whole answer ends the stream.
//!
//! Nothing here knows a provider's wire format; [`genai_client`](super::genai_client) does.

use std::fmt;

use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conversation::{Item, Thought};

/// Where a model is reached: the session's gateway, which adds the key and meters the use.
#[derive(Clone, PartialEq, Eq)]
pub struct ModelEndpoint {
    /// The base URL of the format's API, such as `http://127.0.0.1:4661/v1`. A slash at the end makes no difference.
    pub base_url: String,
    /// The token that the gateway knows the session by. It is no provider's key.
    pub token: String,
    /// The format that the endpoint speaks.
    pub format: ModelFormat,
}

impl ModelEndpoint {
    /// The endpoint of a format at a server that offers all four at their usual paths, such as the gateway at
    /// `http://127.0.0.1:4661`.
    pub fn at(server: &str, token: impl Into<String>, format: ModelFormat) -> Self {
        let version = if format == ModelFormat::Gemini { "v1beta" } else { "v1" };
        let base_url = format!("{}/{version}", server.trim_end_matches('/'));
        Self { base_url, token: token.into(), format }
    }
}

impl fmt::Debug for ModelEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelEndpoint")
            .field("base_url", &self.base_url)
            .field("token", &"…")
            .field("format", &self.format)
            .finish()
    }
}

/// The wire formats of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelFormat {
    /// OpenAI chat completions: `POST {base}/chat/completions`.
    #[serde(rename = "openai_chat")]
    OpenAiChat,
    /// OpenAI responses: `POST {base}/responses`.
    #[serde(rename = "openai_responses")]
    OpenAiResponses,
    /// Anthropic messages: `POST {base}/messages`.
    Anthropic,
    /// Gemini: `POST {base}/models/{model}:streamGenerateContent`.
    Gemini,
}

/// How much a model thinks before it answers, where the model lets one choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reasoning {
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}

/// Something that answers a [`Request`].
pub(super) trait ModelClient: Send + Sync {
    /// Sends the request when the stream is first polled. Dropping the stream cancels the request.
    ///
    /// The stream ends with [`ModelEvent::End`] or an error; one that just ends was cut.
    fn stream(&self, request: &Request<'_>) -> BoxStream<'static, Result<ModelEvent, ModelError>>;
}

/// What a model is asked.
pub(super) struct Request<'a> {
    pub(super) model: &'a str,
    pub(super) system: &'a str,
    pub(super) items: &'a [Item],
    pub(super) tools: &'a [ToolSpec],
    pub(super) output_tokens_max: u32,
    pub(super) reasoning: Option<Reasoning>,
}

/// A tool as the model knows it.
#[derive(Debug, Clone)]
pub(super) struct ToolSpec {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    /// The JSON schema of the arguments, an object.
    pub(super) schema: Value,
}

/// What a model sends while it answers.
#[derive(Debug)]
pub(super) enum ModelEvent {
    /// The next piece of the answer's words.
    Text(String),
    /// The next piece of the thinking that the provider shows.
    Thought(String),
    /// The answer's next tool call began; its arguments still stream.
    CallBegan {
        /// The tool's name.
        name: String,
    },
    /// The provider says that it is still there.
    Alive,
    /// The answer is whole.
    End(Answer),
}

/// A whole answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) thoughts: Vec<Thought>,
    pub(super) calls: Vec<AskedCall>,
    pub(super) stop: AnswerStop,
    pub(super) usage: Option<Usage>,
}

/// A tool call as the model asked for it.
#[derive(Debug, Clone)]
pub(super) struct AskedCall {
    pub(super) name: String,
    /// The arguments; a string where they were no JSON.
    pub(super) input: Value,
    /// Opaque signatures that the provider wants back with this very call.
    pub(super) signatures: Vec<String>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum AnswerStop {
    /// The model was done, or wants its tools run.
    #[default]
    Done,
    /// The output limit cut it.
    OutputLimit,
    /// The model or a filter of the provider refused.
    Refused,
}

/// Tokens of one request and its answer, as the provider counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// Of the request, those read from a cache included.
    pub(super) input_tokens: u64,
    /// Of the answer, thinking included.
    pub(super) output_tokens: u64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ModelError {
    /// The connection failed or broke off; the same request may succeed.
    #[error("the answer broke off: {0}")]
    Cut(String),
    /// The conversation is longer than the model's window.
    #[error("the conversation does not fit the model: {0}")]
    Overflow(String),
    /// The provider refused the request, after what retries the gateway makes.
    #[error("{0}")]
    Refused(String),
}

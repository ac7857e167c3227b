//! What a provider says that a call has used, in each of the four wire formats.
//!
//! Sources: OpenAI API reference ("chat completion chunk", "response.completed"), Anthropic API reference
//! ("streaming messages": counts in `message_delta` are cumulative), Gemini API reference ("UsageMetadata").

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::config::{Prices, WireFormat};

/// Tokens of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Tokens read, cached ones included.
    pub(crate) input: u64,
    /// Of those, tokens read from a cache.
    pub(crate) cached: u64,
    /// Of those, tokens written to a cache.
    pub(crate) cache_write: u64,
    /// Tokens written, thinking included.
    pub(crate) output: u64,
}

impl Usage {
    /// Reads the usage of one JSON document: a whole answer, or one event of a streamed one.
    pub(crate) fn read(format: WireFormat, document: &[u8]) -> Option<Self> {
        // Most events carry text only. Looking for the word is far cheaper than reading the document.
        if !contains(document, b"\"usage") {
            return None;
        }
        match format {
            WireFormat::ChatCompletions => Some(serde_json::from_slice::<Chat>(document).ok()?.usage?.into()),
            WireFormat::Responses => {
                let document: Responses = serde_json::from_slice(document).ok()?;
                let nested = document.response.and_then(|response| response.usage);
                Some(document.usage.or(nested)?.into())
            }
            WireFormat::Messages => {
                let document: Messages = serde_json::from_slice(document).ok()?;
                let nested = document.message.and_then(|message| message.usage);
                Some(document.usage.or(nested)?.into())
            }
            // Without `alt=sse` a streamed answer is one array of documents.
            WireFormat::GenerateContent => match serde_json::from_slice::<Generated>(document).ok()? {
                Generated::One(one) => Some(one.usage?.into()),
                Generated::Many(many) => {
                    many.into_iter().filter_map(|one| one.usage.map(Self::from)).reduce(Self::merge)
                }
            },
        }
    }

    /// The usage after both reports. Counts are cumulative in every format, and some reports leave some out.
    pub(crate) fn merge(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            cached: self.cached.max(other.cached),
            cache_write: self.cache_write.max(other.cache_write),
            output: self.output.max(other.output),
        }
    }

    /// The cost in millionths of a US dollar. A price per million tokens is a price in micro-dollars per token.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "money is rounded, and `as` saturates"
    )]
    pub(crate) fn cost_micro_usd(self, prices: &Prices) -> u64 {
        let cached = self.cached.min(self.input);
        let written = self.cache_write.min(self.input - cached);
        let plain = self.input - cached - written;
        let cost = plain as f64 * prices.input
            + cached as f64 * prices.cached_input.unwrap_or(prices.input)
            + written as f64 * prices.cache_write.unwrap_or(prices.input)
            + self.output as f64 * prices.output;
        cost.round() as u64
    }
}

#[derive(Deserialize)]
struct Chat {
    usage: Option<ChatUsage>,
}

#[derive(Deserialize)]
struct ChatUsage {
    #[serde(default, deserialize_with = "count")]
    prompt_tokens: u64,
    #[serde(default, deserialize_with = "count")]
    completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<Details>,
    /// DeepSeek's name for tokens read from the cache.
    #[serde(default, deserialize_with = "count")]
    prompt_cache_hit_tokens: u64,
}

#[derive(Default, Deserialize)]
struct Details {
    #[serde(default, deserialize_with = "count")]
    cached_tokens: u64,
    #[serde(default, deserialize_with = "count")]
    cache_write_tokens: u64,
}

#[derive(Deserialize)]
struct Responses {
    usage: Option<ResponsesUsage>,
    response: Option<ResponsesInner>,
}

#[derive(Deserialize)]
struct ResponsesInner {
    usage: Option<ResponsesUsage>,
}

#[derive(Deserialize)]
struct ResponsesUsage {
    #[serde(default, deserialize_with = "count")]
    input_tokens: u64,
    #[serde(default, deserialize_with = "count")]
    output_tokens: u64,
    #[serde(default)]
    input_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Messages {
    usage: Option<MessagesUsage>,
    message: Option<MessagesInner>,
}

#[derive(Deserialize)]
struct MessagesInner {
    usage: Option<MessagesUsage>,
}

#[derive(Deserialize)]
struct MessagesUsage {
    #[serde(default, deserialize_with = "count")]
    input_tokens: u64,
    #[serde(default, deserialize_with = "count")]
    output_tokens: u64,
    #[serde(default, deserialize_with = "count")]
    cache_read_input_tokens: u64,
    #[serde(default, deserialize_with = "count")]
    cache_creation_input_tokens: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Generated {
    Many(Vec<GeneratedOne>),
    One(GeneratedOne),
}

#[derive(Deserialize)]
struct GeneratedOne {
    #[serde(rename = "usageMetadata")]
    usage: Option<GeneratedUsage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeneratedUsage {
    #[serde(default, deserialize_with = "count")]
    prompt_token_count: u64,
    #[serde(default, deserialize_with = "count")]
    tool_use_prompt_token_count: u64,
    #[serde(default, deserialize_with = "count")]
    cached_content_token_count: u64,
    #[serde(default, deserialize_with = "count")]
    candidates_token_count: u64,
    #[serde(default, deserialize_with = "count")]
    thoughts_token_count: u64,
}

impl From<ChatUsage> for Usage {
    fn from(usage: ChatUsage) -> Self {
        let details = usage.prompt_tokens_details.unwrap_or_default();
        let cached = details.cached_tokens.max(usage.prompt_cache_hit_tokens);
        let cache_write = details.cache_write_tokens;
        Self { input: usage.prompt_tokens, cached, cache_write, output: usage.completion_tokens }
    }
}

impl From<ResponsesUsage> for Usage {
    fn from(usage: ResponsesUsage) -> Self {
        let Details { cached_tokens: cached, cache_write_tokens: cache_write } =
            usage.input_tokens_details.unwrap_or_default();
        Self { input: usage.input_tokens, cached, cache_write, output: usage.output_tokens }
    }
}

impl From<MessagesUsage> for Usage {
    /// Anthropic counts cached tokens beside `input_tokens`, not among them.
    fn from(usage: MessagesUsage) -> Self {
        let (cached, cache_write) = (usage.cache_read_input_tokens, usage.cache_creation_input_tokens);
        let input = usage.input_tokens.saturating_add(cached).saturating_add(cache_write);
        Self { input, cached, cache_write, output: usage.output_tokens }
    }
}

impl From<GeneratedUsage> for Usage {
    fn from(usage: GeneratedUsage) -> Self {
        Self {
            input: usage.prompt_token_count.saturating_add(usage.tool_use_prompt_token_count),
            cached: usage.cached_content_token_count,
            cache_write: 0,
            output: usage.candidates_token_count.saturating_add(usage.thoughts_token_count),
        }
    }
}

/// The largest count that is believed: what is above it is a provider's mistake, and would spoil all sums.
const COUNT_MAX: u64 = 1 << 40;

/// Reads a count leniently: compatible servers send null, floats, or nothing.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let count = match Value::deserialize(deserializer)? {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` saturates, and counts are whole"
        )]
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().map(|float| float as u64)),
        _ => None,
    };
    Ok(count.unwrap_or(0).min(COUNT_MAX))
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: WireFormat, document: &str, expect: Option<(u64, u64, u64, u64)>) {
        let found = Usage::read(format, document.as_bytes());
        assert_eq!(
            found.map(|usage| (usage.input, usage.cached, usage.cache_write, usage.output)),
            expect,
            "{document}"
        );
    }

    #[test]
    fn every_format_reports_in_its_own_words() {
        use WireFormat::*;
        check(
            ChatCompletions,
            r#"{"choices":[],"usage":{"prompt_tokens":1200,"completion_tokens":34,"prompt_tokens_details":{"cached_tokens":800}}}"#,
            Some((1200, 800, 0, 34)),
        );
        check(ChatCompletions, r#"{"choices":[{"delta":{"content":"x"}}],"usage":null}"#, None);
        check(
            Responses,
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":10,"input_tokens_details":{"cache_write_tokens":3,"cached_tokens":4},"output_tokens":5}}}"#,
            Some((10, 4, 3, 5)),
        );
        check(Responses, r#"{"type":"response.created","response":{"usage":null}}"#, None);
        check(Responses, r#"{"object":"response","usage":{"input_tokens":10,"output_tokens":5}}"#, Some((10, 0, 0, 5)));
        check(
            Messages,
            r#"{"type":"message_start","message":{"usage":{"input_tokens":7,"cache_read_input_tokens":800,"cache_creation_input_tokens":100,"output_tokens":1}}}"#,
            Some((907, 800, 100, 1)),
        );
        check(Messages, r#"{"type":"message_delta","usage":{"output_tokens":42}}"#, Some((0, 0, 0, 42)));
        check(
            GenerateContent,
            r#"{"usageMetadata":{"promptTokenCount":100,"cachedContentTokenCount":60,"candidatesTokenCount":42,"thoughtsTokenCount":7}}"#,
            Some((100, 60, 0, 49)),
        );
        check(
            GenerateContent,
            r#"[{"usageMetadata":{"promptTokenCount":9}},{"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":3}}]"#,
            Some((9, 0, 0, 3)),
        );
    }

    #[test]
    fn strange_counts_are_read_as_well_as_they_can_be() {
        use WireFormat::*;
        check(ChatCompletions, r#"{"usage":{"prompt_tokens":12.0,"completion_tokens":null}}"#, Some((12, 0, 0, 0)));
        check(ChatCompletions, r#"{"usage":{"prompt_tokens":-5,"completion_tokens":"many"}}"#, Some((0, 0, 0, 0)));
        check(ChatCompletions, r#"{"usage":{"prompt_tokens":1e300}}"#, Some((COUNT_MAX, 0, 0, 0)));
        check(ChatCompletions, r#"{"usage":7}"#, None);
        check(Messages, r#"{"usage":"#, None);
    }

    #[test]
    fn cost_is_in_millionths_of_a_dollar() {
        let prices = Prices { input: 3.0, cached_input: Some(0.3), cache_write: Some(3.75), output: 15.0 };
        let usage = Usage { input: 1_000, cached: 600, cache_write: 200, output: 10 };
        assert_eq!(usage.cost_micro_usd(&prices), 600 + 180 + 750 + 150);
        let plain = Prices { input: 3.0, cached_input: None, cache_write: None, output: 15.0 };
        assert_eq!(usage.cost_micro_usd(&plain), 3_150);
        let absurd = Usage { input: 1, cached: 5, cache_write: 5, output: 0 };
        assert_eq!(absurd.cost_micro_usd(&plain), 3);
    }
}

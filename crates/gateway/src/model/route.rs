//! What an origin-form request asks for, from its method and path alone.
//!
//! A prefix (`/openai`, `/anthropic`, `/gemini`) and the version segment are optional: agents build their URLs from
//! a base URL in different ways.

use http::Method;

use crate::config::{ProviderKind, WireFormat};

/// A request of the model API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// The list of models.
    List(Dialect),
    /// One model's description.
    Describe(Dialect, String),
    /// A model call.
    Call(CallRoute),
}

/// Whose shape a list of models has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// OpenAI's and Anthropic's in one.
    Common,
    /// Gemini's.
    Gemini,
}

/// A model call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallRoute {
    pub(crate) format: WireFormat,
    pub(crate) verb: Verb,
    /// The model, where the path names it.
    pub(crate) model: Option<String>,
}

/// What a call wants of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// An answer; whether it is streamed is in the body.
    Generate,
    /// A streamed answer, where the path says so.
    Stream,
    /// How many tokens the request has. Costs nothing, and is not metered.
    Count,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    Path,
    Method,
}

/// Reads method and path.
pub(crate) fn route(method: &Method, path: &str) -> Result<Route, Unknown> {
    let mut segments = path.trim_start_matches('/').splitn(8, '/').peekable();
    let prefix = segments.next_if(|segment| prefix(segment).is_some()).and_then(prefix);
    let version = segments.next_if(|segment| matches!(*segment, "v1" | "v1beta" | "v1alpha"));
    let rest: Vec<&str> = segments.collect();
    let gemini = prefix == Some(ProviderKind::Gemini) || version.is_some_and(|version| version != "v1");
    let dialect = if gemini { Dialect::Gemini } else { Dialect::Common };
    let call = |format, verb, model| Route::Call(CallRoute { format, verb, model });
    let (wanted, route) = match rest.as_slice() {
        ["chat", "completions"] => (Method::POST, call(WireFormat::ChatCompletions, Verb::Generate, None)),
        ["responses"] => (Method::POST, call(WireFormat::Responses, Verb::Generate, None)),
        ["messages"] => (Method::POST, call(WireFormat::Messages, Verb::Generate, None)),
        ["messages", "count_tokens"] => (Method::POST, call(WireFormat::Messages, Verb::Count, None)),
        ["models"] => (Method::GET, Route::List(dialect)),
        ["models", last @ ..] if !last.is_empty() => model_route(dialect, &last.join("/"))?,
        _ => return Err(Unknown::Path),
    };
    // A probe by HEAD is answered as GET; the server leaves the body out.
    let fits = *method == wanted || (wanted == Method::GET && *method == Method::HEAD);
    if fits { Ok(route) } else { Err(Unknown::Method) }
}

impl CallRoute {
    /// Where the call goes below the provider's base URL, for a model by the provider's own name.
    pub(crate) fn segments(&self, model: &str) -> Vec<String> {
        let path: &[&str] = match (self.format, self.verb) {
            (WireFormat::ChatCompletions, _) => &["chat", "completions"],
            (WireFormat::Responses, _) => &["responses"],
            (WireFormat::Messages, Verb::Count) => &["messages", "count_tokens"],
            (WireFormat::Messages, _) => &["messages"],
            (WireFormat::GenerateContent, verb) => {
                let verb = match verb {
                    Verb::Generate => "generateContent",
                    Verb::Stream => "streamGenerateContent",
                    Verb::Count => "countTokens",
                };
                return vec!["models".to_owned(), format!("{model}:{verb}")];
            }
        };
        path.iter().map(|segment| (*segment).to_owned()).collect()
    }

    pub(crate) fn metered(&self) -> bool {
        self.verb != Verb::Count
    }
}

impl Unknown {
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::Path => {
                "the gateway offers /v1/chat/completions, /v1/responses, /v1/messages, \
                 /v1beta/models/{model}:generateContent and /v1/models, and nothing else by this path"
            }
            Self::Method => "the gateway offers this path, but not with this method",
        }
    }
}

fn prefix(segment: &str) -> Option<ProviderKind> {
    match segment {
        "openai" => Some(ProviderKind::Openai),
        "anthropic" => Some(ProviderKind::Anthropic),
        "gemini" => Some(ProviderKind::Gemini),
        _ => None,
    }
}

fn model_route(dialect: Dialect, text: &str) -> Result<(Method, Route), Unknown> {
    let text = percent_decode(text).ok_or(Unknown::Path)?;
    let verb = match text.rsplit_once(':') {
        Some((model, "generateContent")) => Some((model, Verb::Generate)),
        Some((model, "streamGenerateContent")) => Some((model, Verb::Stream)),
        Some((model, "countTokens")) => Some((model, Verb::Count)),
        _ => None,
    };
    Ok(match verb {
        Some((model, verb)) => {
            let model = Some(model.to_owned());
            (Method::POST, Route::Call(CallRoute { format: WireFormat::GenerateContent, verb, model }))
        }
        None => (Method::GET, Route::Describe(dialect, text)),
    })
}

/// Decodes `%XX`; `None` where the result is no UTF-8 or the escape is broken.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &Method, path: &str, expect: Result<(WireFormat, Verb, Option<&str>), Unknown>) {
        let found = route(method, path).map(|route| match route {
            Route::Call(call) => (call.format, call.verb, call.model),
            other => panic!("{other:?}"),
        });
        assert_eq!(found, expect.map(|(format, verb, model)| (format, verb, model.map(str::to_owned))), "{path}");
    }

    #[test]
    fn calls_are_found_by_any_of_their_paths() {
        use {Verb::*, WireFormat::*};
        check(&Method::POST, "/v1/chat/completions", Ok((ChatCompletions, Generate, None)));
        check(&Method::POST, "/openai/v1/chat/completions", Ok((ChatCompletions, Generate, None)));
        check(&Method::POST, "/openai/responses", Ok((Responses, Generate, None)));
        check(&Method::POST, "/anthropic/v1/messages", Ok((Messages, Generate, None)));
        check(&Method::POST, "/v1/messages/count_tokens", Ok((Messages, Count, None)));
        let gemini = "/gemini/v1beta/models/gemini-pro:streamGenerateContent";
        check(&Method::POST, gemini, Ok((GenerateContent, Stream, Some("gemini-pro"))));
        check(&Method::POST, "/v1beta/models/a%2Fb:countTokens", Ok((GenerateContent, Count, Some("a/b"))));
        check(&Method::GET, "/v1/chat/completions", Err(Unknown::Method));
        for nowhere in
            ["/", "/v1", "/v1/embeddings", "/api/event_logging/batch", "/v1/../v1/messages", "/v1/messages/x"]
        {
            check(&Method::POST, nowhere, Err(Unknown::Path));
        }
    }

    #[test]
    fn lists_are_in_the_dialect_that_was_asked_for() {
        assert_eq!(route(&Method::GET, "/v1/models"), Ok(Route::List(Dialect::Common)));
        assert_eq!(route(&Method::GET, "/gemini/v1beta/models"), Ok(Route::List(Dialect::Gemini)));
        assert_eq!(route(&Method::GET, "/v1/models/a/b"), Ok(Route::Describe(Dialect::Common, "a/b".into())));
    }
}

//! The gateway's part of `hob.toml`: providers, models, egress, limits and retries. Every key has a default.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use thiserror::Error;

use crate::host::HostRule;
use crate::key::KeyRef;

/// Everything that the gateway is told by the operator.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Where the model API listens for the built-in agent. Must be a loopback address; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Servers that offer models.
    pub providers: Vec<ProviderConfig>,
    /// Models that sessions may use.
    pub models: Vec<ModelConfig>,
    /// What the egress proxy lets through for every session.
    pub egress: EgressConfig,
    /// Sizes, counts and deadlines.
    pub limits: Limits,
    /// When a model call is sent again.
    pub retry: RetryConfig,
}

/// A server that offers models.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// The name that models refer to.
    pub name: String,
    /// Whose API it speaks.
    pub kind: ProviderKind,
    /// Its address, with or without the version as last segment: `https://api.openai.com/v1`, `http://10.0.0.5:11434`.
    pub base_url: String,
    /// Where its key is kept.
    #[serde(default)]
    pub key: KeyRef,
    /// The wire formats that it speaks, where they differ from those of its kind.
    #[serde(default)]
    pub formats: Option<BTreeSet<WireFormat>>,
}

/// Whose API a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// OpenAI, or a server compatible with it: chat completions and responses.
    Openai,
    /// Anthropic: messages.
    Anthropic,
    /// Google Gemini: generateContent.
    Gemini,
}

/// A wire format of model calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireFormat {
    /// OpenAI `POST /v1/chat/completions`.
    ChatCompletions,
    /// OpenAI `POST /v1/responses`.
    Responses,
    /// Anthropic `POST /v1/messages`.
    Messages,
    /// Gemini `POST /v1beta/models/{model}:generateContent`.
    GenerateContent,
}

/// A model that sessions may use.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The ID that sessions and agents use.
    pub id: String,
    /// The provider's name.
    pub provider: String,
    /// The provider's name for the model, where it is not the ID.
    #[serde(default)]
    pub upstream: Option<String>,
    /// What it costs. Without it no cost is recorded.
    #[serde(default)]
    pub price: Option<Prices>,
    /// How many tokens fit into its context.
    #[serde(default)]
    pub context_tokens: Option<u64>,
    /// Models to go on with, in order, when the provider fails. Those that speak another wire format are skipped.
    #[serde(default)]
    pub fallback: Vec<String>,
}

/// Prices in US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Tokens read.
    pub input: f64,
    /// Tokens read from the provider's cache; the input price where absent.
    #[serde(default)]
    pub cached_input: Option<f64>,
    /// Tokens written to the provider's cache; the input price where absent.
    #[serde(default)]
    pub cache_write: Option<f64>,
    /// Tokens written, thinking included.
    pub output: f64,
}

/// What the egress proxy lets through for every session, beside what its access allows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressConfig {
    /// Hosts that every sandbox may reach. The default is [`default_egress`].
    pub allow: Vec<HostRule>,
    /// A proxy that this machine itself must use, as `http://host:port`. The environment's is never taken unasked.
    pub proxy: Option<String>,
}

/// Sizes, counts and deadlines. Each is far above what honest work needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest request body of a model call, in bytes.
    pub body_bytes_max: usize,
    /// The largest request head, in bytes.
    pub head_bytes_max: usize,
    /// Connections that one access may hold open; more wait to be accepted.
    pub connections_max: usize,
    /// Model calls that one access may have in flight; more are answered 429.
    pub model_calls_max: usize,
    /// Bytes that one access may carry through the egress proxy, in and out together.
    pub egress_bytes_max: u64,
    /// From dialling to a connection, in milliseconds, for egress and providers alike.
    pub connect_ms: u64,
    /// From the request to the head of a provider's answer, in milliseconds.
    pub answer_head_ms: u64,
    /// The longest silence in a provider's answer, in milliseconds.
    pub answer_idle_ms: u64,
    /// The longest silence of an egress connection in both directions, in milliseconds.
    pub egress_idle_ms: u64,
}

/// When a model call is sent again. It never is once a byte of an answer was passed on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Requests to one model before the next one in `fallback` is tried.
    pub attempts_max: u32,
    /// The first wait in milliseconds; it doubles with each attempt, and a part of it is random.
    pub wait_ms: u64,
    /// The longest wait in milliseconds. A provider that asks for more is treated as failed.
    pub wait_ms_max: u64,
}

/// Why a configuration cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say all of it")]
pub enum ConfigError {
    #[error("the gateway listens on {0}, which is no loopback address; only the built-in agent uses it")]
    Listen(SocketAddr),
    #[error("two providers are named `{0}`")]
    ProviderTwice(String),
    #[error("two models have the ID `{0}`")]
    ModelTwice(String),
    #[error("the model `{model}` names the provider `{provider}`, which is not configured")]
    NoProvider { model: String, provider: String },
    #[error("the model `{model}` falls back to `{fallback}`, which is not configured")]
    NoFallback { model: String, fallback: String },
    #[error("the provider `{0}` has a base_url that is not http(s)://host[:port][/path] without credentials")]
    BaseUrl(String),
    #[error("the model `{0}` has a price that is negative or not a number")]
    Price(String),
    #[error("egress.proxy is not http://host[:port] without credentials")]
    Proxy,
}

/// A provider, checked.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) name: String,
    pub(crate) base_url: Url,
    pub(crate) key: KeyRef,
    formats: BTreeSet<WireFormat>,
}

/// The providers and models of a checked configuration.
#[derive(Debug)]
pub(crate) struct Catalogue {
    providers: BTreeMap<String, Provider>,
    models: Vec<ModelConfig>,
}

impl Catalogue {
    pub(crate) fn new(config: &GatewayConfig) -> Result<Self, ConfigError> {
        let mut providers = BTreeMap::new();
        for provider in &config.providers {
            let base_url = plain_url(&provider.base_url, &["http", "https"])
                .ok_or_else(|| ConfigError::BaseUrl(provider.name.clone()))?;
            let formats = provider.wire_formats();
            let key = provider.key.clone();
            let checked = Provider { name: provider.name.clone(), base_url, key, formats };
            if providers.insert(provider.name.clone(), checked).is_some() {
                return Err(ConfigError::ProviderTwice(provider.name.clone()));
            }
        }
        let mut ids = BTreeSet::new();
        for model in &config.models {
            if !ids.insert(model.id.as_str()) {
                return Err(ConfigError::ModelTwice(model.id.clone()));
            }
            if !providers.contains_key(&model.provider) {
                return Err(ConfigError::NoProvider { model: model.id.clone(), provider: model.provider.clone() });
            }
            if model.price.is_some_and(|price| !price.plausible()) {
                return Err(ConfigError::Price(model.id.clone()));
            }
        }
        for model in &config.models {
            if let Some(fallback) = model.fallback.iter().find(|id| !ids.contains(id.as_str())) {
                return Err(ConfigError::NoFallback { model: model.id.clone(), fallback: fallback.clone() });
            }
        }
        Ok(Self { providers, models: config.models.clone() })
    }

    pub(crate) fn models(&self) -> &[ModelConfig] {
        &self.models
    }

    /// A model and its provider.
    pub(crate) fn model(&self, id: &str) -> Option<(&ModelConfig, &Provider)> {
        let model = self.models.iter().find(|model| model.id == id)?;
        Some((model, self.providers.get(&model.provider)?))
    }
}

impl ProviderConfig {
    fn wire_formats(&self) -> BTreeSet<WireFormat> {
        self.formats.clone().unwrap_or_else(|| self.kind.formats())
    }
}

impl Provider {
    pub(crate) fn speaks(&self, format: WireFormat) -> bool {
        self.formats.contains(&format)
    }
}

impl ProviderKind {
    fn formats(self) -> BTreeSet<WireFormat> {
        match self {
            Self::Openai => BTreeSet::from([WireFormat::ChatCompletions, WireFormat::Responses]),
            Self::Anthropic => BTreeSet::from([WireFormat::Messages]),
            Self::Gemini => BTreeSet::from([WireFormat::GenerateContent]),
        }
    }
}

impl WireFormat {
    /// The format's name as people know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::GenerateContent => "generateContent",
        }
    }
}

impl Prices {
    fn plausible(&self) -> bool {
        [Some(self.input), self.cached_input, self.cache_write, Some(self.output)]
            .into_iter()
            .flatten()
            .all(|price| price.is_finite() && price >= 0.0)
    }
}

impl GatewayConfig {
    /// Checks what serde cannot. [`Gateway::start`](crate::Gateway::start) does so too.
    ///
    /// # Errors
    ///
    /// The first thing that cannot be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() {
            return Err(ConfigError::Listen(self.listen));
        }
        self.egress.proxy_url()?;
        Catalogue::new(self).map(|_| ())
    }

    /// The wire formats in which a model can be called; `None` for a model that is not configured.
    #[must_use]
    pub fn formats_of(&self, model: &str) -> Option<BTreeSet<WireFormat>> {
        let model = self.models.iter().find(|candidate| candidate.id == model)?;
        self.providers.iter().find(|provider| provider.name == model.provider).map(ProviderConfig::wire_formats)
    }
}

impl EgressConfig {
    pub(crate) fn proxy_url(&self) -> Result<Option<Url>, ConfigError> {
        self.proxy.as_deref().map(|text| plain_url(text, &["http"]).ok_or(ConfigError::Proxy)).transpose()
    }
}

impl Limits {
    pub(crate) fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            providers: Vec::new(),
            models: Vec::new(),
            egress: EgressConfig::default(),
            limits: Limits::default(),
            retry: RetryConfig::default(),
        }
    }
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self { allow: default_egress(), proxy: None }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 << 20,
            head_bytes_max: 64 << 10,
            connections_max: 256,
            model_calls_max: 32,
            egress_bytes_max: 64 << 30,
            connect_ms: 10_000,
            answer_head_ms: 600_000,
            answer_idle_ms: 300_000,
            egress_idle_ms: 300_000,
        }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts_max: 4, wait_ms: 500, wait_ms_max: 30_000 }
    }
}

/// The package registries that every sandbox may reach by default: cargo, npm, PyPI, Debian and Go.
#[must_use]
pub fn default_egress() -> Vec<HostRule> {
    const HOSTS: [&str; 16] = [
        "crates.io",
        "index.crates.io",
        "static.crates.io",
        "static.rust-lang.org",
        "registry.npmjs.org",
        "registry.yarnpkg.com",
        "repo.yarnpkg.com",
        "pypi.org",
        "files.pythonhosted.org",
        "deb.debian.org",
        "security.debian.org",
        "cdn-fastly.deb.debian.org",
        "proxy.golang.org",
        "sum.golang.org",
        "go.dev",
        "dl.google.com",
    ];
    HOSTS.iter().filter_map(|host| host.parse().ok()).collect()
}

/// A URL with a host, one of these schemes, and neither credentials nor a query.
fn plain_url(text: &str, schemes: &[&str]) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    (plain && url.has_host() && schemes.contains(&url.scheme())).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(toml: &str, expect: Result<(), &str>) {
        let found = toml::from_str::<GatewayConfig>(toml)
            .map_err(|error| error.message().to_owned())
            .and_then(|config| config.check().map_err(|error| error.to_string()));
        match (found, expect) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(expect)) => assert!(found.contains(expect), "{found}"),
            (found, expect) => panic!("{found:?} is not {expect:?}"),
        }
    }

    #[test]
    fn an_empty_configuration_works() {
        check("", Ok(()));
        assert_eq!(default_egress().len(), 16);
    }

    #[test]
    fn a_full_configuration_is_read() {
        check(
            r#"
            [[providers]]
            name = "local"
            kind = "openai"
            base_url = "http://127.0.0.1:11434/v1"
            key = "env:LOCAL_KEY"
            formats = ["chat-completions"]
            [[models]]
            id = "small"
            provider = "local"
            upstream = "small:7b"
            price = { input = 0.5, cached_input = 0.1, output = 2.0 }
            context_tokens = 32768
            fallback = ["small"]
            [limits]
            body_bytes_max = 1048576
            [retry]
            attempts_max = 2
            "#,
            Ok(()),
        );
    }

    #[test]
    fn the_formats_of_a_model_are_its_providers() {
        let config: GatewayConfig = toml::from_str(
            "providers = [{ name = 'p', kind = 'anthropic', base_url = 'http://h' }]\nmodels = [{ id = 'a', provider = 'p' }]",
        )
        .unwrap();
        assert_eq!(config.formats_of("a"), Some(BTreeSet::from([WireFormat::Messages])));
        assert_eq!(config.formats_of("b"), None);
    }

    #[test]
    fn mistakes_are_named() {
        check("modles = []", Err("unknown field `modles`"));
        check("listen = '0.0.0.0:1'", Err("no loopback address"));
        check("models = [{ id = 'a', provider = 'nope' }]", Err("the provider `nope`, which is not configured"));
        let provider = |url: &str| format!("providers = [{{ name = 'p', kind = 'openai', base_url = '{url}' }}]");
        check(&provider("https://user:secret@host/v1"), Err("without credentials"));
        check(&provider("ftp://host"), Err("base_url"));
        check(&provider("api.example"), Err("base_url"));
        let model = |rest: &str| format!("{}\nmodels = [{{ id = 'a', provider = 'p', {rest} }}]", provider("http://h"));
        check(&model("fallback = ['b']"), Err("falls back to `b`"));
        check(&model("price = { input = -1.0, output = 1.0 }"), Err("negative"));
        check(&model("price = { input = nan, output = 1.0 }"), Err("not a number"));
        check(
            "providers = [{ name = 'p', kind = 'openai', base_url = 'http://h', key = 'sk-123' }]",
            Err("by reference"),
        );
        check("egress = { proxy = 'http://u:p@proxy:1' }", Err("egress.proxy"));
    }
}

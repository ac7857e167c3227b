//! Models: which ones the environment offers when the file names none, and whether the file's references hold.

use std::collections::{BTreeMap, BTreeSet};

use super::{Config, Model, Provider, ProviderKind};

/// The environment variables of a process, as a value that tests can make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// This process's environment. Variables that are no UTF-8 are left out.
    pub fn of_this_process() -> Self {
        Self(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }

    /// A variable that is set to something.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }
}

/// A model that is known without configuration: price per million tokens in US dollars, window in tokens.
struct Known {
    id: &'static str,
    context_tokens: u64,
    usd: (f64, f64, f64),
}

/// A provider that is known by the variable that holds its key.
struct KnownProvider {
    name: &'static str,
    key: &'static str,
    base_url: &'static str,
    kind: ProviderKind,
    models: &'static [Known],
}

/// In the order of preference: the first model of the first provider with a key is the default. The prices are the
/// vendors' list prices of 2026-11; `hob.toml` overrides them.
const KNOWN: &[KnownProvider] = &[
    KnownProvider {
        name: "anthropic",
        key: "ANTHROPIC_API_KEY",
        base_url: "ANTHROPIC_BASE_URL",
        kind: ProviderKind::Anthropic,
        models: &[
            Known { id: "claude-sonnet-4-5", context_tokens: 200_000, usd: (3.0, 0.3, 15.0) },
            Known { id: "claude-opus-4-5", context_tokens: 200_000, usd: (5.0, 0.5, 25.0) },
            Known { id: "claude-haiku-4-5", context_tokens: 200_000, usd: (1.0, 0.1, 5.0) },
        ],
    },
    KnownProvider {
        name: "openai",
        key: "OPENAI_API_KEY",
        base_url: "OPENAI_BASE_URL",
        kind: ProviderKind::Openai,
        models: &[
            Known { id: "gpt-5.1", context_tokens: 400_000, usd: (1.25, 0.125, 10.0) },
            Known { id: "gpt-5-mini", context_tokens: 400_000, usd: (0.25, 0.025, 2.0) },
        ],
    },
    KnownProvider {
        name: "gemini",
        key: "GEMINI_API_KEY",
        base_url: "GEMINI_BASE_URL",
        kind: ProviderKind::Gemini,
        models: &[
            Known { id: "gemini-2.5-pro", context_tokens: 1_048_576, usd: (1.25, 0.31, 10.0) },
            Known { id: "gemini-2.5-flash", context_tokens: 1_048_576, usd: (0.3, 0.075, 2.5) },
        ],
    },
];

/// Adds the models that the environment offers, when the file names none: by the vendors' own variables
/// (`ANTHROPIC_API_KEY`, `OPENAI_API_KEY`, `GEMINI_API_KEY`, each with its `…_BASE_URL`). `HOB_MODEL` names the model
/// to use, which is how a local server behind `OPENAI_BASE_URL` says what it serves.
pub fn add_known_models(mut config: Config, environment: &Environment) -> Config {
    if !config.models.is_empty() {
        return config;
    }
    let mut first = None;
    for known in KNOWN {
        let base_url = environment.get(known.base_url).map(str::to_owned);
        let has_key = environment.get(known.key).is_some();
        // A local server asks for no key, so its address alone is enough.
        if !has_key && base_url.is_none() {
            continue;
        }
        let own_server = base_url.is_some();
        let provider = Provider { kind: known.kind, base_url, key: has_key.then(|| format!("env:{}", known.key)) };
        config.providers.entry(known.name.into()).or_insert(provider);
        for model in known.models {
            config.models.entry(model.id.into()).or_insert_with(|| priced(known.name, model, own_server));
        }
        first.get_or_insert((known, own_server));
    }
    let Some((known, _)) = first else { return config };
    match environment.get("HOB_MODEL") {
        Some(id) => {
            let provider = provider_of(id).unwrap_or(known.name);
            let provider = if config.providers.contains_key(provider) { provider } else { known.name };
            config.models.entry(id.into()).or_insert_with(|| unpriced(provider));
            config.session.model.get_or_insert_with(|| id.to_owned());
        }
        None => {
            config.session.model.get_or_insert_with(|| known.models[0].id.to_owned());
        }
    }
    config
}

/// The vendor of a model that is not in the table, by the first word of its name.
fn provider_of(id: &str) -> Option<&'static str> {
    [("claude", "anthropic"), ("gemini", "gemini"), ("gpt", "openai")]
        .into_iter()
        .find(|(word, _)| id.starts_with(word))
        .map(|(_, provider)| provider)
}

/// A list price says nothing about another server than the vendor's own.
fn priced(provider: &str, model: &Known, own_server: bool) -> Model {
    let price = |usd: f64| (!own_server).then_some(usd);
    Model {
        context_tokens: model.context_tokens,
        input_usd: price(model.usd.0),
        cached_usd: price(model.usd.1),
        output_usd: price(model.usd.2),
        ..unpriced(provider)
    }
}

fn unpriced(provider: &str) -> Model {
    Model {
        provider: provider.into(),
        name: None,
        context_tokens: super::default_context_tokens(),
        max_output_tokens: super::default_max_output_tokens(),
        fallback: Vec::new(),
        input_usd: None,
        cached_usd: None,
        output_usd: None,
    }
}

/// Whether what the file refers to is there; else the key and what is wrong with it.
pub(super) fn check(config: &Config) -> Result<(), (String, String)> {
    for (name, provider) in &config.providers {
        if let Some(key) = &provider.key
            && !key.starts_with("env:")
            && !key.starts_with("file:")
        {
            let reason = "a key is named, never written down: use \"env:NAME\" or \"file:PATH\"";
            return Err((format!("providers.{name}.key"), reason.into()));
        }
        if let Some(url) = &provider.base_url
            && !url.starts_with("http://")
            && !url.starts_with("https://")
        {
            return Err((
                format!("providers.{name}.base_url"),
                format!("{url:?} begins with neither http:// nor https://"),
            ));
        }
    }
    for (id, model) in &config.models {
        if !config.providers.contains_key(&model.provider) {
            let provider = &model.provider;
            let reason = format!("there is no [providers.{provider}]; add it, with its kind");
            return Err((format!("models.{id}.provider"), reason));
        }
        if let Some(missing) = model.fallback.iter().find(|other| !config.models.contains_key(*other)) {
            return Err((format!("models.{id}.fallback"), format!("there is no [models.{missing}]")));
        }
    }
    let known: BTreeSet<_> = config.models.keys().collect();
    match &config.session.model {
        Some(model) if !known.is_empty() && !known.contains(model) => {
            Err(("session.model".into(), format!("there is no [models.{model:?}]")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(environment: impl Into<Environment>) -> Config {
        add_known_models(Config::default(), &environment.into())
    }

    #[test]
    fn a_vendors_key_is_enough() {
        let config = with([("ANTHROPIC_API_KEY", "k"), ("GEMINI_API_KEY", "k")]);
        assert_eq!(config.default_model(), Some("claude-sonnet-4-5"));
        assert_eq!(config.providers["gemini"].key.as_deref(), Some("env:GEMINI_API_KEY"));
        assert_eq!(check(&config), Ok(()));
    }

    #[test]
    fn a_local_server_needs_no_key_and_has_no_price() {
        let config = with([("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1"), ("HOB_MODEL", "qwen3-coder")]);
        assert_eq!(config.default_model(), Some("qwen3-coder"));
        assert_eq!(config.models["qwen3-coder"].provider, "openai");
        assert_eq!(config.models["gpt-5.1"].input_usd, None);
        assert_eq!(config.providers["openai"].key, None);
    }

    #[test]
    fn what_the_file_names_is_all_there_is() {
        let mut config = Config::default();
        config.models.insert("mine".into(), unpriced("p"));
        let config = add_known_models(config, &[("OPENAI_API_KEY", "k")].into());
        assert_eq!(config.models.len(), 1);
    }

    #[test]
    fn an_empty_environment_offers_nothing() {
        assert_eq!(with([("OPENAI_API_KEY", "")]).default_model(), None);
    }
}

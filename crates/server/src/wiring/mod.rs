//! Joins the parts: what the configuration says becomes what the gateway, the engine and the agents are told.
//!
//! The engine's seams are implemented here: [`doors`] over the gateway, [`agents`] on the configured
//! models, and [`meter`] takes the gateway's measurements to the logs.

pub mod agents;
pub mod doors;
pub mod meter;
mod notices;
pub mod sandboxes;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use hob_agent::Author;
use hob_gateway::{
    EgressConfig, GatewayConfig, HostRule, KeyRef, ModelConfig, Prices, ProviderConfig, ProviderKind, default_egress,
};
use hob_sandbox::image::Credentials;
use hob_session::{BaseChecks, EngineConfig, ImageRules, Permissions, Push};

use crate::config::{self, Config};

/// The shortest time between two looks at all branches with images.
const REBUILD_EVERY_MIN: Duration = Duration::from_secs(10);

/// What to do where no model is configured.
pub const NO_MODEL: &str = "no model is configured: set ANTHROPIC_API_KEY, OPENAI_API_KEY or GEMINI_API_KEY where the \
                            server starts, or OPENAI_BASE_URL and HOB_MODEL for a local one, or write [models] into \
                            hob.toml (docs/configuration.md)";

/// Why the configuration cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[error("use {key}: {reason}")]
pub struct WiringError {
    /// The key.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

/// What the gateway is told.
///
/// # Errors
/// A reference to a key or a host of the allow-list cannot be understood.
pub fn gateway_config(config: &Config) -> Result<GatewayConfig, WiringError> {
    let providers = config.providers.iter().map(|(name, provider)| provider_config(name, provider));
    let models = config.models.iter().map(|(id, model)| model_config(id, model));
    let mut allow = if config.egress.registries { default_egress() } else { Vec::new() };
    allow.extend(rules("egress.allow", &config.egress.allow)?);
    allow.extend(rules("egress.private", &config.egress.private)?.into_iter().map(HostRule::private));
    Ok(GatewayConfig {
        providers: providers.collect::<Result<_, _>>()?,
        models: models.collect(),
        egress: EgressConfig { allow, proxy: config.egress.proxy.clone() },
        ..GatewayConfig::default()
    })
}

fn provider_config(name: &str, provider: &config::Provider) -> Result<ProviderConfig, WiringError> {
    let (kind, vendor) = match provider.kind {
        config::ProviderKind::Anthropic => (ProviderKind::Anthropic, "https://api.anthropic.com"),
        config::ProviderKind::Openai => (ProviderKind::Openai, "https://api.openai.com/v1"),
        config::ProviderKind::Gemini => (ProviderKind::Gemini, "https://generativelanguage.googleapis.com"),
    };
    let key = match &provider.key {
        None => KeyRef::None,
        Some(text) => KeyRef::try_from(text.clone())
            .map_err(|error| WiringError { key: format!("providers.{name}.key"), reason: error.to_string() })?,
    };
    let base_url = provider.base_url.clone().unwrap_or_else(|| vendor.to_owned());
    Ok(ProviderConfig { name: name.to_owned(), kind, base_url, key, formats: None })
}

fn model_config(id: &str, model: &config::Model) -> ModelConfig {
    let price = model.input_usd.zip(model.output_usd).map(|(input, output)| Prices {
        input,
        cached_input: model.cached_usd,
        cache_write: None,
        output,
    });
    ModelConfig {
        id: id.to_owned(),
        provider: model.provider.clone(),
        upstream: model.name.clone(),
        price,
        context_tokens: Some(model.context_tokens),
        fallback: model.fallback.clone(),
    }
}

fn rules(key: &str, hosts: &[String]) -> Result<Vec<HostRule>, WiringError> {
    let parsed = hosts.iter().map(|host| {
        host.parse().map_err(|error| WiringError { key: key.to_owned(), reason: format!("{host:?}: {error}") })
    });
    parsed.collect()
}

/// What the engine is told.
pub fn engine_config(config: &Config, data_dir: &Path) -> EngineConfig {
    let mut engine = EngineConfig::new(data_dir.join("sessions"));
    engine.push = match config.session.push {
        config::Push::Auto => Push::Auto,
        config::Push::Never => Push::Never,
    };
    engine.permissions = match config.session.permissions {
        config::Permissions::Allow => Permissions::Allow,
        config::Permissions::Ask => Permissions::Ask,
    };
    engine.base_checks = match config.session.base_checks {
        config::BaseChecks::Always => BaseChecks::Always,
        config::BaseChecks::WhenRed => BaseChecks::WhenRed,
    };
    engine.max_rounds = config.session.max_rounds;
    engine.timeouts.agent_idle = config.session.agent_idle.0;
    engine.timeouts.permission = config.session.answer_deadline.0;
    engine.timeouts.question = config.session.answer_deadline.0;
    engine.timeouts.suspend_after = config.session.suspend_after.0;
    engine.capacity = sandboxes::capacity(&config.capacity, &sandboxes::Machine::this());
    engine.pool = sandboxes::pool(&config.pool, &sandboxes::Machine::this());
    engine.timeouts.place = config.capacity.wait.0;
    engine.timeouts.sandbox_start = config.sandbox.start_deadline.0;
    engine.limits.sandbox = sandbox_limits(config);
    engine.limits.turn_snapshot_bytes_max = config.session.turn_snapshot_max.0;
    engine.images = image_rules(&config.images);
    engine
}

fn image_rules(config: &config::Images) -> ImageRules {
    ImageRules {
        at_once: usize::try_from(config.at_once).unwrap_or(usize::MAX),
        build_limit: config.build_deadline.0,
        rebuild_every: config.rebuild_every.0.max(REBUILD_EVERY_MIN),
        keep_for: config.keep_for.0,
        bytes_max: config.size.0,
        registries: config.registries.iter().map(|name| (name.clone(), None)).collect(),
        ..ImageRules::default()
    }
}

/// Who the server is at registries.
///
/// # Errors
/// A password is not where the configuration says.
pub async fn credentials(config: &Config) -> Result<BTreeMap<String, Option<Credentials>>, WiringError> {
    let mut known = BTreeMap::new();
    for (name, registry) in &config.registries {
        let wrong = |reason: String| WiringError { key: format!("registries.{name}.password"), reason };
        let place = KeyRef::try_from(registry.password.clone()).map_err(|error| wrong(error.to_string()))?;
        let password = place.plain().await.map_err(|error| wrong(error.to_string()))?;
        let password = password.ok_or_else(|| wrong("there is none".to_owned()))?;
        known.insert(name.clone(), Some(Credentials { username: registry.username.clone(), password }));
    }
    Ok(known)
}

/// What a sandbox may use at most.
pub fn sandbox_limits(config: &Config) -> hob_sandbox::Limits {
    hob_sandbox::Limits {
        cpu_millicores: millicores(config.sandbox.cpus),
        memory_bytes: config.sandbox.memory.0,
        processes: config.sandbox.processes,
        disk_bytes: config.sandbox.disk.0,
    }
}

/// Thousandths of a core, at least one hundredth of a core: nothing would ever end with less.
fn millicores(cpus: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is clamped before")]
    let millicores = (cpus * 1_000.0).clamp(10.0, 1_000_000.0) as u32;
    millicores
}

/// The author of commits when a request names nobody: the configuration, or else the git configuration of the
/// server's user.
pub fn default_author(owner: &config::Owner) -> Author {
    let git = crate::git::configured_author();
    let name = owner.name.clone().or(git.as_ref().map(|author| author.name.clone()));
    let email = owner.email.clone().or(git.map(|author| author.email));
    Author { name: name.unwrap_or_else(|| "Hob".into()), email: email.unwrap_or_else(|| "hob@localhost".into()) }
}

//! Agents by name: the built-in one, on the configured models.

use std::collections::BTreeMap;

use hob_agent::ModelFormat;
use hob_session::{Agents, ModelFacts};

use crate::config::{Config, ProviderKind};

/// The agents for the configured models.
pub fn agents(config: &Config) -> Agents {
    Agents::new(model_facts(config))
}

fn model_facts(config: &Config) -> BTreeMap<String, ModelFacts> {
    let facts = config.models.iter().filter_map(|(id, model)| {
        let format = match config.providers.get(&model.provider)?.kind {
            ProviderKind::Anthropic => ModelFormat::Anthropic,
            // Every server that speaks OpenAI's interface has chat completions; few have responses.
            ProviderKind::Openai => ModelFormat::OpenAiChat,
            ProviderKind::Gemini => ModelFormat::Gemini,
        };
        let max_output_tokens = model.max_output_tokens;
        Some((id.clone(), ModelFacts { format, context_tokens: model.context_tokens, max_output_tokens }))
    });
    facts.collect()
}

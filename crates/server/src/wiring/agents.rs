//! Agents by name: the built-in one and those of the catalogue that are installed, on the configured models.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use hob_agent::{Agent, AgentError, ModelFormat, catalogue};
use hob_sandbox::Mount;
use hob_session::{AgentFactory, AgentStart, Agents, BUILT_IN, ModelFacts};
use tokio_util::task::TaskTracker;

use crate::config::{Config, ProviderKind};

/// The engine's agents, with words for a name that is not known.
pub struct NamedAgents {
    agents: Agents,
    models: Vec<String>,
}

impl NamedAgents {
    /// Agents on the configured models. Those of the catalogue are looked for in `DATA_DIR/agents`.
    pub fn new(config: &Config, data_dir: &Path, tasks: TaskTracker) -> Self {
        let facts = model_facts(config);
        let models = facts.keys().cloned().collect();
        Self { agents: Agents::new(facts, crate::install::folder(data_dir), tasks), models }
    }
}

fn model_facts(config: &Config) -> BTreeMap<String, ModelFacts> {
    let facts = config.models.iter().filter_map(|(id, model)| {
        let formats = match config.providers.get(&model.provider)?.kind {
            ProviderKind::Anthropic => vec![ModelFormat::Anthropic],
            // Every server that speaks OpenAI's interface has chat completions; few have responses.
            ProviderKind::Openai => vec![ModelFormat::OpenAiChat, ModelFormat::OpenAiResponses],
            ProviderKind::Gemini => vec![ModelFormat::Gemini],
        };
        let facts =
            ModelFacts { formats, context_tokens: model.context_tokens, max_output_tokens: model.max_output_tokens };
        Some((id.clone(), facts))
    });
    facts.collect()
}

#[async_trait]
impl AgentFactory for NamedAgents {
    fn check(&self, agent: &str, model: &str) -> Result<(), String> {
        if agent != BUILT_IN && catalogue::entry(agent).is_none() {
            let names = catalogue::entries().iter().map(|entry| entry.name).chain([BUILT_IN]);
            let nearest = crate::config::nearest(agent, names).map(|name| format!("did you mean {name:?}?"));
            let hint = nearest.unwrap_or("`hob agent list` shows those that are".into());
            return Err(format!("there is no agent named {agent:?}; {hint}"));
        }
        if self.models.is_empty() {
            return Err(super::NO_MODEL.to_owned());
        }
        self.agents.check(agent, model)
    }

    fn mounts(&self, agent: &str) -> Vec<Mount> {
        self.agents.mounts(agent)
    }

    async fn start(&self, start: AgentStart) -> Result<Box<dyn Agent>, AgentError> {
        self.agents.start(start).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, add_known_models};

    #[track_caller]
    fn check_refused(environment: &Environment, agent: &str, model: &str, expect: &str) {
        let config = add_known_models(Config::default(), environment);
        let agents = NamedAgents::new(&config, Path::new("/nowhere"), TaskTracker::new());
        assert_eq!(agents.check(agent, model).unwrap_err(), expect);
    }

    #[test]
    fn an_unknown_agent_says_what_there_is() {
        let key = [("ANTHROPIC_API_KEY", "k")].into();
        check_refused(&key, "cluade", "x", "there is no agent named \"cluade\"; did you mean \"claude\"?");
        check_refused(&key, "zed", "x", "there is no agent named \"zed\"; `hob agent list` shows those that are");
        let expect = "claude is not installed; `hob agent install claude` does it";
        check_refused(&key, "claude", "claude-sonnet-4-5", expect);
    }

    #[test]
    fn without_a_model_it_says_what_to_do() {
        check_refused(&Environment::default(), "hob", "x", super::super::NO_MODEL);
    }
}

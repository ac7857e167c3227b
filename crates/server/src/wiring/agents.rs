//! Agents by name: the built-in one, and those of the catalogue that are installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hob_agent::catalogue::{self, Entry};
use hob_agent::{Agent, AgentError, ModelFormat};
use hob_sandbox::Mount;
use hob_session::{AgentFactory, AgentStart, Agents, BUILT_IN, ModelFacts};
use tokio_util::task::TaskTracker;

use super::external::{self, TOOLCHAIN};
use crate::config::{Config, Permissions, ProviderKind};

/// Makes agents.
pub struct AllAgents {
    built_in: Agents,
    models: BTreeMap<String, (ProviderKind, ModelFacts)>,
    toolchains: PathBuf,
    permissions: catalogue::Permissions,
    tasks: TaskTracker,
}

impl AllAgents {
    /// Agents on the configured models. Those of the catalogue are looked for in `DATA_DIR/agents`.
    pub fn new(config: &Config, data_dir: &Path, tasks: TaskTracker) -> Self {
        let models = config.models.iter().filter_map(|(id, model)| {
            let kind = config.providers.get(&model.provider)?.kind;
            let facts = ModelFacts {
                format: *formats(kind).first()?,
                context_tokens: model.context_tokens,
                max_output_tokens: model.max_output_tokens,
            };
            Some((id.clone(), (kind, facts)))
        });
        let models: BTreeMap<_, _> = models.collect();
        let facts = models.iter().map(|(id, (_, facts))| (id.clone(), *facts)).collect();
        Self {
            built_in: Agents::new(facts),
            models,
            toolchains: crate::install::folder(data_dir),
            permissions: match config.session.permissions {
                Permissions::Allow => catalogue::Permissions::Unattended,
                Permissions::Ask => catalogue::Permissions::Ask,
            },
            tasks,
        }
    }

    /// The format in which an agent and a model meet, the agent's favourite first.
    fn format(&self, entry: &Entry, model: &str) -> Result<ModelFormat, String> {
        let (kind, facts) = self.models.get(model).ok_or_else(|| self.no_such_model(model))?;
        let shared = entry.formats.iter().find(|format| formats(*kind).contains(format)).copied();
        shared.ok_or_else(|| {
            format!(
                "{} does not speak {:?}, in which {model} is served; choose another model",
                entry.title, facts.format
            )
        })
    }

    fn no_such_model(&self, model: &str) -> String {
        let known: Vec<&str> = self.models.keys().map(String::as_str).collect();
        match known.is_empty() {
            true => super::NO_MODEL.to_owned(),
            false => format!("there is no model named {model:?}; configured are {}", known.join(", ")),
        }
    }
}

/// The formats in which the gateway offers a provider's models. Every server that speaks OpenAI's interface has chat
/// completions; few have responses.
fn formats(kind: ProviderKind) -> &'static [ModelFormat] {
    match kind {
        ProviderKind::Anthropic => &[ModelFormat::Anthropic],
        ProviderKind::Openai => &[ModelFormat::OpenAiChat, ModelFormat::OpenAiResponses],
        ProviderKind::Gemini => &[ModelFormat::Gemini],
    }
}

fn no_such_agent(agent: &str) -> String {
    let names = catalogue::entries().iter().map(|entry| entry.name).chain([BUILT_IN]);
    let nearest = crate::config::nearest(agent, names).map(|name| format!("; did you mean {name:?}?"));
    format!("there is no agent named {agent:?}{}", nearest.unwrap_or("; `hob agent list` shows those that are".into()))
}

#[async_trait]
impl AgentFactory for AllAgents {
    fn check(&self, agent: &str, model: &str) -> Result<(), String> {
        if agent == BUILT_IN {
            return self.models.get(model).map(drop).ok_or_else(|| self.no_such_model(model));
        }
        let entry = catalogue::entry(agent).ok_or_else(|| no_such_agent(agent))?;
        self.format(entry, model)?;
        match crate::install::is_installed(&self.toolchains, entry) {
            true => Ok(()),
            false => Err(format!("the agent {agent} is not installed; run `hob agent install {agent}`")),
        }
    }

    fn mounts(&self, agent: &str) -> Vec<Mount> {
        let Some(entry) = catalogue::entry(agent) else { return self.built_in.mounts(agent) };
        let source = self.toolchains.join(entry.install_plan().folder);
        vec![Mount { source, target: TOOLCHAIN.into() }]
    }

    async fn start(&self, start: AgentStart) -> Result<Box<dyn Agent>, AgentError> {
        let Some(entry) = catalogue::entry(&start.agent) else { return self.built_in.start(start).await };
        let missing = |reason| AgentError::Model { model: start.model.clone(), reason };
        let format = self.format(entry, &start.model).map_err(missing)?;
        let (_, facts) = self.models.get(&start.model).ok_or_else(|| missing("it is not configured".into()))?;
        external::start(entry, start, &ModelFacts { format, ..*facts }, self.permissions, &self.tasks).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, add_known_models};

    fn agents(environment: &Environment, folder: &Path) -> AllAgents {
        AllAgents::new(&add_known_models(Config::default(), environment), folder, TaskTracker::new())
    }

    #[test]
    fn an_unknown_agent_or_model_says_what_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let agents = agents(&[("ANTHROPIC_API_KEY", "k")].into(), dir.path());
        assert_eq!(agents.check("hob", "claude-sonnet-4-5"), Ok(()));
        assert_eq!(
            agents.check("cluade", "x"),
            Err("there is no agent named \"cluade\"; did you mean \"claude\"?".into())
        );
        assert!(agents.check("hob", "gpt-9").unwrap_err().contains("configured are claude-haiku-4-5, "));
        assert!(agents.check("codex", "claude-sonnet-4-5").unwrap_err().contains("does not speak Anthropic"));
        let error = agents.check("claude", "claude-sonnet-4-5").unwrap_err();
        assert_eq!(error, "the agent claude is not installed; run `hob agent install claude`");
    }

    #[test]
    fn without_a_model_it_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(agents(&Environment::default(), dir.path()).check("hob", "x").unwrap_err(), super::super::NO_MODEL);
    }
}

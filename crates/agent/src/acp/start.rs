//! Opening a conversation with an agent: `initialize`, then `session/load` or `session/new`, then the settings.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::clip::{self, NAME_BYTES_MAX};
use super::serve::{Answer, Wait};
use super::{AcpAgent, Resume, Setting, State};
use crate::agent::{AgentError, TurnHost};
use crate::update::Update;

/// The protocol's version that is spoken here. Only 1 is stable.
const PROTOCOL_VERSION: u64 = 1;

/// A conversation that is open.
pub(super) struct Session {
    /// The agent's ID of it.
    pub(super) id: String,
    /// Whether a prompt may hold pictures.
    pub(super) takes_images: bool,
    /// What `session/new` or `session/load` said of modes, models and options.
    offers: Value,
    /// The model that is set, in our name for it.
    model: Option<String>,
}

/// An agent's answer to `initialize`, as far as it matters.
struct Abilities {
    loads_sessions: bool,
    takes_images: bool,
}

impl AcpAgent {
    /// Opens the conversation. `None` when `stop` came first.
    pub(super) async fn open(
        &mut self,
        host: &dyn TurnHost,
        stop: &CancellationToken,
    ) -> Result<Option<Session>, AgentError> {
        let Some(abilities) = self.initialize(host, stop).await? else {
            return Ok(None);
        };
        let loaded = match self.config.resume.clone() {
            Some(resume) => self.load(&resume, &abilities, host, stop).await?,
            None => None,
        };
        if stop.is_cancelled() {
            return Ok(None);
        }
        let opened = match loaded {
            Some(opened) => Some(opened),
            None => self.new_session(host, stop).await?,
        };
        let Some((id, offers)) = opened else {
            return Ok(None);
        };
        host.update(Update::AgentSession(id.clone())).await;
        let session = Session { id, takes_images: abilities.takes_images, offers, model: None };
        for setting in self.config.settings.clone() {
            if !self.set(&session.id, &session.offers, &setting, host, stop).await? {
                return Ok(None);
            }
        }
        Ok(Some(session))
    }

    async fn initialize(
        &mut self,
        host: &dyn TurnHost,
        stop: &CancellationToken,
    ) -> Result<Option<Abilities>, AgentError> {
        let params = json!({
            "protocolVersion": PROTOCOL_VERSION,
            "clientCapabilities": {"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false},
            "clientInfo": {"name": "hob", "title": "Hob", "version": env!("CARGO_PKG_VERSION")},
        });
        let wait = Wait { what: "its first words", ..Wait::new(self.config.deadlines.initialize) };
        match self.request("initialize", params, wait, host, stop).await? {
            Answer::Stopped => Ok(None),
            Answer::Refused(error) => Err(self.refused("start", &error.to_string())),
            Answer::Result(result) => {
                let version = result["protocolVersion"].as_u64();
                if version.is_some_and(|version| version != PROTOCOL_VERSION) {
                    let reason = format!("it speaks version {} of the protocol only", result["protocolVersion"]);
                    return Err(AgentError::Protocol { agent: self.config.agent.clone(), reason });
                }
                let able = &result["agentCapabilities"];
                Ok(Some(Abilities {
                    loads_sessions: able["loadSession"] == true,
                    takes_images: able["promptCapabilities"]["image"] == true,
                }))
            }
        }
    }

    /// Loads an earlier conversation. `None` when it cannot be: then its transcript goes before the first prompt.
    async fn load(
        &mut self,
        resume: &Resume,
        abilities: &Abilities,
        host: &dyn TurnHost,
        stop: &CancellationToken,
    ) -> Result<Option<(String, Value)>, AgentError> {
        let mut why = "it cannot load conversations".to_owned();
        if abilities.loads_sessions {
            let params = json!({"sessionId": resume.agent_session, "cwd": self.config.cwd,
                                "mcpServers": self.config.mcp_servers});
            let deadline = self.config.deadlines.session;
            let wait = Wait { what: "the conversation to be loaded", is_replay: true, ..Wait::new(deadline) };
            match self.request("session/load", params, wait, host, stop).await? {
                Answer::Result(offers) => {
                    self.settle(host).await?;
                    return Ok(Some((resume.agent_session.clone(), offers)));
                }
                Answer::Stopped => return Ok(None),
                Answer::Refused(error) => why = error.to_string(),
            }
        }
        let agent = &self.config.agent;
        let notice = format!("{agent} begins a new conversation with a summary of the old one: {why}");
        host.update(Update::Notice(notice)).await;
        if !resume.transcript.is_empty() {
            self.preface = Some(format!("What was said and done so far:\n\n{}", resume.transcript));
        }
        Ok(None)
    }

    async fn new_session(
        &mut self,
        host: &dyn TurnHost,
        stop: &CancellationToken,
    ) -> Result<Option<(String, Value)>, AgentError> {
        let params = json!({"cwd": self.config.cwd, "mcpServers": self.config.mcp_servers});
        let wait = Wait { what: "a new conversation", ..Wait::new(self.config.deadlines.session) };
        match self.request("session/new", params, wait, host, stop).await? {
            Answer::Stopped => Ok(None),
            Answer::Refused(error) => Err(self.refused("open a conversation", &error.to_string())),
            Answer::Result(offers) => match offers["sessionId"].as_str() {
                Some(id) if id.len() <= NAME_BYTES_MAX => Ok(Some((id.to_owned(), offers))),
                _ => {
                    let reason = "it opened a conversation without an ID".to_owned();
                    Err(AgentError::Protocol { agent: self.config.agent.clone(), reason })
                }
            },
        }
    }

    /// Changes the model when a prompt names another than the one that is set.
    pub(super) async fn change_model(
        &mut self,
        model: Option<&str>,
        host: &dyn TurnHost,
        stop: &CancellationToken,
    ) -> Result<(), AgentError> {
        let State::Open(session) = &mut self.state else {
            return Ok(());
        };
        let Some(model) = model.filter(|model| session.model.as_deref() != Some(*model)) else {
            return Ok(());
        };
        session.model = Some(model.to_owned());
        let (id, offers) = (session.id.clone(), session.offers.clone());
        let setting = Setting::Model(format!("{}{model}", self.config.model_prefix));
        self.set(&id, &offers, &setting, host, stop).await?;
        Ok(())
    }

    /// Sets one thing; what the agent refuses becomes a notice. `false` when `stop` came first.
    async fn set(
        &mut self,
        session_id: &str,
        offers: &Value,
        setting: &Setting,
        host: &dyn TurnHost,
        stop: &CancellationToken,
    ) -> Result<bool, AgentError> {
        let Some((method, params)) = setter(session_id, offers, setting) else {
            let notice = format!("{} has no way to set {}", self.config.agent, in_words(setting));
            host.update(Update::Notice(notice)).await;
            return Ok(true);
        };
        let wait = Wait { what: "a setting to be taken", ..Wait::new(self.config.deadlines.setting) };
        match self.request(method, params, wait, host, stop).await? {
            Answer::Result(_) => Ok(true),
            Answer::Stopped => Ok(false),
            Answer::Refused(error) => {
                let notice = format!("{} does not take {}: {error}", self.config.agent, in_words(setting));
                host.update(Update::Notice(notice)).await;
                Ok(true)
            }
        }
    }

    fn refused(&self, request: &'static str, reason: &str) -> AgentError {
        AgentError::Refused { agent: self.config.agent.clone(), request, reason: reason.to_owned() }
    }
}

/// The request that sets something, by what the conversation offers: the newer options, or else the older modes and
/// models.
fn setter(session_id: &str, offers: &Value, setting: &Setting) -> Option<(&'static str, Value)> {
    let has_option = |id: &str| offers["configOptions"].as_array().is_some_and(|all| all.iter().any(|o| o["id"] == id));
    let option = |id: &str, value: &str| {
        let params = json!({"sessionId": session_id, "configId": id, "value": value});
        has_option(id).then_some(("session/set_config_option", params))
    };
    match setting {
        Setting::Option { id, value } => option(id, value),
        Setting::Mode(mode) => match offers["modes"].is_object() {
            true => Some(("session/set_mode", json!({"sessionId": session_id, "modeId": mode}))),
            false => option("mode", mode),
        },
        Setting::Title(title) => Some(("session/set_title", json!({"sessionId": session_id, "title": title}))),
        Setting::Model(model) => option("model", model).or_else(|| {
            let params = json!({"sessionId": session_id, "modelId": model});
            offers["models"].is_object().then_some(("session/set_model", params))
        }),
    }
}

fn in_words(setting: &Setting) -> String {
    let text = match setting {
        Setting::Mode(mode) => format!("the mode {mode}"),
        Setting::Model(model) => format!("the model {model}"),
        Setting::Title(title) => format!("the title {title}"),
        Setting::Option { id, value } => format!("{id} to {value}"),
    };
    clip::start(&text, NAME_BYTES_MAX).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(offers: &Value, setting: &Setting, expect: Option<&str>) {
        assert_eq!(setter("s", offers, setting).map(|(method, _)| method), expect);
    }

    #[test]
    fn a_setting_takes_the_way_that_the_agent_offers() {
        let (mode, model) = (Setting::Mode("yolo".into()), Setting::Model("m".into()));
        let newer = json!({"configOptions": [{"id": "model"}, {"id": "mode"}]});
        check(&newer, &mode, Some("session/set_config_option"));
        check(&newer, &model, Some("session/set_config_option"));
        check(&newer, &Setting::Option { id: "effort".into(), value: "low".into() }, None);
        let older = json!({"modes": {"currentModeId": "default"}, "models": {}});
        check(&older, &mode, Some("session/set_mode"));
        check(&older, &model, Some("session/set_model"));
        check(&json!({}), &mode, None);
        check(&json!({}), &model, None);
    }
}

//! What the tests of the built-in agent stand on: a model server that speaks the four formats, a workspace of real
//! files and real processes, and a host that keeps what it is told.

pub(crate) mod host;
pub(crate) mod model;
pub(crate) mod wire;
pub(crate) mod workspace;

use std::sync::Arc;
use std::time::Duration;

use hob_agent::{Agent as _, Author, BuiltIn, BuiltInConfig, ModelFormat, PastTurn, Prompt, TurnEnd};
use tokio_util::sync::CancellationToken;

use host::Host;
use model::{ModelServer, Reply};
use workspace::LocalWorkspace;

/// The formats that each answer can be given in.
pub(crate) const FORMATS: [ModelFormat; 4] =
    [ModelFormat::OpenAiChat, ModelFormat::OpenAiResponses, ModelFormat::Anthropic, ModelFormat::Gemini];

/// An agent with its model server, workspace and host.
pub(crate) struct Bench {
    pub(crate) model: ModelServer,
    pub(crate) workspace: Arc<LocalWorkspace>,
    pub(crate) host: Host,
    pub(crate) stop: CancellationToken,
    pub(crate) agent: Box<BuiltIn>,
}

impl Bench {
    /// An agent whose model gives these replies, one for each request.
    pub(crate) async fn new(replies: Vec<Reply>) -> Self {
        Self::with(ModelFormat::OpenAiChat, replies, |_| {}, Vec::new()).await
    }

    pub(crate) async fn with(
        format: ModelFormat,
        replies: Vec<Reply>,
        configure: impl FnOnce(&mut BuiltInConfig),
        history: Vec<PastTurn>,
    ) -> Self {
        let model = ModelServer::start(replies).await;
        let workspace = Arc::new(LocalWorkspace::new());
        let mut config = BuiltInConfig::new(model.endpoint(format), "scripted-1");
        config.id_prefix = "e1".to_owned();
        config.model_patience = Duration::from_secs(20);
        configure(&mut config);
        let agent = BuiltIn::new(config, Arc::clone(&workspace) as _, history).expect("the agent starts");
        Self { model, workspace, host: Host::default(), stop: CancellationToken::new(), agent: Box::new(agent) }
    }

    /// Runs a turn to its end.
    pub(crate) async fn prompt(&mut self, text: &str) -> TurnEnd {
        let end = self.agent.prompt(prompt(text), &self.host, self.stop.clone()).await;
        end.expect("the turn ends")
    }
}

pub(crate) fn ada() -> Author {
    Author { name: "Ada".to_owned(), email: "ada@example.org".to_owned() }
}

pub(crate) fn prompt(text: &str) -> Prompt {
    Prompt { text: text.to_owned(), images: Vec::new(), author: ada(), model: None }
}

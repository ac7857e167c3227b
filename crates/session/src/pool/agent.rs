//! The agent of a warm sandbox: its process runs and its conversation is open before anybody has said what to do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hob_agent::{
    Agent, Answer, Author, PermissionOutcome, PermissionRequest, Question, TurnHost, Update, Workspace, catalogue,
};
use hob_sandbox::Sandbox;
use tokio::sync::{Mutex, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::kind::Kind;
use crate::agents::AgentStart;
use crate::config::{Access, Permissions};
use crate::id::SessionId;
use crate::owned::House;
use crate::services::Services;
use crate::waiting::{Presence, WaitingSandbox};
use crate::workspace::SandboxWorkspace;

/// Updates that are kept; an agent that says more before it is prompted is not understood any better for it.
const UPDATES_MAX: usize = 64;

/// An agent that is ready for its first prompt, or about to be.
pub(crate) struct WarmAgent {
    begun: oneshot::Receiver<Result<Begun, String>>,
}

/// An agent that is ready for its first prompt.
pub(crate) struct Begun {
    pub(crate) agent: Box<dyn Agent>,
    /// What it said on the way, which belongs into the session's log.
    pub(crate) updates: Vec<Update>,
}

/// Begins the agent of a kind in its sandbox; none where it does not live there. It ends with the sandbox's life.
pub(super) fn begin(
    house: &Arc<House>,
    kind: &Kind,
    id: &SessionId,
    access: &Access,
    sandbox: &Sandbox,
    alive: CancellationToken,
) -> Option<WarmAgent> {
    let model = kind.model.clone()?;
    let sandbox = WaitingSandbox::new(watch::Sender::new(Presence::Ready(sandbox.clone())).subscribe());
    // An agent that lives in the sandbox has no use for it.
    let workspace = SandboxWorkspace::new(sandbox.clone(), Arc::new(Services::new()), house.tracker.clone());
    let start = AgentStart {
        session: id.clone(),
        agent: kind.agent.clone(),
        model,
        // Nobody's: what is warm shows nothing of who typed.
        author: Author { name: "Hob".to_owned(), email: "hob@localhost".to_owned() },
        access: access.clone(),
        workspace: Arc::new(workspace) as Arc<dyn Workspace>,
        sandbox,
        history: Vec::new(),
        resume: None,
        permissions: match house.config.permissions {
            Permissions::Allow => catalogue::Permissions::Unattended,
            Permissions::Ask => catalogue::Permissions::Ask,
        },
        id_prefix: format!("{}-", house.deps.ids.next().get(..6).unwrap_or("a")),
    };
    let (told, begun) = oneshot::channel();
    let house = Arc::clone(house);
    house.tracker.clone().spawn(async move {
        let limit = house.config.timeouts.agent_start;
        let made = tokio::time::timeout(limit, make(&house, start));
        let Some(made) = alive.run_until_cancelled(made).await else { return };
        let made = made.unwrap_or_else(|_| Err(format!("it was not ready within {} s", limit.as_secs())));
        // A sandbox that is gone takes its agent along.
        told.send(made).ok();
    });
    Some(WarmAgent { begun })
}

async fn make(house: &House, start: AgentStart) -> Result<Begun, String> {
    let failed = |error: hob_agent::AgentError| format!("failed to {error}");
    let mut agent = house.deps.agents.start(start).await.map_err(failed)?;
    let listener = Listener::default();
    agent.get_ready(&listener).await.map_err(failed)?;
    Ok(Begun { agent, updates: listener.updates.into_inner() })
}

impl WarmAgent {
    /// The agent, as soon as it is ready.
    ///
    /// # Errors
    /// It could not be started; words for a person.
    pub(crate) async fn ready(self, limit: Duration) -> Result<Begun, String> {
        match tokio::time::timeout(limit, self.begun).await {
            Ok(Ok(begun)) => begun,
            Ok(Err(_)) => Err("its sandbox is gone".to_owned()),
            Err(_) => Err(format!("it was not ready within {} s", limit.as_secs())),
        }
    }
}

/// Hears an agent that nobody has prompted yet.
#[derive(Default)]
struct Listener {
    updates: Mutex<Vec<Update>>,
}

#[async_trait]
impl TurnHost for Listener {
    async fn update(&self, update: Update) {
        let mut updates = self.updates.lock().await;
        // Without the name of its conversation it could not be gone on with.
        if updates.len() < UPDATES_MAX || matches!(update, Update::AgentSession(_)) {
            updates.push(update);
        }
    }

    async fn permission(&self, _request: PermissionRequest) -> PermissionOutcome {
        PermissionOutcome::Cancelled
    }

    async fn ask(&self, _question: Question) -> Answer {
        Answer::None { reason: "nobody has said yet what to do".to_owned() }
    }
}

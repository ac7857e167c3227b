//! One warm sandbox: it runs, its workspace is at a commit, its services are up or on their way.
//!
//! It has the name of a session that does not exist yet, so that its door, its folder and its sandbox are the session's
//! own when one takes it.

use std::sync::Arc;
use std::time::Duration;

use hob_sandbox::{Sandbox, SandboxError, SandboxId, Spec, Token};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::agent::{self, WarmAgent};
use super::kind::Kind;
use super::mailbox::Mailbox;
use crate::config::{Access, Wishes};
use crate::environment::Environment;
use crate::event::EventKind;
use crate::footing::Footing;
use crate::git::{Base, Mirror, carry, forge};
use crate::id::SessionId;
use crate::images::{self, Found, How, Image, Images, Wanted};
use crate::making::mounts;
use crate::owned::House;
use crate::services::{self, Crew, Hearer, Services};
use crate::variables::variables;

/// The epoch of a session's first owner, which a warm sandbox is made for.
pub(crate) const EPOCH: u64 = 1;

/// How long the removal of a sandbox may take.
const REMOVAL: Duration = Duration::from_secs(30);

/// A sandbox that waits for a session.
pub(crate) struct Warm {
    pub(crate) id: SessionId,
    pub(crate) sandbox: Sandbox,
    pub(crate) access: Access,
    pub(crate) footing: Footing,
    /// The commit that its workspace is at.
    pub(crate) commit: String,
    pub(crate) environment: Environment,
    pub(crate) services: Arc<Services>,
    /// The agent, where it lives in the sandbox.
    pub(crate) agent: Option<WarmAgent>,
    /// What there is to tell the session.
    pub(crate) mailbox: Arc<Mailbox>,
    /// The life of its services, which ends with it.
    pub(crate) alive: DropGuard,
}

/// What a warm sandbox is made from.
pub(super) struct Prepared {
    pub(super) mirror: Mirror,
    pub(super) base: Base,
    pub(super) environment: Environment,
    pub(super) image: Arc<Image>,
    /// What is to be said of the image.
    said: Option<String>,
}

/// Brings all that a warm sandbox is made from up to date. An image that is not there yet is built.
///
/// # Errors
/// The repository cannot be read, or has no image; words for a person.
pub(super) async fn prepare(house: &Arc<House>, kind: &Kind) -> Result<Prepared, String> {
    let wanted = images::resolve(house, &kind.repository, kind.asked.clone(), How::default()).await?;
    let Wanted { mirror, base, environment, .. } = wanted.clone();
    let (image, said) = match Images::find(house, wanted) {
        Found::Ready(image, said) => (image, said),
        Found::Building(building) => images::built(house, &building).await?,
    };
    Ok(Prepared { mirror, base, environment, image, said })
}

/// Makes a sandbox and starts what runs in it.
///
/// # Errors
/// It could not be made; words for a person. Part of it may be there.
pub(super) async fn make(
    house: &Arc<House>,
    kind: &Kind,
    id: &SessionId,
    mailbox: Arc<Mailbox>,
    prepared: Prepared,
) -> Result<Warm, String> {
    let Prepared { mirror, base, environment, image, said } = prepared;
    let access = house.deps.doors.open(id, EPOCH).await;
    let access = access.map_err(|reason| format!("failed to open the gateway: {reason}"))?;
    let wishes = Wishes { forge: forge(&kind.repository), repository: environment.egress.clone() };
    // What is refused is told by the session that takes it.
    house.deps.doors.allow(id, &wishes).await;
    let mut footing = Footing::of(&image);
    let sandbox = start(house, kind, id, &footing, &environment, &access).await?;
    if footing.held.commit != base.commit {
        let limit = house.config.timeouts.fetch;
        let synced = carry::sync(&mirror, &footing.held, &base, "", &sandbox, limit).await;
        synced.map_err(|error| format!("failed to {error}"))?;
        footing.held.commit.clone_from(&base.commit);
    }
    footing.write(&folder(house, id)).await?;
    if let Some(text) = said {
        mailbox.hear(EventKind::Notice { text }).await?;
    }
    let services = Arc::new(Services::new());
    let alive = CancellationToken::new();
    let hearer = Arc::clone(&mailbox) as Arc<dyn Hearer>;
    let (tracker, beside) = (house.tracker.clone(), sandbox.clone());
    services.announce(&environment);
    let crew = Crew { services: Arc::clone(&services), hearer, sandbox: beside, tracker, alive: alive.clone() };
    services::begin_unheard(crew, environment.clone());
    let agent = agent::begin(house, kind, id, &access, &sandbox, alive.clone());
    let (id, commit, alive) = (id.clone(), base.commit, alive.drop_guard());
    Ok(Warm { id, sandbox, access, footing, commit, environment, services, agent, mailbox, alive })
}

async fn start(
    house: &House,
    kind: &Kind,
    id: &SessionId,
    footing: &Footing,
    environment: &Environment,
    access: &Access,
) -> Result<Sandbox, String> {
    let (config, ids) = (&house.config, &house.deps.ids);
    let spec = Spec {
        id: SandboxId::new(id.as_str())?,
        epoch: EPOCH,
        token: Token(format!("{}{}", ids.next(), ids.next())),
        base: footing.base.clone(),
        layers: footing.layers.clone(),
        workspace: Some(house.images.nothing.clone()),
        mounts: mounts(house, &kind.agent),
        env: variables(environment, &footing.env),
        limits: environment.wants.within(config.limits.sandbox),
        gateway: Some(access.socket.clone()),
    };
    let limit = config.timeouts.sandbox_start;
    match tokio::time::timeout(limit, house.deps.provider.create(spec)).await {
        Ok(Ok(sandbox)) => Ok(sandbox),
        Ok(Err(error @ SandboxError::Layers { .. })) => {
            house.images.remove(house, &footing.image_id).await?;
            Err(format!("failed to {error}; the image is made anew"))
        }
        Ok(Err(error)) => Err(format!("failed to {error}")),
        Err(_) => Err(format!("failed to start the sandbox within {} s", limit.as_secs())),
    }
}

/// The folder of the session that would take it.
fn folder(house: &House, id: &SessionId) -> std::path::PathBuf {
    house.config.data_dir.join("sessions").join(id.as_str())
}

/// Removes a sandbox that no session took, or what there is of one, with its door and its folder.
pub(super) async fn remove(house: &House, id: &SessionId) {
    destroy(house, id).await;
    house.deps.doors.close(id).await;
    let folder = folder(house, id);
    match tokio::fs::remove_dir_all(&folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), "a folder is left until the next sweep: {error}");
        }
        Ok(()) | Err(_) => {}
    }
}

async fn destroy(house: &House, id: &SessionId) {
    let Ok(name) = SandboxId::new(id.as_str()) else { return };
    match tokio::time::timeout(REMOVAL, house.deps.provider.destroy(&name)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(sandbox.id = %id, "a sandbox is left behind: failed to {error}"),
        Err(_) => tracing::error!(sandbox.id = %id, "a sandbox is left behind: it took longer than {REMOVAL:?}"),
    }
}

impl Warm {
    /// Removes the sandbox from under a session that cannot use it. The door and the folder are the session's.
    ///
    /// # Errors
    /// The session would take the sandbox for its own; words for a person.
    pub(crate) async fn discard(self, house: &House) -> Result<(), String> {
        drop(self.alive);
        destroy(house, &self.id).await;
        Footing::remove(&folder(house, &self.id)).await
    }

    /// Whether it runs.
    pub(crate) async fn is_there(&self) -> bool {
        tokio::select! {
            biased;
            _ = self.sandbox.closed() => false,
            () = std::future::ready(()) => true,
        }
    }
}

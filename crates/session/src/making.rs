//! The making of a session's sandbox: on the files that the session has, or from an image.

use std::sync::Arc;
use std::time::Duration;

use hob_sandbox::{Gate, Mount, Sandbox, SandboxError, Spec};

use crate::environment::Environment;
use crate::footing::Footing;
use crate::git::{Base, Mirror, carry};
use crate::images::{self, Found, How, Image, Images, Wanted};
use crate::owned::{House, Owned, ToReason};
use crate::start::{now_ms, tell, tell_lost, token};
use crate::variables::variables;
use crate::waiting::Presence;
use crate::workspace::ROOT;

/// A sandbox in the making.
pub(crate) struct Making<'a> {
    pub(crate) owned: &'a Owned,
    pub(crate) mirror: Mirror,
    pub(crate) base: Base,
    /// The session's branch.
    pub(crate) branch: String,
    pub(crate) environment: Environment,
}

impl Making<'_> {
    /// Starts the sandbox on the files that the session has; `None` where it has none, or none that could be gone on
    /// from.
    ///
    /// # Errors
    /// It could not be started; words for a person.
    pub(crate) async fn again(&self) -> Result<Option<Sandbox>, String> {
        let owned = self.owned;
        let Some(footing) = Footing::read(&owned.folder()).await? else { return Ok(None) };
        if !owned.log.read(|state| state.synced).await {
            forget(owned).await?;
            return Ok(None);
        }
        let started = owned.phase("sandbox", self.create(&footing, Gate::Open)).await;
        let sandbox = started.map_err(Broken::into_reason)?;
        if sandbox.lost().is_some() && !has_repository(&sandbox).await? {
            let text = "Nothing of the session's files could be saved: it begins again from its base commit.";
            tell(owned, vec![text.to_owned()]).await?;
            forget(owned).await?;
            return Ok(None);
        }
        Ok(Some(sandbox))
    }

    /// Starts the sandbox from an image, and brings its workspace to the base commit.
    ///
    /// # Errors
    /// There is no image, or it could not be started; words for a person.
    pub(crate) async fn anew(&self) -> Result<Sandbox, String> {
        let owned = self.owned;
        let image = self.image().await?;
        let footing = Footing::of(&image);
        footing.write(&owned.folder()).await?;
        // Where nothing can be closed, nobody gets to see the sandbox before its sync.
        let gate = if owned.house.deps.provider.capabilities().gates { Gate::Closed } else { Gate::Open };
        let (footing, sandbox) = match owned.phase("sandbox", self.create(&footing, gate)).await {
            Ok(sandbox) => (footing, sandbox),
            Err(Broken::Layers(reason)) => {
                tell(owned, vec![format!("The image {} is made anew: {reason}.", image.image_id)]).await?;
                owned.house.images.remove(&owned.house, &image.image_id).await?;
                let footing = Footing::of(&*self.image().await?);
                footing.write(&owned.folder()).await?;
                let started = owned.phase("sandbox", self.create(&footing, gate)).await;
                (footing, started.map_err(Broken::into_reason)?)
            }
            Err(Broken::Other(reason)) => return Err(reason),
        };
        self.sync(&footing, &sandbox).await?;
        Ok(sandbox)
    }

    /// The image to start from. Where it is being built, the steps of that are recorded as they come.
    async fn image(&self) -> Result<Arc<Image>, String> {
        let owned = self.owned;
        let (repository, asked) = owned.log.read(|state| (state.repository.clone(), state.summary.base.clone())).await;
        let wanted = Wanted {
            mirror: self.mirror.clone(),
            repository,
            asked,
            base: self.base.clone(),
            environment: self.environment.clone(),
            how: How::default(),
        };
        let found = owned.phase("image", async {
            let (image, said) = match Images::find(&owned.house, wanted) {
                Found::Ready(image, said) => (image, said),
                Found::Building(building) => images::wait_for(owned, &building).await?,
            };
            let detail = image.image_id.clone();
            Ok::<_, String>(((image, said), Some(detail)))
        });
        let (image, said) = found.await?;
        owned.house.images.used(&image.image_id, now_ms(owned));
        tell(owned, said.into_iter().collect()).await?;
        Ok(image)
    }

    /// Brings the workspace to the base commit, and opens it. Where it is closed, everybody else reads meanwhile.
    ///
    /// # Errors
    /// It failed, and the sandbox is put away; words for a person.
    pub(crate) async fn sync(&self, footing: &Footing, sandbox: &Sandbox) -> Result<(), String> {
        let owned = self.owned;
        if sandbox.gate() == Gate::Closed {
            // Before anybody reaches the sandbox, so that whoever waits for its services waits for these.
            owned.services.announce(&self.environment);
            owned.presence.send_replace(Presence::Readable(sandbox.clone()));
        }
        let synced = owned.phase("sync", self.sync_closed(footing, sandbox)).await;
        let provider = &owned.house.deps.provider;
        // The end of the sync is on disk before anybody writes: it is never done again over what they wrote.
        let opened = match synced {
            Ok(()) => provider.open_gate(sandbox.id()).await.map_err(|error| format!("failed to {error}")),
            Err(reason) => Err(reason),
        };
        if opened.is_err() {
            // Nothing of use is in it, and whoever reads there reads what may be half of something.
            provider.suspend(sandbox.id()).await.map_err(|error| format!("failed to {error}"))?;
        }
        opened
    }

    async fn sync_closed(&self, footing: &Footing, sandbox: &Sandbox) -> Result<((), Option<String>), String> {
        let Self { owned, mirror, base, branch, .. } = self;
        let limit = owned.house.config.timeouts.fetch;
        let synced = async {
            let hand = match sandbox.gate() {
                Gate::Closed => owned.house.deps.provider.writer(sandbox.id(), token(owned)).await?,
                Gate::Open => sandbox.clone(),
            };
            carry::sync(mirror, &footing.held, base, branch, &hand, limit).await
        };
        tokio::select! {
            synced = synced => synced.map_err(|error| format!("failed to {error}"))?,
            () = owned.house.closing.cancelled() => return Err("the server shuts down".to_owned()),
        }
        Ok(((), Some(base.commit.clone())))
    }

    async fn create(&self, footing: &Footing, gate: Gate) -> Result<(Sandbox, Option<String>), Broken> {
        let owned = self.owned;
        let config = &owned.house.config;
        let access = owned.access().await.map_err(|reason| format!("failed to open the gateway: {reason}"))?;
        let spec = Spec {
            id: owned.sandbox_id()?,
            epoch: owned.epoch,
            token: token(owned),
            base: footing.base.clone(),
            layers: footing.layers.clone(),
            workspace: Some(owned.house.images.nothing.clone()),
            mounts: mounts(&owned.house, &owned.log.read(|state| state.summary.agent.clone()).await),
            env: variables(&self.environment, &footing.env),
            limits: self.environment.wants.within(config.limits.sandbox),
            gateway: Some(access.socket.clone()),
        };
        let deadline = config.timeouts.sandbox_start;
        let provider = &owned.house.deps.provider;
        let created = match gate {
            Gate::Open => provider.create(spec),
            Gate::Closed => provider.create_closed(spec),
        };
        match tokio::time::timeout(deadline, created).await {
            Ok(Ok(sandbox)) => {
                tell_lost(owned, &sandbox).await?;
                Ok((sandbox, None))
            }
            Ok(Err(SandboxError::Layers { reason, .. })) => Err(Broken::Layers(reason)),
            Ok(Err(error)) => Err(format!("failed to {error}").into()),
            Err(_) => Err(late(deadline).into()),
        }
    }
}

/// Drops a sandbox with its files, and what it stood on.
///
/// # Errors
/// Something of it could not be removed; words for a person.
pub(crate) async fn forget(owned: &Owned) -> Result<(), String> {
    let id = owned.sandbox_id()?;
    owned.house.deps.provider.destroy(&id).await.map_err(|error| format!("failed to {error}"))?;
    Footing::remove(&owned.folder()).await
}

/// Why a sandbox could not be made.
#[derive(Debug, PartialEq, Eq)]
enum Broken {
    /// Layers that it was to stand on are gone or torn.
    Layers(String),
    /// Something else; words for a person.
    Other(String),
}

impl Broken {
    fn into_reason(self) -> String {
        match self {
            Self::Layers(reason) => format!("failed to start the sandbox: {reason}"),
            Self::Other(reason) => reason,
        }
    }
}

impl ToReason for Broken {
    fn reason(&self) -> &str {
        match self {
            Self::Layers(reason) | Self::Other(reason) => reason,
        }
    }
}

impl From<String> for Broken {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

async fn has_repository(sandbox: &Sandbox) -> Result<bool, String> {
    let found = sandbox.stat(&format!("{ROOT}/.git")).await;
    Ok(found.map_err(|error| format!("failed to {error}"))?.is_some())
}

/// What the operator mounts into every sandbox, and what an agent needs.
pub(crate) fn mounts(house: &House, agent: &str) -> Vec<Mount> {
    let mut mounts = house.config.mounts.clone();
    mounts.extend(house.deps.agents.mounts(agent));
    mounts
}

fn late(deadline: Duration) -> String {
    format!("failed to start the sandbox within {} s; hob doctor tells what this machine can do", deadline.as_secs())
}

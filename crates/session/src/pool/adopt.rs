//! How a session takes the warm sandbox that it was made for.

use std::sync::Arc;

use hob_sandbox::Sandbox;
use tokio_util::sync::DropGuard;

use super::mailbox::Mailbox;
use super::warm::Warm;
use crate::making::Making;
use crate::start::now_ms;

/// What runs in a warm sandbox that a session has taken.
pub(crate) struct Running {
    /// What there is to tell of it.
    pub(crate) mailbox: Arc<Mailbox>,
    /// The life of its services.
    pub(crate) alive: DropGuard,
}

impl Making<'_> {
    /// Takes the warm sandbox that the session came with, if that is still what the session wants. Beside it, what runs
    /// in it already; nothing where the session begins from a newer commit: then whatever ran saw other files, and is
    /// started again.
    ///
    /// # Errors
    /// It could not be brought to the base commit, or could not be got rid of; words for a person.
    pub(crate) async fn take_from_pool(&self) -> Result<Option<(Sandbox, Option<Running>)>, String> {
        let owned = self.owned;
        let Some(warm) = owned.take_warm() else { return Ok(None) };
        if warm.environment != self.environment || owned.epoch != super::EPOCH || !warm.is_there().await {
            warm.discard(&owned.house).await?;
            return Ok(None);
        }
        let Warm { sandbox, footing, commit, agent, mailbox, alive, .. } = warm;
        owned.house.images.used(&footing.image_id, now_ms(owned));
        let is_at_base = commit == self.base.commit;
        let running = is_at_base.then_some(Running { mailbox, alive });
        let taken = async {
            if !is_at_base {
                sandbox.kill_all().await.map_err(|error| format!("failed to {error}"))?;
                owned.services.announce(&self.environment);
            }
            Ok::<_, String>(((), Some("warm".to_owned())))
        };
        owned.phase("sandbox", taken).await?;
        self.sync(&footing, &sandbox).await?;
        *owned.warm_agent.lock().await = agent.filter(|_| is_at_base);
        Ok(Some((sandbox, running)))
    }
}

//! A sandbox that may still be getting ready: whoever needs it waits for it here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hob_sandbox::Sandbox;
use tokio::sync::watch;

/// A handle on a session's sandbox, whether it is there yet or not. Clones see the same sandbox.
#[derive(Clone)]
pub struct WaitingSandbox {
    presence: watch::Receiver<Presence>,
    taken: Arc<AtomicBool>,
}

/// Whether a session's sandbox is there.
#[derive(Debug, Clone)]
pub(crate) enum Presence {
    /// None, and none on its way; why.
    Absent(String),
    /// On its way.
    Starting,
    /// There.
    Ready(Sandbox),
}

impl WaitingSandbox {
    pub(crate) fn new(presence: watch::Receiver<Presence>) -> Self {
        Self { presence, taken: Arc::default() }
    }

    /// The sandbox, as soon as it is ready. The wait ends at the latest when its start fails or runs into its deadline.
    ///
    /// # Errors
    /// It could not be started, or is gone; words that follow "failed to reach the sandbox: ".
    pub async fn ready(&self) -> Result<Sandbox, String> {
        self.taken.store(true, Ordering::Relaxed);
        let mut presence = self.presence.clone();
        let settled = presence.wait_for(|presence| !matches!(presence, Presence::Starting)).await;
        match settled.as_deref() {
            Ok(Presence::Ready(sandbox)) => Ok(sandbox.clone()),
            Ok(Presence::Absent(reason)) => Err(reason.clone()),
            Ok(Presence::Starting) | Err(_) => Err("the session is closing".to_owned()),
        }
    }

    /// Returns when the sandbox is there, or will not be.
    pub(crate) async fn settled(&self) {
        let mut presence = self.presence.clone();
        // An error means that the session is gone, which settles it too.
        presence.wait_for(|presence| !matches!(presence, Presence::Starting)).await.map(drop).ok();
    }

    /// The sandbox, if it is there now.
    pub(crate) fn now(&self) -> Option<Sandbox> {
        match &*self.presence.borrow() {
            Presence::Ready(sandbox) => Some(sandbox.clone()),
            Presence::Absent(_) | Presence::Starting => None,
        }
    }

    /// Whether the sandbox is being started, or waits for its place.
    pub(crate) fn is_on_its_way(&self) -> bool {
        matches!(&*self.presence.borrow(), Presence::Starting)
    }

    /// Forgets who has asked so far.
    pub(crate) fn reset(&self) {
        self.taken.store(false, Ordering::Relaxed);
    }

    /// Whether somebody has asked this handle for the sandbox, and so may have changed it.
    pub(crate) fn was_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }
}

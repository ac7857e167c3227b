//! A sandbox that may still be getting ready: whoever needs it waits for it here. Who only reads waits less: until the
//! sandbox is there, and not until its workspace is at the base commit.

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
    /// There, and closed: its workspace is brought to the base commit.
    Readable(Sandbox),
    /// There, with all that belongs to it.
    Ready(Sandbox),
}

impl Presence {
    fn is_on_its_way(&self) -> bool {
        matches!(self, Self::Starting | Self::Readable(_))
    }
}

impl WaitingSandbox {
    pub(crate) fn new(presence: watch::Receiver<Presence>) -> Self {
        Self { presence, taken: Arc::default() }
    }

    /// The sandbox, as soon as it is ready, which is when its workspace may be changed. The wait ends at the latest when its start fails or runs into its deadline.
    ///
    /// # Errors
    /// It could not be started, or is gone; words that follow "failed to reach the sandbox: ".
    pub async fn ready(&self) -> Result<Sandbox, String> {
        self.when(|presence| !presence.is_on_its_way()).await
    }

    /// The sandbox, as soon as it can be read. Its workspace may be closed still, and at an older commit than the base.
    ///
    /// # Errors
    /// As [`WaitingSandbox::ready`].
    pub async fn readable(&self) -> Result<Sandbox, String> {
        self.when(|presence| !matches!(presence, Presence::Starting)).await
    }

    async fn when(&self, is_so: impl Fn(&Presence) -> bool) -> Result<Sandbox, String> {
        self.taken.store(true, Ordering::Relaxed);
        let mut presence = self.presence.clone();
        let settled = presence.wait_for(is_so).await;
        match settled.as_deref() {
            Ok(Presence::Ready(sandbox) | Presence::Readable(sandbox)) => Ok(sandbox.clone()),
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

    /// Returns when nobody who changes something has to wait any more: the sandbox is ready, or will not be.
    pub(crate) async fn open(&self) {
        let mut presence = self.presence.clone();
        presence.wait_for(|presence| !presence.is_on_its_way()).await.map(drop).ok();
    }

    /// The sandbox, if it is there now.
    pub(crate) fn now(&self) -> Option<Sandbox> {
        match &*self.presence.borrow() {
            Presence::Ready(sandbox) | Presence::Readable(sandbox) => Some(sandbox.clone()),
            Presence::Absent(_) | Presence::Starting => None,
        }
    }

    /// Whether the sandbox is being started, waits for its place, or is closed still.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.presence.borrow().is_on_its_way()
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

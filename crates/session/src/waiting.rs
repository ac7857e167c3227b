//! A sandbox that may still be getting ready: whoever needs it waits for it here.

use hob_sandbox::Sandbox;
use tokio::sync::watch;

/// A handle on a session's sandbox, whether it is there yet or not. Clones see the same sandbox.
#[derive(Clone)]
pub struct WaitingSandbox {
    cell: watch::Receiver<Presence>,
}

/// Whether a session's sandbox is there.
#[derive(Clone)]
pub(crate) enum Presence {
    /// None, and none on its way.
    Absent(String),
    /// On its way.
    Starting,
    /// There.
    Ready(Sandbox),
}

impl WaitingSandbox {
    pub(crate) fn new(cell: watch::Receiver<Presence>) -> Self {
        Self { cell }
    }

    /// The sandbox, as soon as it is ready. The wait ends at the latest when its start fails or runs into its deadline.
    ///
    /// # Errors
    /// It could not be started, or is gone; words that follow "failed to reach the sandbox: ".
    pub async fn ready(&self) -> Result<Sandbox, String> {
        let mut cell = self.cell.clone();
        let settled = cell.wait_for(|presence| !matches!(presence, Presence::Starting)).await;
        match settled.as_deref() {
            Ok(Presence::Ready(sandbox)) => Ok(sandbox.clone()),
            Ok(Presence::Absent(reason)) => Err(reason.clone()),
            Ok(Presence::Starting) | Err(_) => Err("the session is closing".to_owned()),
        }
    }
}

//! Tells a session's participants and its agent when the sandbox runs into its limits.

use std::sync::Arc;
use std::time::Duration;

use hob_sandbox::{Sandbox, SandboxEvent};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::event::EventKind;
use crate::owned::Owned;

/// How often one session is told of its limits, at most: a loop can run into one without end.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Records what the sandbox runs into, until it is gone or put away.
pub(crate) fn tell(owned: &Arc<Owned>, sandbox: &Sandbox, alive: CancellationToken) {
    let (owned, sandbox) = (Arc::clone(owned), sandbox.clone());
    let tracker = owned.house.tracker.clone();
    tracker.spawn(async move {
        let closing = owned.house.closing.clone();
        tokio::select! {
            () = follow(&owned, &sandbox) => {}
            _ = sandbox.closed() => {}
            () = alive.cancelled() => {}
            () = closing.cancelled() => {}
        }
    });
}

async fn follow(owned: &Owned, sandbox: &Sandbox) {
    let mut events = sandbox.events();
    let mut told_kills = sandbox.usage().oom_kills.unwrap_or_default();
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let Some(event) = words(&event, sandbox, &mut told_kills) else { continue };
        if let Err(error) = owned.record(vec![event]).await {
            tracing::warn!(session.id = %owned.id, "a limit was reached and not told: failed to {error}");
        }
        // What comes meanwhile waits, and the counts of the last one hold those of all.
        tokio::time::sleep(TELL_EVERY).await;
    }
}

fn words(event: &SandboxEvent, sandbox: &Sandbox, told_kills: &mut u64) -> Option<EventKind> {
    match *event {
        SandboxEvent::OutOfMemory { .. } => {
            // The count of now: several of these may have waited.
            let kills = sandbox.usage().oom_kills.unwrap_or_default();
            let fresh = kills.checked_sub(*told_kills).filter(|fresh| *fresh > 0)?;
            *told_kills = kills;
            Some(EventKind::OutOfMemory { kills: fresh, limit_bytes: sandbox.limits().memory_bytes })
        }
        SandboxEvent::DiskNearlyFull { used_bytes, limit_bytes } => {
            let (used, limit) = (used_bytes >> 20, limit_bytes >> 20);
            let text = format!(
                "The sandbox has written {used} MiB of the {limit} MiB that it may; over that its commands are ended."
            );
            Some(EventKind::Notice { text })
        }
        SandboxEvent::DiskFull { used_bytes, limit_bytes } => {
            let (used, limit) = (used_bytes >> 20, limit_bytes >> 20);
            let text = format!(
                "The sandbox wrote {used} MiB and may write {limit} MiB: its commands were ended. Remove files, or allow \
                 more with `disk` in .hob/environment.toml or [sandbox] of the server's configuration."
            );
            Some(EventKind::Notice { text })
        }
        SandboxEvent::ProcessesFull { .. } => {
            let text = format!(
                "The sandbox has reached its limit of {} processes; the kernel refuses new ones.",
                sandbox.limits().processes
            );
            Some(EventKind::Notice { text })
        }
    }
}

/// What an agent is told when memory was full while its command ran.
pub(crate) fn note_to_agent(kills: u64, limit_bytes: u64) -> String {
    let processes = if kills == 1 { "1 process".to_owned() } else { format!("{kills} processes") };
    format!(
        "\n[The sandbox's memory of {} MiB was full while this command ran, and the kernel ended {processes}. Use less: \
         fewer parallel jobs, smaller inputs, or one test at a time.]\n",
        limit_bytes >> 20
    )
}

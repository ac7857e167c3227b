//! Puts a session's sandbox away: its processes end, its files are frozen, and the log says where they are.

use hob_sandbox::Snapshot;

use crate::event::EventKind;
use crate::owned::Owned;

/// Ends the sandbox and freezes its files. Where they cannot be frozen they stay as they are, and the sandbox goes on
/// from those.
///
/// # Errors
/// Words for a person: the sandbox may still run, or it was only suspended.
pub(crate) async fn take(owned: &Owned) -> Result<((), Option<String>), String> {
    let id = owned.sandbox_id()?;
    let provider = &owned.house.deps.provider;
    match provider.snapshot(&id).await {
        Ok(Snapshot { layers, entries, bytes }) => {
            let taken = EventKind::SnapshotTaken { layers, entries, bytes };
            owned.record(vec![taken]).await.map_err(|error| format!("failed to {error}"))?;
            Ok(((), None))
        }
        Err(error) => {
            provider.suspend(&id).await.map_err(|error| format!("a sandbox may still run: failed to {error}"))?;
            Err(format!("failed to {error}"))
        }
    }
}

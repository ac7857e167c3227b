//! Freezes a session's files: when its sandbox is put away, when a turn has ended, when somebody asks for it. The log
//! says where they are.

use std::sync::Arc;
use std::time::Duration;

use hob_sandbox::{LiveSnapshot, SandboxError, Snapshot};

use crate::event::EventKind;
use crate::owned::Owned;

/// How long a turn waits for the snapshot of the one before it. A later one holds what that turn has written first.
const TURN_WAITS: Duration = Duration::from_secs(1);

/// Ends the sandbox and freezes its files. Where they cannot be frozen they stay as they are, and the sandbox goes on
/// from those.
///
/// # Errors
/// Words for a person: the sandbox may still run, or it was only suspended.
pub(crate) async fn take(owned: &Owned) -> Result<((), Option<String>), String> {
    let id = owned.sandbox_id()?;
    let provider = &owned.house.deps.provider;
    match provider.snapshot(&id).await {
        Ok(snapshot) => {
            record(owned, &snapshot, None, None).await?;
            Ok(((), None))
        }
        Err(error) => {
            provider.suspend(&id).await.map_err(|error| format!("a sandbox may still run: failed to {error}"))?;
            Err(format!("failed to {error}"))
        }
    }
}

/// Freezes the files of the sandbox as they are now, and lets it run on.
///
/// # Errors
/// It cannot be done here, the sandbox does not run, or the disk did not take it; words for a person.
pub(crate) async fn take_live(owned: &Owned, turn_id: Option<String>) -> Result<LiveSnapshot, String> {
    let id = owned.sandbox_id()?;
    let taken = owned.house.deps.provider.snapshot_live(&id).await.map_err(|error| format!("failed to {error}"))?;
    record(owned, &taken.snapshot, turn_id, taken.paused_ms).await?;
    Ok(taken)
}

/// While it is held, the next turn waits.
pub(crate) type Freezing = tokio::sync::OwnedMutexGuard<()>;

/// Keeps the next turn from changing the files that are about to be frozen. Nothing where an earlier snapshot is still
/// under way: nobody waits for it any longer.
pub(crate) async fn begin(owned: &Owned) -> Option<Freezing> {
    tokio::time::timeout(TURN_WAITS, Arc::clone(&owned.freezing).lock_owned()).await.ok()
}

/// Freezes what a turn has left, where that is cheap. Nobody waits for it but the next turn, and that not for long.
pub(crate) async fn after_turn(owned: &Owned, turn_id: String, _freezing: Freezing) {
    let Some(sandbox) = owned.sandbox().now() else { return };
    let is_possible = owned.house.deps.provider.capabilities().no_live_snapshots.is_none();
    let written = match sandbox.stats().await {
        Ok(stats) => stats.disk_bytes,
        Err(SandboxError::Lost { .. }) => return,
        Err(error) => return tracing::warn!(session.id = %owned.id, "no snapshot follows the turn: failed to {error}"),
    };
    let max = owned.house.config.limits.turn_snapshot_bytes_max;
    if !follows_turn(is_possible, owned.house.closing.is_cancelled(), written, max) {
        return;
    }
    if let Err(reason) = take_live(owned, Some(turn_id)).await {
        // The sandbox may be put away or gone by now, and its files with it are frozen, or told of.
        if owned.sandbox().now().is_none() || owned.house.closing.is_cancelled() {
            return;
        }
        let text = format!("The files of this turn's end were not frozen: {reason}.");
        if let Err(error) = owned.record(vec![EventKind::Notice { text }]).await {
            tracing::warn!(session.id = %owned.id, "{reason}, which is not told: failed to {error}");
        }
    }
}

/// Whether the end of a turn is followed by a snapshot: what the sandbox has written so far says how much is copied at
/// most.
fn follows_turn(is_possible: bool, is_closing: bool, written_bytes: Option<u64>, max_bytes: u64) -> bool {
    is_possible && !is_closing && written_bytes.is_some_and(|written| written <= max_bytes)
}

/// Lets the snapshot of the turn before come first.
pub(crate) async fn let_freeze(owned: &Owned) {
    if tokio::time::timeout(TURN_WAITS, owned.freezing.lock()).await.is_err() {
        tracing::debug!(session.id = %owned.id, "a turn begins before the last one's files are frozen");
    }
}

/// Records a snapshot, unless the log says already that it is the last one.
async fn record(
    owned: &Owned,
    snapshot: &Snapshot,
    turn_id: Option<String>,
    paused_ms: Option<u64>,
) -> Result<(), String> {
    let is_told = owned.log.read(|state| state.snapshot.as_ref() == Some(snapshot)).await;
    if is_told && turn_id.is_none() {
        return Ok(());
    }
    let Snapshot { layers, entries, bytes } = snapshot.clone();
    let taken = EventKind::SnapshotTaken { layers, entries, bytes, turn_id, paused_ms };
    owned.record(vec![taken]).await.map_err(|error| format!("failed to {error}"))
}

#[cfg(test)]
mod tests {
    use super::follows_turn;

    #[test]
    fn a_turn_is_followed_by_a_snapshot_where_that_is_possible_and_cheap() {
        assert!(follows_turn(true, false, Some(0), 10));
        assert!(follows_turn(true, false, Some(10), 10));
        assert!(!follows_turn(true, false, Some(11), 10));
        assert!(!follows_turn(true, false, None, 10), "what is not known may be large");
        assert!(!follows_turn(false, false, Some(0), 10));
        assert!(!follows_turn(true, true, Some(0), 10));
    }
}

//! Asks a sandbox again and again whether it is there. A connection that stands says little: a guest may hang behind it.

use std::time::Duration;

use hob_sandbox::{Sandbox, SandboxError};

/// How often in a row an answer may be missing.
const MISSES_MAX: u32 = 3;

/// Returns when the sandbox has not answered for three times `every`, and for how long. Never for one that answers, or is
/// known to be gone.
pub(crate) async fn silence(sandbox: &Sandbox, every: Duration) -> Duration {
    let mut missed = 0;
    loop {
        tokio::time::sleep(every).await;
        match tokio::time::timeout(every, sandbox.stat("/")).await {
            Err(_) | Ok(Err(SandboxError::Deadline { .. })) => missed += 1,
            // Whatever it answers, it answers. That it is gone is told by others.
            Ok(_) => missed = 0,
        }
        if missed >= MISSES_MAX {
            return every * 2 * MISSES_MAX;
        }
    }
}

//! The states of a session.
//!
//! ```text
//!               prompt                 turn ends, queue empty
//!    Idle ─────────────────▶ Running ─────────────────────────▶ Idle
//!     ▲                        │ sandbox lost                     │ idle for `suspend_after`
//!     │ sandbox ready          ▼                                  ▼
//!   Starting ◀──── prompt ── Suspended ◀──── snapshot taken ── Suspending
//!     │ refused or crashed                                      any ── archive ──▶ Archived
//!     ▼
//!   Failed ──── prompt ────▶ Starting
//! ```

use serde::{Deserialize, Serialize};

/// The state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A sandbox is being made.
    Starting,
    /// Ready; no turn runs.
    Idle,
    /// A turn runs.
    Running,
    /// The sandbox is being put away.
    Suspending,
    /// No sandbox; the workspace is kept.
    Suspended,
    /// The last start failed; a prompt tries again.
    Failed,
    /// Closed for good.
    Archived,
}

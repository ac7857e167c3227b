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
//!
//! Beside the drawing: the agent is prompted while the sandbox is still starting, so *sandbox ready* leads to Running
//! where a turn is under way already; and a sandbox can be lost while nothing runs, so Idle may become Suspended too.
//! A command in the sandbox wakes a session just as a prompt does. A start that still waits for a place, and that nobody
//! needs any more, is taken back: Starting becomes Suspended.

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

impl State {
    /// Every arrow of the drawing but those to [`State::Archived`], to which every other state leads.
    pub const ARROWS: [(Self, Self); 12] = [
        (Self::Idle, Self::Running),
        (Self::Running, Self::Idle),
        (Self::Running, Self::Suspended),
        (Self::Idle, Self::Suspended),
        (Self::Idle, Self::Suspending),
        (Self::Suspending, Self::Suspended),
        (Self::Suspended, Self::Starting),
        (Self::Starting, Self::Idle),
        (Self::Starting, Self::Running),
        (Self::Starting, Self::Failed),
        (Self::Starting, Self::Suspended),
        (Self::Failed, Self::Starting),
    ];

    /// Whether the drawing has an arrow from this state to the other.
    pub fn leads_to(self, to: Self) -> bool {
        (to == Self::Archived && self != Self::Archived) || Self::ARROWS.contains(&(self, to))
    }
}

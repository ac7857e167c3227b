//! Pools: warm sandboxes of repositories' images, waiting for sessions.
//!
//! ```text
//!   typing, use, `pool = N` ─▶ demand ─▶ plan ─▶ keeper ─▶ warm (a sandbox, its services, its agent)
//!                              (pure)   (pure)                │
//!                                                  claim ─────┴──▶ a session that takes it
//! ```
//!
//! A warm sandbox has the name of a session that does not exist yet. A new session that wants the same repository, base
//! and agent is made under that name, so nothing of it has to change hands but what this process knows of it. After a
//! crash there is a sandbox without a session, which the sweep removes.

mod adopt;
mod agent;
mod book;
mod claim;
mod demand;
mod keeper;
mod kind;
mod mailbox;
mod memory;
mod plan;
mod warm;

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

use crate::config::PoolRules;
use crate::event::EventKind;
use crate::id::SessionId;
use crate::services::Hearer as _;

pub use book::PoolCounts;

pub(crate) use adopt::Running;
pub(crate) use agent::{Begun, WarmAgent};
pub(crate) use claim::Claim;
pub(crate) use keeper::{build_ahead, keep};
pub(crate) use kind::Kind;
pub(crate) use warm::{EPOCH, Warm};

use book::Book;

/// All warm sandboxes of an engine.
pub(crate) struct Pool {
    rules: PoolRules,
    book: Mutex<Book>,
    /// Rung when the keeper has something to look at.
    bell: Notify,
    /// Who may make one now.
    turns: Semaphore,
}

impl Pool {
    pub(crate) fn new(rules: PoolRules) -> Self {
        let turns = Semaphore::new(rules.at_once.max(1));
        Self { rules, book: Mutex::default(), bell: Notify::new(), turns }
    }

    /// Whether any are kept.
    pub(crate) fn is_on(&self) -> bool {
        self.rules.max > 0
    }

    /// A person types a prompt for a session of this kind. Gives whether this is the first sign of it.
    pub(crate) fn typing(&self, kind: &Kind, person: &str, now_ms: u64) -> bool {
        let is_first = {
            let mut book = self.book();
            book.demand.pass_time(now_ms, &self.rules);
            book.demand.typing(kind, person, now_ms, &self.rules)
        };
        self.bell.notify_one();
        is_first
    }

    /// A repository's mirror or an image may be newer than what the pool has.
    pub(crate) fn look_again(&self) {
        self.book().is_behind = true;
        self.bell.notify_one();
    }

    /// The keeper's turn: something else has changed.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Gives the warm sandbox of a session that was made under its name.
    pub(crate) fn redeem(&self, id: &SessionId) -> Option<Warm> {
        self.book().redeem(id)
    }

    /// Whether a sandbox of this name is the pool's.
    pub(crate) fn holds(&self, id: &SessionId) -> bool {
        self.book().holds(id)
    }

    /// Keeps what the gateway has to say of a warm sandbox; gives whether it is one.
    pub(crate) async fn hear(&self, id: &SessionId, event: EventKind) -> bool {
        let Some(mailbox) = self.book().mailbox(id) else { return false };
        if let Err(reason) = mailbox.hear(event).await {
            tracing::warn!(sandbox.id = %id, "not told: {reason}");
        }
        true
    }

    /// How the pool stands, for statistics.
    pub(crate) fn counts(&self) -> PoolCounts {
        self.book().counts()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

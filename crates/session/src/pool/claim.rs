//! A warm sandbox that a session is about to be made for.

use std::sync::Arc;

use super::kind::Kind;
use crate::id::SessionId;
use crate::owned::House;

/// A claim on a warm sandbox. Dropped without a session, the sandbox waits for the next one.
pub(crate) struct Claim {
    house: Arc<House>,
    id: SessionId,
    is_kept: bool,
}

impl Claim {
    /// Claims a warm sandbox for a session that a person makes now; none where there is none.
    pub(crate) fn of(house: &Arc<House>, kind: &Kind, person: &str) -> Option<Self> {
        let pool = &house.pool;
        if !pool.is_on() {
            return None;
        }
        let claimed = {
            let mut book = pool.book();
            book.demand.used(kind, person, house.deps.clock.now_ms());
            book.claim(kind)
        };
        pool.ring();
        claimed.map(|id| Self { house: Arc::clone(house), id, is_kept: false })
    }

    /// The name of the session that takes it.
    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    /// The session is there.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_kept {
            self.house.pool.book().release(&self.id);
        }
    }
}

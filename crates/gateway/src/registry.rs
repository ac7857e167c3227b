//! Who owns which token: the open accesses, and the highest epoch that each session has had.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::access::Door;

/// The digest of a token. Tokens are compared by digest, so that the time it takes says nothing about them.
pub(crate) type TokenDigest = [u8; 32];

/// The open accesses of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    by_token: HashMap<TokenDigest, Arc<Door>>,
    sessions: HashMap<String, Latest>,
}

/// What is kept of a session after its access was closed: enough to refuse and to name what is stale.
#[derive(Debug)]
struct Latest {
    epoch: u64,
    token: TokenDigest,
    stale: Option<TokenDigest>,
}

/// Whose token was presented.
#[derive(Debug, Clone)]
pub(crate) enum Owner {
    /// That of an open access.
    Open(Arc<Door>),
    /// A recent one of a session, whose epoch has ended.
    Stale,
    /// Nobody's.
    Nobody,
}

/// Why an access was not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// The session has had this epoch, or a later one.
    Epoch(u64),
    /// Another session has the same token.
    Token,
}

impl Registry {
    /// Enters an access, and hands back the session's earlier one, which the caller closes.
    pub(crate) fn enter(&self, door: &Arc<Door>) -> Result<Option<Arc<Door>>, Conflict> {
        let mut entries = self.lock();
        let mut latest = Latest { epoch: door.epoch, token: door.token, stale: None };
        if let Some(before) = entries.sessions.get(&door.session) {
            if before.epoch >= door.epoch {
                return Err(Conflict::Epoch(before.epoch));
            }
            latest.stale = Some(before.token);
        }
        if entries.by_token.contains_key(&door.token) {
            return Err(Conflict::Token);
        }
        let earlier = latest.stale.and_then(|stale| entries.by_token.remove(&stale));
        entries.sessions.insert(door.session.clone(), latest);
        entries.by_token.insert(door.token, Arc::clone(door));
        Ok(earlier)
    }

    /// Takes an access out. Its epoch stays used.
    pub(crate) fn leave(&self, door: &Door) {
        let mut entries = self.lock();
        // A token is entered once at a time, but a later access of another session may have it by now.
        if entries
            .by_token
            .get(&door.token)
            .is_some_and(|open| open.session == door.session && open.epoch == door.epoch)
        {
            entries.by_token.remove(&door.token);
        }
    }

    /// Undoes [`Registry::enter`] for an access that could not be opened: its epoch may be tried again.
    pub(crate) fn forget(&self, door: &Door) {
        self.leave(door);
        let mut entries = self.lock();
        if let Some(latest) = entries.sessions.get_mut(&door.session)
            && latest.token == door.token
        {
            latest.epoch = latest.epoch.saturating_sub(1);
        }
    }

    pub(crate) fn owner(&self, token: &str) -> Owner {
        let digest = digest(token);
        let entries = self.lock();
        if let Some(door) = entries.by_token.get(&digest) {
            return Owner::Open(Arc::clone(door));
        }
        let stale = entries.sessions.values().any(|latest| latest.token == digest || latest.stale == Some(digest));
        if stale { Owner::Stale } else { Owner::Nobody }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // The maps are changed in single steps, so that they are whole even after a panic elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digest of a token.
pub(crate) fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

//! Which warm sandboxes there are, and which session has claimed which.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::demand::Demand;
use super::kind::Kind;
use super::mailbox::Mailbox;
use super::plan::{Act, Bounds, Seen, Stage, plan};
use super::warm::Warm;
use crate::config::PoolRules;
use crate::id::SessionId;

/// What the pool knows. Whoever holds its lock waits for nothing.
#[derive(Default)]
pub(super) struct Book {
    pub(super) demand: Demand,
    /// Whether a mirror or an image may be newer than the tips.
    pub(super) is_behind: bool,
    /// The newest of each kind that is wanted.
    pub(super) tips: BTreeMap<Kind, Tip>,
    entries: BTreeMap<SessionId, Entry>,
    hits: u64,
    misses: u64,
}

/// What a warm sandbox is to be of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) commit: String,
    pub(super) image_id: String,
}

struct Entry {
    kind: Kind,
    mailbox: Arc<Mailbox>,
    body: Body,
}

enum Body {
    /// Cancelled when it is not wanted any more.
    Making(CancellationToken),
    Ready(Box<Warm>),
    /// A session is being made for it.
    Claimed(Box<Warm>),
}

/// How the pool stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounts {
    /// Warm sandboxes that a session could take.
    pub ready: u64,
    /// Those of them whose services are up.
    pub settled: u64,
    /// Those that are being made.
    pub making: u64,
    /// New sessions that took one, since the start.
    pub hits: u64,
    /// New sessions for which there was none.
    pub misses: u64,
}

/// What is to be done with a sandbox that goes.
pub(super) enum Going {
    /// It is ended and removed.
    Ready(Box<Warm>),
    /// Whoever makes it is told, and removes it.
    Making,
}

impl Book {
    /// Claims the best one of a kind; none where there is none.
    pub(super) fn claim(&mut self, kind: &Kind) -> Option<SessionId> {
        let fits = self.entries.iter().filter(|(_, entry)| entry.kind == *kind && matches!(entry.body, Body::Ready(_)));
        let best = fits.max_by_key(|(_, entry)| self.stage(entry)).map(|(id, _)| id.clone());
        match best {
            Some(_) => self.hits += 1,
            None => self.misses += 1,
        }
        let id = best?;
        let entry = self.entries.remove(&id)?;
        if let Body::Ready(warm) = entry.body {
            self.entries.insert(id.clone(), Entry { body: Body::Claimed(warm), ..entry });
        }
        Some(id)
    }

    /// Gives back one that no session was made for.
    pub(super) fn release(&mut self, id: &SessionId) {
        if let Some(entry) = self.entries.remove(id) {
            let body = match entry.body {
                Body::Claimed(warm) => {
                    self.hits -= 1;
                    Body::Ready(warm)
                }
                other => other,
            };
            self.entries.insert(id.clone(), Entry { body, ..entry });
        }
    }

    pub(super) fn redeem(&mut self, id: &SessionId) -> Option<Warm> {
        match self.entries.get(id)?.body {
            Body::Claimed(_) => match self.entries.remove(id)?.body {
                Body::Claimed(warm) => Some(*warm),
                Body::Making(_) | Body::Ready(_) => None,
            },
            Body::Making(_) | Body::Ready(_) => None,
        }
    }

    pub(super) fn holds(&self, id: &SessionId) -> bool {
        self.entries.contains_key(id)
    }

    pub(super) fn mailbox(&self, id: &SessionId) -> Option<Arc<Mailbox>> {
        self.entries.get(id).map(|entry| Arc::clone(&entry.mailbox))
    }

    /// Notes one that is being made.
    pub(super) fn begin(&mut self, id: SessionId, kind: Kind, cancel: CancellationToken) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::new());
        self.entries.insert(id, Entry { kind, mailbox: Arc::clone(&mailbox), body: Body::Making(cancel) });
        mailbox
    }

    /// Notes one that was made; gives it back where it is not wanted any more.
    pub(super) fn made(&mut self, warm: Warm) -> Option<Warm> {
        match self.entries.get_mut(&warm.id) {
            Some(entry) => {
                entry.body = Body::Ready(Box::new(warm));
                None
            }
            None => Some(warm),
        }
    }

    /// Takes one out that goes, unless a session has claimed it.
    pub(super) fn take_out(&mut self, id: &SessionId) -> Option<Going> {
        if matches!(self.entries.get(id)?.body, Body::Claimed(_)) {
            return None;
        }
        match self.entries.remove(id)?.body {
            Body::Ready(warm) | Body::Claimed(warm) => Some(Going::Ready(warm)),
            Body::Making(cancel) => {
                cancel.cancel();
                Some(Going::Making)
            }
        }
    }

    /// All that no session has claimed.
    pub(super) fn unclaimed(&self) -> Vec<SessionId> {
        let unclaimed = |entry: &Entry| !matches!(entry.body, Body::Claimed(_));
        self.entries.iter().filter(|(_, entry)| unclaimed(entry)).map(|(id, _)| id.clone()).collect()
    }

    /// What follows now, where there is room for so many.
    pub(super) fn plan(&mut self, now_ms: u64, room: u32, may_grow: bool, rules: &PoolRules) -> Vec<Act<SessionId>> {
        self.demand.pass_time(now_ms, rules);
        let wanted = self.demand.wanted(room, rules);
        self.tips.retain(|kind, _| wanted.contains_key(kind));
        let seen: Vec<Seen<SessionId>> = self
            .entries
            .iter()
            .filter_map(|(id, entry)| {
                let stage = self.stage(entry)?;
                Some(Seen { id: id.clone(), kind: entry.kind.clone(), stage })
            })
            .collect();
        let bounds = Bounds { max: rules.max.min(room), making: rules.making_max(), may_grow };
        let mut acts = plan(&wanted, &seen, bounds);
        acts.retain(|act| !matches!(act, Act::Make(kind) if !self.demand.may_try(kind, now_ms)));
        acts
    }

    pub(super) fn counts(&self) -> PoolCounts {
        let count = |is: fn(&Body) -> bool| self.entries.values().filter(|entry| is(&entry.body)).count() as u64;
        PoolCounts {
            ready: count(|body| matches!(body, Body::Ready(_))),
            settled: count(|body| matches!(body, Body::Ready(warm) if warm.services.are_settled())),
            making: count(|body| matches!(body, Body::Making(_))),
            hits: self.hits,
            misses: self.misses,
        }
    }

    /// How far one is; nothing of one that a session has claimed.
    fn stage(&self, entry: &Entry) -> Option<Stage> {
        match &entry.body {
            Body::Claimed(_) => None,
            Body::Making(_) => Some(Stage::Making),
            Body::Ready(warm) => {
                let tip = self.tips.get(&entry.kind);
                let current = |tip: &Tip| tip.commit == warm.commit && tip.image_id == warm.footing.image_id;
                Some(if tip.is_none_or(current) { Stage::Current } else { Stage::Old })
            }
        }
    }
}

//! Wakes whoever follows a session when its log grew, and keeps the log's tail at hand for them.
//!
//! Only what is on disk comes here. A reader that fell behind the tail reads from the file, so nobody waits for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Store, StoreError};
use crate::id::SessionId;
use crate::requests::Record;

/// Records of a session at hand, and their bytes.
const TAIL_LEN: usize = 512;
const TAIL_BYTES: usize = 1 << 20;

/// Records in one read from the file.
const PAGE: usize = 256;

/// All sessions that somebody follows.
#[derive(Default)]
pub(super) struct Hub {
    topics: Mutex<HashMap<SessionId, Weak<Topic>>>,
}

/// A session that somebody follows; it goes with its last follower.
pub(super) struct Topic {
    last_seq: watch::Sender<u64>,
    tail: Mutex<Tail>,
}

#[derive(Default)]
struct Tail {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Hub {
    pub(super) fn topic(&self, session: &SessionId) -> Arc<Topic> {
        let mut topics = self.lock();
        if let Some(topic) = topics.get(session).and_then(Weak::upgrade) {
            return topic;
        }
        let topic = Arc::new(Topic { last_seq: watch::Sender::new(0), tail: Mutex::default() });
        topics.insert(session.clone(), Arc::downgrade(&topic));
        topic
    }

    pub(super) fn publish(&self, session: &SessionId, records: &[Record]) {
        let topic = {
            let mut topics = self.lock();
            let Some(weak) = topics.get(session) else { return };
            match weak.upgrade() {
                Some(topic) => topic,
                None => {
                    topics.remove(session);
                    return;
                }
            }
        };
        topic.tail.lock().unwrap_or_else(PoisonError::into_inner).push(records);
        if let Some(last) = records.last() {
            topic.last_seq.send_replace(last.seq);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Weak<Topic>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    fn push(&mut self, records: &[Record]) {
        for record in records {
            self.bytes += record.json.len();
            self.records.push_back(record.clone());
        }
        while self.records.len() > TAIL_LEN || (self.bytes > TAIL_BYTES && self.records.len() > 1) {
            self.bytes -= self.records.pop_front().map_or(0, |record| record.json.len());
        }
    }

    /// What follows `since`, when the tail reaches back that far.
    fn after(&self, since: u64) -> Option<Vec<Record>> {
        let first = self.records.front()?.seq;
        let skip = usize::try_from((since + 1).checked_sub(first)?).ok()?;
        let found: Vec<Record> = self.records.iter().skip(skip).take(PAGE).cloned().collect();
        (!found.is_empty()).then_some(found)
    }
}

/// Somebody who follows a session's log.
pub struct Subscription {
    store: Store,
    topic: Arc<Topic>,
    wake: watch::Receiver<u64>,
    session: SessionId,
    since: u64,
    ready: VecDeque<Record>,
    end: CancellationToken,
}

impl Subscription {
    pub(super) fn new(store: Store, topic: Arc<Topic>, session: SessionId, since: u64, end: CancellationToken) -> Self {
        let wake = topic.last_seq.subscribe();
        Self { store, topic, wake, session, since, ready: VecDeque::new(), end }
    }

    /// The next record, as soon as there is one; `None` when the engine has ended.
    ///
    /// # Errors
    /// The store's file cannot be read.
    pub async fn next(&mut self) -> Result<Option<Record>, StoreError> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                self.since = record.seq;
                return Ok(Some(record));
            }
            self.ready = self.fetch().await?.into();
            if !self.ready.is_empty() {
                continue;
            }
            if self.end.is_cancelled() {
                return Ok(None);
            }
            let since = self.since;
            tokio::select! {
                woken = self.wake.wait_for(|last| *last > since) => if woken.is_err() { return Ok(None) },
                () = self.end.cancelled() => {}
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Record>, StoreError> {
        let at_hand = self.topic.tail.lock().unwrap_or_else(PoisonError::into_inner).after(self.since);
        match at_hand {
            Some(records) => Ok(records),
            None => self.store.events(&self.session, self.since, PAGE).await,
        }
    }
}

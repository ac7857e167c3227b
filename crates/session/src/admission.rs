//! Who gets a place for a sandbox, when there are not enough for all.
//!
//! Pure: it waits for nothing and reads no clock. [`places`](crate::places) lets tasks wait for what is decided here.
//!
//! What a sandbox may use is promised to it when it is let in, and promises never add up to more than the machine's
//! [`Capacity`]. Those who wait are served person by person in turn, and of one person's requests the oldest first: a
//! hundred requests of one do not hold up the first of another. Nobody overtakes a request that does not fit yet,
//! however small their own is, so that none waits for ever. Where somebody waits, sandboxes that are idle are asked to
//! leave, the one that was used longest ago first.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// What all sandboxes together may be promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Sandboxes that run at once; at least one is let in.
    pub sandboxes: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processor time, in thousandths of a core.
    pub cpu_millicores: u64,
}

impl Capacity {
    /// No bound: every request is granted at once.
    pub const UNBOUNDED: Self = Self { sandboxes: u32::MAX, memory_bytes: u64::MAX, cpu_millicores: u64::MAX };
}

/// What one sandbox is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processor time, in thousandths of a core.
    pub cpu_millicores: u64,
}

/// Where a request stands among all that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its place, from 1.
    pub position: u32,
    /// How many wait.
    pub of: u32,
}

/// Who has a place, and who waits for one. `K` names a sandbox.
#[derive(Debug, Clone)]
pub struct Admission<K> {
    capacity: Capacity,
    held: BTreeMap<K, Held>,
    /// Each person's requests, oldest first, in the order in which people are served next. Never an empty one.
    waiting: VecDeque<(String, VecDeque<(K, Need)>)>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    need: Need,
    work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Busy,
    Idle {
        since_ms: u64,
    },
    /// It was asked to leave, and has not yet.
    Leaving,
}

/// What is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Promised {
    /// Sandboxes that were let in.
    pub sandboxes: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processor time, in thousandths of a core.
    pub cpu_millicores: u64,
}

impl<K: Ord + Clone> Admission<K> {
    /// Nobody is in, nobody waits.
    pub fn new(capacity: Capacity) -> Self {
        Self { capacity, held: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Asks for a place in the name of a person. Who has one or waits already is left as it is. A need that is larger
    /// than the capacity counts as all of it: such a sandbox runs alone.
    pub fn ask(&mut self, key: K, person: &str, need: Need) {
        if self.held.contains_key(&key) || self.is_waiting(&key) {
            return;
        }
        let need = self.bounded(need);
        match self.waiting.iter_mut().find(|(name, _)| name == person) {
            Some((_, requests)) => requests.push_back((key, need)),
            None => self.waiting.push_back((person.to_owned(), VecDeque::from([(key, need)]))),
        }
        self.let_in();
    }

    /// Notes a sandbox that runs already, from before a restart: its place is taken, whether there is room or not.
    pub fn occupy(&mut self, key: K, need: Need) {
        let need = self.bounded(need);
        self.forget(&key);
        self.held.entry(key).or_insert(Held { need, work: Work::Busy });
        self.let_in();
    }

    /// Gives up the wait for a place. Who has one keeps it.
    pub fn withdraw(&mut self, key: &K) {
        self.forget(key);
        self.let_in();
    }

    /// Gives up a place, or the wait for one.
    pub fn leave(&mut self, key: &K) {
        self.held.remove(key);
        self.withdraw(key);
    }

    /// Says that a sandbox needs less than it was let in with. It never gets more.
    pub fn shrink(&mut self, key: &K, need: Need) {
        if let Some(held) = self.held.get_mut(key) {
            held.need.memory_bytes = held.need.memory_bytes.min(need.memory_bytes);
            held.need.cpu_millicores = held.need.cpu_millicores.min(need.cpu_millicores);
        }
        self.let_in();
    }

    /// Says that a sandbox has work; one that was asked to leave stays.
    pub fn work(&mut self, key: &K) {
        self.set(key, Work::Busy);
    }

    /// Says that a sandbox has had no work since then.
    pub fn rest(&mut self, key: &K, since_ms: u64) {
        if !self.is_leaving(key) {
            self.set(key, Work::Idle { since_ms });
        }
    }

    /// Asks as many idle sandboxes to leave as the first one in the queue needs, the one that was used longest ago
    /// first. Gives how many there were.
    pub fn make_room(&mut self) -> usize {
        let mut asked = 0;
        while self.lacks_room() {
            let idle = self.held.iter().filter_map(|(key, held)| match held.work {
                Work::Idle { since_ms } => Some((since_ms, key)),
                Work::Busy | Work::Leaving => None,
            });
            let Some(key) = idle.min().map(|(_, key)| key.clone()) else { break };
            self.set(&key, Work::Leaving);
            asked += 1;
        }
        asked
    }

    /// Whether a sandbox has a place.
    pub fn is_in(&self, key: &K) -> bool {
        self.held.contains_key(key)
    }

    /// Whether a sandbox was asked to leave.
    pub fn is_leaving(&self, key: &K) -> bool {
        self.held.get(key).is_some_and(|held| held.work == Work::Leaving)
    }

    /// Where a request stands: how many are served before it if nobody else comes, and it itself.
    pub fn place(&self, key: &K) -> Option<Place> {
        let (person, at) = self.waiting.iter().enumerate().find_map(|(person, (_, requests))| {
            Some((person, requests.iter().position(|(waiting, _)| waiting == key)?))
        })?;
        // A round serves one of each. In the round of this request, those come first who are served before its person.
        let before = self.waiting.iter().enumerate().map(|(other, (_, requests))| match other.cmp(&person) {
            std::cmp::Ordering::Less => requests.len().min(at + 1),
            std::cmp::Ordering::Equal => at,
            std::cmp::Ordering::Greater => requests.len().min(at),
        });
        let position = u32::try_from(before.sum::<usize>() + 1).unwrap_or(u32::MAX);
        Some(Place { position, of: self.waiting_count() })
    }

    /// How many wait.
    pub fn waiting_count(&self) -> u32 {
        u32::try_from(self.waiting.iter().map(|(_, requests)| requests.len()).sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// How many more of this need would be let in at once; none while somebody waits.
    pub fn room(&self, need: Need) -> u32 {
        if !self.waiting.is_empty() {
            return 0;
        }
        let (need, promised, capacity) = (self.bounded(need), self.promised(), self.capacity);
        let times = |left: u64, each: u64| left.checked_div(each).unwrap_or(u64::MAX);
        let memory = times(capacity.memory_bytes.saturating_sub(promised.memory_bytes), need.memory_bytes);
        let cpu = times(capacity.cpu_millicores.saturating_sub(promised.cpu_millicores), need.cpu_millicores);
        let sandboxes = u64::from(capacity.sandboxes.saturating_sub(promised.sandboxes));
        u32::try_from(memory.min(cpu).min(sandboxes)).unwrap_or(u32::MAX)
    }

    /// What is promised to those who were let in.
    pub fn promised(&self) -> Promised {
        sum(self.held.values())
    }

    fn bounded(&self, need: Need) -> Need {
        Need {
            memory_bytes: need.memory_bytes.min(self.capacity.memory_bytes),
            cpu_millicores: need.cpu_millicores.min(self.capacity.cpu_millicores),
        }
    }

    fn is_waiting(&self, key: &K) -> bool {
        self.waiting.iter().any(|(_, requests)| requests.iter().any(|(waiting, _)| waiting == key))
    }

    fn forget(&mut self, key: &K) {
        for (_, requests) in &mut self.waiting {
            requests.retain(|(waiting, _)| waiting != key);
        }
        self.waiting.retain(|(_, requests)| !requests.is_empty());
    }

    fn set(&mut self, key: &K, work: Work) {
        if let Some(held) = self.held.get_mut(key) {
            held.work = work;
        }
    }

    /// Lets in who is next, for as long as they fit.
    fn let_in(&mut self) {
        while self.next_need().is_some_and(|need| self.fits(&self.promised(), need)) {
            let Some((person, mut requests)) = self.waiting.pop_front() else { return };
            if let Some((key, need)) = requests.pop_front() {
                self.held.insert(key, Held { need, work: Work::Busy });
            }
            if !requests.is_empty() {
                self.waiting.push_back((person, requests));
            }
        }
    }

    fn next_need(&self) -> Option<Need> {
        self.waiting.front().and_then(|(_, requests)| requests.front()).map(|(_, need)| *need)
    }

    /// Whether the first in the queue does not fit, even when all have left that were asked to.
    fn lacks_room(&self) -> bool {
        let staying = sum(self.held.values().filter(|held| held.work != Work::Leaving));
        self.next_need().is_some_and(|need| !self.fits(&staying, need))
    }

    fn fits(&self, promised: &Promised, need: Need) -> bool {
        let Capacity { sandboxes, memory_bytes, cpu_millicores } = self.capacity;
        promised.sandboxes < sandboxes.max(1)
            && promised.memory_bytes.saturating_add(need.memory_bytes) <= memory_bytes
            && promised.cpu_millicores.saturating_add(need.cpu_millicores) <= cpu_millicores
    }
}

fn sum<'a>(held: impl Iterator<Item = &'a Held>) -> Promised {
    held.fold(Promised::default(), |promised, held| Promised {
        sandboxes: promised.sandboxes.saturating_add(1),
        memory_bytes: promised.memory_bytes.saturating_add(held.need.memory_bytes),
        cpu_millicores: promised.cpu_millicores.saturating_add(held.need.cpu_millicores),
    })
}

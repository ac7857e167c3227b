//! How often something is told: a sandbox can be refused thousands of times a second, and its session's log must not
//! grow with that.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Different things that are counted apart; all further ones share a count.
const KEYS_MAX: usize = 200;

/// Counts equal things, and says which of them are to be told: the 1st, 2nd, 4th, 8th and so on.
#[derive(Debug)]
pub(crate) struct Told<K>(Mutex<Counts<K>>);

#[derive(Debug)]
struct Counts<K> {
    known: HashMap<K, u64>,
    others: u64,
}

impl<K: Eq + Hash> Told<K> {
    /// Counts one more. Returns how many there have been, if this one is to be told.
    pub(crate) fn count(&self, key: K) -> Option<u64> {
        // Counters stay usable whatever panicked elsewhere.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = counts.known.len() >= KEYS_MAX;
        let count = match counts.known.get_mut(&key) {
            Some(count) => count,
            None if full => &mut counts.others,
            None => counts.known.entry(key).or_insert(0),
        };
        *count = count.saturating_add(1);
        count.is_power_of_two().then_some(*count)
    }
}

impl<K> Default for Told<K> {
    fn default() -> Self {
        Self(Mutex::new(Counts { known: HashMap::new(), others: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_told_ever_more_rarely() {
        let told = Told::default();
        let heard: Vec<u64> = (0..1000).filter_map(|_| told.count("a")).collect();
        assert_eq!(heard, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(told.count("b"), Some(1));
    }

    #[test]
    fn ever_new_things_are_bounded_too() {
        let told = Told::default();
        let heard = (0..100_000).filter_map(|at| told.count(at)).count();
        assert!((KEYS_MAX..KEYS_MAX + 20).contains(&heard), "{heard}");
    }
}

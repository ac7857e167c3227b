//! Stops trying what fails again and again: a circuit breaker for the starts of sandboxes.
//!
//! Pure: the time is an argument. A circuit is what starts alike, a repository and the base that was asked for. After a
//! few failures within a while it opens: starts fail at once, with the cause of the last one. When it has cooled down,
//! one start tries; a success closes the circuit, a failure opens it for twice as long.

use std::collections::{BTreeMap, VecDeque};

/// When a circuit opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// So many failures open a circuit.
    pub failures: usize,
    /// They count for this long, in milliseconds.
    pub window_ms: u64,
    /// For how long it is open the first time, in milliseconds.
    pub cool_down_ms: u64,
    /// For how long it is open at most, in milliseconds.
    pub cool_down_ms_max: u64,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self { failures: 3, window_ms: 600_000, cool_down_ms: 60_000, cool_down_ms_max: 900_000 }
    }
}

/// The circuits of an engine. `K` names what starts alike.
#[derive(Debug, Clone)]
pub struct Breaker<K> {
    rules: BreakerRules,
    circuits: BTreeMap<K, Circuit>,
}

#[derive(Debug, Clone, Default)]
struct Circuit {
    /// When starts failed, oldest first; at most as many as open the circuit.
    failures: VecDeque<u64>,
    last_reason: String,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    until_ms: u64,
    cool_down_ms: u64,
    /// Somebody tries.
    probing: bool,
}

/// Why a start is not tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// So many starts have failed.
    pub failures: usize,
    /// Why the last one did.
    pub last_reason: String,
    /// The time from which on the next one is tried, in milliseconds from now; none while one is being tried.
    pub wait_ms: Option<u64>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the last {} starts failed, so this one was not tried; ", self.failures)?;
        match self.wait_ms {
            Some(ms) => write!(f, "a prompt tries again in {} s. ", ms.div_ceil(1_000).max(1))?,
            None => write!(f, "one is being tried now. ")?,
        }
        write!(f, "The last cause: {}", self.last_reason)
    }
}

impl<K: Ord + Clone> Breaker<K> {
    /// Every circuit is closed.
    pub fn new(rules: BreakerRules) -> Self {
        Self { rules, circuits: BTreeMap::new() }
    }

    /// Whether a start would be tried now.
    ///
    /// # Errors
    /// It would not, and why.
    pub fn look(&self, key: &K, now_ms: u64) -> Result<(), Refusal> {
        let Some(circuit) = self.circuits.get(key) else { return Ok(()) };
        let Some(open) = circuit.open else { return Ok(()) };
        let wait_ms = (!open.probing).then(|| open.until_ms.saturating_sub(now_ms));
        if wait_ms == Some(0) {
            return Ok(());
        }
        Err(Refusal { failures: circuit.failures.len(), last_reason: circuit.last_reason.clone(), wait_ms })
    }

    /// Begins a start. What becomes of it must be told.
    ///
    /// # Errors
    /// It is not to be tried, and why.
    pub fn begin(&mut self, key: &K, now_ms: u64) -> Result<(), Refusal> {
        self.look(key, now_ms)?;
        if let Some(open) = self.circuits.get_mut(key).and_then(|circuit| circuit.open.as_mut()) {
            open.probing = true;
        }
        Ok(())
    }

    /// A start that had begun came to its end: all is well again.
    pub fn succeeded(&mut self, key: &K) {
        self.circuits.remove(key);
    }

    /// A start that had begun failed.
    pub fn failed(&mut self, key: &K, reason: &str, now_ms: u64) {
        let rules = self.rules;
        self.forget_old(now_ms);
        let circuit = self.circuits.entry(key.clone()).or_default();
        circuit.failures.push_back(now_ms);
        while circuit.failures.len() > rules.failures.max(1) {
            circuit.failures.pop_front();
        }
        reason.clone_into(&mut circuit.last_reason);
        let cool_down_ms = match circuit.open {
            // One that had begun before the circuit opened says nothing new.
            Some(open) if !open.probing => return,
            Some(open) => open.cool_down_ms.saturating_mul(2).min(rules.cool_down_ms_max),
            None if circuit.failures.len() < rules.failures.max(1) => return,
            None => rules.cool_down_ms,
        };
        let until_ms = now_ms.saturating_add(cool_down_ms);
        circuit.open = Some(Open { until_ms, cool_down_ms, probing: false });
    }

    /// How many circuits are open.
    pub fn open_count(&self) -> usize {
        self.circuits.values().filter(|circuit| circuit.open.is_some()).count()
    }

    /// Forgets failures that count no more, and circuits that nobody has asked for since they cooled down.
    fn forget_old(&mut self, now_ms: u64) {
        let window_ms = self.rules.window_ms;
        for circuit in self.circuits.values_mut().filter(|circuit| circuit.open.is_none()) {
            circuit.failures.retain(|at_ms| at_ms.saturating_add(window_ms) > now_ms);
        }
        self.circuits.retain(|_, circuit| match circuit.open {
            Some(open) => open.probing || open.until_ms.saturating_add(window_ms) > now_ms,
            None => !circuit.failures.is_empty(),
        });
    }
}

//! The record of what was asked: the last requests, and what was wrong with them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::Value;

use crate::wire::Wire;

/// Requests kept; older ones are dropped.
const REQUESTS_MAX: usize = 2_000;
/// Violations kept; more of them say nothing new.
const VIOLATIONS_MAX: usize = 200;

/// A request as it came, and what was made of it.
#[derive(Debug, Clone, Serialize)]
pub struct Recorded {
    /// Its number, from 1.
    pub number: u64,
    /// The path.
    pub path: String,
    /// The wire format.
    pub wire: Wire,
    /// The model's name as the client wrote it.
    pub model: String,
    /// Whether the answer was to be streamed.
    pub stream: bool,
    /// The API key that came with it.
    pub key: Option<String>,
    /// The script that was played, unless it was a side request or matched none.
    pub script: Option<String>,
    /// The step of the script, from 0.
    pub step: usize,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The usage that the answer reports; zero for errors.
    pub usage: Usage,
    /// The names of the tools on offer.
    pub tools: Vec<String>,
    /// The body.
    pub body: Value,
}

/// Tokens, as the answer reports them: a quarter of the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens in.
    pub input_tokens: u64,
    /// Tokens out.
    pub output_tokens: u64,
}

/// What the server remembers. Nothing here decides which step is played, except how often a fault happened.
#[derive(Debug, Default)]
pub(crate) struct Record {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    count: u64,
    requests: VecDeque<Recorded>,
    violations: Vec<String>,
    faults: HashMap<u64, u32>,
}

impl Record {
    /// Keeps a request, numbers it, and files what was wrong with it.
    pub(crate) fn add(&self, mut request: Recorded, problems: Vec<String>) {
        let mut inner = self.lock();
        inner.count += 1;
        request.number = inner.count;
        let about = format!("request {} to {}", request.number, request.path);
        for problem in problems {
            if inner.violations.len() < VIOLATIONS_MAX {
                inner.violations.push(format!("{about}: {problem}"));
            }
        }
        if inner.requests.len() == REQUESTS_MAX {
            inner.requests.pop_front();
        }
        inner.requests.push_back(request);
    }

    /// Counts a request that may meet faults: how many like it came before.
    pub(crate) fn count_fault(&self, fingerprint: u64) -> u32 {
        let mut inner = self.lock();
        let count = inner.faults.entry(fingerprint).or_default();
        *count += 1;
        *count - 1
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.lock().requests.iter().cloned().collect()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// A panic while the lock was held left plain data behind, which is still good.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What `/metrics` tells, in Prometheus' text format.
//!
//! Counts of the gateway are kept here and begin anew with the process; counts of sessions are read from the engine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use hob_session::event::{EventKind, ModelCall};
use hob_session::{Engine, EngineError, Filter, Observer, State};

/// Upper bounds of the histogram of waits for a model's first byte, in milliseconds.
const BOUNDS_MS: [u64; 8] = [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];
const STATES: [State; 7] =
    [State::Starting, State::Idle, State::Running, State::Suspending, State::Suspended, State::Failed, State::Archived];

/// Counts since the start of the process.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    models: BTreeMap<String, ModelCounts>,
    first_byte: Histogram,
    phases: BTreeMap<String, Histogram>,
    turns: BTreeMap<String, u64>,
    refusals: u64,
    unrecorded: u64,
}

#[derive(Debug, Default)]
struct ModelCounts {
    calls: u64,
    failed: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost_micro_usd: u64,
}

#[derive(Debug, Default)]
struct Histogram {
    /// Observations up to each bound, not cumulated.
    buckets: [u64; BOUNDS_MS.len()],
    count: u64,
    sum_ms: u64,
}

impl Metrics {
    /// Counts a model call.
    pub fn model_call(&self, call: &ModelCall) {
        let mut counts = self.counts();
        let model = counts.models.entry(call.model.clone()).or_default();
        model.calls += 1;
        model.failed += u64::from(!(200..300).contains(&call.status));
        model.input_tokens += call.input_tokens;
        model.output_tokens += call.output_tokens;
        model.cost_micro_usd += call.cost_micro_usd.unwrap_or(0);
        counts.first_byte.observe(call.first_byte_ms);
    }

    /// Counts a refusal of the gateway.
    pub fn refusal(&self) {
        self.counts().refusals += 1;
    }

    /// Counts a measurement that found no room on its way to the session's log.
    pub fn unrecorded(&self) {
        self.counts().unrecorded += 1;
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// The store failed.
    pub async fn text(&self, engine: &Engine) -> Result<String, EngineError> {
        let mut text = String::new();
        let mut events = 0;
        head(&mut text, "hob_sessions", "gauge", "Sessions by state.");
        for state in STATES {
            let (count, seqs) = count(engine, state).await?;
            events += seqs;
            let name = serde_json::to_string(&state).unwrap_or_default();
            line(&mut text, "hob_sessions", &format!("state={name}"), count);
        }
        head(&mut text, "hob_events", "gauge", "Events in the logs of all sessions.");
        line(&mut text, "hob_events", "", events);
        let (promised, waiting) = engine.promised();
        let (running, used) = engine.usage_of_all();
        let gauges = [
            ("hob_sandboxes", "Sandboxes that have a place to run.", u64::from(promised.sandboxes)),
            ("hob_sandboxes_running", "Sandboxes that are ready for work.", running),
            ("hob_sandboxes_memory_bytes", "Memory that they use together.", used.memory_bytes.unwrap_or_default()),
            ("hob_sandboxes_processes", "Processes and threads in them.", used.processes.unwrap_or_default()),
            (
                "hob_sandboxes_cpu_us",
                "Processor time of those that run, since each began.",
                used.cpu_us.unwrap_or_default(),
            ),
            (
                "hob_sandboxes_oom_kills",
                "Processes of those that run, ended for memory.",
                used.oom_kills.unwrap_or_default(),
            ),
            ("hob_sandboxes_waiting", "Sandboxes that wait for a place.", u64::from(waiting)),
            ("hob_sandboxes_promised_memory_bytes", "Memory that running sandboxes may use.", promised.memory_bytes),
            ("hob_sandboxes_promised_cpu_millicores", "Thousandths of a core likewise.", promised.cpu_millicores),
        ];
        for (name, help, value) in gauges {
            head(&mut text, name, "gauge", help);
            line(&mut text, name, "", value);
        }
        let pool = engine.pool();
        let families = [
            ("hob_pool_ready", "gauge", "Warm sandboxes that a session could take.", pool.ready),
            ("hob_pool_settled", "gauge", "Those of them whose services are up.", pool.settled),
            ("hob_pool_making", "gauge", "Warm sandboxes that are being made.", pool.making),
            ("hob_pool_hits_total", "counter", "New sessions that were given a warm sandbox.", pool.hits),
            ("hob_pool_misses_total", "counter", "New sessions for which there was none.", pool.misses),
        ];
        for (name, kind, help, value) in families {
            head(&mut text, name, kind, help);
            line(&mut text, name, "", value);
        }
        self.counts().write(&mut text);
        Ok(text)
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Metrics {
    fn recorded(&self, event: &EventKind) {
        match event {
            EventKind::Phase { name, elapsed_ms: Some(elapsed_ms), .. } => {
                self.counts().phases.entry(name.clone()).or_default().observe(*elapsed_ms);
            }
            EventKind::TurnEnded { outcome, .. } => {
                let name = serde_json::to_string(outcome).unwrap_or_default();
                *self.counts().turns.entry(name).or_default() += 1;
            }
            _ => {}
        }
    }
}

impl Counts {
    fn write(&self, text: &mut String) {
        type Get = fn(&ModelCounts) -> u64;
        let families: [(&str, &str, Get); 5] = [
            ("hob_model_calls_total", "Model calls.", |m| m.calls),
            ("hob_model_calls_failed_total", "Model calls that the provider did not answer well.", |m| m.failed),
            ("hob_model_input_tokens_total", "Tokens read by models.", |m| m.input_tokens),
            ("hob_model_output_tokens_total", "Tokens written by models.", |m| m.output_tokens),
            ("hob_model_cost_micro_usd_total", "Cost in millionths of a US dollar.", |m| m.cost_micro_usd),
        ];
        for (name, help, get) in families {
            head(text, name, "counter", help);
            for (model, counts) in &self.models {
                line(text, name, &format!("model={}", quoted(model)), get(counts));
            }
        }
        let name = "hob_model_first_byte_seconds";
        head(text, name, "histogram", "From a model request to the first byte of the answer.");
        self.first_byte.write(text, name, "");
        let name = "hob_phase_seconds";
        head(text, name, "histogram", "Phases of getting ready, by name.");
        for (phase, histogram) in &self.phases {
            histogram.write(text, name, &format!("phase={}", quoted(phase)));
        }
        head(text, "hob_turns_total", "counter", "Turns that ended, by outcome.");
        for (outcome, count) in &self.turns {
            line(text, "hob_turns_total", &format!("outcome={outcome}"), *count);
        }
        head(text, "hob_gateway_refusals_total", "counter", "Connections that the gateway did not let out.");
        line(text, "hob_gateway_refusals_total", "", self.refusals);
        head(text, "hob_unrecorded_total", "counter", "Measurements that found no room on their way to a log.");
        line(text, "hob_unrecorded_total", "", self.unrecorded);
    }
}

impl Histogram {
    fn observe(&mut self, ms: u64) {
        self.count += 1;
        self.sum_ms += ms;
        if let Some(bucket) = BOUNDS_MS.iter().position(|bound| ms <= *bound) {
            self.buckets[bucket] += 1;
        }
    }

    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let separator = if labels.is_empty() { "" } else { "," };
        let bucket = |bound: &str| format!("{labels}{separator}le=\"{bound}\"");
        let mut below = 0;
        for (bound, observed) in BOUNDS_MS.iter().zip(self.buckets) {
            below += observed;
            line(text, &format!("{name}_bucket"), &bucket(&seconds(*bound)), below);
        }
        line(text, &format!("{name}_bucket"), &bucket("+Inf"), self.count);
        line(text, &format!("{name}_sum"), labels, seconds(self.sum_ms));
        line(text, &format!("{name}_count"), labels, self.count);
    }
}

/// How many sessions are in a state, and how many events they have.
async fn count(engine: &Engine, state: State) -> Result<(u64, u64), EngineError> {
    let (mut sessions, mut events, mut cursor) = (0, 0, None::<String>);
    loop {
        let filter = Filter { state: Some(state), limit: Some(200), ..Filter::default() };
        let page = engine.list(filter, cursor.as_deref()).await?;
        sessions += page.sessions.len() as u64;
        events += page.sessions.iter().map(|session| session.seq).sum::<u64>();
        cursor = page.next;
        if cursor.is_none() {
            return Ok((sessions, events));
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _infallible = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _infallible = match labels {
        "" => writeln!(text, "{name} {value}"),
        labels => writeln!(text, "{name}{{{labels}}} {value}"),
    };
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

/// A label's value: models are named by whoever asks.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_model() {
        let metrics = Metrics::default();
        let call = |status, first_byte_ms| ModelCall {
            model: "m\"1".into(),
            provider: "p".into(),
            status,
            input_tokens: 10,
            cached_tokens: 0,
            output_tokens: 2,
            cost_micro_usd: Some(7),
            first_byte_ms,
            elapsed_ms: 9,
            attempts: 1,
        };
        metrics.model_call(&call(200, 80));
        metrics.model_call(&call(500, 20_000));
        let mut text = String::new();
        metrics.counts().write(&mut text);
        for expect in [
            "hob_model_calls_total{model=\"m\\\"1\"} 2\n",
            "hob_model_calls_failed_total{model=\"m\\\"1\"} 1\n",
            "hob_model_cost_micro_usd_total{model=\"m\\\"1\"} 14\n",
            "hob_model_first_byte_seconds_bucket{le=\"0.050\"} 0\n",
            "hob_model_first_byte_seconds_bucket{le=\"0.100\"} 1\n",
            "hob_model_first_byte_seconds_bucket{le=\"+Inf\"} 2\n",
            "hob_model_first_byte_seconds_sum 20.080\n",
        ] {
            assert!(text.contains(expect), "{expect} in\n{text}");
        }
    }
}

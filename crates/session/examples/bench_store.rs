//! How long an event takes to be on disk: 1,000 sessions append 50 events a second each for 8 seconds.
//!
//! Open loop: a latency counts from the moment at which the event was due, so a stall is not hidden by what waits behind
//! it. Beside it, in the same run, one `fdatasync` of 4 KiB on the same disk. `hob_bench_sessions=N` changes the number.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench that cannot go on says so, and prints")]

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use hob_agent::Author;
use hob_session::fold::SessionState;
use hob_session::store::{Append, Store};
use hob_session::{EventKind, SessionId};
use tokio_util::task::TaskTracker;

const RATE: u32 = 50;
const SECONDS: u32 = 8;

#[tokio::main]
async fn main() {
    let sessions = std::env::var("hob_bench_sessions").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_u32);
    let folder = tempfile::tempdir_in(".").unwrap();
    let floor = fdatasync(folder.path());
    let store = Store::open(&folder.path().join("hob.sqlite")).unwrap();
    for n in 0..sessions {
        make(&store, n).await;
    }
    let tracker = TaskTracker::new();
    let begin = Instant::now() + Duration::from_millis(200);
    let tasks: Vec<_> = (0..sessions).map(|n| tracker.spawn(offer(store.clone(), n, sessions, begin))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let elapsed = begin.elapsed();
    store.close().await;
    latencies.sort_unstable();
    let (p50, p95) = (at(&latencies, 50), at(&latencies, 95));
    let rate = latencies.len() as f64 / elapsed.as_secs_f64();
    println!(
        "event append, durable: {sessions} sessions x {RATE}/s, {rate:.0} events/s, p50 {p50:.2} ms, p95 {p95:.2} ms"
    );
    let (sync_p50, sync_p95) = (at(&floor, 50), at(&floor, 95));
    let name = format!("store.append_{sessions}_sessions");
    figure("store.fdatasync_4_kib", sync_p50, sync_p95, floor.len(), None);
    figure(&name, p50, p95, latencies.len(), Some(("store.fdatasync_4_kib", p50 / sync_p50)));
}

fn figure(name: &str, p50: f64, p95: f64, n: usize, compared: Option<(&str, f64)>) {
    let (against, ratio) = compared.map(|(against, ratio)| (against, round(ratio))).unzip();
    let (p50, p95) = (round(p50), round(p95));
    println!(
        "{}",
        serde_json::json!({
            "name": name, "unit": "ms", "p50": p50, "p95": p95, "n": n, "against": against, "ratio": ratio
        })
    );
}

fn name(n: u32) -> SessionId {
    SessionId::new(format!("s{n}")).unwrap()
}

async fn make(store: &Store, n: u32) {
    let mut state = SessionState::new(name(n), 0);
    let author = Author { name: "Ada".into(), email: "ada@example.org".into() };
    let (repository, agent, model) = ("/r".to_owned(), "hob".to_owned(), "m".to_owned());
    let created = EventKind::SessionCreated { repository, base: None, agent, model, author };
    state.apply(0, &created);
    store.create(state.summary, 0, vec![created], vec![], None).await.unwrap();
    store.claim(&name(n), "bench", 0).await.unwrap();
}

/// Appends an event whenever one is due, and gives how long each took from then.
async fn offer(store: Store, n: u32, sessions: u32, begin: Instant) -> Vec<Duration> {
    let step = Duration::from_secs(1) / RATE;
    // Sessions do not beat in time with each other.
    let begin = begin + step * n / sessions;
    let mut latencies = Vec::new();
    for beat in 0..RATE * SECONDS {
        let due = begin + step * beat;
        tokio::time::sleep_until(due.into()).await;
        let text = "x".repeat(140);
        let events = vec![EventKind::Message { message_id: "m1".into(), offset: u64::from(beat) * 140, text }];
        let append =
            Append { session: name(n), epoch: 1, at_ms: 0, events, summary: None, answer: None, artifacts: vec![] };
        store.append(append).await.unwrap();
        latencies.push(due.elapsed());
    }
    latencies
}

/// How long each of 200 `fdatasync` calls took, sorted.
fn fdatasync(folder: &Path) -> Vec<Duration> {
    let mut file = std::fs::File::create(folder.join("floor")).unwrap();
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&[7; 4_096]).unwrap();
            file.sync_data().unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

fn at(sorted: &[Duration], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}

fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

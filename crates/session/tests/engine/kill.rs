//! `kill -9` of the engine, again and again, in every state: what was acknowledged is there, the log has no gap and no
//! double, an interrupted turn is told once, and the queue goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hob_sandbox::{Local, LocalConfig};
use hob_scripted_model::ScriptedModel;
use hob_session::store::Store;
use hob_session::{Engine, EngineConfig, EngineError, Event, EventKind, Filter, NewSession, SessionId, State};
use tokio_util::task::TaskTracker;

use crate::house::{LIMIT, ada, deps, git, prompt, repository};
use crate::turns::fix;

const KILLS: u32 = 56;

/// Sessions that are open at once.
const SESSIONS: usize = 4;

fn config(folder: &Path) -> EngineConfig {
    let mut config = EngineConfig::new(folder.join("data"));
    config.timeouts.suspend_after = Duration::from_millis(60);
    config.limits.queue_len_max = 4;
    config
}

async fn open(folder: &Path, model: &str) -> Engine {
    let local = Local::open(LocalConfig::new(folder.join("sandboxes"))).await.unwrap();
    Engine::open(config(folder), deps(folder, model, local)).await.unwrap()
}

/// The server that is killed: it makes sessions, prompts, stops and archives them, and prints what was acknowledged and
/// which state was reached.
#[test]
#[ignore = "run by `after_any_kill_nothing_is_lost_and_the_queue_goes_on`"]
fn child_that_serves() {
    let folder = PathBuf::from(std::env::var("HOB_TEST_FOLDER").unwrap());
    let model = std::env::var("HOB_TEST_MODEL").unwrap();
    let seed: usize = std::env::var("HOB_TEST_SEED").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = open(&folder, &model).await;
        let tracker = TaskTracker::new();
        for summary in engine.list(Filter::default(), None).await.unwrap().sessions {
            tracker.spawn(tell_states(engine.clone(), summary.id, summary.seq));
        }
        for step in seed.. {
            act(&engine, &tracker, &folder, step).await;
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    });
}

async fn act(engine: &Engine, tracker: &TaskTracker, folder: &Path, step: usize) {
    let sessions = engine.list(Filter::default(), None).await.unwrap().sessions;
    if sessions.len() < SESSIONS {
        let base = step.is_multiple_of(5).then(|| "nope".to_owned());
        let repository = folder.join("repo").display().to_string();
        let (agent, model) = ("hob".to_owned(), "scripted".to_owned());
        let (author, title, idempotency_key) = (ada(), None, None);
        let prompt = Some(prompt("@@script:note@@"));
        let new = NewSession { repository, base, agent, model, author, title, prompt, idempotency_key };
        let created = engine.create(new).await.unwrap();
        println!("prompt {} {}", created.session, created.prompt.unwrap().prompt_id);
        tracker.spawn(tell_states(engine.clone(), created.session, 0));
        return;
    }
    let id = &sessions[step % sessions.len()].id;
    let script = ["hello", "note", "sleep", "fix"][step / 3 % 4];
    match step % 11 {
        0..=3 => match engine.prompt(id, prompt(&format!("@@script:{script}@@"))).await {
            Ok(queued) => println!("prompt {id} {}", queued.prompt_id),
            Err(EngineError::QueueFull { .. }) => {}
            Err(error) => panic!("{error}"),
        },
        4..=6 => engine.stop(id, ada()).await.unwrap(),
        7 if step.is_multiple_of(5) => {
            engine.archive(id, ada()).await.unwrap();
            println!("archived {id}");
        }
        _ => {}
    }
}

async fn tell_states(engine: Engine, id: SessionId, since: u64) {
    let mut events = engine.subscribe(&id, since).await.unwrap();
    while let Some(record) = events.next().await {
        if let EventKind::StateChanged { to, .. } = record.unwrap().event().unwrap().kind {
            println!("state {to:?}");
        }
    }
}

/// What a killed server had promised.
#[derive(Default)]
struct Promised {
    prompts: BTreeSet<(String, String)>,
    archived: BTreeSet<String>,
}

impl Promised {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["prompt", session, prompt] => drop(self.prompts.insert((session.to_owned(), prompt.to_owned()))),
            ["archived", session] => drop(self.archived.insert(session.to_owned())),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_kill_nothing_is_lost_and_the_queue_goes_on() {
    let folder = tempfile::Builder::new().prefix("hob-kill-").tempdir().unwrap();
    let folder = folder.path();
    repository(&folder.join("repo"));
    let model = ScriptedModel::start(fix()).await.unwrap();
    let mut promised = Promised::default();
    let mut killed_in = BTreeMap::new();
    for round in 0..KILLS {
        kill_one(folder, &model.base_url(), round, &mut promised);
        for state in check(folder, &promised).await {
            *killed_in.entry(format!("{state:?}")).or_insert(0_u32) += 1;
        }
    }
    println!(
        "states of the sessions at {KILLS} kills: {killed_in:?}; {} prompts were promised",
        promised.prompts.len()
    );
    settle(folder, &model.base_url(), &promised).await;
    for state in ["Starting", "Idle", "Running", "Suspended", "Failed", "Archived"] {
        assert!(killed_in.contains_key(state), "no kill hit {state}: {killed_in:?}");
    }
    model.shutdown().await;
}

/// Starts a server, and kills it: as soon as a session enters a certain state, or after a while.
fn kill_one(folder: &Path, model: &str, round: u32, promised: &mut Promised) {
    let aims = ["Starting", "Running", "Idle", "Suspending", "Suspended", "Failed", "Archived", "none"];
    let aim = format!("state {}", aims[round as usize % aims.len()]);
    // Spread over the moments by a multiplicative hash of the round.
    let random = round.wrapping_mul(2_654_435_761) >> 16;
    let mut child = serve(folder, model, round);
    let (heard, lines) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            heard.send(line).ok();
        }
    });
    let until = Instant::now() + Duration::from_millis(900 + u64::from(random % 1_500));
    let mut to_skip = random % 3;
    while let Ok(line) = lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
        promised.hear(&line);
        if line == aim {
            if to_skip == 0 {
                break;
            }
            to_skip -= 1;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    lines.try_iter().for_each(|line| promised.hear(&line));
}

fn serve(folder: &Path, model: &str, round: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "kill::child_that_serves", "--nocapture"])
        .env("HOB_TEST_FOLDER", folder)
        .env("HOB_TEST_MODEL", model)
        .env("HOB_TEST_SEED", (round * 13).to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Checks the logs as the killed server left them. Gives the state that each session was in.
async fn check(folder: &Path, promised: &Promised) -> Vec<State> {
    let store = Store::open(&folder.join("data/hob.sqlite")).unwrap();
    let mut states = Vec::new();
    let sessions: BTreeSet<&String> = promised.prompts.iter().map(|(session, _)| session).collect();
    for session in sessions {
        let id = SessionId::new(session.as_str()).unwrap();
        let records = store.events(&id, 0, 1_000_000).await.unwrap();
        let log: Vec<Event> = records.iter().map(|record| record.event().unwrap()).collect();
        check_log(session, &log, promised);
        states.push(store.summary(&id).await.unwrap().unwrap().state);
    }
    store.close().await;
    states
}

fn check_log(session: &str, log: &[Event], promised: &Promised) {
    for (at, event) in log.iter().enumerate() {
        assert_eq!(event.seq, at as u64 + 1, "a gap or a double in {session}");
    }
    let mut open = None;
    let mut queued = BTreeSet::new();
    let mut started = BTreeSet::new();
    for event in log {
        match &event.kind {
            EventKind::PromptQueued { prompt_id, .. } => assert!(queued.insert(prompt_id.clone())),
            EventKind::TurnStarted { turn_id, prompt_id } => {
                assert!(started.insert(prompt_id.clone()), "{prompt_id} ran twice in {session}");
                assert_eq!(open.replace(turn_id.clone()), None, "two turns at once in {session}");
            }
            EventKind::TurnEnded { turn_id, .. } => {
                assert_eq!(open.take().as_ref(), Some(turn_id), "an end without a start, or two ends, in {session}");
            }
            _ => {}
        }
    }
    for (_, prompt) in promised.prompts.iter().filter(|(of, _)| of == session) {
        assert!(queued.contains(prompt), "the promised prompt {prompt} of {session} is lost");
    }
    if promised.archived.contains(session) {
        let kept =
            |event: &Event| matches!(event.kind, EventKind::ArchiveRequested { .. } | EventKind::Archived { .. });
        assert!(log.iter().any(kept), "the promised end of {session} is lost");
    }
}

/// The last server is left alone: every promised prompt comes to its end, and the results are there.
async fn settle(folder: &Path, model: &str, promised: &Promised) {
    let local = Local::open(LocalConfig::new(folder.join("sandboxes"))).await.unwrap();
    let engine = Engine::open(config(folder), deps(folder, model, local.clone())).await.unwrap();
    let sessions: BTreeSet<&String> = promised.prompts.iter().map(|(session, _)| session).collect();
    for session in sessions {
        let id = SessionId::new(session.as_str()).unwrap();
        let begun = Instant::now();
        loop {
            let summary = engine.get(&id).await.unwrap();
            if summary.queue.is_empty() && summary.running_prompt.is_none() {
                break;
            }
            // What sleeps for five minutes is stopped; everything else ends by itself.
            engine.stop(&id, ada()).await.unwrap();
            assert!(begun.elapsed() < LIMIT, "{id} does not come to rest: {summary:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if promised.archived.contains(session) {
            assert_eq!(engine.get(&id).await.unwrap().state, State::Archived);
        }
        if let Some(branch) = engine.branch(&id).await.unwrap() {
            assert_eq!(git(&branch.mirror, &["rev-parse", &branch.branch]), branch.commit);
            git(&branch.mirror, &["fsck", "--no-dangling", "--connectivity-only", &branch.commit]);
        }
    }
    engine.shutdown().await;
    check(folder, promised).await;
    local.shutdown().await.unwrap();
}

//! `kill -9` of the server and of the sandbox helper while sandboxes are kept warm, start, are put away and are removed, and
//! images are built: the next server leaves nothing behind that nobody accounts for.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hob_sandbox::{Local, LocalConfig};
use hob_scripted_model::ScriptedModel;
use hob_session::{Engine, EngineConfig, Filter, NewImage, NewSession, State};

use crate::house::{LIMIT, ada, deps, prompt, repository};
use crate::turns::fix;

const KILLS: u32 = 36;

fn config(folder: &Path) -> EngineConfig {
    let mut config = EngineConfig::new(folder.join("data"));
    config.timeouts.suspend_after = Duration::from_millis(40);
    config.images.rebuild_every = Duration::from_millis(100);
    config
}

/// Opens an engine with a pool of up to so many.
async fn open(folder: &Path, model: &str, pool: u32) -> (Local, Engine) {
    let local = Local::open(LocalConfig::new(folder.join("sandboxes"))).await.unwrap();
    let mut config = config(folder);
    config.pool.max = pool;
    let engine = Engine::open(config, deps(folder, model, local.clone())).await.unwrap();
    (local, engine)
}

fn new_session(folder: &Path, text: &str) -> NewSession {
    NewSession {
        repository: folder.join("repo").display().to_string(),
        base: None,
        agent: "hob".to_owned(),
        model: "scripted".to_owned(),
        author: ada(),
        title: None,
        prompt: Some(prompt(text)),
        idempotency_key: None,
    }
}

/// The server that is killed: it makes sessions, lets them be put away, archives them, and builds images.
#[test]
#[ignore = "run by `after_any_kill_of_server_and_helper_nothing_is_left_behind`"]
fn child_that_churns() {
    let folder = PathBuf::from(std::env::var("HOB_TEST_FOLDER").unwrap());
    let model = std::env::var("HOB_TEST_MODEL").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (_local, engine) = open(&folder, &model, 3).await;
        println!("open");
        for step in 0_u32.. {
            let script = ["note", "sleep", "hello"][step as usize % 3];
            engine.create(new_session(&folder, &format!("@@script:{script}@@"))).await.unwrap();
            let repository = folder.join("repo").display().to_string();
            engine.build_image(NewImage { repository, fresh: true, ..NewImage::default() }).await.unwrap();
            let sessions = engine.list(Filter::default(), None).await.unwrap().sessions;
            for session in sessions.iter().skip(4) {
                engine.archive(&session.id, ada()).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_kill_of_server_and_helper_nothing_is_left_behind() {
    let folder = tempfile::Builder::new().prefix("hob-orphans-").tempdir().unwrap();
    let folder = folder.path();
    repository(&folder.join("repo"));
    let model = ScriptedModel::start(fix()).await.unwrap();
    for round in 0..KILLS {
        kill_one(folder, &model.base_url(), round);
    }
    let (local, engine) = open(folder, &model.base_url(), 0).await;
    settle(&engine).await;
    engine.sweep().await.unwrap();
    let kept = account(folder, &engine).await;
    assert!(!kept.is_empty(), "some sessions are left, put away");
    account_images(folder, &engine);

    engine.shutdown().await;
    local.shutdown().await.unwrap();
    nothing(|| processes(folder)).await;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*folder.to_string_lossy()), "{mounts}");
    model.shutdown().await;
}

/// Kills a server at a moment of its own, and in two rounds of three the helper before or after it.
fn kill_one(folder: &Path, model: &str, round: u32) {
    let mut child = serve(folder, model);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "open"), "the server did not open");
    // Spread over the moments by a multiplicative hash of the round.
    let random = u64::from(round.wrapping_mul(2_654_435_761) >> 16);
    std::thread::sleep(Duration::from_millis(40 + random % 700));
    if round % 3 == 1 {
        kill_helper(folder);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if round % 3 == 2 {
        kill_helper(folder);
    }
}

fn serve(folder: &Path, model: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "orphans::child_that_churns", "--nocapture"])
        .env("HOB_TEST_FOLDER", folder)
        .env("HOB_TEST_MODEL", model)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until every session is put away, has failed or is archived, and stops what would go on for minutes.
async fn settle(engine: &Engine) {
    let begun = Instant::now();
    loop {
        let sessions = engine.list(Filter::default(), None).await.unwrap().sessions;
        let busy = sessions.iter().filter(|session| !matches!(session.state, State::Suspended | State::Failed));
        let busy: Vec<_> = busy.map(|session| session.id.clone()).collect();
        if busy.is_empty() {
            return;
        }
        assert!(begun.elapsed() < LIMIT * 2, "{busy:?} do not come to rest");
        for id in &busy {
            engine.stop(id, ada()).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Holds what is there against the sessions that are not archived. Gives their names.
async fn account(folder: &Path, engine: &Engine) -> BTreeSet<String> {
    let sessions = engine.list(Filter::default(), None).await.unwrap().sessions;
    let kept: BTreeSet<String> = sessions.iter().map(|session| session.id.to_string()).collect();
    for place in ["sandboxes/sandboxes", "data/sessions"] {
        nothing(|| names(&folder.join(place)).difference(&kept).cloned().collect()).await;
    }
    nothing(|| names(&folder.join("sandboxes/trash")).into_iter().collect()).await;
    nothing(|| groups(folder)).await;
    // The helper is there to stay, and nothing beside it.
    let others = || processes(folder).into_iter().filter(|line| !line.contains("helper-run")).collect();
    nothing(others).await;
    kept
}

/// Holds the images that are there against what they are made of.
fn account_images(folder: &Path, engine: &Engine) {
    let images = engine.images(None);
    let known: BTreeSet<String> = images.iter().map(|image| image.image_id.clone()).collect();
    let pins: BTreeSet<String> = known.iter().map(|id| format!("image-{id}.json")).collect();
    assert_eq!(names(&folder.join("data/images")).difference(&known).count(), 0, "folders without a record");
    assert_eq!(names(&folder.join("sandboxes/pins")).difference(&pins).count(), 0, "pins of no image");
    let layers = names(&folder.join("sandboxes/layers"));
    for image in images.iter().filter(|image| image.is_ready()) {
        assert!(image.layers.iter().all(|layer| layers.contains(layer.as_str())), "{image:?} is not whole");
    }
}

/// Waits until nothing is left, or says what is.
async fn nothing(left: impl Fn() -> Vec<String>) {
    let begun = Instant::now();
    loop {
        let found = left();
        if found.is_empty() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "left behind: {found:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Control groups of this data folder, by the prefix that a sandbox's record shows.
fn groups(folder: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for id in names(&folder.join("sandboxes/sandboxes")) {
        let record =
            std::fs::read(folder.join("sandboxes/sandboxes").join(&id).join("record.json")).unwrap_or_default();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
        for group in record["groups"].as_array().into_iter().flatten().filter_map(|group| group.as_str()) {
            let (parent, name) = group.rsplit_once('/').unwrap();
            let prefix = name.strip_suffix(&format!("-{id}")).unwrap();
            left.extend(names(Path::new(parent)).into_iter().filter(|name| name.starts_with(prefix)));
        }
    }
    left
}

/// Processes that name the folder, or whose mounts do. A network namespace lives as long as they, and no longer.
fn processes(folder: &Path) -> Vec<String> {
    let wanted = folder.to_string_lossy().into_owned();
    let ours = std::process::id().to_string();
    let mut found = Vec::new();
    for pid in names(Path::new("/proc")).into_iter().filter(|name| name.parse::<u32>().is_ok() && *name != ours) {
        let read = |file: &str| {
            String::from_utf8_lossy(&std::fs::read(Path::new("/proc").join(&pid).join(file)).unwrap_or_default())
                .replace('\0', " ")
        };
        let line = read("cmdline");
        if line.contains(&wanted) || read("mountinfo").contains(&wanted) {
            found.push(format!("{pid} {line}"));
        }
    }
    found
}

/// Kills the helper as a machine that runs out of memory would.
fn kill_helper(folder: &Path) {
    for line in processes(folder).iter().filter(|line| line.contains("helper-run")) {
        let pid = line.split(' ').next().unwrap();
        Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status().unwrap();
    }
}

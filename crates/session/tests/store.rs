//! The suite of every store: what is acknowledged is there, in order, once; a stale owner is refused.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

use std::path::Path;
use std::process::{Command, Stdio};

use hob_agent::Author;
use hob_session::fold::SessionState;
use hob_session::store::{Answer, Append, Created, ListQuery, Store, StoreError};
use hob_session::{Artifact, EventKind, SessionId, State, Summary};
use tokio_util::sync::CancellationToken;

/// Makes a store in a folder. The suite holds for any.
type Factory = fn(&Path) -> Store;

const SQLITE: Factory = |folder| Store::open(&folder.join("hob.sqlite")).unwrap();

fn id(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

fn notice(text: impl Into<String>) -> EventKind {
    EventKind::Notice { text: text.into() }
}

fn summary(name: &str, updated_ms: u64) -> Summary {
    let mut state = SessionState::new(id(name), updated_ms);
    let author = Author { name: "Ada".into(), email: format!("{name}@example.org") };
    let repository = format!("/srv/{name}");
    let created = EventKind::SessionCreated { repository, base: None, agent: "hob".into(), model: "m".into(), author };
    state.apply(updated_ms, &created);
    state.summary
}

async fn create(store: &Store, name: &str, updated_ms: u64) -> Created {
    store.create(summary(name, updated_ms), updated_ms, vec![notice("made")], vec![], None).await.unwrap()
}

fn append(name: &str, epoch: u64, texts: &[&str]) -> Append {
    let events = texts.iter().map(|text| notice(*text)).collect();
    Append { session: id(name), epoch, at_ms: 7, events, summary: None, answer: None, artifacts: vec![] }
}

async fn texts(store: &Store, name: &str) -> Vec<(u64, String)> {
    let records = store.events(&id(name), 0, 100_000).await.unwrap();
    let text = |kind| match kind {
        EventKind::Notice { text } => text,
        other => panic!("{other:?}"),
    };
    records.iter().map(|record| (record.seq, text(record.event().unwrap().kind))).collect()
}

/// Runs a test of the suite on a store.
async fn on<F: Future>(make: Factory, test: impl FnOnce(Store, std::path::PathBuf) -> F) -> F::Output {
    let folder = tempfile::tempdir().unwrap();
    let store = make(folder.path());
    test(store, folder.path().to_owned()).await
}

#[tokio::test]
async fn events_are_numbered_from_one_without_gaps_across_owners_and_openings() {
    on(SQLITE, |store, folder| async move {
        create(&store, "a", 1).await;
        let one = store.claim(&id("a"), "x", 0).await.unwrap().unwrap();
        assert_eq!((one.epoch, one.last_seq), (1, 1));
        store.append(append("a", 1, &["b", "c"])).await.unwrap();
        store.close().await;
        drop(store);
        let store = SQLITE(&folder);
        let two = store.claim(&id("a"), "y", 0).await.unwrap().unwrap();
        assert_eq!((two.epoch, two.last_seq), (2, 3));
        store.append(append("a", 2, &["d"])).await.unwrap();
        let expected = ["made", "b", "c", "d"].iter().enumerate().map(|(at, text)| (at as u64 + 1, (*text).to_owned()));
        assert_eq!(texts(&store, "a").await, expected.collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_stale_epoch_is_refused_and_leaves_nothing() {
    on(SQLITE, |store, _| async move {
        create(&store, "a", 1).await;
        store.claim(&id("a"), "x", 0).await.unwrap();
        store.claim(&id("a"), "y", 0).await.unwrap();
        let stale = store.append(append("a", 1, &["late"])).await;
        assert_eq!(stale, Err(StoreError::Fenced { session: id("a"), epoch: 1 }));
        store.append(append("a", 2, &["in time"])).await.unwrap();
        assert_eq!(texts(&store, "a").await, [(1, "made".to_owned()), (2, "in time".to_owned())]);
        assert_eq!(store.claim(&id("nobody"), "x", 0).await.unwrap(), None);
    })
    .await;
}

/// Another process that takes over by the file alone: the writer must not trust what it remembers.
#[tokio::test]
async fn an_owner_that_another_connection_dethroned_is_refused() {
    on(SQLITE, |store, folder| async move {
        create(&store, "a", 1).await;
        store.claim(&id("a"), "x", 0).await.unwrap();
        store.append(append("a", 1, &["mine"])).await.unwrap();
        let other = rusqlite::Connection::open(folder.join("hob.sqlite")).unwrap();
        other.execute("UPDATE sess SET epoch = epoch + 1, owner = 'z'", []).unwrap();
        let stale = store.append(append("a", 1, &["late"])).await;
        assert!(matches!(stale, Err(StoreError::Fenced { .. })), "{stale:?}");
    })
    .await;
}

#[tokio::test]
async fn a_folder_belongs_to_one_store_at_a_time() {
    on(SQLITE, |store, folder| async move {
        let second = Store::open(&folder.join("hob.sqlite"));
        assert!(matches!(second, Err(StoreError::InUse { .. })));
        store.close().await;
        Store::open(&folder.join("hob.sqlite")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_key_makes_one_session_and_gives_its_answer_again() {
    on(SQLITE, |store, _| async move {
        let answer = |text: &str| Some(Answer { scope: "create".into(), key: "k".into(), answer: text.into() });
        let first = store.create(summary("a", 1), 1, vec![], vec![], answer("one")).await.unwrap();
        let second = store.create(summary("b", 1), 1, vec![], vec![], answer("two")).await.unwrap();
        assert_eq!((first, second), (Created::New, Created::Before("one".to_owned())));
        assert_eq!(store.summary(&id("b")).await.unwrap(), None);
        assert_eq!(store.answer("create", "k").await.unwrap().as_deref(), Some("one"));
        assert_eq!(store.answer("other", "k").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn lists_page_by_last_change_and_filter() {
    on(SQLITE, |store, _| async move {
        for (at, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            create(&store, name, at as u64).await;
        }
        let mut archived = append("c", 1, &[]);
        archived.summary = Some(Summary { state: State::Archived, ..summary("c", 9) });
        store.claim(&id("c"), "x", 0).await.unwrap();
        store.append(archived).await.unwrap();

        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let (page, next) = store.list(ListQuery { limit: 2, after, ..ListQuery::default() }).await.unwrap();
            seen.extend(page.into_iter().map(|summary| summary.id.to_string()));
            let Some(next) = next else { break };
            after = Some(next.to_string().parse().unwrap());
        }
        assert_eq!(seen, ["e", "d", "b", "a"], "archived ones are not shown");
        let listed = &store;
        let of = |query| async move { listed.list(ListQuery { limit: 9, ..query }).await.unwrap().0.len() };
        assert_eq!(of(ListQuery { state: Some(State::Archived), ..ListQuery::default() }).await, 1);
        assert_eq!(of(ListQuery { repository: Some("/srv/b".into()), ..ListQuery::default() }).await, 1);
        assert_eq!(of(ListQuery { author_email: Some("e@example.org".into()), ..ListQuery::default() }).await, 1);
    })
    .await;
}

#[tokio::test]
async fn sessions_with_work_to_do_are_found() {
    on(SQLITE, |store, _| async move {
        create(&store, "starting", 1).await;
        create(&store, "idle", 1).await;
        store.claim(&id("idle"), "x", 0).await.unwrap();
        let mut rest = append("idle", 1, &[]);
        rest.summary = Some(Summary { state: State::Idle, ..summary("idle", 2) });
        store.append(rest).await.unwrap();
        assert_eq!(store.pending().await.unwrap(), [id("starting")]);
    })
    .await;
}

#[tokio::test]
async fn artifacts_are_listed_in_the_order_they_came() {
    on(SQLITE, |store, _| async move {
        create(&store, "a", 1).await;
        store.claim(&id("a"), "x", 0).await.unwrap();
        for name in ["z", "y"] {
            let mut with = append("a", 1, &[name]);
            with.artifacts = vec![Artifact {
                artifact_id: name.into(),
                kind: "file".into(),
                name: name.into(),
                media_type: "text/plain".into(),
                size_bytes: 1,
                sha256: "00".into(),
                at_ms: 1,
            }];
            store.append(with).await.unwrap();
        }
        let names: Vec<String> = store.artifacts(&id("a")).await.unwrap().into_iter().map(|a| a.name).collect();
        assert_eq!(names, ["z", "y"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_miss_nothing_while_many_write() {
    on(SQLITE, |store, _| async move {
        create(&store, "a", 1).await;
        create(&store, "b", 1).await;
        for name in ["a", "b"] {
            store.claim(&id(name), "x", 0).await.unwrap();
        }
        let end = CancellationToken::new();
        let follow = |since| {
            let mut follower = store.follow(&id("a"), since, end.clone());
            async move {
                let mut seen = Vec::new();
                while seen.last() != Some(&2_001) {
                    seen.push(follower.next().await.unwrap().unwrap().seq);
                }
                seen
            }
        };
        let write = |name: &'static str| {
            let store = store.clone();
            async move {
                for at in 0..500 {
                    let text = format!("{name}{at}");
                    store.append(append(name, 1, &[&text, "x", "y", "z"])).await.unwrap();
                }
            }
        };
        let (early, late, (), ()) = tokio::join!(follow(0), follow(700), write("a"), write("b"));
        assert_eq!(early, (1..=2_001).collect::<Vec<u64>>());
        assert_eq!(late, (701..=2_001).collect::<Vec<u64>>());
        let mut over = store.follow(&id("a"), 2_001, end.clone());
        end.cancel();
        assert_eq!(over.next().await.unwrap(), None);
    })
    .await;
}

/// The writer of the next test: it appends for ever, and prints each acknowledged number.
#[test]
#[ignore = "run by `what_was_acknowledged_is_there_after_a_kill`"]
fn child_that_appends() {
    let folder = std::env::var("HOB_TEST_STORE").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SQLITE(Path::new(&folder));
        if store.summary(&id("a")).await.unwrap().is_none() {
            create(&store, "a", 1).await;
        }
        let claim = store.claim(&id("a"), "child", 0).await.unwrap().unwrap();
        loop {
            let records = store.append(append("a", claim.epoch, &["x", "y", "z"])).await.unwrap();
            println!("seq {}", records.last().unwrap().seq);
        }
    });
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..10_u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child_that_appends", "--nocapture"])
            .env("HOB_TEST_STORE", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("seq ")?.parse::<u64>().ok());
        // A different moment each time: after that many acknowledgements.
        let wanted = 1 + (round as usize * 37) % 101;
        for number in numbers.take(wanted) {
            acknowledged = number;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = SQLITE(folder.path());
        let seen: Vec<u64> = texts(&store, "a").await.into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>(), "no gap, no double");
        assert!(seen.len() as u64 >= acknowledged, "{acknowledged} was acknowledged, {} are there", seen.len());
        store.close().await;
    }
}

/// The body of the next test, inside a mount namespace with a file system of 3 MB in `HOB_TEST_STORE`.
#[test]
#[ignore = "run by `a_full_disk_is_told_loses_nothing_and_heals`"]
fn child_on_a_small_disk() {
    let folder = std::env::var("HOB_TEST_STORE").unwrap();
    let folder = Path::new(&folder);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SQLITE(folder);
        create(&store, "a", 1).await;
        store.claim(&id("a"), "x", 0).await.unwrap();
        std::fs::write(folder.join("ballast"), vec![0; 1 << 20]).unwrap();
        let long = "x".repeat(50_000);
        let mut kept = 1;
        let error = loop {
            match store.append(append("a", 1, &[&long])).await {
                Ok(records) => kept = records.last().unwrap().seq,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        assert_eq!(texts(&store, "a").await.len() as u64, kept, "reads go on, and nothing is lost");
        std::fs::remove_file(folder.join("ballast")).unwrap();
        let healed = store.append(append("a", 1, &["again"])).await.unwrap();
        assert_eq!(healed[0].seq, kept + 1);
        println!("the disk was full, and healed");
    });
}

/// Needs a mount namespace, as sandboxes do.
#[test]
fn a_full_disk_is_told_loses_nothing_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=3m none \"$HOB_TEST_STORE\" && exec \"$0\" --ignored --exact child_on_a_small_disk --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("HOB_TEST_STORE", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("and healed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

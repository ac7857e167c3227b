//! A session's files: frozen, brought back, and never lost in silence.

use std::time::Duration;

use bytes::Bytes;
use hob_sandbox::{Spec, Token};
use hob_session::{EventKind, State};

use crate::house::House;
use crate::turns::fix;

fn lost(kind: &EventKind) -> bool {
    matches!(kind, EventKind::FilesLost { text } if text.contains("torn") && text.contains("the snapshot before it"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_did_not_tell_is_told_by_the_next_and_once() {
    let house = House::with(fix(), |config| config.timeouts.suspend_after = Duration::from_millis(400)).await;
    let id = house.session("@@script:note@@").await;
    let first = house.state(&id, State::Suspended).await;
    house.engine.write_file(&id, "later.txt", Bytes::from_static(b"x")).await.unwrap();
    let away = |kind: &EventKind| matches!(kind, EventKind::StateChanged { to: State::Suspended, .. });
    house.wait_after(&id, first.seq, away).await;

    // The server that was killed had started the sandbox, and not yet told what it found.
    let folder = house.folder.path().join("sandboxes");
    let record = std::fs::read(folder.join("sandboxes").join(id.as_str()).join("record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let layer = folder.join("layers").join(record["below"][0].as_str().unwrap());
    std::fs::remove_file(layer.join("verified")).unwrap();
    std::fs::write(layer.join("tree/workspace/later.txt"), "torn").unwrap();
    let spec: Spec = serde_json::from_value(record["spec"].clone()).unwrap();
    let spec = Spec { token: Token("of the killed".to_owned()), ..spec };
    house.deps.provider.create(spec).await.unwrap();

    let house = house.restart().await;
    house.wait(&id, lost).await;
    let house = house.restart().await;
    assert_eq!(house.engine.read_file(&id, "note.txt").await.unwrap(), "a note\n");
    let told = house.log(&id).await.iter().filter(|event| lost(&event.kind)).count();
    assert_eq!(told, 1, "{}", house.timeline(&id).await);
    house.close().await;
}

fn taken(kind: &EventKind) -> bool {
    matches!(kind, EventKind::SnapshotTaken { turn_id: None, .. })
}

fn after_turn(kind: &EventKind) -> bool {
    matches!(kind, EventKind::SnapshotTaken { turn_id: Some(_), paused_ms: Some(_), .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turns_end_is_followed_by_a_snapshot_and_another_one_can_be_asked_for() {
    let house = House::new(fix()).await;
    let id = house.session("@@script:note@@").await;
    house.turn_ended(&id, 1).await;
    let event = house.wait(&id, after_turn).await;
    let EventKind::SnapshotTaken { layers, .. } = event.kind else { panic!("{event:?}") };
    assert_eq!(std::fs::read_to_string(house.layer(&layers[0]).join("tree/workspace/note.txt")).unwrap(), "a note\n");

    house.engine.write_file(&id, "later.txt", Bytes::from_static(b"x")).await.unwrap();
    let asked = house.engine.snapshot(&id).await.unwrap();
    assert_ne!(asked.snapshot.layers, layers);
    house.wait(&id, taken).await;
    assert_eq!(house.engine.read_file(&id, "later.txt").await.unwrap(), "x", "the sandbox runs on");
    house.engine.archive(&id, crate::house::ada()).await.unwrap();
    assert!(matches!(house.engine.snapshot(&id).await, Err(hob_session::EngineError::Archived(_))));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_large_is_frozen_when_it_is_put_away_or_asked_for_and_not_at_each_turns_end() {
    let house = House::with(fix(), |config| {
        config.limits.turn_snapshot_bytes_max = 0;
        config.timeouts.suspend_after = Duration::from_secs(1);
    })
    .await;
    let id = house.session("@@script:note@@").await;
    house.turn_ended(&id, 1).await;
    house.state(&id, State::Suspended).await;
    let snapshots: Vec<EventKind> = house
        .log(&id)
        .await
        .into_iter()
        .map(|event| event.kind)
        .filter(|kind| taken(kind) || after_turn(kind))
        .collect();
    let [EventKind::SnapshotTaken { layers, paused_ms: None, .. }] = &snapshots[..] else { panic!("{snapshots:?}") };
    let asked = house.engine.snapshot(&id).await.unwrap();
    assert_eq!((&asked.snapshot.layers, asked.paused_ms), (layers, None), "it is asleep, and stays so");
    assert_eq!(house.get(&id).await.state, State::Suspended);
    house.close().await;
}

/// Everything about the workspace that a person or a program could notice.
const LOOK: &str = "cd /workspace && find . -mindepth 1 -not -path './.git*' -printf '%p %y %m %U:%G %s %T@ %l\\n' | sort; \
                    git status --porcelain --ignored; find . -type f -not -path './.git*' -exec sha256sum {} + | sort; \
                    python3 -c \"import os; print(os.getxattr('/workspace/kept', 'user.note'))\"";

const MAKE: &str = "cd /workspace && mkdir -p deep/er __pycache__ && echo one > deep/er/one && ln deep/er/one hard && ln -s /nowhere soft && \
                    mkfifo pipe && head -c 300000 /dev/urandom > big && chmod 4750 big && chown 12:34 deep && chown -h 5:6 soft && \
                    echo x > __pycache__/ignored && touch -d @1 deep/er && echo k > kept && chmod 0 __pycache__/ignored && \
                    python3 -c \"import os; os.setxattr('/workspace/kept', 'user.note', b'v')\" && echo tool > /usr/local/tool";

#[tokio::test(flavor = "multi_thread")]
async fn files_come_back_with_all_that_they_were_and_services_run_again() {
    let house = House::with(fix(), |config| config.timeouts.suspend_after = Duration::from_millis(800)).await;
    house.environment("[[services]]\nname = \"web\"\ncommand = \"python3 -m http.server 8123\"\nport = 8123\n");
    let id = house.session("@@script:hello@@").await;
    house.turn_ended(&id, 1).await;
    house.sh(&id, MAKE).await;
    let before = house.sh(&id, LOOK).await;
    assert!(before.contains("!! __pycache__/") && before.contains("?? deep/") && before.contains("b'v'"), "{before}");
    let since = house.log(&id).await.last().unwrap().seq;
    house.wait_after(&id, since, |kind| matches!(kind, EventKind::StateChanged { to: State::Suspended, .. })).await;

    let since = house.log(&id).await.last().unwrap().seq;
    house.engine.prompt(&id, crate::house::prompt("@@script:hello@@")).await.unwrap();
    house.turn_ended(&id, 2).await;
    assert_eq!(house.sh(&id, LOOK).await, before);
    assert_eq!(house.sh(&id, "cat /usr/local/tool").await, "tool");
    let ready = |kind: &EventKind| matches!(kind, EventKind::Service { name, status: hob_session::event::ServiceStatus::Ready, .. } if name == "web");
    house.wait_after(&id, since, ready).await;
    house.close().await;
}

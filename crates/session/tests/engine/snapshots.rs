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

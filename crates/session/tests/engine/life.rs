//! The life of a session: queue, suspend, restart, archive.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use hob_session::breaker::BreakerRules;
use hob_session::event::TurnOutcome;
use hob_session::{EngineError, EventKind, Filter, NewSession, State};

use crate::house::{House, ada, git, grace, prompt};
use crate::turns::fix;

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_prompt_can_be_cancelled_until_it_starts() {
    let house = House::new(fix()).await;
    let id = house.session("@@script:sleep@@").await;
    house.wait(&id, |kind| matches!(kind, EventKind::TurnStarted { .. })).await;
    let queued = house.engine.prompt(&id, prompt("@@script:hello@@")).await.unwrap();
    house.engine.cancel_prompt(&id, &queued.prompt_id, grace()).await.unwrap();
    let again = house.engine.cancel_prompt(&id, &queued.prompt_id, grace()).await;
    assert!(matches!(again, Err(EngineError::NoSuchPrompt { .. })), "{again:?}");
    house.engine.stop(&id, ada()).await.unwrap();
    house.turn_ended(&id, 1).await;
    house.state(&id, State::Idle).await;
    assert_eq!(house.get(&id).await.queue, []);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_has_an_end_and_a_repeated_request_is_answered_as_before() {
    let house = House::with(fix(), |config| config.limits.queue_len_max = 2).await;
    let id = house.session("@@script:sleep@@").await;
    house.wait(&id, |kind| matches!(kind, EventKind::TurnStarted { .. })).await;
    let keyed = |text: &str| hob_session::NewPrompt { idempotency_key: Some("k".to_owned()), ..prompt(text) };
    let first = house.engine.prompt(&id, keyed("one")).await.unwrap();
    assert_eq!(house.engine.prompt(&id, keyed("one")).await.unwrap(), first);
    house.engine.prompt(&id, prompt("two")).await.unwrap();
    let third = house.engine.prompt(&id, prompt("three")).await;
    assert!(matches!(third, Err(EngineError::QueueFull { max: 2 })), "{third:?}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_twice_with_one_key_makes_one_session() {
    let house = House::new(fix()).await;
    let new = || NewSession { idempotency_key: Some("once".to_owned()), ..house.new_session() };
    let one = house.engine.create(new()).await.unwrap();
    assert_eq!(house.engine.create(new()).await.unwrap(), one);
    assert_eq!(house.engine.list(Filter::default(), None).await.unwrap().sessions.len(), 1);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sandbox_is_put_away_and_comes_back_with_its_files() {
    let house = House::with(fix(), |config| config.timeouts.suspend_after = Duration::from_millis(400)).await;
    let id = house.session("@@script:note@@").await;
    house.turn_ended(&id, 1).await;
    house.wait(&id, |kind| matches!(kind, EventKind::SnapshotTaken { layers, .. } if layers.len() == 2)).await;
    house.state(&id, State::Suspended).await;
    let diff = house.engine.diff(&id).await.unwrap();
    assert!(diff.contains("+a note"), "the diff is that of the commit: {diff}");

    assert_eq!(house.engine.read_file(&id, "note.txt").await.unwrap(), "a note\n");
    house.engine.write_file(&id, "deep/er.txt", Bytes::from_static(b"x")).await.unwrap();
    let names: Vec<String> =
        house.engine.list_dir(&id, ".").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(names.contains(&"deep".to_owned()) && names.contains(&"note.txt".to_owned()), "{names:?}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_snapshot_is_told_in_the_session_and_the_one_before_it_is_used() {
    let house = House::with(fix(), |config| config.timeouts.suspend_after = Duration::from_millis(400)).await;
    let id = house.session("@@script:note@@").await;
    let first = house.state(&id, State::Suspended).await;
    house.engine.write_file(&id, "later.txt", Bytes::from_static(b"x")).await.unwrap();
    let taken = |kind: &EventKind| matches!(kind, EventKind::SnapshotTaken { .. });
    let taken = house.wait_after(&id, first.seq, taken).await;
    let EventKind::SnapshotTaken { layers, .. } = taken.kind else { panic!("{taken:?}") };
    house.wait_after(&id, taken.seq, |kind| matches!(kind, EventKind::StateChanged { to: State::Suspended, .. })).await;
    let layer = house.layer(&layers[0]);
    std::fs::remove_file(layer.join("verified")).unwrap();
    std::fs::write(layer.join("tree/workspace/later.txt"), "torn").unwrap();

    assert!(house.engine.read_file(&id, "later.txt").await.is_err());
    assert_eq!(house.engine.read_file(&id, "note.txt").await.unwrap(), "a note\n");
    let told = |kind: &EventKind| matches!(kind, EventKind::FilesLost { text } if text.contains("torn"));
    house.wait_after(&id, taken.seq, told).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_an_interrupted_turn_is_told_and_the_queue_goes_on() {
    let house = House::new(fix()).await;
    let id = house.session("@@script:sleep@@").await;
    house.wait(&id, |kind| matches!(kind, EventKind::ToolCall(_))).await;
    house.engine.prompt(&id, prompt("@@script:note@@")).await.unwrap();
    let house = house.restart().await;
    assert_eq!(house.turn_ended(&id, 1).await.0, TurnOutcome::Interrupted);
    assert_eq!(house.turn_ended(&id, 2).await.0, TurnOutcome::Done, "{}", house.timeline(&id).await);
    for (at, event) in house.log(&id).await.iter().enumerate() {
        assert_eq!(event.seq, at as u64 + 1);
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_again_and_again_is_not_tried_until_it_has_cooled_down() {
    let rules = BreakerRules { failures: 2, cool_down_ms: 1_000, ..BreakerRules::default() };
    let house = House::with(fix(), |config| config.breaker = rules).await;
    let no_such_base = NewSession { base: Some("later".into()), ..house.new_session() };
    let id = house.engine.create(no_such_base).await.unwrap().session;
    house.state(&id, State::Failed).await;
    house.engine.prompt(&id, prompt("@@script:note@@")).await.unwrap();
    assert_eq!(house.turn_ended(&id, 1).await.0, TurnOutcome::Failed);
    house.engine.prompt(&id, prompt("@@script:note@@")).await.unwrap();
    let (_, message) = house.turn_ended(&id, 2).await;
    assert!(message.contains("the last 2 starts failed, so this one was not tried"), "{message}");
    assert!(message.contains("a prompt tries again in 1 s") && message.contains("\"later\""), "{message}");

    // Mended; as soon as it has cooled down, a prompt finds that out.
    git(&house.repo(), &["branch", "later"]);
    for turn in 3.. {
        house.engine.prompt(&id, prompt("@@script:note@@")).await.unwrap();
        let (outcome, message) = house.turn_ended(&id, turn).await;
        if outcome == TurnOutcome::Done {
            break;
        }
        assert!(message.contains("was not tried"), "{message}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_session_keeps_its_log_and_takes_nothing_more() {
    let house = House::new(fix()).await;
    let id = house.session("@@script:sleep@@").await;
    house.wait(&id, |kind| matches!(kind, EventKind::ToolCall(_))).await;
    house.engine.prompt(&id, prompt("never")).await.unwrap();
    house.engine.archive(&id, grace()).await.unwrap();
    house.state(&id, State::Archived).await;
    assert_eq!(house.turn_ended(&id, 1).await.0, TurnOutcome::Stopped);
    let more = house.engine.prompt(&id, prompt("more")).await;
    assert!(matches!(more, Err(EngineError::Archived(_))), "{more:?}");
    assert!(matches!(house.engine.read_file(&id, "calc.py").await, Err(EngineError::Archived(_))));
    house.engine.archive(&id, grace()).await.unwrap();
    assert_eq!(house.engine.list(Filter::default(), None).await.unwrap().sessions, []);
    let archived = Filter { state: Some(State::Archived), ..Filter::default() };
    assert_eq!(house.engine.list(archived, None).await.unwrap().sessions.len(), 1);
    assert!(!house.log(&id).await.is_empty());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_sees_every_event_once_from_wherever_they_begin() {
    let house = House::new(fix()).await;
    let id = house.session("@@script:fix@@").await;
    house.turn_ended(&id, 1).await;
    house.state(&id, State::Idle).await;
    let whole = house.log(&id).await;
    for since in [0, 3, whole.len() as u64 - 1] {
        let events = house.engine.subscribe(&id, since).await.unwrap();
        let seen: Vec<u64> =
            events.take(whole.len() - since as usize).map(|record| record.unwrap().seq).collect().await;
        assert_eq!(seen, (since + 1..=whole.len() as u64).collect::<Vec<_>>());
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_does_not_answer_is_ended_and_the_next_command_finds_its_files() {
    let house = House::with(fix(), |config| config.timeouts.heartbeat = Duration::from_millis(300)).await;
    let id = house.engine.create(house.new_session()).await.unwrap().session;
    house.sh(&id, "echo kept > kept.txt").await;
    let before = house.log(&id).await.last().unwrap().seq;
    let guest = house.guest(&id);
    std::process::Command::new("kill").args(["-STOP", &guest.to_string()]).status().unwrap();
    let lost =
        |kind: &EventKind| matches!(kind, EventKind::StateChanged { cause, .. } if cause.contains("did not answer"));
    house.wait_after(&id, before, lost).await;
    assert_eq!(house.sh(&id, "cat kept.txt").await, "kept");
    assert!(!std::path::Path::new(&format!("/proc/{guest}")).exists(), "nothing of it is left");
    house.close().await;
}

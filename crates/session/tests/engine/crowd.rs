//! More sessions than the machine has room for.

use std::time::Duration;

use hob_scripted_model::{Scripts, Step};
use hob_session::event::{PhaseStatus, TurnOutcome};
use hob_session::{Capacity, EventKind, NewExec, NewPrompt, NewSession, SessionId, State};

use crate::house::{House, ada, grace, prompt};
use crate::turns::fix;

/// A house with room for so many sandboxes.
async fn house(sandboxes: u32) -> House {
    House::with(fix(), |config| config.capacity = Capacity { sandboxes, ..Capacity::UNBOUNDED }).await
}

/// A session whose turn holds its sandbox until it is stopped.
pub async fn busy(house: &House) -> SessionId {
    let id = house.session("@@script:sleep@@").await;
    house.wait(&id, |kind| matches!(kind, EventKind::ToolCall(_))).await;
    house.state(&id, State::Running).await;
    id
}

async fn waits(house: &House, id: &SessionId, expect: (u32, u32)) {
    let stands =
        |kind: &EventKind| matches!(kind, EventKind::WaitingForPlace { position, of } if (*position, *of) == expect);
    house.wait(id, stands).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_room_waits_says_where_it_stands_and_goes_on() {
    let house = house(1).await;
    let first = busy(&house).await;
    let second = house.session("@@script:fix@@").await;
    waits(&house, &second, (1, 1)).await;
    let by_grace = NewPrompt { author: grace(), ..prompt("@@script:note@@") };
    let new = NewSession { prompt: Some(by_grace), author: grace(), ..house.new_session() };
    let third = house.engine.create(new).await.unwrap().session;
    waits(&house, &third, (2, 2)).await;
    assert_eq!(house.get(&third).await.place.map(|place| (place.position, place.of)), Some((2, 2)));

    house.engine.stop(&first, ada()).await.unwrap();
    assert_eq!(house.turn_ended(&second, 1).await.0, TurnOutcome::Done, "{}", house.timeline(&second).await);
    assert_eq!(house.turn_ended(&third, 1).await.0, TurnOutcome::Done, "{}", house.timeline(&third).await);
    let put_away = house.state(&first, State::Suspending).await.kind;
    assert!(matches!(put_away, EventKind::StateChanged { cause, .. } if cause == "others wait for a place"));
    let waited = |kind: &EventKind| matches!(kind, EventKind::Phase { name, status: PhaseStatus::Ended, elapsed_ms: Some(1..), .. } if name == "queue");
    house.wait(&third, waited).await;
    assert_eq!(house.get(&third).await.place, None);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_waits_for_a_place_can_be_stopped_and_waits_no_more() {
    let house = house(1).await;
    busy(&house).await;
    let waiting = house.session("@@script:fix@@").await;
    waits(&house, &waiting, (1, 1)).await;
    let queued = house.engine.prompt(&waiting, prompt("never")).await.unwrap();
    house.engine.cancel_prompt(&waiting, &queued.prompt_id, ada()).await.unwrap();
    house.engine.stop(&waiting, grace()).await.unwrap();
    assert_eq!(house.turn_ended(&waiting, 1).await.0, TurnOutcome::Stopped);
    house.state(&waiting, State::Suspended).await;
    assert_eq!(house.engine.promised().1, 0, "nobody waits");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_session_waits_no_more_and_its_sandbox_gives_its_place() {
    let house = house(1).await;
    let first = busy(&house).await;
    let second = house.engine.create(house.new_session()).await.unwrap().session;
    waits(&house, &second, (1, 1)).await;
    let third = house.session("@@script:note@@").await;
    waits(&house, &third, (2, 2)).await;
    house.engine.archive(&second, ada()).await.unwrap();
    waits(&house, &third, (1, 1)).await;
    house.engine.archive(&first, ada()).await.unwrap();
    assert_eq!(house.turn_ended(&third, 1).await.0, TurnOutcome::Done, "{}", house.timeline(&third).await);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_of_a_person_keeps_its_sandbox_while_others_wait() {
    let house = house(1).await;
    let first = house.session("@@script:hello@@").await;
    house.state(&first, State::Idle).await;
    let argv = ["cat"].map(str::to_owned).to_vec();
    let exec = NewExec { argv, cwd: None, env: Default::default(), stdin: true, timeout: None };
    let terminal = house.engine.exec(&first, exec).await.unwrap();
    let second = house.session("@@script:note@@").await;
    waits(&house, &second, (1, 1)).await;
    assert_eq!(house.get(&first).await.state, State::Idle);
    drop(terminal);
    // A prompt makes the driver look again at once, instead of at its next tick.
    house.engine.prompt(&first, prompt("@@script:hello@@")).await.unwrap();
    assert_eq!(house.turn_ended(&second, 1).await.0, TurnOutcome::Done, "{}", house.timeline(&second).await);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_is_told_how_many_places_there_are() {
    let change = |config: &mut hob_session::EngineConfig| {
        config.capacity = Capacity { sandboxes: 1, ..Capacity::UNBOUNDED };
        config.timeouts.place = Duration::from_millis(200);
    };
    let house = House::with(fix(), change).await;
    busy(&house).await;
    let late = house.session("@@script:fix@@").await;
    let (outcome, message) = house.turn_ended(&late, 1).await;
    assert!(outcome == TurnOutcome::Failed && message.contains("[capacity]"), "{message}");
    house.state(&late, State::Failed).await;
    assert_eq!(house.engine.promised().1, 0);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_memory_is_ended_and_told_of_and_the_session_lives_on() {
    let hungry = "python3 -c 'x = bytearray(400 << 20); print(len(x))'; echo \"it ended with $?\"";
    let scripts = Scripts::new().script("hungry", [Step::shell(hungry), Step::say("Too much.")]);
    let house = House::with(scripts, |config| config.limits.sandbox.memory_bytes = 96 << 20).await;
    let id = house.session("@@script:hungry@@").await;
    assert_eq!(house.turn_ended(&id, 1).await.0, TurnOutcome::Done, "{}", house.timeline(&id).await);
    let told = house.wait(&id, |kind| matches!(kind, EventKind::OutOfMemory { .. })).await.kind;
    assert_eq!(told, EventKind::OutOfMemory { kills: 1, limit_bytes: 96 << 20 });
    let log = house.timeline(&id).await;
    assert!(log.contains("it ended with 137"), "{log}");
    assert!(log.contains("memory of 96 MiB was full while this command ran"), "the agent is told: {log}");
    let used = house.engine.usage(&id).await.unwrap().expect("the sandbox lives on");
    assert_eq!((used.stats.oom_kills, used.limits.memory_bytes), (Some(1), 96 << 20));
    assert!(used.stats.memory_bytes.is_some_and(|bytes| bytes > 0 && bytes <= 96 << 20), "{used:?}");
    assert!(used.stats.disk_bytes.is_some() && used.stats.processes.is_some() && used.cpu_millicores.is_some());
    assert_eq!(house.engine.usage_of_all().0, 1);
    house.engine.prompt(&id, prompt("@@script:hungry@@")).await.unwrap();
    assert_eq!(house.turn_ended(&id, 2).await.0, TurnOutcome::Done, "{}", house.timeline(&id).await);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_what_runs_has_its_place_and_what_waited_waits_again() {
    let house = house(1).await;
    busy(&house).await;
    let second = house.session("@@script:note@@").await;
    waits(&house, &second, (1, 1)).await;
    let house = house.restart().await;
    assert_eq!(house.engine.promised().0.sandboxes, 1);
    assert_eq!(house.turn_ended(&second, 1).await.0, TurnOutcome::Interrupted);
    house.engine.prompt(&second, prompt("@@script:note@@")).await.unwrap();
    assert_eq!(house.turn_ended(&second, 2).await.0, TurnOutcome::Done, "{}", house.timeline(&second).await);
    house.close().await;
}

//! Services that run beside the agent, as the session's log and its commands see them.

use std::time::Duration;

use hob_agent::ToolStatus;
use hob_scripted_model::{Scripts, Step};
use hob_session::event::{ServiceStatus, TurnOutcome};
use hob_session::{EventKind, SessionId, State};

use crate::house::{House, prompt};

/// A store, and a server that needs it; the check asks both.
const STORE_AND_WEB: &str = r#"
start = "echo begun >> /tmp/started"

[[services]]
name = "web"
command = "redis-cli -p 6400 set greeting hello && exec python3 -m http.server --bind 127.0.0.1 8000"
ready = "curl --fail --silent http://127.0.0.1:8000"
port = 8000
after = ["store"]

[[services]]
name = "store"
command = "exec redis-server --port 6400 --save '' --appendonly no"
port = 6400

[[checks]]
name = "test"
command = "test $(redis-cli -p 6400 get greeting) = hello && curl --fail --silent http://127.0.0.1:8000/note.txt"
"#;

/// One whose program is missing, one that needs it, and one that is never ready.
const ALL_FAIL: &str = r#"
start = "echo no disk; exit 4"

[[services]]
name = "db"
command = "no-such-program"
port = 1

[[services]]
name = "web"
command = "sleep 100"
after = ["db"]

[[services]]
name = "slow"
command = "echo still here; sleep 100"
ready = "false"
ready_within = 1
"#;

fn scripts() -> Scripts {
    Scripts::new()
        .script("note", [Step::write("note.txt", "a note\n"), Step::finish("Leave a note")])
        .script("look", [Step::shell("echo looked"), Step::say("Looked.")])
        .script("sleep", [Step::shell("sleep 300")])
}

/// Waits until a service stands so.
async fn stands(house: &House, id: &SessionId, since: u64, service: &str, wanted: ServiceStatus) -> (u64, EventKind) {
    let is_it = |kind: &EventKind| match kind {
        EventKind::Service { name, status, .. } => name == service && *status == wanted,
        _ => false,
    };
    let event = house.wait_after(id, since, is_it).await;
    (event.seq, event.kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn services_start_in_their_order_and_the_checks_wait_for_them() {
    let house = House::new(scripts()).await;
    house.environment(STORE_AND_WEB);
    let id = house.session("@@script:note@@").await;
    let (outcome, message) = house.turn_ended(&id, 1).await;
    assert_eq!(outcome, TurnOutcome::Done, "{message}\n{}", house.timeline(&id).await);
    let (store, _) = stands(&house, &id, 0, "store", ServiceStatus::Ready).await;
    let (starting, _) = stands(&house, &id, 0, "web", ServiceStatus::Starting).await;
    let (web, ready) = stands(&house, &id, 0, "web", ServiceStatus::Ready).await;
    let check = house.wait(&id, |kind| matches!(kind, EventKind::CheckStarted { .. })).await.seq;
    assert!(store < starting && starting < web && web < check, "{}", house.timeline(&id).await);
    assert!(matches!(ready, EventKind::Service { elapsed_ms: Some(_), .. }));
    let detail = Some("web ready, store ready".to_owned());
    house.wait(&id, |kind| matches!(kind, EventKind::Phase { detail: told, .. } if *told == detail)).await;
    let shown = house.get(&id).await.services;
    assert!(shown.len() == 2 && shown.iter().all(|service| service.status == ServiceStatus::Ready), "{shown:?}");
    assert_eq!(house.sh(&id, "cat /tmp/started").await, "begun");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_begins_before_its_services_hears_of_them_with_its_next_command() {
    let house = House::new(scripts()).await;
    house.environment(STORE_AND_WEB);
    let id = house.session("@@script:look@@").await;
    house.turn_ended(&id, 1).await;
    let looked =
        house.wait(&id, |kind| matches!(kind, EventKind::ToolCall(call) if call.status == ToolStatus::Completed));
    let EventKind::ToolCall(call) = looked.await.kind else { panic!() };
    let output = format!("{:?}", call.content);
    assert!(output.contains("[Services of this sandbox, started by the environment]\\n- web: "), "{output}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_come_back_with_the_sandbox_and_after_a_restart_of_the_server() {
    let mut house = House::with(scripts(), |config| config.timeouts.suspend_after = Duration::from_millis(400)).await;
    house.environment(STORE_AND_WEB);
    let id = house.session("@@script:note@@").await;
    house.turn_ended(&id, 1).await;
    let put_away = house.state(&id, State::Suspended).await.seq;

    house.engine.prompt(&id, prompt("@@script:sleep@@")).await.unwrap();
    let (again, _) = stands(&house, &id, put_away, "web", ServiceStatus::Ready).await;
    assert_eq!(house.sh(&id, "redis-cli -p 6400 get greeting").await, "hello");

    house.config.timeouts.suspend_after = Duration::from_mins(10);
    let house = house.restart().await;
    stands(&house, &id, again, "web", ServiceStatus::Ready).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_ends_is_started_again() {
    let house = House::new(scripts()).await;
    house.environment(STORE_AND_WEB);
    let id = house.session("@@script:note@@").await;
    house.turn_ended(&id, 1).await;
    house.sh(&id, "redis-cli -p 6400 shutdown nosave").await;
    let (ended, event) = stands(&house, &id, 0, "store", ServiceStatus::Ended).await;
    let EventKind::Service { detail: Some(detail), log: Some(log), .. } = event else { panic!("{event:?}") };
    assert_eq!(detail, "it ended with exit code 0; it is started again in 250 ms");
    assert!(log.contains("Redis is now ready to exit, bye bye"), "{log}");
    stands(&house, &id, ended, "store", ServiceStatus::Ready).await;
    assert_eq!(house.sh(&id, "redis-cli -p 6400 ping").await, "PONG");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_is_told_to_the_agent_and_to_the_person_and_fails_nothing_else() {
    let house = House::new(scripts()).await;
    house.environment(ALL_FAIL);
    let id = house.engine.create(house.new_session()).await.unwrap().session;
    let mut told = String::new();
    for name in ["db", "web", "slow"] {
        told.push_str(&format!("{:?}", stands(&house, &id, 0, name, ServiceStatus::Failed).await.1));
    }
    for expect in ["its command was not found", "db, which it needs, has failed", "not ready within 1 s", "still here"]
    {
        assert!(told.contains(expect), "{expect} in {told}");
    }
    let timeline = house.timeline(&id).await;
    assert!(timeline.contains("ended with exit code 4; its last lines:"), "{timeline}");

    house.engine.prompt(&id, prompt("@@script:look@@")).await.unwrap();
    assert_eq!(house.turn_ended(&id, 1).await.0, TurnOutcome::Done);
    let asked = house.model.requests()[0].body.to_string();
    assert!(asked.contains("- db: failed, its command was not found"), "{asked}");
    assert_eq!(house.sh(&id, "pgrep -c -x sleep").await, "0", "a service that is late is killed");
    house.close().await;
}

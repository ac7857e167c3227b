//! Pools: sandboxes that are warm before a session wants one.

use std::time::{Duration, Instant};

use hob_session::event::{PhaseStatus, ServiceStatus, TurnOutcome};
use hob_session::{Capacity, EngineConfig, EventKind, NewSession, PoolCounts, PoolRules, SessionId, State};

use crate::crowd::busy;
use crate::house::{House, LIMIT, ada, git, grace, prompt};
use crate::images::phases;
use crate::turns::fix;

/// A store that a session can ask, and a mark of each start.
const STORE: &str = "start = 'echo begun >> /tmp/started'\n\
    [[services]]\nname = 'store'\ncommand = \"exec redis-server --port 6400 --save '' --appendonly no\"\nport = 6400\n";

/// A pool of up to so many, in which sessions that begin one after the other want no more than one.
fn pool(max: u32) -> PoolRules {
    PoolRules { max, per_repository: max, burst: Duration::ZERO, ..PoolRules::default() }
}

async fn house(change: impl FnOnce(&mut EngineConfig)) -> House {
    House::with(fix(), |config| {
        config.pool = pool(4);
        change(config);
    })
    .await
}

/// Waits until the pool stands as it should.
async fn stands(house: &House, what: &str, is_it: impl Fn(PoolCounts) -> bool) {
    let begun = Instant::now();
    while !is_it(house.engine.pool()) {
        assert!(begun.elapsed() < LIMIT, "never {what}: {:?}", house.engine.pool());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ready(house: &House, count: u64) {
    stands(house, &format!("{count} ready"), |pool| (pool.ready, pool.making) == (count, 0)).await;
}

async fn new(house: &House) -> SessionId {
    let id = house.engine.create(house.new_session()).await.unwrap().session;
    house.state(&id, State::Idle).await;
    id
}

/// Whether a session took a warm sandbox.
async fn was_warm(house: &House, id: &SessionId) -> bool {
    let warm = |kind: &EventKind| matches!(kind, EventKind::Phase { name, detail, .. } if name == "sandbox" && detail.as_deref() == Some("warm"));
    house.log(id).await.iter().any(|event| warm(&event.kind))
}

/// Names of the sandboxes that there are.
async fn sandboxes(house: &House) -> Vec<String> {
    house.deps.provider.list().await.unwrap().into_iter().map(|found| found.id.to_string()).collect()
}

/// Waits until there are just so many sandboxes, and gives their names. One that goes is out of the pool before it is gone.
async fn remain(house: &House, count: usize) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let there = sandboxes(house).await;
        if there.len() == count {
            return there;
        }
        assert!(begun.elapsed() < LIMIT, "{there:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_session_takes_a_warm_sandbox_in_which_its_services_run() {
    let house = house(|_| {}).await;
    house.environment(STORE);
    let first = new(&house).await;
    assert!(!was_warm(&house, &first).await);
    ready(&house, 1).await;

    let second = new(&house).await;
    assert!(was_warm(&house, &second).await, "{}", house.timeline(&second).await);
    let settled = |kind: &EventKind| matches!(kind, EventKind::Phase { name, status: PhaseStatus::Ended, .. } if name == "services");
    house.wait(&second, settled).await;
    assert_eq!(phases(&house, &second).await, ["queue", "workspace", "sandbox", "sync", "services"]);
    let told = house.get(&second).await.services;
    assert!(told.len() == 1 && told[0].status == ServiceStatus::Ready, "{told:?}");
    let seen =
        house.sh(&second, "redis-cli -p 6400 ping; cat /tmp/started; git branch --show-current | cut -c1-4").await;
    assert_eq!(seen, "PONG\nbegun\nhob/");
    assert_eq!(house.engine.diff(&second).await.unwrap(), "");
    // Its services are kept up as everybody's are.
    house.sh(&second, "redis-cli -p 6400 shutdown nosave").await;
    let again = |kind: &EventKind| matches!(kind, EventKind::Service { status: ServiceStatus::Ended, .. });
    house.wait(&second, again).await;
    let counts = house.engine.pool();
    assert_eq!((counts.hits, counts.misses), (1, 1));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_in_a_warm_sandbox_comes_to_its_end_and_its_session_comes_back_after_a_restart() {
    let house = house(|config| config.timeouts.suspend_after = Duration::from_millis(300)).await;
    new(&house).await;
    ready(&house, 1).await;
    let id = house.session("@@script:fix@@").await;
    let (outcome, message) = house.turn_ended(&id, 1).await;
    assert_eq!(outcome, TurnOutcome::Done, "{message}\n{}", house.timeline(&id).await);
    assert!(was_warm(&house, &id).await);
    house.state(&id, State::Suspended).await;
    let house = house.restart().await;
    assert!(house.sh(&id, "cat calc.py").await.contains("a + b"));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_sessions_get_the_same_one() {
    let house = house(|_| {}).await;
    house.environment("pool = 3\n");
    new(&house).await;
    ready(&house, 3).await;
    let created = futures_util::future::join_all((0..5).map(|_| new(&house))).await;
    let mut names: Vec<&str> = created.iter().map(SessionId::as_str).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 5);
    let mut warm = 0;
    for id in &created {
        house.sh(id, &format!("echo {id} >> /tmp/mine")).await;
        warm += u32::from(was_warm(&house, id).await);
    }
    assert!(warm >= 3, "{warm} took a warm one");
    for id in &created {
        assert_eq!(house.sh(id, "cat /tmp/mine").await, id.as_str());
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_branch_has_moved_on_is_brought_there_and_starts_its_services_anew() {
    let house = house(|_| {}).await;
    house.environment(STORE);
    new(&house).await;
    ready(&house, 1).await;
    std::fs::write(house.repo().join("calc.py"), "# Newer.\n").unwrap();
    git(&house.repo(), &["commit", "--quiet", "--all", "-m", "Newer"]);

    let id = new(&house).await;
    assert!(was_warm(&house, &id).await, "{}", house.timeline(&id).await);
    assert_eq!(house.sh(&id, "cat calc.py; git status --porcelain").await, "# Newer.");
    let up = |kind: &EventKind| matches!(kind, EventKind::Service { status: ServiceStatus::Ready, .. });
    house.wait(&id, up).await;
    assert_eq!(house.sh(&id, "cat /tmp/started; redis-cli -p 6400 ping").await, "begun\nbegun\nPONG");
    // The pool has heard of it.
    ready(&house, 1).await;
    let next = new(&house).await;
    assert_eq!(house.sh(&next, "cat /tmp/started").await, "begun");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_environment_is_not_started_from_what_is_warm() {
    let house = house(|_| {}).await;
    house.environment("[env]\nDOOR = 'green'\n");
    new(&house).await;
    ready(&house, 1).await;
    house.environment("[env]\nDOOR = 'red'\n");
    let id = new(&house).await;
    assert!(!was_warm(&house, &id).await);
    assert_eq!(house.sh(&id, "echo $DOOR").await, "red");
    ready(&house, 1).await;
    let next = new(&house).await;
    assert!(was_warm(&house, &next).await, "the pool was rotated: {}", house.timeline(&next).await);
    assert_eq!(house.sh(&next, "echo $DOOR").await, "red");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_place_does_not_wait_for_the_pool() {
    let house = house(|config| config.capacity = Capacity { sandboxes: 2, ..Capacity::UNBOUNDED }).await;
    let first = busy(&house).await;
    ready(&house, 1).await;
    let second = busy(&house).await;
    assert!(was_warm(&house, &second).await);
    stands(&house, "empty", |pool| (pool.ready, pool.making) == (0, 0)).await;
    let third = house.engine.create(house.new_session()).await.unwrap().session;
    house.wait(&third, |kind| matches!(kind, EventKind::WaitingForPlace { .. })).await;
    remain(&house, 2).await;
    house.engine.stop(&first, ada()).await.unwrap();
    house.state(&third, State::Idle).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_memory_runs_short_the_pool_is_drained_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let meminfo = folder.path().join("meminfo");
    let available = |mib: u64| std::fs::write(&meminfo, format!("MemAvailable: {} kB\n", mib << 10)).unwrap();
    available(1_000);
    let house = house(|config| {
        config.pool.meminfo.clone_from(&meminfo);
        config.pool.memory_reserve_bytes = 100 << 20;
        config.pool.typing_for = Duration::from_millis(400);
    })
    .await;
    let first = new(&house).await;
    ready(&house, 1).await;
    available(99);
    ready(&house, 0).await;
    assert_eq!(remain(&house, 1).await, [first.as_str()], "a session keeps its own");
    available(120);
    available(1_000);
    ready(&house, 1).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_sandbox_that_dies_is_replaced() {
    let house = house(|_| {}).await;
    let first = new(&house).await;
    ready(&house, 1).await;
    let is_warm = |name: &String| *name != first.as_str() && !name.starts_with("build-");
    let before = sandboxes(&house).await.into_iter().find(is_warm).unwrap();
    house.deps.provider.suspend(&hob_sandbox::SandboxId::new(before.as_str()).unwrap()).await.unwrap();
    let begun = Instant::now();
    while sandboxes(&house).await.into_iter().find(is_warm).is_none_or(|name| name == before) {
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ready(&house, 1).await;
    let second = new(&house).await;
    assert!(was_warm(&house, &second).await);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_again_takes_none() {
    let house = house(|_| {}).await;
    let keyed = || NewSession { idempotency_key: Some("once".to_owned()), ..house.new_session() };
    let first = house.engine.create(keyed()).await.unwrap();
    ready(&house, 1).await;
    assert_eq!(house.engine.create(keyed()).await.unwrap(), first);
    stands(&house, "given back", |pool| (pool.ready, pool.hits) == (1, 0)).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_leaves_no_warm_sandbox_and_the_next_one_has_them_again() {
    let house = house(|_| {}).await;
    house.environment("pool = 2\n");
    let first = new(&house).await;
    ready(&house, 2).await;
    house.engine.shutdown().await;
    assert_eq!(sandboxes(&house).await, [first.as_str()]);
    let house = house.restart().await;
    ready(&house, 2).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_key_of_a_prompt_makes_a_sandbox_warm_even_for_the_first_session() {
    let house = house(|_| {}).await;
    house.environment(STORE);
    house.engine.typing(&house.new_session()).await.unwrap();
    ready(&house, 1).await;
    let id = house.session("@@script:fix@@").await;
    let (outcome, message) = house.turn_ended(&id, 1).await;
    assert_eq!(outcome, TurnOutcome::Done, "{message}\n{}", house.timeline(&id).await);
    assert!(was_warm(&house, &id).await);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_and_never_sent_expires() {
    let house = house(|config| config.pool.typing_for = Duration::from_millis(600)).await;
    house.engine.typing(&house.new_session()).await.unwrap();
    stands(&house, "making", |pool| pool.making == 1).await;
    ready(&house, 0).await;
    remain(&house, 0).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_cannot_make_more_warm_than_the_quota() {
    let house = house(|config| config.pool.per_person = 1).await;
    for branch in ["one", "two", "three"] {
        git(&house.repo(), &["branch", branch]);
        let base = Some(branch.to_owned());
        house.engine.typing(&NewSession { base, ..house.new_session() }).await.unwrap();
    }
    let by_grace = NewSession { author: grace(), ..house.new_session() };
    house.engine.typing(&by_grace).await.unwrap();
    ready(&house, 2).await;
    let wrong = NewSession { repository: "nowhere".to_owned(), ..house.new_session() };
    assert!(house.engine.typing(&wrong).await.is_err());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pool_typing_still_has_the_image_built() {
    let house = House::new(fix()).await;
    house.environment("setup = 'date +%s%N > /root/when'\n");
    house.engine.typing(&house.new_session()).await.unwrap();
    let records = house.folder.path().join("data/images");
    let begun = Instant::now();
    while std::fs::read_dir(&records).into_iter().flatten().next().is_none() {
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let id = new(&house).await;
    assert_eq!(std::fs::read_dir(&records).unwrap().count(), 1, "{}", house.timeline(&id).await);
    assert!(!was_warm(&house, &id).await);
    house.close().await;
}

/// An agent that speaks the Agent Client Protocol, answers a prompt, and leaves a mark where its conversation opens.
const AGENT: &str = r#"#!/bin/sh
hear() { read -r line || exit 0; }
say() { printf '%s\n' "$1"; }
hear; say '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"agentCapabilities":{}}}'
hear; say '{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s1"}}'
echo opened >> /tmp/opened
hear
say '{"method":"session/update","params":{"sessionId":"s1","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"Here."}}}}'
say '{"jsonrpc":"2.0","id":3,"result":{"stopReason":"end_turn"}}'
hear
"#;

/// Puts it where an agent of the catalogue is looked for.
fn install(house: &House) {
    let plan = hob_agent::catalogue::entry("opencode").unwrap().install_plan();
    let program = house.folder.path().join("agents").join(plan.folder).join(plan.programs[0]);
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    std::fs::write(&program, AGENT).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_agent_has_begun_before_its_session_is_there() {
    let house = house(|config| config.timeouts.suspend_after = Duration::from_millis(500)).await;
    install(&house);
    let external = || NewSession { agent: "opencode".to_owned(), ..house.new_session() };
    house.engine.typing(&external()).await.unwrap();
    ready(&house, 1).await;
    let by_prompt = NewSession { prompt: Some(prompt("hello")), ..external() };
    let id = house.engine.create(by_prompt).await.unwrap().session;
    let (outcome, message) = house.turn_ended(&id, 1).await;
    let log = house.timeline(&id).await;
    assert_eq!((outcome, message.as_str()), (TurnOutcome::Done, "Here."), "{log}");
    assert!(log.contains("phase agent Ended warm") && log.contains("AgentSession"), "{log}");
    assert_eq!(log.matches("phase agent Ended").count(), 1, "{log}");
    assert_eq!(house.sh(&id, "cat /tmp/opened").await, "opened");

    // Put away and brought back, it begins anew like any other.
    house.state(&id, State::Suspended).await;
    house.engine.prompt(&id, prompt("again")).await.unwrap();
    assert_eq!(house.turn_ended(&id, 2).await.0, TurnOutcome::Done, "{}", house.timeline(&id).await);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_warm_and_never_used_is_not_taken_for_one_that_runs() {
    let house = house(|config| config.timeouts.suspend_after = Duration::from_millis(300)).await;
    install(&house);
    let external = || NewSession { agent: "opencode".to_owned(), ..house.new_session() };
    house.engine.typing(&external()).await.unwrap();
    ready(&house, 1).await;
    let id = house.engine.create(external()).await.unwrap().session;
    house.state(&id, State::Suspended).await;
    house.engine.prompt(&id, prompt("hello")).await.unwrap();
    assert_eq!(house.turn_ended(&id, 1).await.0, TurnOutcome::Done, "{}", house.timeline(&id).await);
    house.close().await;
}

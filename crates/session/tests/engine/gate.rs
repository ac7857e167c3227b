//! The workspace while it is brought to the base commit: whoever reads does so at once, whoever writes waits.

use std::os::unix::fs::PermissionsExt;

use hob_agent::{ToolCall, ToolStatus};
use hob_sandbox::SandboxId;
use hob_scripted_model::{Scripts, Step};
use hob_session::event::{EventKind, PhaseStatus, TurnOutcome};
use hob_session::{NewSession, SessionId, State};

use crate::house::{House, git, prompt};

/// An environment in whose sandboxes the first checkout of `late.txt` stands still, until somebody opens a pipe.
const HELD: &str = r#"warm = ['''
cd .git && mkfifo hold && echo 'late.txt filter=hold' > info/attributes
git config filter.hold.smudge 'cd /workspace/.git; [ -e went ] || { : > hold; : > went; }; cat'
''']
"#;

/// Opens the pipe, until the sync has gone on. That is refused itself, as it is no plain file.
async fn let_go(house: &House, id: &SessionId) -> u64 {
    let opened = async {
        loop {
            house.engine.read_file(id, ".git/hold").await.unwrap_err();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = opened => 0,
        synced = house.wait(id, |kind| is_sync(kind, PhaseStatus::Ended)) => synced.seq,
    }
}

fn scripts() -> Scripts {
    let add = |path: &str, old: &str, new: &str| Step::Edit { path: path.into(), old: old.into(), new: new.into() };
    Scripts::new().script(
        "change",
        [
            Step::Parallel(vec![Step::read("calc.py"), Step::Search { pattern: "def add".into(), path: None }]),
            add("calc.py", "    return a - b", "    return a + b"),
            Step::finish("Add instead of subtract"),
        ],
    )
}

/// A house whose image is one commit behind, so that the next session's sync has something to bring.
async fn behind() -> House {
    let house = House::new(scripts()).await;
    house.environment(HELD);
    let first = house.engine.create(house.new_session()).await.unwrap().session;
    house.state(&first, State::Idle).await;
    std::fs::write(house.repo().join("late.txt"), "late\n").unwrap();
    std::fs::write(house.repo().join("calc.py"), "# Newer.\ndef add(a, b):\n    return a - b\n").unwrap();
    git(&house.repo(), &["add", "."]);
    git(&house.repo(), &["commit", "--quiet", "-m", "Newer"]);
    house
}

fn is_sync(kind: &EventKind, wanted: PhaseStatus) -> bool {
    matches!(kind, EventKind::Phase { name, status, .. } if name == "sync" && *status == wanted)
}

async fn is_synced(house: &House, id: &SessionId) -> bool {
    house.log(id).await.iter().any(|event| is_sync(&event.kind, PhaseStatus::Ended))
}

fn is_call(kind: &EventKind, title: &str, wanted: ToolStatus) -> bool {
    matches!(kind, EventKind::ToolCall(ToolCall { title: of, status, .. }) if of.starts_with(title) && *status == wanted)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reads_while_the_workspace_is_synced_and_its_edit_waits_for_the_end() {
    let house = behind().await;
    let id = house.session("Fix the sum @@script:change@@").await;
    house.wait(&id, |kind| is_call(kind, "read", ToolStatus::Completed)).await;
    house.wait(&id, |kind| is_call(kind, "search", ToolStatus::Completed)).await;
    house.wait(&id, |kind| is_call(kind, "edit", ToolStatus::InProgress)).await;
    house.engine.list_dir(&id, ".").await.unwrap();
    assert!(!is_synced(&house, &id).await, "{}", house.timeline(&id).await);

    let synced = let_go(&house, &id).await;
    let edited = house.wait(&id, |kind| is_call(kind, "edit", ToolStatus::Completed)).await.seq;
    assert!(synced < edited, "{}", house.timeline(&id).await);
    assert_eq!(house.turn_ended(&id, 1).await.0, TurnOutcome::Done, "{}", house.timeline(&id).await);
    let there = house.sh(&id, "cat calc.py late.txt; git log -1 --format=%s; git status --porcelain").await;
    assert_eq!(there, "# Newer.\ndef add(a, b):\n    return a + b\nlate\nNewer\n M calc.py");
    house.close().await;
}

/// An external agent that tries to write, then asks whether it may, and writes when it is told that it may.
const ASKS: &str = r#"#!/bin/bash
hear() { read -r line; }
say() { printf '%s\n' "$1"; }
hear; say '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"agentCapabilities":{}}}'
hear; say '{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s1"}}'
hear; echo x 2>/dev/null > early || say '{"method":"session/update","params":{"sessionId":"s1","update":
  {"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"It is closed."}}}}'
say '{"id":0,"method":"session/request_permission","params":{"sessionId":"s1","toolCall":{"toolCallId":"a","title":"write"},
  "options":[{"optionId":"yes","name":"Allow","kind":"allow_once"}]}}'
hear; cat late.txt > made
say '{"id":3,"result":{"stopReason":"end_turn"}}'
while hear; do :; done
"#;

/// Puts the agent where OpenCode's program is looked for.
fn install(house: &House) {
    let plan = hob_agent::catalogue::entry("opencode").unwrap().install_plan();
    let program = house.folder.path().join("agents").join(plan.folder).join(plan.programs[0]);
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    // The protocol is a message a line.
    std::fs::write(&program, ASKS.replace("\n  ", "")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_the_sandbox_begins_at_once_and_its_permission_comes_when_it_can_be_used() {
    let house = behind().await;
    install(&house);
    let new = NewSession { agent: "opencode".to_owned(), prompt: Some(prompt("go")), ..house.new_session() };
    let id = house.engine.create(new).await.unwrap().session;
    house.wait(&id, |kind| matches!(kind, EventKind::Message { text, .. } if text == "It is closed.")).await;
    house.wait(&id, |kind| matches!(kind, EventKind::PermissionResolved { option_id: Some(_), .. })).await;
    assert!(!is_synced(&house, &id).await, "{}", house.timeline(&id).await);
    let_go(&house, &id).await;
    assert_eq!(house.turn_ended(&id, 1).await.0, TurnOutcome::Done, "{}", house.timeline(&id).await);
    assert_eq!(house.sh(&id, "cat made; test -e early || echo none").await, "late\nnone");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_a_restart_cuts_off_is_done_again_from_the_image() {
    let house = behind().await;
    let id = house.engine.create(house.new_session()).await.unwrap().session;
    house.wait(&id, |kind| is_sync(kind, PhaseStatus::Started)).await;
    house.engine.read_file(&id, "test_calc.py").await.unwrap();
    let house = house.restart().await;
    assert!(!is_synced(&house, &id).await);
    let_go(&house, &id).await;
    let there =
        house.sh(&id, "cat late.txt; git log -1 --format=%s; git status --porcelain; echo x > new; cat new").await;
    assert_eq!(there, "late\nNewer\nx", "{}", house.timeline(&id).await);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_is_told_and_the_next_prompt_tries_again() {
    let house = behind().await;
    let id = house.engine.create(house.new_session()).await.unwrap().session;
    house.wait(&id, |kind| is_sync(kind, PhaseStatus::Started)).await;
    house.engine.list_dir(&id, ".").await.unwrap();
    // Its sandbox dies under it.
    house.deps.provider.suspend(&SandboxId::new(id.as_str()).unwrap()).await.unwrap();
    let failed = house.state(&id, State::Failed).await;
    assert!(!is_synced(&house, &id).await);
    let reading = house.engine.list_dir(&id, ".").await;
    assert!(reading.is_ok(), "it is started again: {reading:?}");
    assert!(let_go(&house, &id).await > failed.seq);
    assert_eq!(house.sh(&id, "cat late.txt").await, "late");
    house.close().await;
}

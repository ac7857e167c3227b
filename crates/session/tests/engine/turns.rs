//! What becomes of a prompt.

use std::time::{Duration, Instant};

use hob_scripted_model::{Scripts, Step};
use hob_session::event::TurnOutcome;
use hob_session::{EngineError, EventKind, NewPrompt, NewSession, State};

use crate::house::{House, ada, git, grace, prompt};

pub fn fix() -> Scripts {
    Scripts::new()
        .script(
            "fix",
            [
                Step::read("calc.py"),
                Step::edit("calc.py", "    return a - b", "    return a + b"),
                Step::finish("Add instead of subtract"),
            ],
        )
        .script("break", [Step::write("calc.py", "def add(a, b):\n    return 0 / 0\n"), Step::finish("Broken")])
        .script("sleep", [Step::shell("(sleep 300 & sleep 300 & setsid sleep 301 & wait)"), Step::say("Slept.")])
        .script("ask", [Step::Ask { question: "Which one?".to_owned() }, Step::say("Thank you.")])
        .script("hello", [Step::say("Hello there, this is a longer message than one piece.")])
        .script("note", [Step::write("note.txt", "a note\n"), Step::finish("Leave a note")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_becomes_a_proven_commit_on_a_branch() {
    let house = House::new(fix()).await;
    let id = house.session("Fix the sum @@script:fix@@").await;
    let (outcome, message) = house.turn_ended(&id, 1).await;
    assert_eq!(outcome, TurnOutcome::Done, "{}", house.timeline(&id).await);
    assert!(message.contains("test green, was red on the base commit"), "{message}");
    house.state(&id, State::Idle).await;

    let branch = house.engine.branch(&id).await.unwrap().unwrap();
    let shown = git(&branch.mirror, &["log", "-1", "--format=%an|%s|%P", &branch.branch]);
    let base = git(&house.repo(), &["rev-parse", "HEAD"]);
    assert_eq!(shown, format!("Ada Lovelace|Add instead of subtract|{base}"));
    let diff = house.engine.diff(&id).await.unwrap();
    assert!(diff.contains("-    return a - b\n+    return a + b"), "{diff}");

    let is_check = |kind| match kind {
        EventKind::CheckEnded(run) => Some((run.round, run.exit_code)),
        _ => None,
    };
    let checks: Vec<_> = house.log(&id).await.into_iter().filter_map(|event| is_check(event.kind)).collect();
    assert_eq!(checks, [(0, 1), (1, 0)], "red before, green after");
    let artifacts = house.engine.artifacts(&id).await.unwrap();
    assert_eq!(artifacts[0].kind, "evidence");
    let (_, bytes) = house.engine.artifact_bytes(&id, &artifacts[0].artifact_id).await.unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains(&branch.commit));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_prompt_waits_and_its_commit_follows_the_first() {
    let house = House::new(fix()).await;
    let id = house.session("Fix the sum @@script:fix@@").await;
    let second = NewPrompt { author: grace(), ..prompt("Leave a note @@script:note@@") };
    let queued = house.engine.prompt(&id, second).await.unwrap();
    assert_eq!(queued.position, 1);
    house.turn_ended(&id, 2).await;

    let branch = house.engine.branch(&id).await.unwrap().unwrap();
    let shown =
        git(&branch.mirror, &["log", "-2", "--format=%an|%s|%(trailers:key=Co-authored-by,valueonly)", &branch.branch]);
    let lines: Vec<&str> = shown.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines[0], "Grace Hopper|Leave a note|Ada Lovelace <ada@example.org>");
    assert!(lines[1].starts_with("Ada Lovelace|Add instead of subtract|"), "{lines:?}");
    let base_runs = house
        .log(&id)
        .await
        .into_iter()
        .filter(|event| matches!(&event.kind, EventKind::CheckEnded(run) if run.round == 0));
    assert_eq!(base_runs.count(), 1, "the base is checked once in a session");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_kills_everything_that_the_turn_started_within_a_second() {
    let house = House::new(fix()).await;
    let id = house.session("@@script:sleep@@").await;
    house.wait(&id, |kind| matches!(kind, EventKind::ToolCall(call) if call.name == "shell")).await;
    let sleeps = || house.sh(&id, "pgrep -x sleep | wc -l");
    let begun = Instant::now();
    while sleeps().await != "3" {
        assert!(begun.elapsed() < Duration::from_secs(20), "the command never started");
        tokio::task::yield_now().await;
    }
    let stopped = Instant::now();
    house.engine.stop(&id, grace()).await.unwrap();
    let (outcome, message) = house.turn_ended(&id, 1).await;
    assert_eq!((outcome, message.as_str()), (TurnOutcome::Stopped, "Stopped by Grace Hopper."));
    assert_eq!(sleeps().await, "0");
    assert!(stopped.elapsed() < Duration::from_secs(2), "{:?}", stopped.elapsed());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_by_a_participant_and_the_turn_goes_on() {
    let house = House::new(fix()).await;
    let id = house.session("@@script:ask@@").await;
    let asked = house.wait(&id, |kind| matches!(kind, EventKind::QuestionAsked { .. })).await;
    let EventKind::QuestionAsked { question_id, .. } = asked.kind else { panic!() };
    assert_eq!(house.get(&id).await.waiting_for, std::slice::from_ref(&question_id));
    house.engine.answer_question(&id, &question_id, "The second", grace()).await.unwrap();
    let again = house.engine.answer_question(&id, &question_id, "No", ada()).await;
    assert!(matches!(again, Err(EngineError::NoSuchRequest { .. })), "{again:?}");
    assert_eq!(house.turn_ended(&id, 1).await.0, TurnOutcome::Done);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_nobody_answers_ends_with_its_deadline() {
    let house = House::with(fix(), |config| config.timeouts.question = Duration::from_millis(300)).await;
    let id = house.session("@@script:ask@@").await;
    house.wait(&id, |kind| matches!(kind, EventKind::QuestionAnswered { text: None, by: None, .. })).await;
    assert_eq!(house.turn_ended(&id, 1).await.0, TurnOutcome::Done);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_breaks_a_check_is_committed_but_told_as_red() {
    let house = House::new(fix()).await;
    let id = house.session("@@script:break@@").await;
    let (outcome, message) = house.turn_ended(&id, 1).await;
    assert_eq!(outcome, TurnOutcome::ChecksFailed, "{message}");
    assert!(message.contains("Given up"), "{message}");
    let rounds = house.log(&id).await.into_iter().filter(|event| matches!(event.kind, EventKind::RoundStarted { .. }));
    assert!(rounds.count() >= 1, "red checks went back to the agent");
    assert!(house.get(&id).await.commit.is_some(), "the work is not lost");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_alone_need_no_sandbox_and_no_commit() {
    let house = House::new(fix()).await;
    let id = house.session("@@script:hello@@").await;
    let (outcome, message) = house.turn_ended(&id, 1).await;
    assert_eq!(
        (outcome, message.as_str()),
        (TurnOutcome::Done, "Hello there, this is a longer message than one piece.")
    );
    let mut said = String::new();
    for event in house.log(&id).await {
        if let EventKind::Message { offset, text, .. } = event.kind {
            assert_eq!(offset, said.len() as u64, "pieces join without gap or overlap");
            said.push_str(&text);
        }
    }
    assert_eq!(said, message);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_not_there_is_told_at_once_and_an_unknown_base_in_the_session() {
    let house = House::new(fix()).await;
    let missing = NewSession { repository: "/no/such/place".to_owned(), ..house.new_session() };
    let error = house.engine.create(missing).await.unwrap_err().to_string();
    assert!(error.contains("there is no such folder"), "{error}");

    let unknown =
        NewSession { base: Some("nope".into()), prompt: Some(prompt("@@script:fix@@")), ..house.new_session() };
    let id = house.engine.create(unknown).await.unwrap().session;
    let (outcome, message) = house.turn_ended(&id, 1).await;
    assert_eq!(outcome, TurnOutcome::Failed);
    assert!(message.contains("\"nope\"") && message.contains("main"), "{message}");
    let failed = house.state(&id, State::Failed).await;
    assert!(matches!(failed.kind, EventKind::StateChanged { cause, .. } if cause.contains("nope")));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_taken_say_what_to_change() {
    let house = House::new(fix()).await;
    let id = house.session("@@script:hello@@").await;
    let long = house.engine.prompt(&id, prompt(&"x".repeat(10 << 20))).await;
    assert!(matches!(long, Err(EngineError::PromptTooLong { bytes: 10_485_760, max: 1_048_576 })), "{long:?}");
    let empty = house.engine.prompt(&id, prompt("  \n")).await;
    assert!(matches!(empty, Err(EngineError::Invalid(_))), "{empty:?}");
    let agent = NewSession { agent: "nobody".to_owned(), ..house.new_session() };
    assert!(matches!(house.engine.create(agent).await, Err(EngineError::Invalid(_))));
    let secret = NewSession { repository: "https://me:secret@forge.example/a".to_owned(), ..house.new_session() };
    let error = house.engine.create(secret).await.unwrap_err().to_string();
    assert!(error.contains("password") && !error.contains("secret"), "{error}");
    let nobody = hob_session::SessionId::new("nobody").unwrap();
    assert!(matches!(house.engine.stop(&nobody, ada()).await, Err(EngineError::NoSuchSession(_))));
    house.close().await;
}

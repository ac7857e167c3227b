//! The same task, driven through the built-in agent and through real agents from npm: each in a real sandbox, with no
//! network but the gateway. Only the model is scripted.
//!
//! OpenCode and Goose always run; the others with `HOB_TEST_AGENTS=all`, which is what `make test-agents` sets.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails by panicking, and may talk"
)]

#[path = "../common/mod.rs"]
mod common;
mod house;
mod inside;
mod installed;

use std::time::Duration;

use common::Session;
use hob_scripted_model::Wire;
use house::{FIX, House, KEY, RECALL, WAIT, WAIT_FOR_IT};
use inside::Inside;
use serde_json::{Value, json};

/// The main job: the checks are red before and green after, and the change is the one that the built-in agent makes.
async fn makes_the_change_that_the_built_in_agent_makes(house: House, wire: Wire) {
    let ours = house.run("hob", FIX).await;
    assert_eq!(ours.turns(1).await.last().expect("an end")["outcome"], "done");

    let session = house.run(house.agent, FIX).await;
    let events = session.turns(1).await;
    let end = events.last().expect("an end");
    assert_eq!((&end["outcome"], &end["stop_reason"]), (&json!("done"), &json!("end_turn")), "{end}");
    let checks: Vec<_> = all(&events, "check_ended").map(|check| (&check["round"], &check["exit_code"])).collect();
    assert_eq!(checks, [(&json!(0), &json!(1)), (&json!(1), &json!(0))], "red on the base, green on the change");
    assert_eq!(house.diff(&session).await, house.diff(&ours).await);
    assert_the_commit_is_the_person_s(&house, &session, &events).await;

    assert!(house.wires().contains(&wire), "{:?}", house.wires());
    let usage = &house.server.get(&session.path("")).await["usage"];
    assert!(usage["calls"].as_u64() >= Some(4) && usage["cost_micro_usd"].as_u64() > Some(0), "{usage}");
    house.assert_well_asked();
}

async fn assert_the_commit_is_the_person_s(house: &House, session: &Session<'_>, events: &[Value]) {
    let committed = all(events, "committed").next().expect("a commit");
    assert_eq!(committed["author"], json!({ "name": "Mona", "email": "mona@example.org" }));
    let pull = house.server.hob_in(&house.repository, &["pull", &session.id]).await;
    assert!(pull.status.success(), "{pull:?}");
    let commit = committed["commit"].as_str().expect("an ID");
    let shown = hob::git::run(Some(&house.repository), &["show", "-s", "--format=%an <%ae>", commit]).expect("git");
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "Mona <mona@example.org>\n");
}

/// A second prompt finds the same process and the same conversation; and all the while neither the provider's key nor
/// a way around the gateway is inside.
async fn goes_on_and_knows_no_key(house: House) {
    let session = house.run(house.agent, FIX).await;
    session.turns(1).await;
    session.prompt(RECALL).await;
    let events = session.turns(2).await;
    assert_eq!(events.last().expect("an end")["outcome"], "done", "{events:#?}");
    assert!(house.was_told("recall", FIX), "it does not know what was said before");
    assert_eq!(all(&events, "agent_session").count(), 1, "there is one conversation");

    let inside = Inside(&session);
    let agent = format!("/opt/hob/agents/{}", house.agent);
    let places = inside.places_of(&agent).await;
    assert!(places.iter().any(|place| place.starts_with("/proc/")), "its process is not seen: {places:?}");
    assert_eq!(inside.places_of(KEY).await, Vec::<String>::new());
    assert!(!serde_json::to_string(&session.log().await).expect("JSON").contains(KEY));
    assert!(inside.reaches(3128).await, "the gateway is there");
    assert!(!inside.reaches(house.server.model.address().port()).await, "the model is not");
    println!("{}: {} MiB at most", house.agent, inside.memory_mib(&agent).await);
    house.assert_well_asked();
}

/// A stop ends what the agent has started within a second, and the agent takes the next prompt.
async fn stops(house: House) {
    let session = house.run(house.agent, WAIT_FOR_IT).await;
    let inside = Inside(&session);
    inside.until_runs(WAIT).await;
    let stop = async { drop(session.server.post(&session.path("/stop"), json!({})).await) };
    let took = inside.gone_within(WAIT, stop).await;
    println!("{}: gone within {took:?}", house.agent);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(session.turns(1).await.last().expect("an end")["outcome"], "stopped");

    session.prompt(RECALL).await;
    let end = session.turns(2).await.pop().expect("an end");
    assert_eq!(end["outcome"], "done", "{end}");
    assert!(house.was_told("recall", WAIT_FOR_IT), "it does not know what was said before");
    house.assert_well_asked();
}

/// An agent that is killed fails its turn with words about it, takes along what it has started, and is started again
/// for the next prompt.
async fn is_started_again_after_its_death(house: House) {
    let session = house.run(house.agent, WAIT_FOR_IT).await;
    let inside = Inside(&session);
    inside.until_runs(WAIT).await;
    inside.kill_agent().await;
    let end = session.turns(1).await.pop().expect("an end");
    assert_eq!(end["outcome"], "failed", "{end}");
    let message = end["message"].as_str().expect("a message");
    let expect = format!("failed to keep the agent {} running: its process ended", house.agent);
    assert!(message.contains(&expect) && message.contains("it was killed"), "{message}");
    println!("{}: {message}", house.agent);
    inside.until_gone(WAIT).await;
    assert!(!inside.runs(&format!("/opt/hob/agents/{}", house.agent)).await, "a part of it lives on");

    session.prompt(RECALL).await;
    let end = session.turns(2).await.pop().expect("an end");
    assert_eq!(end["outcome"], "done", "{end}");
    assert!(house.was_told("recall", WAIT_FOR_IT), "it does not know what was said before");
    house.assert_well_asked();
}

/// In a sandbox that was made warm while somebody typed, its process runs and its conversation is open before the prompt.
async fn has_begun_in_a_warm_sandbox(house: House) {
    let typing = json!({ "repository": house.repository, "agent": house.agent, "model": house.model });
    assert_eq!(house.server.post("/api/v1/typing", typing).await.0, 204);
    house.server.until_warm().await;
    let session = house.run(house.agent, FIX).await;
    let events = session.turns(1).await;
    assert_eq!(events.last().expect("an end")["outcome"], "done", "{events:#?}");
    let warm: Vec<_> = all(&events, "phase").filter(|phase| phase["detail"] == "warm").collect();
    let names: Vec<_> = warm.iter().map(|phase| &phase["name"]).collect();
    assert_eq!(names, ["sandbox", "agent"], "{events:#?}");
    println!("{}: waited for {} ms", house.agent, warm[1]["elapsed_ms"]);
    assert_eq!(all(&events, "agent_session").count(), 1);
    house.assert_well_asked();
}

macro_rules! tests_of {
    ($agent:ident, $wire:expr) => {
        mod $agent {
            use super::*;

            #[tokio::test]
            async fn makes_the_change_that_the_built_in_agent_makes() {
                if let Some(house) = House::with(stringify!($agent)).await {
                    super::makes_the_change_that_the_built_in_agent_makes(house, $wire).await;
                }
            }

            #[tokio::test]
            async fn goes_on_and_knows_no_key() {
                if let Some(house) = House::with(stringify!($agent)).await {
                    super::goes_on_and_knows_no_key(house).await;
                }
            }

            #[tokio::test]
            async fn has_begun_in_a_warm_sandbox() {
                if let Some(house) = House::with(stringify!($agent)).await {
                    super::has_begun_in_a_warm_sandbox(house).await;
                }
            }

            #[tokio::test]
            async fn stops() {
                if let Some(house) = House::with(stringify!($agent)).await {
                    super::stops(house).await;
                }
            }

            #[tokio::test]
            async fn is_started_again_after_its_death() {
                if let Some(house) = House::with(stringify!($agent)).await {
                    super::is_started_again_after_its_death(house).await;
                }
            }
        }
    };
}

tests_of!(opencode, Wire::Anthropic);
tests_of!(goose, Wire::Chat);
tests_of!(codex, Wire::Responses);
tests_of!(claude, Wire::Anthropic);
tests_of!(gemini, Wire::Gemini);

/// What the other agents' changes are compared with.
#[tokio::test]
async fn the_built_in_agent_makes_the_same_change_in_every_format() {
    for model in ["anthropic", "openai", "gemini"] {
        let house = House::start("hob", model).await;
        let session = house.run("hob", FIX).await;
        let events = session.turns(1).await;
        assert_eq!(events.last().expect("an end")["outcome"], "done", "{events:#?}");
        let diff = house.diff(&session).await;
        insta::allow_duplicates! {
        insta::assert_snapshot!(diff, @r"
        diff --git a/index.js b/index.js
        index dbbcf2d..7b4107c 100644
        --- a/index.js
        +++ b/index.js
        @@ -1,3 +1,3 @@
         exports.add = (a, b) => {
        -    return a - b
        +    return a + b
         }
        ");
        }
        house.assert_well_asked();
    }
}

fn all<'a>(events: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event["type"] == kind)
}

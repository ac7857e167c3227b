//! The doors of a running server: who may come in, what bad requests are told, how streams resume.

mod common;

use common::{FIX, SAY, SLEEP, TestServer, assert_gap_free, kinds};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn nobody_comes_in_without_the_token() {
    let server = TestServer::start().await;
    for path in ["/api/v1/sessions", "/metrics", "/api/v1/ws", "/"] {
        let response = server.anonymous(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
    let wrong = server.anonymous(Method::GET, "/api/v1/sessions").bearer_auth("wrong").send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    for path in ["/healthz", "/readyz", "/openapi.json", "/api/v1/openapi.json"] {
        assert_eq!(server.anonymous(Method::GET, path).send().await.unwrap().status(), 200, "{path}");
    }
}

#[tokio::test]
async fn the_login_url_signs_a_browser_in_once() {
    let server = TestServer::start().await;
    let browser = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let response = browser.get(&server.login_url).send().await.unwrap();
    assert_eq!(response.status(), 303);
    let cookie = response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let sessions = format!("{}/api/v1/sessions", server.url);
    assert_eq!(browser.get(&sessions).header("cookie", cookie).send().await.unwrap().status(), 200);
    assert_eq!(browser.get(&server.login_url).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_page_elsewhere_gets_nowhere() {
    let server = TestServer::start().await;
    let rebound = server.request(Method::GET, "/api/v1/sessions").header("host", "evil.example");
    assert_eq!(rebound.send().await.unwrap().status(), 403);
    for (name, value) in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site"), ("origin", "null")] {
        let forged = server.request(Method::POST, "/api/v1/sessions").header(name, value).body("{}");
        assert_eq!(forged.send().await.unwrap().status(), 403, "{name}: {value}");
    }
    let socket = server
        .request(Method::GET, "/api/v1/ws")
        .header("origin", "http://evil.example")
        .header("connection", "upgrade")
        .header("upgrade", "websocket");
    assert_eq!(socket.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused() {
    let server = TestServer::start().await;
    let second = server.hob(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(second.status.code(), Some(2));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("stop that one, or choose another folder with --data-dir"), "{said}");
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let server = TestServer::start().await;
    let post = |body: String| server.request(Method::POST, "/api/v1/sessions").body(body).send();
    let problem = async |body: String| -> Value { post(body).await.unwrap().json().await.unwrap() };

    let broken = problem("{\n  \"repository\": }".into()).await;
    assert_eq!(
        (&broken["status"], &broken["detail"]),
        (&json!(400), &json!("the JSON is broken: expected value at line 2 column 17"))
    );

    let lacking = problem("{}".into()).await;
    assert_eq!(lacking["status"], 422);
    assert!(lacking["detail"].as_str().unwrap().contains("missing field `repository`"));

    let repository = server.repository();
    let agent = problem(json!({ "repository": repository, "agent": "cluade" }).to_string()).await;
    assert_eq!(agent["status"], 422);
    assert!(agent["detail"].as_str().unwrap().contains("did you mean \"claude\"?"), "{agent}");

    let long = problem(json!({ "repository": repository, "prompt": "x".repeat(10 << 20) }).to_string()).await;
    assert_eq!((&long["status"], &long["type"]), (&json!(413), &json!("urn:hob:problem:too-large")));

    let huge = post("x".repeat(40 << 20)).await;
    // The server may answer before it has read it all, and close.
    assert!(huge.is_err() || huge.unwrap().status() == 413);

    assert_eq!(server.get("/api/v1/sessions").await["sessions"], json!([]), "nothing was made of all this");
}

#[tokio::test]
async fn what_is_not_there_is_a_404_that_says_so() {
    let server = TestServer::start().await;
    for path in
        ["/api/v1/sessions/nosuch", "/api/v1/sessions/..%2f..", "/api/v1/nothing", "/api/v1/sessions/nosuch/events"]
    {
        let response = server.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
    }
    let method = server.request(Method::DELETE, "/api/v1/sessions").send().await.unwrap();
    assert_eq!(method.status(), 405);
}

#[tokio::test]
async fn a_missing_repository_is_told_and_loses_nothing() {
    let server = TestServer::start().await;
    let body = json!({ "repository": "/nowhere/at/all", "prompt": SAY });
    let (status, answer) = server.post("/api/v1/sessions", body).await;
    if status == 201 {
        // It is found out when the checkout is made: the turn says so.
        let session = common::Session { server: &server, id: answer["id"].as_str().unwrap().into() };
        let ended = session.turns(1).await.pop().unwrap();
        assert_eq!(ended["outcome"], "failed");
        assert!(ended["message"].as_str().unwrap().contains("/nowhere/at/all"), "{ended}");
    } else {
        assert_eq!(status, 422, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains("/nowhere/at/all"), "{answer}");
    }
}

#[tokio::test]
async fn a_prompt_becomes_proven_work() {
    let server = TestServer::start().await;
    let session = server.session(Some(FIX)).await;
    let events = session.turns(1).await;
    assert_gap_free(&events);
    assert_eq!(events.last().unwrap()["outcome"], "done", "{events:#?}");
    let checks: Vec<_> = events.iter().filter(|event| event["type"] == "check_ended").collect();
    assert_eq!(checks.iter().map(|check| check["exit_code"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 0]);

    let diff = server.request(Method::GET, &session.path("/diff")).send().await.unwrap().text().await.unwrap();
    assert!(diff.contains("+    echo $(($1 + $2))"), "{diff}");
    let artifacts = server.get(&session.path("/artifacts")).await;
    assert!(artifacts["artifacts"].as_array().unwrap().iter().any(|artifact| artifact["kind"] == "evidence"));
    let (status, ran) = server.post(&session.path("/exec"), json!({ "argv": ["sh", "test.sh"] })).await;
    assert_eq!((status, &ran["exit_code"]), (200, &json!(0)), "{ran}");
    let read = server.get(&session.path("")).await;
    assert_eq!(read["last_outcome"], "done");
    assert!(read["usage"]["cost_micro_usd"].as_u64().unwrap() > 0, "{read}");
    assert!(server.model.violations().is_empty(), "{:?}", server.model.violations());
}

#[tokio::test]
async fn the_operator_says_how_often_red_checks_go_back() {
    let server = TestServer::start_with("[session]\nmax_rounds = 0\n").await;
    let repository = server.repository_with("[[checks]]\nname = \"minus\"\ncommand = \"grep -q -- - calc.sh\"\n");
    let events = server.session_on(&repository, Some("@@script:wrong@@")).await.turns(1).await;
    assert_eq!(events.last().unwrap()["outcome"], "checks_failed");
    assert!(!kinds(&events).contains(&"round_started"));
}

#[tokio::test]
async fn metrics_tell_of_sessions_turns_phases_models_and_refusals() {
    let server = TestServer::start().await;
    let session = server.session(Some(SAY)).await;
    session.turns(1).await;
    session.sh("curl -s http://other.test/").await;
    session.events_until(0, |event| event["type"] == "egress_refused").await;
    let text = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    for expect in [
        "hob_sessions{state=\"idle\"} 1\n",
        "hob_turns_total{outcome=\"done\"} 1\n",
        "hob_phase_seconds_count{phase=\"queue\"} 1\n",
        "hob_phase_seconds_count{phase=\"sandbox\"} 1\n",
        "hob_phase_seconds_bucket{phase=\"workspace\",le=\"+Inf\"} 1\n",
        "hob_phase_seconds_count{phase=\"agent\"} 1\n",
        "hob_model_calls_total{model=\"scripted-model\"} 1\n",
        "hob_gateway_refusals_total 1\n",
        "hob_sandboxes 1\n",
        "hob_sandboxes_running 1\n",
        "hob_sandboxes_waiting 0\n",
    ] {
        assert!(text.contains(expect), "{expect} in\n{text}");
    }
}

#[tokio::test]
async fn what_is_typed_makes_a_sandbox_warm_for_the_session_that_follows() {
    let server = TestServer::start().await;
    let repository = server.repository();
    let (status, _) = server.post("/api/v1/typing", json!({ "repository": repository })).await;
    assert_eq!(status, 204);
    server.until_warm().await;
    let session = server.session_on(&repository, Some(FIX)).await;
    let events = session.turns(1).await;
    let is_warm = |event: &Value| event["name"] == "sandbox" && event["detail"] == "warm";
    assert!(events.iter().any(is_warm), "{events:#?}");

    let (status, problem) = server.post("/api/v1/typing", json!({ "repository": "/nowhere" })).await;
    assert_eq!(status, 422, "{problem}");
    let mut socket = server.socket().await;
    socket.say(json!({ "op": "typing" })).await;
    socket.say(json!({ "op": "typing", "repository": "/nowhere" })).await;
    let told = socket.next_of("error").await;
    assert!(told.to_string().contains("no such folder"), "{told}");
}

#[tokio::test]
async fn what_a_sandbox_uses_is_told_and_none_is_started_for_it() {
    let server = TestServer::start().await;
    let session = server.session(Some(SAY)).await;
    session.turns(1).await;
    session.sh("true").await;
    let stats = server.get(&session.path("/stats")).await;
    assert_eq!((&stats["running"], &stats["oom_kills"]), (&json!(true), &json!(0)), "{stats}");
    assert!(stats["memory_bytes"].as_u64() < stats["limits"]["memory_bytes"].as_u64(), "{stats}");
    assert!(stats["processes"].as_u64() >= Some(1) && stats["disk_bytes"].is_u64(), "{stats}");
    let phases = server.get(&session.path("")).await["phases"].clone();
    let names: Vec<&str> = phases.as_array().unwrap().iter().filter_map(|phase| phase["name"].as_str()).collect();
    assert!(["queue", "workspace", "sandbox"].iter().all(|name| names.contains(name)), "{names:?}");
    server.post(&session.path("/archive"), json!({})).await;
    assert_eq!(server.get(&session.path("/stats")).await, json!({ "running": false }));
}

#[tokio::test]
async fn files_go_in_and_out() {
    let server = TestServer::start().await;
    let session = server.session(None).await;
    let path = session.path("/files/new/file.txt");
    let written = server.request(Method::PUT, &path).body("hello").send().await.unwrap();
    assert_eq!(written.status(), 204);
    assert_eq!(server.request(Method::GET, &path).send().await.unwrap().text().await.unwrap(), "hello");
    let folder = server.get(&session.path("/files/new/")).await;
    assert_eq!(folder["entries"][0], json!({ "name": "file.txt", "kind": "file", "size_bytes": 5 }));
    let missing = server.request(Method::GET, &session.path("/files/none")).send().await.unwrap();
    assert_eq!(missing.status(), 404);
}

#[tokio::test]
async fn the_stream_resumes_from_any_event() {
    let server = TestServer::start().await;
    let session = server.session(Some(FIX)).await;
    let whole = session.turns(1).await;
    for since in 0..whole.len() as u64 {
        let rest = session.events_until(since, |event| event["type"] == "turn_ended").await;
        assert_eq!(rest, whole[since as usize..], "after {since}");
    }
}

#[tokio::test]
async fn pages_of_the_log_join_to_the_whole() {
    let server = TestServer::start().await;
    let session = server.session(Some(SAY)).await;
    session.turns(1).await;
    let whole = session.log().await;
    let (mut joined, mut since) = (Vec::new(), 0);
    loop {
        let page = server.get(&session.path(&format!("/events?since={since}&limit=3"))).await;
        joined.extend(page["events"].as_array().unwrap().clone());
        match page["next"].as_u64() {
            Some(next) => since = next,
            None => break,
        }
    }
    assert_eq!(joined[..whole.len()], whole);
}

#[tokio::test]
async fn a_socket_that_resumes_ends_with_the_whole_log() {
    let server = TestServer::start().await;
    let session = server.session(Some(FIX)).await;
    let whole = session.turns(1).await;
    let topic = format!("sessions/{}", session.id);
    for since in [0, 1, whole.len() as u64 / 2, whole.len() as u64] {
        let mut socket = server.socket().await;
        socket.say(json!({ "op": "sub", "topic": topic, "since": since })).await;
        let replay = socket.next_of("replay").await;
        assert_eq!(replay["from"], since);
        let events = replay["events"].as_array().unwrap();
        let end = (since as usize + events.len()).min(whole.len());
        assert_eq!(events[..end - since as usize], whole[since as usize..end]);
    }
}

#[tokio::test]
async fn a_socket_hears_what_comes_after_its_snapshot() {
    let server = TestServer::start().await;
    let session = server.session(None).await;
    let mut socket = server.socket().await;
    socket.say(json!({ "op": "sub", "topic": format!("sessions/{}", session.id) })).await;
    let snapshot = socket.next_of("snapshot").await;
    assert_eq!(snapshot["state"]["id"], session.id);
    session.prompt(SAY).await;
    let mut seq = snapshot["seq"].as_u64().unwrap();
    loop {
        let event = socket.next_of("event").await;
        seq += 1;
        assert_eq!(event["seq"], seq, "no gap after the snapshot");
        if event["type"] == "turn_ended" {
            break;
        }
    }
}

#[tokio::test]
async fn a_command_that_is_sent_twice_is_done_once() {
    let server = TestServer::start().await;
    let session = server.session(None).await;
    let command = json!({ "op": "cmd", "id": "c1", "command": "prompt", "session": session.id, "text": SAY });
    let mut socket = server.socket().await;
    socket.say(command.clone()).await;
    let first = socket.next_of("ack").await;
    assert!(first["result"]["prompt_id"].is_string(), "{first}");
    let mut other = server.socket().await;
    other.say(command).await;
    assert_eq!(other.next_of("ack").await, first);
    let events = session.turns(1).await;
    assert_eq!(kinds(&events).iter().filter(|kind| **kind == "prompt_queued").count(), 1);
}

#[tokio::test]
async fn a_request_with_the_same_idempotency_key_makes_one_session() {
    let server = TestServer::start().await;
    let body = json!({ "repository": server.repository() });
    let make = async || -> Value {
        let request = server.request(Method::POST, "/api/v1/sessions").header("idempotency-key", "k1").json(&body);
        request.send().await.unwrap().json().await.unwrap()
    };
    assert_eq!(make().await["id"], make().await["id"]);
}

#[tokio::test]
async fn a_frame_that_makes_no_sense_is_told_so_and_the_socket_goes_on() {
    let server = TestServer::start().await;
    let mut socket = server.socket().await;
    for frame in [
        json!({ "op": "dance" }),
        json!([1, 2]),
        json!({ "op": "sub", "topic": "sessions/nosuch" }),
        json!({ "op": "sub", "topic": "../x" }),
    ] {
        socket.say(frame.clone()).await;
        assert_eq!(socket.next().await["op"], "error", "{frame}");
    }
    socket.say(json!({ "op": "cmd", "id": "c", "command": "stop", "session": "nosuch" })).await;
    assert_eq!(socket.next_of("ack").await["error"]["status"], 404);
}

#[tokio::test]
async fn a_stop_ends_the_turn_within_a_second() {
    let server = TestServer::start().await;
    let session = server.session(Some(SLEEP)).await;
    session.events_until(0, |event| event["type"] == "tool_call" && event["status"] == "in_progress").await;
    let stopped = std::time::Instant::now();
    let response = server.request(Method::POST, &session.path("/stop")).send().await.unwrap();
    assert_eq!(response.status(), 204);
    let ended = session.turns(1).await.pop().unwrap();
    assert_eq!(ended["outcome"], "stopped");
    assert!(stopped.elapsed().as_secs() < 3, "{:?}", stopped.elapsed());
}

#[tokio::test]
async fn after_kill_9_the_queue_goes_on_and_no_event_is_lost() {
    let mut server = TestServer::start().await;
    let session = server.session(Some(SLEEP)).await;
    session.events_until(0, |event| event["type"] == "tool_call" && event["status"] == "in_progress").await;
    session.prompt(SAY).await;
    let before = session.log().await;
    let id = session.id;
    server.crash_and_restart().await;
    let session = common::Session { server: &server, id };
    let after = session.turns(2).await;
    assert_gap_free(&after);
    assert_eq!(after[..before.len()], before);
    let outcomes: Vec<_> =
        after.iter().filter(|event| event["type"] == "turn_ended").map(|end| &end["outcome"]).collect();
    assert_eq!(outcomes, [&json!("interrupted"), &json!("done")]);
}

#[tokio::test]
async fn a_server_that_is_asked_to_end_ends_in_order() {
    let mut server = TestServer::start().await;
    let session = server.session(None).await;
    let mut socket = server.socket().await;
    socket.say(json!({ "op": "sub", "topic": format!("sessions/{}", session.id) })).await;
    socket.next_of("snapshot").await;
    assert!(server.terminate().await.success());
    assert_eq!(socket.next_of("close").await["code"], 1001);
    assert!(!server.data_dir().join("server.json").exists());
}

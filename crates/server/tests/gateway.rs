//! What the gateway lets out of a session, and what the session tells of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are test code too")]

mod common;

use std::net::SocketAddr;

use common::{SAY, TestServer};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A proxy like that of an office: it answers `CONNECT`, and then plays every far side itself.
async fn office() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.clone().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tasks.spawn(async move {
                for answer in [
                    "HTTP/1.1 200 Connected\r\n\r\n",
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nfar",
                ] {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
                    stream.write_all(answer.as_bytes()).await.ok();
                }
            });
        }
    });
    address
}

async fn behind_an_office(more: &str) -> TestServer {
    TestServer::start_with(&format!("[egress]\nproxy = \"http://{}\"\n{more}", office().await)).await
}

#[tokio::test]
async fn a_repository_names_a_host_and_its_sessions_reach_it() {
    let server = behind_an_office("").await;
    let session = server.session_on(&server.repository_with("egress = [\"asked.test\"]\n"), None).await;
    assert_eq!(session.sh("curl -sS http://asked.test/").await["stdout"], "far");
}

#[tokio::test]
async fn what_is_not_let_out_is_told_with_how_to_allow_it() {
    let server = behind_an_office("").await;
    let session = server.session(None).await;
    let ran = session.sh("curl -sS http://other.test/").await;
    let refused = session.events_until(0, |event| event["type"] == "egress_refused").await.pop().unwrap();
    assert_eq!((&refused["host"], &refused["port"]), (&Value::from("other.test"), &Value::from(80)));
    for told in [&ran["stdout"], &refused["reason"]] {
        let told = told.as_str().unwrap();
        assert!(told.contains(".hob/environment.toml, or to egress.allow of hob.toml"), "{told}");
    }
}

#[tokio::test]
async fn the_operator_has_the_last_word_on_a_repositorys_wishes() {
    let server = behind_an_office("repositories_may_add = false\n").await;
    let session = server.session_on(&server.repository_with("egress = [\"asked.test\"]\n"), None).await;
    assert_ne!(session.sh("curl -sS http://asked.test/").await["stdout"], "far");
    let notice = session.events_until(0, |event| event["type"] == "notice").await.pop().unwrap();
    assert!(notice["text"].as_str().unwrap().contains("does not let repositories add hosts"), "{notice}");
}

#[tokio::test]
async fn after_a_crash_a_sandbox_reaches_what_it_could_before() {
    let mut server = behind_an_office("").await;
    let repository = server.repository_with("egress = [\"asked.test\"]\n");
    let id = server.session_on(&repository, None).await.id;
    let session = common::Session { server: &server, id: id.clone() };
    assert_eq!(session.sh("curl -sS http://asked.test/").await["stdout"], "far");
    server.crash_and_restart().await;
    let session = common::Session { server: &server, id };
    assert_eq!(session.sh("curl -sS http://asked.test/").await["stdout"], "far");
}

#[tokio::test]
async fn a_busy_model_is_waited_for_and_the_person_is_told() {
    let server = TestServer::start().await;
    let run = server.hob_in(&server.repository(), &["run", "@@script:busy@@"]).await;
    let shown = String::from_utf8(run.stdout).unwrap();
    assert_eq!(run.status.code(), Some(0), "{shown}");
    let expect = "note: request 1 to scripted-model failed (the provider answered 429); trying again in 1000 ms";
    assert!(shown.contains(expect), "{shown}");
    assert!(shown.contains("Said after all."), "{shown}");
}

#[tokio::test]
async fn a_model_that_is_down_is_stood_in_for_and_the_person_is_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = TestServer::start_with(&format!(
        "[session]\nmodel = \"first\"\n[providers.down]\nkind = \"openai\"\nbase_url = \"http://{nobody}/v1\"\n\
         [models.first]\nprovider = \"down\"\nfallback = [\"scripted-model\"]\n"
    ))
    .await;
    let run = server.hob_in(&server.repository(), &["run", SAY]).await;
    let shown = String::from_utf8(run.stdout).unwrap();
    assert_eq!(run.status.code(), Some(0), "{shown}");
    assert!(shown.contains("going on with scripted-model") && shown.contains("Said."), "{shown}");
}

//! Real projects in three languages, each with a database: drafted, built, warmed up and tested as their owners would.
//! Their dependencies come from the languages' own registries, through the gateway.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use common::TestServer;

/// The longest that a build may take, with all that it fetches.
const BUILD: Duration = Duration::from_mins(10);

/// Checks wait for the services; a person's command does not.
const READY: &str = "until pg_isready --quiet --host 127.0.0.1; do sleep 0.05; done";

#[tokio::test]
async fn a_python_project_with_postgres() {
    let test = format!("{READY}; python3 -m pytest -q 2>&1 | tail -1");
    check("orders-python", &test, "2 passed").await;
}

#[tokio::test]
async fn a_node_project_with_postgres() {
    check("links-node", &format!("{READY}; npm test 2>&1 | grep '^# pass'"), "# pass 2").await;
}

#[tokio::test]
async fn a_rust_project_with_redis() {
    // What was compiled for the image is not compiled again.
    let test = "cargo test --offline 2>&1 | grep -E 'Compiling redis|test result: ok. 1 passed'";
    check("counts-rust", test, "test result: ok. 1 passed").await;
}

/// Drafts the project's environment, builds it from nothing with its checks, and lets a session run its tests: `test`
/// writes a line that begins as `expect` says.
async fn check(project: &str, test: &str, expect: &str) {
    let server = TestServer::start().await;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/projects").join(project);
    let files: Vec<(String, String)> = texts(&source, &source);
    let named: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let repository = server.repository_of(&named);
    assert_eq!(server.hob_in(&repository, &["env", "init"]).await.status.code(), Some(0));
    server.commit(&repository, "An environment");

    let built = server.hob_within(BUILD, &repository, &["image", "build", "--check", "--json"]).await;
    let told = String::from_utf8_lossy(&built.stdout);
    let image: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{built:?}"));
    let log = server.hob(&["image", "log", image["id"].as_str().unwrap()]).await;
    let log = String::from_utf8_lossy(&log.stdout);
    assert_eq!(built.status.code(), Some(0), "{told}\n{log}");
    assert_eq!((&image["state"], &image["checks"][0]["exit_code"]), (&"ready".into(), &0.into()), "{log}");

    let id = server.session_on(&repository, None).await.id;
    let ran = server.hob_within(BUILD, &repository, &["exec", &id, "--", "sh", "-c", test]).await;
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.trim_start().starts_with(expect), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
}

/// The files below a folder, by path and text.
fn texts(folder: &Path, top: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(texts(&path, top));
        } else {
            let name = path.strip_prefix(top).unwrap().display().to_string();
            files.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
    files
}

//! A server whose sandboxes are containers of a daemon: the main job, a restart, and what the doctor says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod common;
#[allow(dead_code, unreachable_pub, reason = "the suite of the provider uses all of it")]
#[path = "../../sandbox/tests/contract/daemon.rs"]
mod daemon;
#[allow(unreachable_pub, reason = "the suite of the provider uses it as well")]
#[path = "../../sandbox/tests/contract/root.rs"]
mod root;

use std::path::Path;
use std::process::{Command, Output};

use common::{FIX, SAY, TestServer};
use serde_json::Value;

/// The image that stands for this machine's own system.
const IMAGE: &str = "hob-test:system";

/// Gives the daemon the small system of the suite as an image.
fn import() {
    let archive = tempfile::NamedTempFile::new().unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(root::root()).args(["--owner=0", "--group=0", "-cf"]).arg(archive.path()).arg(".");
    assert!(tar.status().unwrap().success());
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--request", "POST", "--header", "Content-Type: application/x-tar"]);
    curl.arg("--unix-socket").arg(daemon::socket().unwrap()).arg("--data-binary").arg(at(archive.path()));
    let (repository, tag) = IMAGE.split_once(':').unwrap();
    let output =
        curl.arg(format!("http://docker/images/create?fromSrc=-&repo={repository}&tag={tag}")).output().unwrap();
    assert!(output.status.success() && text(&output).contains("sha256:"), "{output:?}");
}

fn at(path: &Path) -> String {
    format!("@{}", path.display())
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn configuration(socket: &Path) -> String {
    let socket = socket.display();
    format!("[sandbox]\nprovider = \"docker\"\n\n[sandbox.docker]\nsocket = \"{socket}\"\nimage = \"{IMAGE}\"\n")
}

#[tokio::test]
async fn a_bug_is_mended_in_a_container_and_its_session_outlives_the_server() {
    let Some(socket) = daemon::socket() else { return };
    import();
    let mut server = TestServer::start_with(&configuration(&socket)).await;
    let repository = server.repository();
    let run = server.hob_in(&repository, &["run", FIX]).await;
    assert_eq!(run.status.code(), Some(0), "{}", text(&run));
    assert!(text(&run).contains("✓ test") && text(&run).contains("commit "), "{}", text(&run));
    let list: Value = serde_json::from_slice(&server.hob(&["session", "list", "--json"]).await.stdout).unwrap();
    let id = list[0]["id"].as_str().unwrap();

    server.crash_and_restart().await;
    let exec = server.hob(&["exec", id, "--", "sh", "-c", ". ./calc.sh; add 1 2; ls /.dockerenv"]).await;
    assert_eq!(text(&exec), "3\n/.dockerenv\n");
    let again = server.hob_in(&repository, &["session", "prompt", id, SAY]).await;
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    let archived = server.hob(&["session", "archive", id]).await;
    assert_eq!(archived.status.code(), Some(0), "{}", text(&archived));
    server.terminate().await;
    daemon::remove_all(&server.data_dir());
}

#[tokio::test]
async fn the_doctor_says_that_no_daemon_answers_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hob.toml");
    std::fs::write(&file, configuration(&folder.path().join("none.sock"))).unwrap();
    let mut hob = Command::new(env!("CARGO_BIN_EXE_hob"));
    hob.env("HOB_CONFIG", &file).env("HOB_DATA_DIR", folder.path().join("data")).arg("doctor");
    let said = hob.output().unwrap();
    assert_eq!(said.status.code(), Some(1));
    for expect in ["container daemon", "none.sock", "sandbox.docker.socket"] {
        assert!(text(&said).contains(expect), "{expect} in {}", text(&said));
    }
    assert!(!text(&said).contains("bubblewrap"), "what is not used is not asked for");
}

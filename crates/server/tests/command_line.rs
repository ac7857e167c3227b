//! The command line, as a person uses it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are test code too")]

mod common;

use std::process::Output;

use common::{FIX, SAY, SLEEP, TestServer};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStderr;

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[tokio::test]
async fn run_shows_the_work_and_ends_with_0() {
    let server = TestServer::start().await;
    let repository = server.repository();
    let run = server.hob_in(&repository, &["run", FIX]).await;
    let text = stdout(&run);
    assert_eq!(run.status.code(), Some(0), "{text}{}", stderr(&run));
    for expect in
        ["✗ test on the base  exit 1", "+     echo $(($1 + $2))", "✓ test", "commit ", "done in ", "next:\n  hob diff "]
    {
        assert!(text.contains(expect), "{expect:?} in\n{text}");
    }
    assert!(!text.contains('\x1b'), "no colours where there is no terminal");
}

#[tokio::test]
async fn the_branch_is_pulled_into_the_checkout() {
    let server = TestServer::start().await;
    let repository = server.repository();
    assert_eq!(server.hob_in(&repository, &["run", FIX]).await.status.code(), Some(0));
    let list: Value = serde_json::from_str(stdout(&server.hob(&["session", "list", "--json"]).await)).unwrap();
    let (id, branch) = (list[0]["id"].as_str().unwrap(), list[0]["branch"].as_str().unwrap());

    let pull = server.hob_in(&repository, &["pull", id]).await;
    assert_eq!(pull.status.code(), Some(0), "{}", stderr(&pull));
    let shown = hob::git::run(Some(&repository), &["show", &format!("{branch}:calc.sh")]).unwrap();
    assert!(stdout(&shown).contains("$1 + $2"));
    let diff = server.hob(&["diff", id]).await;
    assert!(stdout(&diff).contains("+    echo $(($1 + $2))"));
    let frozen = server.hob(&["session", "snapshot", id, "--json"]).await;
    let frozen: Value = serde_json::from_str(stdout(&frozen)).unwrap();
    assert!(frozen["entries"].as_u64().unwrap() > 0 && !frozen["layers"].as_array().unwrap().is_empty(), "{frozen}");
    let archive = repository.join("../files.tar.gz");
    let written = server.hob(&["session", "snapshot", id, "--output", archive.to_str().unwrap()]).await;
    assert_eq!(written.status.code(), Some(0), "{}", stderr(&written));
    let listed = std::process::Command::new("tar").arg("-tzf").arg(&archive).output().unwrap();
    let listed = stdout(&listed);
    assert!(listed.starts_with("snapshot.json\n") && listed.contains("/workspace/calc.sh\n"), "{listed}");
    let show = server.hob(&["session", "show", id]).await;
    assert!(stdout(&show).contains("last turn   done"), "{}", stdout(&show));
    assert!(stdout(&show).contains("start       queue "), "{}", stdout(&show));
    assert!(stdout(&show).contains("keeps       ") && stdout(&show).contains("of its own"), "{}", stdout(&show));
    assert!(stdout(&show).contains("memory ") && stdout(&show).contains(" processes"), "{}", stdout(&show));
    let exec = server.hob(&["exec", id, "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).await;
    assert_eq!((exec.status.code(), stdout(&exec), stderr(&exec)), (Some(7), "out\n", "err\n"));
}

#[tokio::test]
async fn a_command_that_ends_before_it_reads_its_input_tells_its_exit_code() {
    let server = TestServer::start().await;
    let session = server.session(None).await;
    for _ in 0..20 {
        let exec = server.hob(&["exec", &session.id, "--", "sh", "-c", "exit 3"]).await;
        assert_eq!((exec.status.code(), stderr(&exec)), (Some(3), ""));
    }
}

#[tokio::test]
async fn detached_work_is_found_again() {
    let server = TestServer::start().await;
    let repository = server.repository();
    let run = server.hob_in(&repository, &["run", "--detach", SAY]).await;
    let id = stdout(&run).trim();
    assert_eq!(run.status.code(), Some(0));
    let session = common::Session { server: &server, id: id.into() };
    session.turns(1).await;
    let prompt = server.hob(&["session", "prompt", id, "--follow", SAY]).await;
    assert_eq!(prompt.status.code(), Some(0), "{}", stdout(&prompt));
    let events = server.hob(&["session", "events", id, "--json"]).await;
    let seqs: Vec<u64> = stdout(&events)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let archive = server.hob(&["session", "archive", id]).await;
    assert_eq!(archive.status.code(), Some(0));
    let late = server.hob(&["session", "prompt", id, SAY]).await;
    assert_eq!(late.status.code(), Some(2), "{}", stderr(&late));
}

#[tokio::test]
async fn json_is_one_event_a_line() {
    let server = TestServer::start().await;
    let repository = server.repository();
    let run = server.hob_in(&repository, &["run", "--json", SAY]).await;
    let events: Vec<Value> = stdout(&run).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    common::assert_gap_free(&events);
    assert_eq!(events.last().unwrap()["type"], "turn_ended");
}

#[tokio::test]
async fn a_prompt_comes_from_standard_input_and_one_of_10_mb_is_refused() {
    let server = TestServer::start().await;
    let repository = server.repository();
    let run = server.hob_fed(&repository, &["run", "-"], SAY.as_bytes()).await;
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let long = server.hob_fed(&repository, &["run", "-"], &vec![b'x'; 10 << 20]).await;
    assert_eq!((long.status.code(), stdout(&long)), (Some(2), ""));
    assert!(stderr(&long).contains("at most 1048576"), "{}", stderr(&long));
    let empty = server.hob_fed(&repository, &["run", "-"], b"\n").await;
    assert_eq!(stderr(&empty), "hob: failed to read the prompt from standard input: it is empty\n");
}

/// `hob run` of a prompt whose turn does not end by itself, with its first words on standard error after a Ctrl-C.
async fn interrupted(server: &TestServer) -> (tokio::process::Child, Lines<BufReader<ChildStderr>>) {
    let mut run = server.hob_started(&server.repository(), &["run", SLEEP]);
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    // The prompt is its second line: from then on it listens for Ctrl-C.
    for _ in 0..2 {
        lines.next_line().await.unwrap().unwrap();
    }
    let mut remarks = BufReader::new(run.stderr.take().unwrap()).lines();
    common::interrupt(&run);
    while remarks.next_line().await.unwrap().unwrap() != "stopping the turn; press Ctrl-C again to leave" {}
    // Whoever follows must not lose what is still said.
    tokio_util::task::TaskTracker::new().spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (run, remarks)
}

#[tokio::test]
async fn ctrl_c_stops_the_turn() {
    let server = TestServer::start().await;
    let (mut run, _remarks) = interrupted(&server).await;
    assert_eq!(run.wait().await.unwrap().code(), Some(1));
    let list: Value = serde_json::from_str(stdout(&server.hob(&["session", "list", "--json"]).await)).unwrap();
    assert_eq!(list[0]["last_outcome"], "stopped");
}

#[tokio::test]
async fn a_second_ctrl_c_leaves_at_once() {
    let server = TestServer::start().await;
    let (mut run, mut remarks) = interrupted(&server).await;
    common::interrupt(&run);
    assert_eq!(run.wait().await.unwrap().code(), Some(1));
    let said = remarks.next_line().await.unwrap().unwrap();
    assert!(said.starts_with("left; the session goes on: hob session show "), "{said}");
}

#[tokio::test]
async fn bash_accepts_the_completion_script() {
    let server = TestServer::start().await;
    for shell in ["bash", "zsh", "fish"] {
        let script = server.hob(&["completion", shell]).await;
        assert!(stdout(&script).contains("completion") && script.status.success(), "{shell}");
        if shell == "bash" {
            let file = server.data_dir().join("completion");
            std::fs::write(&file, &script.stdout).unwrap();
            assert!(std::process::Command::new("bash").arg("-n").arg(file).status().unwrap().success());
        }
    }
}

#[tokio::test]
async fn usage_and_set_up_end_with_2() {
    let server = TestServer::start().await;
    let repository = server.repository();
    let cases: [(&[&str], &str); 4] = [
        (&["run", "--agent", "cluade", SAY], "did you mean \"claude\"?"),
        (&["run", "--model", "nosuch", SAY], "nosuch"),
        (&["run"], "PROMPT"),
        (&["session", "show", "nosuch"], "nosuch"),
    ];
    for (arguments, expect) in cases {
        let output = server.hob_in(&repository, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expect), "{arguments:?}: {}", stderr(&output));
    }
}

#[tokio::test]
async fn a_wrong_key_in_the_configuration_is_named_with_its_line() {
    let server = TestServer::start().await;
    let config = server.data_dir().with_file_name("wrong.toml");
    std::fs::write(&config, "[server]\nlistne = \"127.0.0.1:1\"\n").unwrap();
    let output = server.hob(&["serve", "--config", config.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("wrong.toml:2: there is no key `server.listne`; did you mean `server.listen`?"));
}

#[tokio::test]
async fn run_starts_a_private_server_where_none_runs() {
    let mut server = TestServer::start().await;
    let repository = server.repository();
    assert!(server.terminate().await.success());
    let run = server.hob_in(&repository, &["run", SAY]).await;
    assert_eq!(run.status.code(), Some(0), "{}{}", stdout(&run), stderr(&run));
    assert!(stderr(&run).contains("starting one in the background"));
    let list = server.hob(&["session", "list"]).await;
    assert_eq!(stdout(&list).lines().count(), 1, "it goes on running");
}

#[tokio::test]
async fn agents_are_listed_without_a_server() {
    let server = TestServer::start().await;
    let list: Value = serde_json::from_str(stdout(&server.hob(&["agent", "list", "--json"]).await)).unwrap();
    assert_eq!(list[0]["name"], "hob");
    let unknown = server.hob(&["agent", "install", "nosuch"]).await;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("there are claude, codex, gemini, goose, opencode"));
}

#[tokio::test]
async fn services_are_shown_while_they_start_and_in_the_session() {
    let server = TestServer::start().await;
    let services = "[[services]]\nname = \"idle\"\ncommand = \"exec sleep 1000\"\n[[services]]\nname = \"gone\"\ncommand = \
                    \"no-such-program\"\n";
    let repository = server.repository_with(services);
    let run = server.hob_in(&repository, &["run", FIX]).await;
    assert_eq!(run.status.code(), Some(0), "a service that fails does not fail the session");
    for expect in ["· service idle is ready ", "✗ service gone has failed: its command was not found", "· services "]
    {
        assert!(stdout(&run).contains(expect), "{expect:?} in\n{}", stdout(&run));
    }
    let list: Value = serde_json::from_str(stdout(&server.hob(&["session", "list", "--json"]).await)).unwrap();
    let show = server.hob(&["session", "show", list[0]["id"].as_str().unwrap()]).await;
    assert!(stdout(&show).contains("service     idle ready\n"), "{}", stdout(&show));
    assert!(stdout(&show).contains("service     gone failed: its command was not found"), "{}", stdout(&show));
}

#[tokio::test]
async fn an_environment_is_drafted_once_and_checked_before_it_is_committed() {
    let server = TestServer::start().await;
    let compose = "services:\n  cache:\n    image: redis:7\n";
    let repository = server.repository_of(&[("Makefile", "test:\n\ttrue\n"), ("compose.yaml", compose)]);
    let printed = server.hob_in(&repository, &["env", "init", "--print"]).await;
    assert!(stdout(&printed).contains("name = \"redis\""), "{}", stdout(&printed));
    assert!(!repository.join(".hob").exists());

    let written = server.hob_in(&repository, &["env", "init"]).await;
    assert_eq!((written.status.code(), stdout(&written)), (Some(0), ""));
    let again = server.hob_in(&repository, &["env", "init"]).await;
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("it is there already; --force replaces it"), "{}", stderr(&again));
    assert_eq!(server.hob_in(&repository, &["env", "init", "--force"]).await.status.code(), Some(0));

    let path = repository.display().to_string();
    let checked = server.hob(&["env", "check", "--quick", "--repo", &path]).await;
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    for expect in [
        "read from  .hob/environment.toml",
        "services   redis: exec redis-server --save '' --appendonly no (port 6379, within 60 s)",
        "checks     test: make test",
    ] {
        assert!(stdout(&checked).contains(expect), "{expect:?} in\n{}", stdout(&checked));
    }
    let json: Value =
        serde_json::from_str(stdout(&server.hob_in(&repository, &["env", "check", "--quick", "--json"]).await))
            .unwrap();
    assert_eq!((&json["base"], &json["services"][0]["port"]), (&"host".into(), &6379.into()));
}

#[tokio::test]
async fn an_agent_can_be_asked_to_finish_an_environment() {
    let server = TestServer::start().await;
    let repository = server.repository_of(&[("Makefile", "test:\n\ttrue\n")]);
    let run = server.hob_in(&repository, &["env", "init", "--finish"]).await;
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let sessions = server.get("/api/v1/sessions").await;
    assert_eq!(
        sessions["sessions"][0]["title"].as_str().map(|title| title.starts_with("Finish .hob/environment.toml")),
        Some(true)
    );
    assert!(!repository.join(".hob").exists(), "the agent's work is on a branch");
}

#[tokio::test]
async fn an_environment_is_built_from_nothing_and_its_checks_run_in_it() {
    let server = TestServer::start().await;
    let environment = "warm = 'echo warmed > warm.txt'\n[[checks]]\nname = 'test'\ncommand = 'cat warm.txt'\n\
                       [[checks]]\nname = 'lint'\ncommand = 'exit 3'\n";
    let repository = server.repository_of(&[(".hob/environment.toml", environment)]);
    let red = server.hob_in(&repository, &["env", "check"]).await;
    assert_eq!(red.status.code(), Some(1), "{}", stderr(&red));
    for expect in
        ["$ echo warmed > warm.txt", "warmed\n", "check       test green", "check       lint red, exit code 3"]
    {
        assert!(stdout(&red).contains(expect), "{expect:?} in\n{}", stdout(&red));
    }

    // As it lies there, and not as it is committed; and no session starts from it.
    std::fs::write(repository.join(".hob/environment.toml"), environment.replace("exit 3", "exit 0")).unwrap();
    let green = server.hob_in(&repository, &["env", "check", "--json"]).await;
    assert_eq!(green.status.code(), Some(0), "{}", stderr(&green));
    let image: Value = serde_json::from_str(stdout(&green)).unwrap();
    assert_eq!(
        (&image["state"], &image["trial"], &image["checks"][1]["exit_code"]),
        (&"ready".into(), &true.into(), &0.into())
    );
}

#[tokio::test]
async fn images_are_built_listed_read_and_removed() {
    let server = TestServer::start().await;
    let environment = "setup = 'echo it is set up'\n";
    let repository = server.repository_of(&[(".hob/environment.toml", environment)]);
    let built = server.hob_in(&repository, &["image", "build", "--json"]).await;
    assert_eq!(built.status.code(), Some(0), "{}", stderr(&built));
    let image: Value = serde_json::from_str(stdout(&built)).unwrap();
    let id = image["id"].as_str().unwrap();
    let log = server.hob(&["image", "log", id, "--follow"]).await;
    assert!(stdout(&log).contains("] $ echo it is set up\nit is set up\n"), "{}", stdout(&log));
    let shown = server.hob(&["image", "show", id]).await;
    assert!(stdout(&shown).contains("steps       base 0 ms, packages 0 ms, setup"), "{}", stdout(&shown));
    assert!(stdout(&server.hob(&["image", "list"]).await).contains(id));
    assert_eq!(server.hob(&["image", "remove", id]).await.status.code(), Some(0));
    let gone = server.hob(&["image", "show", id]).await;
    assert_eq!((gone.status.code(), stderr(&gone)), (Some(2), &*format!("hob: failed to find image {id}\n")));
}

#[tokio::test]
async fn an_environment_that_cannot_be_read_says_where() {
    let server = TestServer::start().await;
    let repository = server.repository_of(&[(".hob/environment.toml", "[[services]]\nname = \"db\"\nprot = 1\n")]);
    let checked = server.hob_in(&repository, &["env", "check"]).await;
    assert_eq!(checked.status.code(), Some(1));
    let expect = "✗ failed to read .hob/environment.toml: line 3, column 1: unknown key `services[0].prot`; did you mean \
                  `port`?";
    assert!(stdout(&checked).contains(expect), "{}", stdout(&checked));
    let outside = server.hob(&["env", "check", "--repo", "/"]).await;
    assert_eq!((outside.status.code(), stderr(&outside)), (Some(2), "hob: failed to find a git checkout at /\n"));
}

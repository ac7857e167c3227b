//! The tools, as the model and the participants see them.

use std::time::Duration;

use hob_agent::{Agent as _, PlanStatus, ToolCall, ToolContent, ToolStatus, Update};
use serde_json::{Value, json};

use crate::support::Bench;
use crate::support::host::text_of;
use crate::support::model::{calls, says};
use crate::support::workspace::{is_gone, is_running};

/// Runs one call in a workspace that `prepare` filled.
async fn run(name: &str, input: Value, prepare: impl FnOnce(&Bench)) -> (ToolCall, Bench) {
    let mut bench = Bench::new(vec![calls([(name, input)]), says("Done.")]).await;
    prepare(&bench);
    bench.prompt("go").await;
    let call = bench.host.calls().remove(0);
    (call, bench)
}

#[tokio::test]
async fn read_gives_a_range_of_lines() {
    let (call, _) = run("read", json!({ "path": "a", "start_line": 2, "end_line": 3 }), |bench| {
        bench.workspace.put("a", "one\ntwo\nthree\nfour\n");
    })
    .await;
    assert_eq!(call.title, "read a:2-3");
    assert_eq!(text_of(&call), "     2\ttwo\n     3\tthree\n");
    assert_eq!((call.locations[0].path.as_str(), call.locations[0].line), ("a", Some(2)));
}

#[tokio::test]
async fn read_shows_a_picture_to_the_model_and_to_the_participants() {
    let png = b"\x89PNG\r\n\x1a\nnot much of a picture";
    let (call, bench) = run("read", json!({ "path": "a.png" }), |bench| bench.workspace.put("a.png", png)).await;
    let ToolContent::Image { media_type, base64 } = &call.content[0] else { panic!("is a picture") };
    assert_eq!(media_type, "image/png");
    assert!(bench.model.asked()[1].has(&format!("data:image/png;base64,{base64}")));
}

#[tokio::test]
async fn read_refuses_binary_files() {
    let (call, _) = run("read", json!({ "path": "a.bin" }), |bench| bench.workspace.put("a.bin", [1, 0, 2])).await;
    assert_eq!(text_of(&call), "a.bin is a binary file of 3 bytes");
}

#[tokio::test]
async fn list_shows_folders_and_sizes() {
    let (call, _) = run("list", json!({}), |bench| {
        bench.workspace.put("src/a.rs", "");
        bench.workspace.put("README.md", "hello");
    })
    .await;
    assert_eq!(text_of(&call), "README.md (5)\nsrc/");
}

#[tokio::test]
async fn search_finds_by_pattern_path_and_glob() {
    let (call, _) = run("search", json!({ "pattern": r"fn \w+\(", "path": "src", "glob": "*.rs" }), |bench| {
        bench.workspace.put("src/a.rs", "fn one() {}\nlet x = 1;\n");
        bench.workspace.put("src/a.txt", "fn two() {}\n");
        bench.workspace.put("b.rs", "fn three() {}\n");
    })
    .await;
    assert_eq!(text_of(&call), "src/a.rs:1:fn one() {}");
    assert_eq!(call.title, r"search fn \w+\( in src in *.rs");
}

#[tokio::test]
async fn search_says_when_there_is_nothing_or_the_pattern_is_wrong() {
    let (call, _) = run("search", json!({ "pattern": "nothing" }), |bench| bench.workspace.put("a", "text")).await;
    assert_eq!(text_of(&call), "[no match]");
    let (call, _) = run("search", json!({ "pattern": "(" }), |bench| bench.workspace.put("a", "text")).await;
    assert_eq!(call.status, ToolStatus::Failed);
    assert!(text_of(&call).starts_with("the search failed: "), "{}", text_of(&call));
}

#[tokio::test]
async fn search_takes_its_pattern_as_it_is() {
    let (call, _) =
        run("search", json!({ "pattern": "-e '$(touch owned)`" }), |bench| bench.workspace.put("a", "text")).await;
    assert_eq!(call.status, ToolStatus::Completed);
    let (call, _) = run("search", json!({ "pattern": "it's" }), |bench| bench.workspace.put("a", "it's\n")).await;
    assert_eq!(text_of(&call), "a:1:it's");
}

#[tokio::test]
async fn write_makes_folders_and_shows_a_new_file() {
    let (call, bench) = run("write", json!({ "path": "new/deep/a.txt", "content": "text\n" }), |_| {}).await;
    assert_eq!(bench.workspace.get("new/deep/a.txt"), "text\n");
    let new = ToolContent::Diff { path: "new/deep/a.txt".to_owned(), old_text: None, new_text: "text\n".to_owned() };
    assert_eq!(call.content, [new]);
    assert!(bench.model.asked()[1].has("created new/deep/a.txt"));
}

#[tokio::test]
async fn edit_works_with_absolute_paths_and_shows_relative_ones() {
    let mut bench = Bench::new(Vec::new()).await;
    bench.workspace.put("src/a.txt", "one\n");
    let path = format!("{}/src/a.txt", root(&bench));
    bench.model.then(calls([("edit", json!({ "path": path, "old_text": "one", "new_text": "two" }))]));
    bench.model.then(says("Done."));
    bench.prompt("go").await;
    assert_eq!(bench.workspace.get("src/a.txt"), "two\n");
    let call = &bench.host.calls()[0];
    assert_eq!((call.locations[0].path.as_str(), call.locations[0].line), ("src/a.txt", Some(1)));
    assert!(bench.model.asked()[1].has("changed src/a.txt"));
}

#[tokio::test]
async fn shell_tells_output_and_exit_code() {
    let (call, _) = run("shell", json!({ "command": "echo out; echo err >&2; exit 3" }), |_| {}).await;
    assert_eq!(call.status, ToolStatus::Completed);
    assert_eq!(call.title, "echo out; echo err >&2; exit 3");
    let text = text_of(&call);
    assert!(text.contains("out") && text.contains("err") && text.ends_with("\n[exit 3]"), "{text}");
}

#[tokio::test]
async fn shell_ends_at_its_time_limit_with_all_it_started() {
    let command = "echo begun; sleep 1000 & echo $! > pid; wait";
    let (call, bench) = run("shell", json!({ "command": command, "timeout_seconds": 1 }), |_| {}).await;
    assert_eq!(call.status, ToolStatus::Failed);
    assert_eq!(text_of(&call), "begun\n[killed at its time limit of 1 s, with all it started]");
    assert!(is_gone(&bench.workspace.get("pid")));
}

#[tokio::test]
async fn ten_megabytes_of_output_are_bounded_everywhere() {
    let command = "echo start; head -c 10000000 /dev/zero | tr '\\0' 'x'; echo; echo end";
    let (call, bench) = run("shell", json!({ "command": command }), |_| {}).await;
    let text = text_of(&call);
    assert!(text.len() < 64 * 1024, "{}", text.len());
    assert!(text.starts_with("start\n") && text.ends_with("\nend\n[exit 0]") && text.contains("bytes left out"));
    for update in bench.host.updates() {
        assert!(!matches!(&update, Update::ToolCall(call) if text_of(call).len() > 64 * 1024));
    }
    assert!(bench.model.asked()[1].body.to_string().len() < 100 * 1024);
}

#[tokio::test]
async fn output_is_shown_while_the_command_runs() {
    let mut bench =
        Bench::new(vec![calls([("shell", json!({ "command": "echo begun; cat go" }))]), says("Done.")]).await;
    let status =
        std::process::Command::new("mkfifo").arg(format!("{}/go", root(&bench))).status().expect("mkfifo runs");
    assert!(status.success());
    let go = format!("{}/go", root(&bench));
    let host = &bench.host;
    let turn = bench.agent.prompt(crate::support::prompt("go"), host, bench.stop.clone());
    let seen = async {
        let shown = |update: &Update| matches!(update, Update::ToolCall(call) if call.status == ToolStatus::InProgress && text_of(call) == "begun\n");
        host.until(shown).await;
        tokio::fs::write(go, "gone on\n").await.expect("writes");
    };
    let (end, ()) = tokio::join!(turn, seen);
    end.expect("ends");
    assert_eq!(text_of(&host.calls()[0]), "begun\ngone on\n[exit 0]");
}

fn root(bench: &Bench) -> String {
    hob_agent::Workspace::root(bench.workspace.as_ref()).to_owned()
}

#[tokio::test]
async fn a_background_command_is_watched_and_killed() {
    let replies = vec![
        calls([("shell", json!({ "command": "echo $$ > pid; echo ready; sleep 1000", "background": true }))]),
        calls([("shell_output", json!({ "id": 1, "wait_seconds": 10 }))]),
        calls([("shell_kill", json!({ "id": "1" }))]),
        calls([("shell_output", json!({ "id": 7 }))]),
        says("Done."),
    ];
    let mut bench = Bench::new(replies).await;
    bench.prompt("serve").await;
    let said: Vec<String> = bench.host.calls().iter().map(text_of).collect();
    insta::assert_snapshot!(said.join("\n--\n"), @r"
    started in the background with the id 1; shell_output and shell_kill take it
    --
    ready
    [running]
    --
    [killed]
    --
    there is no background command 7; there are 1
    ");
    assert!(is_gone(&bench.workspace.get("pid")));
}

#[tokio::test]
async fn background_commands_outlive_the_turn_and_end_with_the_agent() {
    let serve = json!({ "command": "echo $$ > pid; echo ready; sleep 1000", "background": true });
    let look = json!({ "id": 1, "wait_seconds": 10 });
    let mut bench = Bench::new(vec![calls([("shell", serve)]), calls([("shell_output", look)]), says("Done.")]).await;
    bench.prompt("serve").await;
    let pid = bench.workspace.get("pid");
    assert!(is_running(&pid));
    let begun = std::time::Instant::now();
    bench.agent.close().await;
    assert!(is_gone(&pid));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_stop_ends_background_commands_too() {
    let serve = json!({ "command": "echo $$ > pid; echo ready; sleep 1000", "background": true });
    let look = || calls([("shell_output", json!({ "id": 1, "wait_seconds": 100 }))]);
    let mut bench = Bench::new(vec![calls([("shell", serve)]), look(), look()]).await;
    let host = &bench.host;
    let turn = bench.agent.prompt(crate::support::prompt("serve"), host, bench.stop.clone());
    let stopping = async {
        // The second look waits for more, which never comes.
        host.until(|_| host.calls().len() == 3 && host.calls()[2].status == ToolStatus::InProgress).await;
        bench.stop.cancel();
    };
    let (end, ()) = tokio::join!(turn, stopping);
    assert_eq!(end.expect("ends").stop_reason, hob_agent::StopReason::Cancelled);
    assert!(is_gone(&bench.workspace.get("pid")));
}

#[tokio::test]
async fn plan_is_shown_to_the_participants() {
    let steps = json!({ "steps": [
        { "content": "look", "status": "completed" },
        { "content": "fix", "status": "in_progress" },
    ] });
    let (call, bench) = run("plan", steps, |_| {}).await;
    assert_eq!(text_of(&call), "the plan is shown: 1 of 2 done");
    let plan = bench.host.updates().into_iter().find_map(|update| match update {
        Update::Plan(entries) => Some(entries),
        _ => None,
    });
    let plan = plan.expect("is shown");
    assert_eq!(plan[1].content, "fix");
    assert_eq!(plan[1].status, PlanStatus::InProgress);
}

#[tokio::test]
async fn ask_gives_the_answer_of_a_person() {
    let question = json!({ "question": "Which port?", "choices": ["80", "8080"] });
    let (call, bench) = run("ask", question.clone(), |bench| {
        *bench.host.answer.lock().expect("no panic") = Some("8080".to_owned());
    })
    .await;
    assert_eq!(text_of(&call), "8080");
    assert_eq!(bench.host.questions()[0].choices, ["80", "8080"]);
    let (call, _) = run("ask", question, |_| {}).await;
    assert!(text_of(&call).starts_with("[no answer: nobody is there]"));
}

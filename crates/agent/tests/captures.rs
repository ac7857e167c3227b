//! What real agents said, played back over pipes: `fixtures/acp-*.jsonl` are transcripts of real programs (only the
//! model was scripted), each line with its direction.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod agents;

use std::fmt::Write as _;
use std::path::Path;

use agents::{Host, config, prompt};
use hob_agent::{AcpAgent, AcpConfig, Agent as _, RawDirection, StopReason, ToolContent, Update};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio_util::sync::CancellationToken;

/// Plays a transcript to the driver, and gives what the host then saw.
async fn played(capture: &str) -> Host {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/acp-{capture}.jsonl"));
    let transcript = std::fs::read_to_string(path).expect("the transcript is there");
    let lines: Vec<Value> = transcript.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (output, input) = tokio::io::split(ours);
    let (heard, mut said) = tokio::io::split(theirs);
    let mut heard = BufReader::new(heard).lines();
    let play = async {
        for line in &lines {
            if line["dir"] == "<-" {
                said.write_all(format!("{}\n", line["m"]).as_bytes()).await.expect("written");
                continue;
            }
            let ours = heard.next_line().await.expect("read").expect("the driver says something here");
            let ours: Value = serde_json::from_str(&ours).expect("JSON");
            // The same request or the same answer as in the transcript.
            assert_eq!((&ours["method"], &ours["id"]), (&line["m"]["method"], &line["m"]["id"]), "{ours}");
        }
    };
    let config = AcpConfig { id_prefix: String::new(), ..config(capture, Path::new("/repo")) };
    let mut agent = AcpAgent::new(Box::new(output), Box::new(input), config);
    let host = Host::new();
    let turn = agent.prompt(prompt("@@script:edit@@"), &host, CancellationToken::new());
    let (ended, ()) = tokio::join!(turn, play);
    assert_eq!(ended.expect("it ends").stop_reason, StopReason::EndTurn);
    host
}

/// What a participant sees: words put together, each tool call in its last state.
fn timeline(host: &Host) -> String {
    let mut shown = String::new();
    let mut last = String::new();
    for update in host.updates() {
        match update {
            Update::Message { message_id, text } | Update::Thought { message_id, text } if message_id == last => {
                shown.push_str(&text);
            }
            Update::Message { message_id, text } => {
                last = message_id;
                write!(shown, "\nsays {}", text.trim_start()).expect("written");
            }
            Update::Thought { message_id, text } => {
                last = message_id;
                write!(shown, "\nthinks {}", text.trim_start()).expect("written");
            }
            Update::ToolCall(call) if !shown.contains(&format!("[{}]", call.id)) => {
                last.clear();
                write!(shown, "\n[{}]", call.id).expect("written");
            }
            _ => {}
        }
    }
    for call in host.calls() {
        let content: Vec<String> = call.content.iter().map(in_short).collect();
        let line =
            format!("{:?} {:?} {} {:?} [{}]", call.status, call.kind, call.name, call.title, content.join(" + "));
        shown = shown.replace(&format!("[{}]", call.id), &line);
    }
    shown.trim().to_owned()
}

fn in_short(content: &ToolContent) -> String {
    match content {
        ToolContent::Text { text } => format!("{:?}", text.chars().take(30).collect::<String>()),
        ToolContent::Diff { path, old_text, new_text } => format!("diff of {path}: {old_text:?} => {new_text:?}"),
        ToolContent::Image { media_type, .. } => media_type.clone(),
    }
}

macro_rules! capture {
    ($test:ident, $file:literal, $permissions:literal, @$expect:literal) => {
        #[tokio::test]
        async fn $test() {
            let host = played($file).await;
            insta::assert_snapshot!(timeline(&host), @$expect);
            assert_eq!(host.permissions().len(), $permissions);
        }
    };
}

capture!(claude, "claude-edit", 2, @r#"
    thinks I should look at the file first.
    says Let me read calc.py.
    Completed Read Read "Read calc.py" ["```\n1\tdef add(a, b):\n2\t    ret"]
    says The operator is wrong; fixing.
    Completed Edit Edit "Edit calc.py" [diff of /repo/calc.py: Some("def add(a, b):\n    return a - b") => "def add(a, b):\n    return a + b"]
    Completed Execute Bash "python3 test_calc.py" ["```console\nok\n```"]
    says Fixed `add` and the test passes.
"#);
capture!(codex, "codex-edit", 0, @r#"
    says Warning: Model metadata for `gpt-5-scripted` not found. Defaulting to fallback metadata; this can degrade performance and cause issues.


    thinks I should look at the file first.
    says Let me read calc.py.
    says The operator is wrong; fixing.
    Failed Edit Editing files "Editing files" [diff of /repo/calc.py: Some("def add(a, b):\n    return a - b\n") => "def add(a, b):\n    return a + b\n"]
    Failed Think Guardian Review "Guardian Review" ["Status: Denied\nAction: apply_p"]
    says Fixed `add` and the test passes.
"#);
capture!(gemini, "gemini-edit", 2, @r#"
    thinks ****
    I should look at the file first.
    says Let me read calc.py.
    Completed Read read_file "calc.py" []
    says The operator is wrong; fixing.
    Completed Edit replace "calc.py: return a - b => return a + b" [diff of /repo/calc.py: Some("def add(a, b):\n    return a - b\n") => "def add(a, b):\n    return a + b\n"]
    Completed Execute run_shell_command "python3 test_calc.py" []
    says Fixed `add` and the test passes.
"#);
capture!(goose, "goose-edit", 0, @r#"
    thinks I should look at the file first.
    says Let me read calc.py.
    Completed Execute shell "shell · cat calc.py" ["def add(a, b):\n    return a - "]
    says The operator is wrong; fixing.
    Completed Edit edit "edit · /repo/calc.py" ["Edited /repo/calc.py (1 lines " + diff of /repo/calc.py: Some("return a - b") => "return a + b"]
    Completed Execute shell "shell · python3 test_calc.py" ["ok"]
    says Fixed `add` and the test passes.
"#);
capture!(opencode, "opencode-edit", 0, @r#"
    thinks I should look at the file first.
    says Let me read calc.py.
    Completed Read read "calc.py" ["def add(a, b):\n    return a - "]
    says The operator is wrong; fixing.
    Completed Edit edit "calc.py" ["Edit applied successfully." + diff of /repo/calc.py: Some("return a - b") => "return a + b"]
    Completed Execute bash "python3 test_calc.py" ["ok\n"]
    says Fixed `add` and the test passes.
"#);
capture!(copilot, "copilot-edit", 2, @r#"
    thinks I should look at the file first.
    says Let me read calc.py.
    Completed Read Viewing /repo/calc.py "Viewing /repo/calc.py" []
    says The operator is wrong; fixing.
    Completed Edit Editing /repo/calc.py "Edit file" [diff of /repo/calc.py: Some("return a - b") => "return a + b"]
    Completed Execute run python3 test_calc.py "run python3 test_calc.py" ["ok\n<shellId: 0 completed with "]
    says Fixed `add` and the test passes.
"#);

#[tokio::test]
async fn nothing_an_agent_said_is_lost() {
    for capture in ["claude-edit", "codex-edit", "goose-edit"] {
        let host = played(capture).await;
        let pieces = |update: &&Update| matches!(update, Update::Message { .. } | Update::Thought { .. });
        let raws = |update: &&Update| matches!(update, Update::Raw { direction: RawDirection::FromAgent, .. });
        let updates = host.updates();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/acp-{capture}.jsonl"));
        let said =
            std::fs::read_to_string(path).expect("read").lines().filter(|l| l.contains(r#""dir": "<-""#)).count();
        let kept = updates.iter().filter(raws).count() + updates.iter().filter(pieces).count();
        assert_eq!(kept, said, "{capture}");
    }
}

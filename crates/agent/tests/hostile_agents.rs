//! Agents that die, flood, lie, stay silent or break the protocol: small programs behind real pipes.
//!
//! Whatever they do, a turn ends with a typed error or a result, in time.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod agents;

use std::path::Path;
use std::time::Duration;

use agents::{Host, config, connect, prompt};
use hob_agent::{
    AcpAgent, AcpConfig, Agent as _, AgentError, Deadlines, Image, PermissionOptionKind, Prompt, RawDirection, Resume,
    Setting, StopReason, ToolStatus, TurnEnd, Update,
};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// What every program below begins with: `hear` takes a line, `say` writes one, `open` gets a conversation going.
const PRELUDE: &str = r#"
hear() { read -r line || exit 0; }
say() { printf '%s\n' "$1"; }
open() {
    hear; say '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"agentCapabilities":{"loadSession":true}}}'
    hear; say '{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s1"}}'
}
update() { say '{"method":"session/update","params":{"sessionId":"s1","update":'"$1"'}}'; }
"#;

fn patient() -> AcpConfig {
    config("rogue", Path::new("/"))
}

/// Every deadline is short.
fn impatient() -> AcpConfig {
    let short = Duration::from_millis(300);
    let deadlines =
        Deadlines { initialize: short, session: short, setting: short, silence: short, stop: short, close: short };
    AcpConfig { deadlines, ..patient() }
}

fn program(script: &str, config: AcpConfig) -> (AcpAgent, Child) {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{PRELUDE}\n{script}"));
    connect(command, config)
}

/// One turn, which must end within a minute whatever the agent does.
async fn turn(agent: &mut AcpAgent, host: &Host) -> Result<TurnEnd, AgentError> {
    turn_of(agent, prompt("hello"), host).await
}

async fn turn_of(agent: &mut AcpAgent, prompt: Prompt, host: &Host) -> Result<TurnEnd, AgentError> {
    let turn = agent.prompt(prompt, host, CancellationToken::new());
    tokio::time::timeout(Duration::from_secs(60), turn).await.expect("a turn ends")
}

/// The error of a turn with this program.
async fn error_of(script: &str, config: AcpConfig) -> AgentError {
    let (mut agent, _process) = program(script, config);
    let error = turn(&mut agent, &Host::new()).await.expect_err("it fails");
    assert!(!agent.is_usable(), "its process must be ended: {error}");
    let again = turn(&mut agent, &Host::new()).await.expect_err("it stays useless");
    assert!(matches!(again, AgentError::Died { .. }), "{again}");
    error
}

#[tokio::test]
async fn one_that_dies_at_once_is_told_with_its_last_words() {
    let error = error_of("echo 'cannot find my configuration'; exit 3", patient()).await;
    let AgentError::Died { reason, .. } = error else { panic!("{error}") };
    assert!(reason.contains("cannot find my configuration"), "{reason}");
}

#[tokio::test]
async fn one_that_dies_in_the_middle_leaves_no_open_tool_call() {
    let script = r#"open; hear; update '{"sessionUpdate":"tool_call","toolCallId":"a","title":"rm","status":"in_progress"}'
        printf '{"method":"session/upd'; kill -9 $$"#;
    let (mut agent, _process) = program(script, patient());
    let host = Host::new();
    let error = turn(&mut agent, &host).await.expect_err("it died");
    assert!(matches!(error, AgentError::Died { .. }), "{error}");
    assert_eq!(host.calls()[0].status, ToolStatus::Failed);
}

#[tokio::test]
async fn one_that_never_speaks_is_given_up() {
    let error = error_of("exec sleep 600", impatient()).await;
    assert!(matches!(error, AgentError::Deadline { waiting_for: "its first words", .. }), "{error}");
    let error = error_of("open; exec sleep 600", impatient()).await;
    assert!(matches!(error, AgentError::Deadline { waiting_for: "the end of the turn", .. }), "{error}");
    let error = error_of("hear; say '{\"id\":1,\"result\":{}}'; exec sleep 600", impatient()).await;
    assert!(matches!(error, AgentError::Deadline { waiting_for: "a new conversation", .. }), "{error}");
}

#[tokio::test]
async fn one_that_floods_is_given_up_and_shown_only_for_a_while() {
    let (mut agent, _process) = program("exec yes 'I am not a message'", impatient());
    let host = Host::new();
    let error = turn(&mut agent, &host).await.expect_err("it says nothing");
    assert!(matches!(error, AgentError::Deadline { .. }), "{error}");
    assert_eq!(host.notices().len(), 20);
}

#[tokio::test]
async fn one_that_writes_a_line_without_end_is_given_up() {
    let error = error_of("exec cat /dev/zero", patient()).await;
    assert!(matches!(&error, AgentError::Protocol { reason, .. } if reason.contains("16 MiB")), "{error}");
}

#[tokio::test]
async fn one_that_speaks_another_version_is_refused() {
    let error = error_of("hear; say '{\"id\":1,\"result\":{\"protocolVersion\":7}}'; hear", patient()).await;
    assert!(matches!(&error, AgentError::Protocol { reason, .. } if reason.contains('7')), "{error}");
    let error = error_of("hear; say '{\"id\":1,\"error\":{\"message\":\"log in first\"}}'; hear", patient()).await;
    assert!(matches!(&error, AgentError::Refused { reason, .. } if reason.contains("log in first")), "{error}");
    let error =
        error_of("hear; say '{\"id\":1,\"result\":[]}'; hear; say '{\"id\":2,\"result\":7}'; hear", patient()).await;
    assert!(matches!(&error, AgentError::Protocol { reason, .. } if reason.contains("without an ID")), "{error}");
}

#[tokio::test]
async fn noise_strange_updates_and_second_answers_do_no_harm() {
    let script = r#"echo 'Welcome!'; open; hear
        say '{"id":2,"result":{"sessionId":"another"}}'; say '{"id":99,"result":{}}'; say '[1]'; say 'null'
        update 'null'; update '{"sessionUpdate":"dance"}'; update '{"sessionUpdate":"tool_call","toolCallId":7}'
        update '{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"still "}}'
        say "$(echo '{"method":"session/update","params":{"sessionId":"s2","update":
            {"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"not mine"}}}}' | tr -d '\n')"
        update '{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"here"}}'
        say '{"id":3,"result":{"stopReason":"because"}}'; say '{"id":3,"result":{"stopReason":"refusal"}}'
        hear; say '{"id":4,"result":{"stopReason":"max_tokens"}}'; hear"#;
    let (mut agent, _process) = program(script, patient());
    let host = Host::new();
    assert_eq!(turn(&mut agent, &host).await.expect("it ends").stop_reason, StopReason::EndTurn);
    assert_eq!(host.words(), "still here");
    assert!(host.notices().iter().any(|notice| notice.contains("Welcome!")), "{:?}", host.notices());
    assert_eq!(turn(&mut agent, &host).await.expect("it ends").stop_reason, StopReason::MaxTokens);
}

#[tokio::test]
async fn a_question_that_nobody_answers_is_refused_by_its_code() {
    let script = r#"open; hear; say '{"id":"q","method":"fs/read_text_file","params":{"path":"/etc/shadow"}}'; hear
        case $line in *-32601*) say '{"id":3,"result":{"stopReason":"end_turn"}}';; esac; hear"#;
    let (mut agent, _process) = program(script, patient());
    let host = Host::new();
    turn(&mut agent, &host).await.expect("it was answered");
    let answered = |update: &Update| matches!(update, Update::Raw { direction: RawDirection::ToAgent, json } if json.contains("\"id\":\"q\""));
    assert!(host.updates().iter().any(answered), "the raw answer is kept");
}

#[tokio::test]
async fn a_refused_prompt_ends_the_turn_but_not_the_agent() {
    let script = r#"open; hear; say '{"id":3,"error":{"code":-32603,"message":"Internal error","data":"429 slow down"}}'
        hear; say '{"id":4,"result":{"stopReason":"end_turn"}}'; hear"#;
    let (mut agent, _process) = program(script, patient());
    let error = turn(&mut agent, &Host::new()).await.expect_err("it refused");
    assert!(matches!(&error, AgentError::Refused { reason, .. } if reason.contains("429 slow down")), "{error}");
    assert!(turn(&mut agent, &Host::new()).await.is_ok());
}

#[tokio::test]
async fn one_that_does_not_stop_is_told_to_whoever_can_kill_it() {
    let (mut agent, _process) = program("open; hear; exec yes '{\"method\":\"x\"}'", impatient());
    let (host, stop) = (Host::new(), CancellationToken::new());
    let flooding = |update: &Update| matches!(update, Update::Raw { json, .. } if json.contains(r#""method":"x""#));
    let stopper = async {
        host.until(flooding).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(agent.prompt(prompt("go"), &host, stop.clone()), stopper);
    let error = ended.expect_err("it goes on");
    assert!(matches!(error, AgentError::Deadline { waiting_for: "the end of a stopped turn", .. }), "{error}");
    assert!(!agent.is_usable());
}

#[tokio::test]
async fn a_stop_answers_the_open_permission_requests() {
    let script = r#"open; hear
        say '{"id":0,"method":"session/request_permission","params":{"toolCall":{"toolCallId":"a","title":"rm"},
            "options":[{"optionId":"yes","name":"Yes","kind":"allow_once"}]}}' | tr -d '\n'; echo
        hear; case $line in *session/cancel*) ;; *) exit 1;; esac
        hear; case $line in *cancelled*) say '{"id":3,"result":{"stopReason":"end_turn"}}';; esac; hear"#;
    let (mut agent, _process) = program(script, patient());
    // Nothing is offered that this host would choose, so that it waits for ever.
    let (host, stop) = (Host::answering(PermissionOptionKind::RejectAlways), CancellationToken::new());
    let stopper = async {
        host.until(|update| matches!(update, Update::ToolCall(_))).await;
        while host.permissions().is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(agent.prompt(prompt("go"), &host, stop.clone()), stopper);
    assert_eq!(ended.expect("it stops").stop_reason, StopReason::Cancelled);
    assert_eq!(host.calls()[0].status, ToolStatus::Failed);
}

#[tokio::test]
async fn a_conversation_that_cannot_be_loaded_begins_anew_with_its_transcript() {
    let script = r#"hear; say '{"id":1,"result":{"agentCapabilities":{"loadSession":true}}}'
        hear; say '{"id":2,"error":{"code":-32602,"message":"Invalid session identifier"}}'
        hear; say '{"id":3,"result":{"sessionId":"fresh"}}'
        hear; case $line in *'add was wrong'*hello*) say '{"id":4,"result":{"stopReason":"end_turn"}}';; esac; hear"#;
    let resume = Resume { agent_session: "old".into(), transcript: "add was wrong".into() };
    let (mut agent, _process) = program(script, AcpConfig { resume: Some(resume), ..patient() });
    let host = Host::new();
    turn(&mut agent, &host).await.expect("it goes on");
    assert_eq!(host.agent_session().as_deref(), Some("fresh"));
    assert!(host.notices()[0].contains("Invalid session identifier"), "{:?}", host.notices());
}

#[tokio::test]
async fn an_agent_is_asked_to_leave() {
    let (mut agent, mut process) =
        program("open; hear; say '{\"id\":3,\"result\":{\"stopReason\":\"end_turn\"}}'; hear; exit 9", patient());
    turn(&mut agent, &Host::new()).await.expect("it ends");
    Box::new(agent).close().await;
    let status = tokio::time::timeout(Duration::from_secs(10), process.wait()).await.expect("it left").expect("waited");
    assert_eq!(status.code(), Some(0), "`hear` met the end of its input");

    // One that does not leave is not waited for.
    let (agent, _process) = program("exec sleep 600", impatient());
    Box::new(agent).close().await;
}

#[tokio::test]
async fn a_prompt_s_model_is_set_once_and_its_pictures_go_along() {
    let script = r#"hear; say '{"id":1,"result":{"agentCapabilities":{"promptCapabilities":{"image":true}}}}'
        hear; say '{"id":2,"result":{"sessionId":"s1","configOptions":[{"id":"model"}]}}'
        hear; case $line in *set_config_option*hob/large*) say '{"id":3,"result":{}}';; esac
        hear; case $line in *aGVsbG8=*) say '{"id":4,"result":{"stopReason":"end_turn"}}';; esac
        hear; case $line in *session/prompt*) say '{"id":5,"result":{"stopReason":"end_turn"}}';; esac; hear"#;
    let (mut agent, _process) = program(script, AcpConfig { model_prefix: "hob/".into(), ..patient() });
    let picture = Image { media_type: "image/png".into(), bytes: "hello".into() };
    for images in [vec![picture], Vec::new()] {
        let prompt = Prompt { model: Some("large".into()), images, ..prompt("look") };
        let turn = turn_of(&mut agent, prompt, &Host::new()).await;
        assert_eq!(turn.expect("it ends").stop_reason, StopReason::EndTurn);
    }
}

#[tokio::test]
async fn what_an_agent_does_not_take_is_told_and_does_not_end_the_turn() {
    let script = r#"open; hear; say '{"id":3,"error":{"code":-32602,"message":"no such mode"}}'
        hear; say '{"id":4,"result":{"stopReason":"end_turn"}}'; hear"#;
    let settings = vec![Setting::Title("Hob".into()), Setting::Mode("yolo".into())];
    let (mut agent, _process) = program(script, AcpConfig { settings, ..patient() });
    let host = Host::new();
    let picture = Image { media_type: "image/png".into(), bytes: "hello".into() };
    let prompt = Prompt { images: vec![picture], ..prompt("look") };
    turn_of(&mut agent, prompt, &host).await.expect("it ends");
    let notices = host.notices().join("\n");
    for part in ["no such mode", "no way to set the mode yolo", "no pictures"] {
        assert!(notices.contains(part), "{part} is not in {notices}");
    }
}

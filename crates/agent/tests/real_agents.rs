//! Real agents from npm, driven over real pipes; only the model is scripted.
//!
//! OpenCode and Goose always run; the others with `HOB_TEST_AGENTS=all`. They are installed into `HOB_AGENTS_DIR`, or
//! else `target/agents`, and kept there.

#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking, and may talk")]

mod agents;

use std::path::Path;
use std::time::Duration;

use agents::{Host, installed, launch, prompt, text_of};
use hob_agent::catalogue::{Access, Entry, Permissions, entry};
use hob_agent::{
    AcpAgent, Agent as _, ModelFormat, PermissionOptionKind, Resume, StopReason, ToolStatus, TurnEnd, Update,
};
use hob_scripted_model::{Running, ScriptedModel, Scripts, Step};
use tempfile::TempDir;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

const BROKEN: &str = "add() {\n    echo $(($1 - $2))\n}\n";
const FIXED: &str = "add() {\n    echo $(($1 + $2))\n}\n";
const TEST: &str = ". ./calc.sh\n[ \"$(add 2 3)\" = 5 ] && echo all is green\n";
const TOKEN: &str = "the-session-s-token";

/// A repository with a bug, an agent that is to mend it, and the model that tells it how.
struct Bench {
    entry: &'static Entry,
    access: Access,
    model: Running,
    _folder: TempDir,
}

impl Bench {
    /// `None` when this agent's tests were not asked for.
    async fn new(agent: &str, permissions: Permissions) -> Option<Self> {
        let entry = entry(agent).expect("it is in the catalogue");
        Self::with_format(agent, entry.formats[0], permissions).await
    }

    async fn with_format(agent: &str, format: ModelFormat, permissions: Permissions) -> Option<Self> {
        let is_default = matches!(agent, "opencode" | "goose");
        if !is_default && std::env::var("HOB_TEST_AGENTS").as_deref() != Ok("all") {
            println!("not asked for: HOB_TEST_AGENTS=all runs {agent} too");
            return None;
        }
        let entry = entry(agent).expect("it is in the catalogue");
        let toolchain = installed(entry);
        // Not below /tmp: Codex's own sandbox puts an empty one there.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let (home, workspace) = (folder.path().join("home"), folder.path().join("work"));
        std::fs::create_dir_all(&home).expect("made");
        std::fs::create_dir_all(&workspace).expect("made");
        std::fs::write(workspace.join("calc.sh"), BROKEN).expect("written");
        std::fs::write(workspace.join("test.sh"), TEST).expect("written");
        let scripts = Scripts { models: vec!["scripted-model".into()], key: Some(TOKEN.into()), ..scripts() };
        let model = ScriptedModel::start(scripts).await.expect("a free port");
        let access = Access {
            toolchain: toolchain.display().to_string(),
            home: home.display().to_string(),
            workspace: workspace.display().to_string(),
            gateway: model.base_url(),
            token: TOKEN.into(),
            model: "scripted-model".into(),
            format,
            context_tokens: 200_000,
            max_output_tokens: 8_000,
            permissions,
        };
        Some(Self { entry, access, model, _folder: folder })
    }

    fn agent(&self) -> (AcpAgent, Child) {
        launch(self.entry, &self.access, None, "p1:")
    }

    /// Whether the last request to the model held this.
    fn was_told(&self, text: &str) -> bool {
        self.model.requests().iter().rev().any(|request| request.body.to_string().contains(text))
    }

    fn code(&self) -> String {
        std::fs::read_to_string(Path::new(&self.access.workspace).join("calc.sh")).expect("it is there")
    }
}

fn scripts() -> Scripts {
    let edit = || Step::edit("calc.sh", "    echo $(($1 - $2))", "    echo $(($1 + $2))");
    Scripts::new()
        .script(
            "fix",
            [
                Step::Parallel(vec![Step::think("Look first."), Step::say("Let me look."), Step::read("calc.sh")]),
                edit(),
                Step::shell("sh test.sh"),
                Step::say("The sign was wrong."),
            ],
        )
        .when("the checks are red", [Step::shell("sh test.sh; echo looked again"), Step::say("They are green now.")])
        .script("sleep", [Step::shell("sleep 300"), Step::say("Slept.")])
        .script("plan", [Step::Plan { steps: vec!["look".into(), "mend".into()] }, Step::say("Planned.")])
        .when("what did I say", [Step::say("You said it before.")])
}

async fn turn(agent: &mut AcpAgent, text: &str, host: &Host) -> TurnEnd {
    let turn = agent.prompt(prompt(text), host, CancellationToken::new());
    let ended = tokio::time::timeout(Duration::from_secs(120), turn).await.expect("it ends in time");
    ended.unwrap_or_else(|error| panic!("failed to {error}\n{:#?}", host.notices()))
}

/// The main job: look, edit, test, tell; then a second prompt in the same conversation.
async fn mends_the_bug(bench: Bench) {
    let (mut agent, _process) = bench.agent();
    let host = Host::new();
    let end = turn(&mut agent, "add is wrong @@script:fix@@", &host).await;
    assert_eq!(end.stop_reason, StopReason::EndTurn);
    assert_eq!(bench.code(), FIXED, "{:#?}", host.calls());
    assert!(bench.was_told("all is green"), "the test's output did not reach the model");
    // Gemini CLI shows no output of its tools over the protocol.
    let shown = host.calls().iter().any(|call| text_of(call).contains("all is green"));
    assert!(shown || bench.entry.name == "gemini", "{:#?}", host.calls());
    assert!(host.calls().iter().all(|call| call.status == ToolStatus::Completed), "{:#?}", host.calls());
    assert!(host.words().contains("The sign was wrong."), "{}", host.words());
    assert_eq!(host.permissions(), [], "it is unattended");
    assert_eq!(host.notices(), Vec::<String>::new(), "it takes all settings");

    let again = Host::new();
    turn(&mut agent, "the checks are red", &again).await;
    assert!(again.words().contains("They are green now."), "{}", again.words());
    assert!(bench.was_told("looked again"));
    let ids = |host: &Host| host.calls().into_iter().map(|call| call.id).collect::<Vec<_>>();
    assert!(ids(&host).iter().all(|id| !ids(&again).contains(id)), "IDs are unique in a session");
    Box::new(agent).close().await;
    assert_eq!(bench.model.violations(), Vec::<String>::new());
}

/// A stop ends the turn at once, and the agent takes the next prompt.
async fn stops(bench: Bench) {
    let (mut agent, _process) = bench.agent();
    let host = Host::new();
    let stop = CancellationToken::new();
    let asleep = |update: &Update| {
        matches!(update, Update::ToolCall(call) if call.input.to_string().contains("sleep 300")
        || call.title.contains("sleep 300"))
    };
    let turn_end = agent.prompt(prompt("@@script:sleep@@"), &host, stop.clone());
    let stopper = async {
        host.until(asleep).await;
        stop.cancel();
        std::time::Instant::now()
    };
    let (end, stopped_at) = tokio::join!(turn_end, stopper);
    assert_eq!(end.expect("it stops").stop_reason, StopReason::Cancelled);
    assert!(stopped_at.elapsed() < Duration::from_secs(5), "{:?}", stopped_at.elapsed());
    println!("{} stopped within {:?}", bench.entry.name, stopped_at.elapsed());
    let open = |status| matches!(status, ToolStatus::Pending | ToolStatus::InProgress);
    assert!(!host.calls().iter().any(|call| open(call.status)), "{:#?}", host.calls());
    let after = Host::new();
    turn(&mut agent, "@@script:fix@@", &after).await;
    assert_eq!(bench.code(), FIXED, "{:#?}", after.calls());
}

/// A process that was killed is followed by another one, which knows what was said.
async fn goes_on_in_a_new_process(bench: Bench) {
    let (mut agent, mut process) = bench.agent();
    let host = Host::new();
    turn(&mut agent, "@@script:fix@@", &host).await;
    let session = host.agent_session().expect("it told its ID");
    process.kill().await.expect("killed");
    let error = agent.prompt(prompt("hello"), &host, CancellationToken::new()).await.expect_err("it is dead");
    assert!(error.to_string().contains("keep the agent"), "{error}");
    assert!(!agent.is_usable());

    let resume = Resume { agent_session: session.clone(), transcript: "add was wrong and is mended".into() };
    let (mut agent, _process) = launch(bench.entry, &bench.access, Some(resume), "p2:");
    let host = Host::new();
    turn(&mut agent, "what did I say", &host).await;
    assert!(host.words().contains("You said it before."), "{}", host.words());
    assert!(!host.words().contains("The sign was wrong."), "what is loaded is told again");
    let last = bench.model.requests().pop().expect("it asked the model").body.to_string();
    if host.agent_session().as_ref() == Some(&session) {
        assert!(last.contains("@@script:fix@@"), "the conversation is not in the request");
    } else {
        assert!(last.contains("add was wrong and is mended"), "the transcript is not in the request");
        println!("{} began anew: {:?}", bench.entry.name, host.notices());
    }
}

/// In the ask mode, a refused edit leaves the file as it was.
async fn asks(bench: Bench) {
    let (mut agent, _process) = bench.agent();
    let host = Host::answering(PermissionOptionKind::RejectOnce);
    let stop = CancellationToken::new();
    let turn = agent.prompt(prompt("@@script:fix@@"), &host, stop.clone());
    let ended = tokio::time::timeout(Duration::from_secs(120), turn).await.expect("it ends in time");
    assert!(ended.is_ok(), "{ended:?}");
    assert!(!host.permissions().is_empty(), "it asked nothing: {:#?}", host.calls());
    assert_eq!(bench.code(), BROKEN);
}

macro_rules! tests_of {
    ($agent:ident) => {
        mod $agent {
            use super::*;

            #[tokio::test]
            async fn mends_the_bug() {
                if let Some(bench) = Bench::new(stringify!($agent), Permissions::Unattended).await {
                    crate::mends_the_bug(bench).await;
                }
            }

            #[tokio::test]
            async fn stops() {
                if let Some(bench) = Bench::new(stringify!($agent), Permissions::Unattended).await {
                    crate::stops(bench).await;
                }
            }

            #[tokio::test]
            async fn goes_on_in_a_new_process() {
                if let Some(bench) = Bench::new(stringify!($agent), Permissions::Unattended).await {
                    crate::goes_on_in_a_new_process(bench).await;
                }
            }

            #[tokio::test]
            async fn asks() {
                if let Some(bench) = Bench::new(stringify!($agent), Permissions::Ask).await {
                    crate::asks(bench).await;
                }
            }
        }
    };
}

mod real_agents {
    use super::*;

    tests_of!(opencode);
    tests_of!(goose);
    tests_of!(codex);
    tests_of!(claude);
    tests_of!(gemini);

    /// OpenCode speaks whatever the model does.
    #[tokio::test]
    async fn opencode_mends_the_bug_in_every_format() {
        for format in entry("opencode").expect("it is in the catalogue").formats {
            println!("in {format:?}");
            let bench =
                Bench::with_format("opencode", *format, Permissions::Unattended).await.expect("it is a default");
            mends_the_bug(bench).await;
        }
    }
}

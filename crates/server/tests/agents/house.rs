//! A server with an installed agent, a scripted model behind three providers that want a key, and a package whose test
//! is red.

use std::path::PathBuf;

use hob_agent::ModelFormat;
use hob_agent::catalogue::{Entry, entry};
use hob_scripted_model::{ScriptedModel, Scripts, Step, Wire};

use crate::common::{Session, TestServer};
use crate::installed;

/// The key that the model wants. The gateway adds it; whoever finds it inside a sandbox could spend it.
pub const KEY: &str = "canary-4f1d0c9e7a";
/// Mends the package.
pub const FIX: &str = "@@script:fix@@ add subtracts";
/// Runs [`WAIT`].
pub const WAIT_FOR_IT: &str = "@@script:wait@@ wait for it";
/// A command that does not end by itself. Claude Code refuses a long `sleep`.
pub const WAIT: &str = "tail -f /dev/null";
/// A question that only somebody can answer who knows what was said before.
pub const RECALL: &str = "@@script:recall@@ what did I say?";

const PACKAGE: [(&str, &str); 4] = [
    (
        "package.json",
        "{ \"name\": \"sum\", \"version\": \"1.0.0\", \"private\": true, \"scripts\": { \"test\": \"node --test\" } }\n",
    ),
    ("index.js", "exports.add = (a, b) => {\n    return a - b\n}\n"),
    (
        "test/add.test.js",
        "const { test } = require(\"node:test\");\nconst { strictEqual } = require(\"node:assert\");\n\
         const { add } = require(\"..\");\n\ntest(\"adds\", () => strictEqual(add(2, 3), 5));\n",
    ),
    (".hob/environment.toml", "[[checks]]\nname = \"test\"\ncommand = \"node --test\"\n"),
];

fn scripts() -> Scripts {
    let scripts = Scripts::new()
        // First, since some agents join a prompt that was stopped and the next one to one message.
        .script("recall", [Step::say("You said it before.")])
        .script(
            "fix",
            [
                Step::Parallel(vec![Step::think("Look first."), Step::say("Let me look."), Step::read("index.js")]),
                Step::edit("index.js", "    return a - b", "    return a + b"),
                Step::shell("node --test"),
                Step::say("The sign was wrong."),
            ],
        )
        .script("wait", [Step::shell(WAIT), Step::say("Waited.")]);
    Scripts { models: vec!["scripted-model".into()], key: Some(KEY.into()), forbidden: vec![KEY.into()], ..scripts }
}

/// A server with one agent of the catalogue beside the built-in one.
pub struct House {
    pub server: TestServer,
    pub agent: &'static str,
    /// The model in the format that the agent likes best; the built-in agent speaks it too.
    pub model: &'static str,
    pub repository: PathBuf,
}

impl House {
    /// `None` when the tests of this agent were not asked for.
    pub async fn with(agent: &'static str) -> Option<Self> {
        let is_default = matches!(agent, "opencode" | "goose");
        if !is_default && std::env::var("HOB_TEST_AGENTS").as_deref() != Ok("all") {
            println!("not asked for: HOB_TEST_AGENTS=all runs {agent} too");
            return None;
        }
        let entry = entry(agent).expect("it is in the catalogue");
        let toolchains = installed::toolchains_with(entry);
        let house = Self::start(agent, provider_of(entry)).await;
        std::os::unix::fs::symlink(toolchains, house.server.data_dir().join("agents")).expect("a link");
        Some(house)
    }

    pub async fn start(agent: &'static str, model: &'static str) -> Self {
        let scripted = ScriptedModel::start(scripts()).await.expect("the scripted model starts");
        let mut configuration = String::new();
        for (provider, base) in [("anthropic", ""), ("openai", "/v1"), ("gemini", "")] {
            configuration += &format!(
                "[providers.{provider}]\nkind = \"{provider}\"\nbase_url = \"{}{base}\"\nkey = \"env:TEST_KEY\"\n\
                 [models.{provider}]\nprovider = \"{provider}\"\nname = \"scripted-model\"\n\
                 input_usd = 1.0\noutput_usd = 2.0\n",
                scripted.base_url()
            );
        }
        let server = TestServer::start_on(scripted, &configuration, &[("TEST_KEY", KEY)]).await;
        let repository = server.repository_of(&PACKAGE);
        for (key, value) in [("user.name", "Mona"), ("user.email", "mona@example.org")] {
            assert!(hob::git::run(Some(&repository), &["config", key, value]).expect("git").status.success());
        }
        Self { server, agent, model, repository }
    }

    /// `hob run --detach`.
    pub async fn run(&self, agent: &str, prompt: &str) -> Session<'_> {
        let arguments = ["run", "--detach", "--agent", agent, "--model", self.model, prompt];
        let run = self.server.hob_in(&self.repository, &arguments).await;
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        Session { server: &self.server, id: String::from_utf8(run.stdout).expect("an ID").trim().to_owned() }
    }

    /// The diff of a session, as a person gets it.
    pub async fn diff(&self, session: &Session<'_>) -> String {
        String::from_utf8(self.server.hob(&["diff", &session.id]).await.stdout).expect("text")
    }

    /// The wire formats of all requests so far.
    pub fn wires(&self) -> Vec<Wire> {
        self.server.model.requests().iter().map(|request| request.wire).collect()
    }

    /// Whether the last request of a script's conversation held a text.
    pub fn was_told(&self, script: &str, text: &str) -> bool {
        let requests = self.server.model.requests();
        let last = requests.iter().rev().find(|request| request.script.as_deref() == Some(script));
        last.is_some_and(|request| request.body.to_string().contains(text))
    }

    /// Nothing was wrong with what the model was asked, and each request came through the gateway: only that knows the
    /// key.
    #[track_caller]
    pub fn assert_well_asked(&self) {
        assert_eq!(self.server.model.violations(), Vec::<String>::new());
        assert!(self.server.model.requests().iter().all(|request| request.key.as_deref() == Some(KEY)));
    }
}

/// The provider that speaks what the agent likes best.
fn provider_of(entry: &Entry) -> &'static str {
    match entry.formats.first() {
        Some(ModelFormat::Anthropic) => "anthropic",
        Some(ModelFormat::Gemini) => "gemini",
        _ => "openai",
    }
}

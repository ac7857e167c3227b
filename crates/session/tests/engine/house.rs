//! An engine with everything real: its store, git, sandboxes, the built-in agent. Only the model is stood in for, by a
//! server that plays a script.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use hob_agent::{Author, ModelFormat};
use hob_sandbox::{Local, LocalConfig};
use hob_scripted_model::{Running, ScriptedModel, Scripts};
use hob_session::event::TurnOutcome;
use hob_session::{
    Access, Agents, Deps, Doors, Engine, EngineConfig, Event, EventKind, ModelFacts, NewExec, NewPrompt, NewSession,
    SessionId, State, Summary, SystemClock, SystemIds,
};
use tokio_util::task::TaskTracker;

/// Everything that a test waits for ends within this.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A server's data folder, its sandboxes, its model and its engine.
pub struct House {
    pub engine: Engine,
    pub model: Running,
    pub config: EngineConfig,
    pub deps: Deps,
    local: Local,
    pub folder: tempfile::TempDir,
}

/// The door of every session leads straight to the scripted model: nothing in these tests leaves a sandbox.
pub struct OneDoor {
    base_url: String,
    socket: PathBuf,
}

#[async_trait]
impl Doors for OneDoor {
    async fn open(&self, session: &SessionId, epoch: u64) -> Result<Access, String> {
        let token = format!("{session}-{epoch}");
        let base_url = self.base_url.clone();
        Ok(Access { socket: self.socket.clone(), token, inside_url: base_url.clone(), base_url })
    }

    async fn close(&self, _session: &SessionId) {}
}

impl House {
    pub async fn new(scripts: Scripts) -> Self {
        Self::with(scripts, |_| {}).await
    }

    /// With another configuration than the default.
    pub async fn with(scripts: Scripts, change: impl FnOnce(&mut EngineConfig)) -> Self {
        let folder = tempfile::Builder::new().prefix("hob-engine-").tempdir().unwrap();
        let model = ScriptedModel::start(scripts).await.unwrap();
        let local = Local::open(LocalConfig::new(folder.path().join("sandboxes"))).await.unwrap();
        let deps = deps(folder.path(), &model.base_url(), local.clone());
        let mut config = EngineConfig::new(folder.path().join("data"));
        change(&mut config);
        let engine = Engine::open(config.clone(), deps.clone()).await.unwrap();
        repository(&folder.path().join("repo"));
        Self { engine, model, config, deps, local, folder }
    }

    /// Commits another environment to the repository.
    pub fn environment(&self, text: &str) {
        std::fs::write(self.repo().join(hob_session::environment::PATH), text).unwrap();
        git(&self.repo(), &["commit", "--quiet", "--all", "-m", "Another environment"]);
    }

    /// What a command line in a session's sandbox writes to its standard output.
    pub async fn sh(&self, id: &SessionId, line: &str) -> String {
        let argv = ["sh", "-c", line].map(str::to_owned).to_vec();
        let exec = NewExec { argv, cwd: None, env: BTreeMap::new(), stdin: false, timeout: None };
        let output = self.engine.exec(id, exec).await.unwrap().process.wait_output(64 << 10).await;
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn repo(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    /// A session that begins with a prompt.
    pub async fn session(&self, prompt: &str) -> SessionId {
        let new = NewSession { prompt: Some(self::prompt(prompt)), ..self.new_session() };
        self.engine.create(new).await.unwrap().session
    }

    pub fn new_session(&self) -> NewSession {
        NewSession {
            repository: self.repo().display().to_string(),
            base: None,
            agent: "hob".to_owned(),
            model: "scripted".to_owned(),
            author: ada(),
            title: None,
            prompt: None,
            idempotency_key: None,
        }
    }

    /// The process of a sandbox's guest: the first of its own process namespace, with the session's folder mounted.
    pub fn guest(&self, id: &SessionId) -> u32 {
        let is_guest = |pid: &u32| {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let first = read("status").lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"));
            first && read("mountinfo").contains(id.as_str())
        };
        let names = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
        let pids = names.filter_map(|name| name.to_string_lossy().parse::<u32>().ok());
        pids.into_iter().find(is_guest).unwrap()
    }

    /// The folder of a frozen layer.
    pub fn layer(&self, id: &hob_sandbox::LayerId) -> std::path::PathBuf {
        self.folder.path().join("sandboxes/layers").join(id.as_str())
    }

    pub async fn get(&self, id: &SessionId) -> Summary {
        self.engine.get(id).await.unwrap()
    }

    /// The whole log.
    pub async fn log(&self, id: &SessionId) -> Vec<Event> {
        let records = self.engine.events(id, 0, 1_000).await.unwrap();
        records.iter().map(|record| record.event().unwrap()).collect()
    }

    /// What the participants were told, a line each.
    pub async fn notices(&self, id: &SessionId) -> String {
        let told = self.log(id).await.into_iter().filter_map(|event| match event.kind {
            EventKind::Notice { text } => Some(text),
            _ => None,
        });
        told.collect::<Vec<_>>().join("\n")
    }

    /// Waits for an event.
    pub async fn wait(&self, id: &SessionId, what: impl Fn(&EventKind) -> bool) -> Event {
        self.wait_after(id, 0, what).await
    }

    /// Waits for an event after a place in the log.
    pub async fn wait_after(&self, id: &SessionId, since: u64, what: impl Fn(&EventKind) -> bool) -> Event {
        let mut events = self.engine.subscribe(id, since).await.unwrap();
        let found = async {
            while let Some(record) = events.next().await {
                let event = record.unwrap().event().unwrap();
                if what(&event.kind) {
                    return event;
                }
            }
            panic!("the log ended");
        };
        match tokio::time::timeout(LIMIT, found).await {
            Ok(event) => event,
            Err(_) => panic!("it never came; the log is\n{}", self.timeline(id).await),
        }
    }

    /// Waits for the end of the n-th turn, and gives its outcome and closing message.
    pub async fn turn_ended(&self, id: &SessionId, n: usize) -> (TurnOutcome, String) {
        let seen = std::cell::Cell::new(0);
        let ended = self.wait(id, |kind| {
            let is_end = matches!(kind, EventKind::TurnEnded { .. });
            seen.set(seen.get() + usize::from(is_end));
            is_end && seen.get() == n
        });
        match ended.await.kind {
            EventKind::TurnEnded { outcome, message, .. } => (outcome, message),
            other => panic!("{other:?}"),
        }
    }

    pub async fn state(&self, id: &SessionId, to: State) -> Event {
        self.wait(id, |kind| matches!(kind, EventKind::StateChanged { to: now, .. } if *now == to)).await
    }

    /// The log as a person reads it: a line per event.
    pub async fn timeline(&self, id: &SessionId) -> String {
        let lines: Vec<String> = self.log(id).await.iter().map(line).collect();
        lines.join("\n")
    }

    /// Ends the engine as `kill -9` would as far as the sandboxes go, and opens the next one on the same folder.
    pub async fn restart(mut self) -> Self {
        self.engine.shutdown().await;
        self.engine = Engine::open(self.config.clone(), self.deps.clone()).await.unwrap();
        self
    }

    pub async fn close(self) {
        self.engine.shutdown().await;
        self.local.shutdown().await.unwrap();
        self.model.shutdown().await;
    }
}

/// What an engine works with in these tests.
pub fn deps(folder: &Path, model_url: &str, local: Local) -> Deps {
    let facts =
        ModelFacts { formats: vec![ModelFormat::OpenAiChat], context_tokens: 100_000, max_output_tokens: 8_000 };
    let models = BTreeMap::from([("scripted".to_owned(), facts)]);
    let socket = folder.join("gateway.sock");
    Deps {
        provider: Arc::new(local),
        agents: Arc::new(Agents::new(models, folder.join("agents"), TaskTracker::new())),
        doors: Arc::new(OneDoor { base_url: model_url.to_owned(), socket }),
        clock: Arc::new(SystemClock),
        ids: Arc::new(SystemIds),
    }
}

/// A repository with a bug that its own test proves.
pub fn repository(folder: &Path) {
    std::fs::create_dir_all(folder.join(".hob")).unwrap();
    let environment = "[[checks]]\nname = \"test\"\ncommand = \"python3 test_calc.py\"\n";
    std::fs::write(folder.join(".hob/environment.toml"), environment).unwrap();
    std::fs::write(folder.join("calc.py"), "def add(a, b):\n    return a - b\n").unwrap();
    std::fs::write(folder.join("test_calc.py"), "from calc import add\nassert add(2, 2) == 4, \"add\"\n").unwrap();
    std::fs::write(folder.join(".gitignore"), "__pycache__/\n").unwrap();
    git(folder, &["init", "--quiet", "--initial-branch=main"]);
    git(folder, &["add", "."]);
    git(folder, &["commit", "--quiet", "-m", "A calculator"]);
}

pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=Grace", "-c", "user.email=grace@example.org"]).args(arguments).current_dir(folder);
    let output = command.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub fn prompt(text: &str) -> NewPrompt {
    NewPrompt { text: text.to_owned(), author: ada(), attachments: Vec::new(), model: None, idempotency_key: None }
}

pub fn ada() -> Author {
    Author { name: "Ada Lovelace".to_owned(), email: "ada@example.org".to_owned() }
}

pub fn grace() -> Author {
    Author { name: "Grace Hopper".to_owned(), email: "grace@example.org".to_owned() }
}

fn line(event: &Event) -> String {
    let what = match &event.kind {
        EventKind::StateChanged { from, to, cause } => format!("{from:?} -> {to:?}: {cause}"),
        EventKind::Phase { name, status, detail, .. } => {
            format!("phase {name} {status:?} {}", detail.as_deref().unwrap_or(""))
        }
        EventKind::Service { name, status, detail, log, .. } => format!("service {name} {status:?} {detail:?} {log:?}"),
        EventKind::Message { text, .. } => format!("message {text:?}"),
        EventKind::ToolCall(call) => format!("tool {} {:?} {:?}", call.title, call.status, call.content),
        EventKind::CheckEnded(run) => format!("check {} round {} exit {}", run.name, run.round, run.exit_code),
        EventKind::TurnEnded { outcome, message, .. } => format!("turn ended {outcome:?}: {message}"),
        other => format!("{other:?}").chars().take(160).collect(),
    };
    format!("{:>3} {what}", event.seq)
}

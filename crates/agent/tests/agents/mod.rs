//! What tests of external agents share: a host that records, a process behind pipes, an installed agent.

#![allow(dead_code, clippy::print_stdout, reason = "each test binary uses its own part, and may be asked to talk")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hob_agent::catalogue::{Access, Entry, LaunchSpec};
use hob_agent::{
    AcpAgent, AcpConfig, Answer, Author, Deadlines, PermissionOptionKind, PermissionOutcome, PermissionRequest, Prompt,
    Question, ToolCall, ToolContent, TurnHost, Update,
};
use tokio::process::{Child, Command};

/// A host that records everything and answers permission requests at once.
#[derive(Debug)]
pub(crate) struct Host {
    updates: Mutex<Vec<Update>>,
    requests: Mutex<Vec<PermissionRequest>>,
    answer: PermissionOptionKind,
    heard: tokio::sync::Notify,
}

impl Host {
    /// A host that chooses the option of that kind, or waits for ever when there is none.
    pub(crate) fn answering(answer: PermissionOptionKind) -> Self {
        Self { updates: Mutex::default(), requests: Mutex::default(), answer, heard: tokio::sync::Notify::new() }
    }

    pub(crate) fn new() -> Self {
        Self::answering(PermissionOptionKind::AllowOnce)
    }

    pub(crate) fn updates(&self) -> Vec<Update> {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn permissions(&self) -> Vec<PermissionRequest> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until an update is there for which `is` holds.
    pub(crate) async fn until(&self, is: impl Fn(&Update) -> bool) {
        loop {
            let heard = self.heard.notified();
            if self.updates().iter().any(&is) {
                return;
            }
            heard.await;
        }
    }

    /// The last state of each tool call, in the order in which they began.
    pub(crate) fn calls(&self) -> Vec<ToolCall> {
        let mut calls: Vec<ToolCall> = Vec::new();
        for update in self.updates() {
            if let Update::ToolCall(call) = update {
                match calls.iter_mut().find(|known| known.id == call.id) {
                    Some(known) => *known = call,
                    None => calls.push(call),
                }
            }
        }
        calls
    }

    pub(crate) fn words(&self) -> String {
        let pieces = self.updates().into_iter().filter_map(|update| match update {
            Update::Message { text, .. } => Some(text),
            _ => None,
        });
        pieces.collect()
    }

    pub(crate) fn agent_session(&self) -> Option<String> {
        self.updates().into_iter().rev().find_map(|update| match update {
            Update::AgentSession(id) => Some(id),
            _ => None,
        })
    }

    pub(crate) fn notices(&self) -> Vec<String> {
        let notices = self.updates().into_iter().filter_map(|update| match update {
            Update::Notice(text) => Some(text),
            _ => None,
        });
        notices.collect()
    }
}

#[async_trait]
impl TurnHost for Host {
    async fn update(&self, update: Update) {
        if std::env::var_os("HOB_TEST_SHOW").is_some() {
            println!("{update:?}");
        }
        self.updates.lock().unwrap_or_else(PoisonError::into_inner).push(update);
        self.heard.notify_waiters();
    }

    async fn permission(&self, request: PermissionRequest) -> PermissionOutcome {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        match request.options.into_iter().find(|option| option.kind == self.answer) {
            Some(option) => PermissionOutcome::Selected { option_id: option.id },
            None => std::future::pending().await,
        }
    }

    async fn ask(&self, _question: Question) -> Answer {
        Answer::None { reason: "nobody is here".into() }
    }
}

/// A prompt of these words.
pub(crate) fn prompt(text: &str) -> Prompt {
    let author = Author { name: "Ada".into(), email: "ada@example.org".into() };
    Prompt { text: text.into(), images: Vec::new(), author, model: None }
}

/// A configuration with deadlines for a slow machine.
pub(crate) fn config(agent: &str, cwd: &Path) -> AcpConfig {
    AcpConfig {
        agent: agent.into(),
        cwd: cwd.display().to_string(),
        id_prefix: "p1:".into(),
        resume: None,
        settings: Vec::new(),
        model_prefix: String::new(),
        mcp_servers: Vec::new(),
        deadlines: Deadlines { stop: Duration::from_secs(10), ..Deadlines::default() },
    }
}

/// An agent's process and the driver at its pipes.
pub(crate) fn connect(mut command: Command, config: AcpConfig) -> (AcpAgent, Child) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(if std::env::var_os("HOB_TEST_SHOW").is_some() { Stdio::inherit() } else { Stdio::null() })
        .kill_on_drop(true)
        .spawn()
        .expect("the agent's program starts");
    let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    (AcpAgent::new(Box::new(output), Box::new(input), config), child)
}

/// Starts an agent as its entry says, with nothing of this process's environment but the path.
pub(crate) fn launch(
    entry: &Entry,
    access: &Access,
    resume: Option<hob_agent::Resume>,
    id_prefix: &str,
) -> (AcpAgent, Child) {
    let LaunchSpec { argv, env, path, files, settings, model_prefix } = entry.launch(access).expect("it can");
    for file in files {
        let path = Path::new(&file.path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, file.text).expect("written");
    }
    let search = std::env::var("PATH").expect("a path");
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .env_clear()
        .env("PATH", std::iter::once(search).chain(path).collect::<Vec<_>>().join(":"))
        .envs(env)
        .current_dir(&access.workspace);
    let cwd = PathBuf::from(&access.workspace);
    let config = AcpConfig { settings, model_prefix, resume, id_prefix: id_prefix.into(), ..config(entry.name, &cwd) };
    connect(command, config)
}

/// The folder of an installed agent. It is installed when it is not there yet; tests that want it at the same time
/// wait for each other.
pub(crate) fn installed(entry: &Entry) -> PathBuf {
    let root = std::env::var_os("HOB_AGENTS_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/agents"), PathBuf::from);
    std::fs::create_dir_all(&root).expect("a folder for agents");
    let plan = entry.install_plan();
    let lock = std::fs::File::create(root.join(format!("{}.lock", plan.folder))).expect("a lock");
    lock.lock().expect("locked");
    let folder = root.join(&plan.folder);
    let is_there =
        plan.files.iter().all(|(name, text)| std::fs::read_to_string(folder.join(name)).is_ok_and(|t| t == *text))
            && folder.join("complete").exists();
    if !is_there {
        std::fs::remove_dir_all(&folder).or_else(missing_is_fine).expect("the old one is gone");
        std::fs::create_dir_all(&folder).expect("made");
        for (name, text) in plan.files {
            std::fs::write(folder.join(name), text).expect("written");
        }
        let npm = std::process::Command::new(plan.argv[0]).args(&plan.argv[1..]).current_dir(&folder).output();
        let npm = npm.expect("npm, which installs agents, is there");
        assert!(npm.status.success(), "{}", String::from_utf8_lossy(&npm.stderr));
        for path in plan.prune {
            let path = folder.join(path);
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.or_else(missing_is_fine).expect("pruned");
        }
        for program in plan.programs {
            assert!(folder.join(program).exists(), "{program} is not in what npm installed");
        }
        std::fs::write(folder.join("complete"), "").expect("written");
    }
    folder.canonicalize().expect("it is there")
}

fn missing_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// All words in a tool call's contents.
pub(crate) fn text_of(call: &ToolCall) -> String {
    let texts = call.content.iter().filter_map(|content| match content {
        ToolContent::Text { text } => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

//! Commands that run beside the agent's work, and the tools that look after them: `shell_output`, `shell_kill`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::output::HeadTail;
use super::shell::with_state;
use super::{Tool, ToolContext, ToolFailure, ToolOutput, arguments, shown};
use crate::builtin::model::ToolSpec;
use crate::update::ToolKind;
use crate::workspace::{Purpose, ShellCommand, ShellEvent, ShellProcess, Workspace};

const RUNNING_MAX: usize = 16;
const KNOWN_MAX: usize = 64;
const TIME_MAX: Duration = Duration::from_secs(12 * 3_600);
const OUTPUT_BYTES_MAX: usize = 30 * 1024;
const WAIT_MAX: Duration = Duration::from_secs(120);

/// The background commands of a session. Dropping it kills them.
pub(in crate::builtin) struct Background {
    commands: Mutex<BTreeMap<u32, Arc<Command>>>,
    tasks: TaskTracker,
    closed: CancellationToken,
    _closes: DropGuard,
}

/// A background command.
struct Command {
    state: Mutex<State>,
    changed: Notify,
    /// Ends it.
    kill: CancellationToken,
}

struct State {
    /// What was not read yet.
    unread: HeadTail,
    /// Its end, when it has come.
    end: Option<String>,
}

impl Background {
    pub(in crate::builtin) fn new() -> Self {
        let closed = CancellationToken::new();
        let closes = closed.clone().drop_guard();
        Self { commands: Mutex::default(), tasks: TaskTracker::new(), closed, _closes: closes }
    }

    /// Where tasks run that end with the agent.
    pub(in crate::builtin) fn tasks(&self) -> (&TaskTracker, &CancellationToken) {
        (&self.tasks, &self.closed)
    }

    /// Kills all commands; returns when they are gone, or after `patience`.
    pub(in crate::builtin) async fn kill_all(&self, patience: Duration) {
        let commands: Vec<_> = self.lock().values().cloned().collect();
        for command in &commands {
            command.kill.cancel();
        }
        let gone = async {
            for command in &commands {
                command.until(State::ended).await;
            }
        };
        if tokio::time::timeout(patience, gone).await.is_err() {
            tracing::warn!("background commands were not gone in {} ms", patience.as_millis());
        }
    }

    /// Ends all that runs, for good.
    pub(in crate::builtin) async fn close(&self, patience: Duration) {
        self.kill_all(patience).await;
        self.closed.cancel();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!("tasks of the agent were not done in {} ms", patience.as_millis());
        }
    }

    pub(super) async fn start(
        &self,
        workspace: &dyn Workspace,
        line: String,
        stop: &CancellationToken,
    ) -> Result<ToolOutput, ToolFailure> {
        if self.lock().values().filter(|command| command.end().is_none()).count() >= RUNNING_MAX {
            return Err(ToolFailure(format!("{RUNNING_MAX} background commands are running; end one with shell_kill")));
        }
        let process = tokio::select! {
            started = workspace.shell(ShellCommand { line, cwd: None, timeout: TIME_MAX, purpose: Purpose::Any }) => started?,
            () = stop.cancelled() => return Err(ToolFailure("stopped by a participant".to_owned())),
        };
        let state = State { unread: HeadTail::new(OUTPUT_BYTES_MAX), end: None };
        let command =
            Arc::new(Command { state: Mutex::new(state), changed: Notify::new(), kill: self.closed.child_token() });
        let id = self.add(Arc::clone(&command));
        self.tasks.spawn(follow(process, command));
        Ok(ToolOutput::text(format!("started in the background with the id {id}; shell_output and shell_kill take it")))
    }

    fn add(&self, command: Arc<Command>) -> u32 {
        let mut commands = self.lock();
        let id = commands.last_key_value().map_or(1, |(last, _)| last + 1);
        commands.insert(id, command);
        if commands.len() > KNOWN_MAX
            && let Some(oldest) = commands.iter().find(|(_, command)| command.end().is_some()).map(|(id, _)| *id)
        {
            commands.remove(&oldest);
        }
        id
    }

    fn find(&self, id: u32) -> Result<Arc<Command>, ToolFailure> {
        let commands = self.lock();
        commands.get(&id).cloned().ok_or_else(|| {
            let known: Vec<String> = commands.keys().map(u32::to_string).collect();
            let known =
                if known.is_empty() { "there are none".to_owned() } else { format!("there are {}", known.join(", ")) };
            ToolFailure(format!("there is no background command {id}; {known}"))
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Arc<Command>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ended(&self) -> bool {
        self.end.is_some()
    }

    fn has_news(&self) -> bool {
        self.ended() || !self.unread.is_empty()
    }
}

impl Command {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> Option<String> {
        self.lock().end.clone()
    }

    /// Returns when `wanted` holds.
    async fn until(&self, wanted: fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change is missed.
            changed.as_mut().enable();
            if wanted(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// What was not read before, and how the command fares.
    fn take_text(&self) -> String {
        let mut state = self.lock();
        let unread = std::mem::replace(&mut state.unread, HeadTail::new(OUTPUT_BYTES_MAX));
        let fares = state.end.clone().unwrap_or_else(|| "running".to_owned());
        with_state(&unread.text(), &fares)
    }
}

/// Collects what the command writes until it ends or is killed.
async fn follow(mut process: Box<dyn ShellProcess>, command: Arc<Command>) {
    let end = loop {
        let event = tokio::select! {
            event = process.next() => event,
            () = command.kill.cancelled() => {
                process.kill().await;
                break "killed".to_owned();
            }
        };
        match event {
            Some(ShellEvent::Stdout(bytes) | ShellEvent::Stderr(bytes)) => {
                command.lock().unread.push(&bytes);
                command.changed.notify_waiters();
            }
            Some(ShellEvent::Exited { timed_out: true, .. }) => break "killed at its time limit".to_owned(),
            Some(ShellEvent::Exited { code, .. }) => break format!("exit {code}"),
            None => break "its end is not known".to_owned(),
        }
    };
    command.lock().end = Some(end);
    command.changed.notify_waiters();
}

/// `shell_output`: what a background command wrote since the last look.
pub(super) struct ShellOutput;

/// `shell_kill`: ends a background command.
pub(super) struct ShellKill;

#[derive(Deserialize)]
struct OutputArguments {
    id: Id,
    #[serde(default)]
    wait_seconds: u64,
}

#[derive(Deserialize)]
struct KillArguments {
    id: Id,
}

/// Models write numbers as strings now and then.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u32),
    Text(String),
}

impl Id {
    fn number(&self) -> Result<u32, ToolFailure> {
        match self {
            Self::Number(id) => Ok(*id),
            Self::Text(text) => text.trim().parse().map_err(|_| ToolFailure(format!("{text} is no id"))),
        }
    }
}

#[async_trait]
impl Tool for ShellOutput {
    fn name(&self) -> &'static str {
        "shell_output"
    }

    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name(),
            description: "Gives what a background command wrote since you last looked, and whether it still runs.",
            schema: json!({
                "type": "object",
                "properties": {
                    "id": { "type": "integer", "description": "The id that shell gave" },
                    "wait_seconds": { "type": "integer", "description": "How long to wait for new output or its end; 0 when absent, at most 120" },
                },
                "required": ["id"],
            }),
        }
    }

    fn kind(&self) -> ToolKind {
        ToolKind::Execute
    }

    fn title(&self, input: &Value) -> String {
        format!("output of background command {}", id_shown(input))
    }

    async fn run(&self, input: Value, cx: &ToolContext<'_>) -> Result<ToolOutput, ToolFailure> {
        let asked: OutputArguments = arguments(self, input)?;
        let command = cx.background.find(asked.id.number()?)?;
        let wait = Duration::from_secs(asked.wait_seconds).min(WAIT_MAX);
        // Late or not, there is something to tell.
        drop(tokio::time::timeout(wait, command.until(State::has_news)).await);
        Ok(ToolOutput::text(command.take_text()))
    }
}

#[async_trait]
impl Tool for ShellKill {
    fn name(&self) -> &'static str {
        "shell_kill"
    }

    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name(),
            description: "Ends a background command with all that it started, and gives its last output.",
            schema: json!({
                "type": "object",
                "properties": { "id": { "type": "integer", "description": "The id that shell gave" } },
                "required": ["id"],
            }),
        }
    }

    fn kind(&self) -> ToolKind {
        ToolKind::Execute
    }

    fn title(&self, input: &Value) -> String {
        format!("kill background command {}", id_shown(input))
    }

    async fn run(&self, input: Value, cx: &ToolContext<'_>) -> Result<ToolOutput, ToolFailure> {
        let asked: KillArguments = arguments(self, input)?;
        let command = cx.background.find(asked.id.number()?)?;
        command.kill.cancel();
        command.until(State::ended).await;
        Ok(ToolOutput::text(command.take_text()))
    }
}

fn id_shown(input: &Value) -> String {
    match input.get("id") {
        Some(Value::Number(id)) => id.to_string(),
        _ => shown(input, "id"),
    }
}

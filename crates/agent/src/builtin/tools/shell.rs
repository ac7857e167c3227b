//! `shell`: runs a command, shows its output as it comes, and ends with all that it started when its time is up.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use super::output::HeadTail;
use super::{Access, TEXT_BYTES_MAX, Tool, ToolContext, ToolFailure, ToolOutput, arguments, shown};
use crate::builtin::model::ToolSpec;
use crate::update::ToolKind;
use crate::workspace::{Purpose, ShellCommand, ShellEvent, ShellProcess};

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// What the model reads of one command.
const OUTPUT_BYTES_MAX: usize = TEXT_BYTES_MAX / 2;
/// Participants see output in steps of this length, and the end of it while it runs.
const PROGRESS_EVERY: Duration = Duration::from_millis(150);
const PROGRESS_BYTES_MAX: usize = 4 * 1024;

pub(super) struct Shell;

#[derive(Deserialize)]
struct Arguments {
    #[serde(alias = "cmd")]
    command: String,
    #[serde(alias = "timeout")]
    timeout_seconds: Option<u64>,
    #[serde(default)]
    background: bool,
}

#[async_trait]
impl Tool for Shell {
    fn name(&self) -> &'static str {
        "shell"
    }

    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name(),
            description: "Runs a command with bash in the workspace's root and gives its output and exit code. Each \
                          call is a new shell. Long output is shown by its start and end. With background it goes on \
                          running beside your work and an id is given.",
            schema: json!({
                "type": "object",
                "properties": {
                    "command": { "type": "string", "description": "The command line" },
                    "timeout_seconds": { "type": "integer", "description": "Its time limit: 120 when absent, at most 3600" },
                    "background": { "type": "boolean", "description": "For servers and watchers" },
                },
                "required": ["command"],
            }),
        }
    }

    fn kind(&self) -> ToolKind {
        ToolKind::Execute
    }

    fn access(&self) -> Access {
        Access::Writes
    }

    fn title(&self, input: &Value) -> String {
        shown(input, "command")
    }

    fn ends_itself(&self) -> bool {
        true
    }

    async fn run(&self, input: Value, cx: &ToolContext<'_>) -> Result<ToolOutput, ToolFailure> {
        let asked: Arguments = arguments(self, input)?;
        if asked.command.trim().is_empty() {
            return Err(ToolFailure("the command is empty".to_owned()));
        }
        if asked.background {
            return cx.background.start(cx.workspace, asked.command, cx.stop).await;
        }
        let timeout = asked
            .timeout_seconds
            .map_or(TIMEOUT_DEFAULT, Duration::from_secs)
            .clamp(Duration::from_secs(1), TIMEOUT_MAX);
        let command = ShellCommand { line: asked.command, cwd: None, timeout, purpose: Purpose::Any };
        let mut process = tokio::select! {
            started = cx.workspace.shell(command) => started?,
            () = cx.stop.cancelled() => return Err(stopped("")),
        };
        let mut output = HeadTail::new(OUTPUT_BYTES_MAX);
        let ended = watch(process.as_mut(), &mut output, cx).await;
        let text = match cx.workspace.news() {
            Some(news) => format!("{news}\n\n{}", output.text()),
            None => output.text(),
        };
        match ended {
            Ended::Exited { code: 0, .. } => Ok(ToolOutput::text(with_state(&text, "exit 0"))),
            Ended::Exited { timed_out: true, .. } => {
                let said = format!("killed at its time limit of {} s, with all it started", timeout.as_secs());
                Err(ToolFailure(with_state(&text, &said)))
            }
            Ended::Exited { code, .. } => {
                let shown = ToolOutput::text(with_state(&text, &format!("exit {code}")));
                Ok(ToolOutput { unsuccessful: true, ..shown })
            }
            Ended::Lost => {
                Err(ToolFailure(with_state(&text, "the command's end is not known: the sandbox did not say")))
            }
            Ended::Stopped => Err(stopped(&text)),
        }
    }
}

/// How a command ended.
enum Ended {
    Exited {
        code: i32,
        timed_out: bool,
    },
    /// Its events ended without an exit.
    Lost,
    /// The turn was stopped.
    Stopped,
}

/// Follows the command to its end, and shows what it writes.
async fn watch(process: &mut dyn ShellProcess, output: &mut HeadTail, cx: &ToolContext<'_>) -> Ended {
    let mut ticks = tokio::time::interval_at(Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unseen = false;
    loop {
        let event = tokio::select! {
            biased;
            () = cx.stop.cancelled() => {
                process.kill().await;
                return Ended::Stopped;
            }
            _ = ticks.tick(), if unseen => {
                unseen = false;
                cx.progress(output.end(PROGRESS_BYTES_MAX)).await;
                continue;
            }
            event = process.next() => event,
        };
        match event {
            Some(ShellEvent::Stdout(bytes) | ShellEvent::Stderr(bytes)) => {
                output.push(&bytes);
                unseen = true;
            }
            Some(ShellEvent::Exited { code, timed_out }) => return Ended::Exited { code, timed_out },
            None => return Ended::Lost,
        }
    }
}

fn stopped(text: &str) -> ToolFailure {
    ToolFailure(with_state(text, "stopped by a participant, with all it started"))
}

/// Output with a last line on how the command fared.
pub(super) fn with_state(text: &str, state: &str) -> String {
    let text = text.trim_end();
    if text.is_empty() { format!("[{state}]") } else { format!("{text}\n[{state}]") }
}

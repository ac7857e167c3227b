//! External agents for a session: a process in the sandbox, its two pipes, and what it said to standard error.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hob_agent::catalogue::{self, Entry, LaunchSpec};
use hob_agent::{AcpAgent, AcpConfig, Agent, AgentError, Deadlines, Prompt, Resume, TurnEnd, TurnHost};
use hob_sandbox::{Command, Mount, Process, ProcessEvent, Sandbox, Stdin};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{AgentStart, ModelFacts, built_in};
use crate::checks::clip;

/// Where the checkout is inside every sandbox.
const WORKSPACE: &str = "/workspace";

/// Where an agent's toolchain is inside every sandbox.
const TOOLCHAINS: &str = "/opt/hob/agents";

/// The agent's home folder inside the sandbox.
const HOME: &str = "/root";

/// Bytes that wait in a pipe to or from an agent.
const PIPE_BYTES: usize = 256 << 10;

/// What is kept of an agent's standard error, in lines.
const STDERR_LINES_MAX: usize = 12;

/// How long an agent may take to end its turn after a stop. Then it is killed, with what it runs.
const STOP_DEADLINE: Duration = Duration::from_millis(500);

/// What an agent that cannot load its conversation is told of it, in bytes.
const TRANSCRIPT_BYTES_MAX: usize = 32 << 10;

/// Adds folders to the end of the sandbox's own `PATH`, whatever that is.
const WITH_PATH: &str = "PATH=\"$PATH:$1\"; export PATH; shift; exec \"$@\"";

/// The folder of the host that an agent is installed in, whether it is or not.
pub(super) fn toolchain(agents_dir: &Path, entry: &Entry) -> PathBuf {
    agents_dir.join(entry.install_plan().folder)
}

/// The agent's toolchain as its sandbox sees it.
pub(super) fn mount(agents_dir: &Path, entry: &Entry) -> Mount {
    Mount { source: toolchain(agents_dir, entry), target: Path::new(TOOLCHAINS).join(entry.name) }
}

/// Starts the agent's process in the sandbox, as soon as that can be read.
pub(super) async fn start(
    start: AgentStart,
    entry: &'static Entry,
    facts: &ModelFacts,
    tasks: &TaskTracker,
) -> Result<Box<dyn Agent>, AgentError> {
    let died = |reason: String| AgentError::Died { agent: entry.name.to_owned(), reason };
    let format = entry.formats.iter().copied().find(|format| facts.formats.contains(format));
    let access = catalogue::Access {
        toolchain: format!("{TOOLCHAINS}/{}", entry.name),
        home: HOME.to_owned(),
        workspace: WORKSPACE.to_owned(),
        gateway: start.access.inside_url.clone(),
        token: start.access.token.clone(),
        model: start.model.clone(),
        format: format.unwrap_or(facts.first_format()),
        context_tokens: facts.context_tokens,
        max_output_tokens: facts.max_output_tokens,
        permissions: start.permissions,
    };
    let launch = entry.launch(&access).map_err(|error| died(error.to_string()))?;
    let sandbox = start.sandbox.readable().await.map_err(|reason| died(format!("there is no sandbox: {reason}")))?;
    let process = launched(&sandbox, &launch).await.map_err(|error| died(format!("failed to {error}")))?;
    let config = AcpConfig {
        agent: entry.name.to_owned(),
        cwd: WORKSPACE.to_owned(),
        id_prefix: start.id_prefix.clone(),
        resume: resume(&start),
        settings: launch.settings,
        model_prefix: launch.model_prefix,
        mcp_servers: Vec::new(),
        deadlines: Deadlines { stop: STOP_DEADLINE, ..Deadlines::default() },
    };
    Ok(Box::new(External::new(process, config, tasks)))
}

async fn launched(sandbox: &Sandbox, launch: &LaunchSpec) -> Result<Process, hob_sandbox::SandboxError> {
    for file in &launch.files {
        sandbox.write_file(&file.path, Bytes::from(file.text.clone())).await?;
    }
    let shell = ["sh", "-c", WITH_PATH, "sh"].map(str::to_owned);
    let argv = shell.into_iter().chain([launch.path.join(":")]).chain(launch.argv.iter().cloned());
    let mut command = Command::new(argv).cwd(WORKSPACE).with_stdin();
    for (name, value) in &launch.env {
        command = command.env(name, value);
    }
    sandbox.exec(command).await
}

/// What the agent is told of the conversation so far; nothing before the first turn.
fn resume(start: &AgentStart) -> Option<Resume> {
    let mut transcript = String::new();
    for turn in built_in::past_turns(&start.history) {
        transcript.push_str(&format!("## {} asked\n\n{}\n\n", turn.author.name, clip(&turn.text, 8_192)));
        for step in turn.steps {
            if !step.text.trim().is_empty() {
                transcript.push_str(&format!("## You said\n\n{}\n\n", clip(step.text.trim(), 4_096)));
            }
            for call in step.calls {
                transcript.push_str(&format!("(You used {}: {})\n\n", call.name, clip(&call.input.to_string(), 300)));
            }
        }
    }
    if transcript.is_empty() {
        return None;
    }
    let from = transcript.ceil_char_boundary(transcript.len().saturating_sub(TRANSCRIPT_BYTES_MAX));
    let agent_session = start.resume.clone().unwrap_or_default();
    Some(Resume { agent_session, transcript: transcript.split_off(from) })
}

/// An external agent with the process that it is.
struct External {
    acp: AcpAgent,
    last_words: Arc<Mutex<LastWords>>,
    /// Ends the process, with all that it started: an agent whose session is gone must not run on.
    ended: DropGuard,
}

impl External {
    fn new(process: Process, config: AcpConfig, tasks: &TaskTracker) -> Self {
        let (output, from_agent) = duplex(PIPE_BYTES);
        let (to_agent, input) = duplex(PIPE_BYTES);
        let last_words = Arc::<Mutex<LastWords>>::default();
        let ended = CancellationToken::new();
        tasks.spawn(write_input(process.stdin(), to_agent, ended.clone()));
        tasks.spawn(read_output(process, from_agent, Arc::clone(&last_words), ended.clone()));
        let acp = AcpAgent::new(Box::new(output), Box::new(input), config);
        Self { acp, last_words, ended: ended.drop_guard() }
    }

    /// Adds how a process died and what it said last: the protocol itself does not carry that.
    fn with_last_words(&self, error: AgentError) -> AgentError {
        match error {
            AgentError::Died { agent, reason } => {
                let last_words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
                AgentError::Died { agent, reason: last_words.added_to(&reason) }
            }
            other => other,
        }
    }
}

/// How a process ended, and the last lines that it wrote to standard error.
#[derive(Default)]
struct LastWords {
    exit_code: Option<i32>,
    lines: VecDeque<String>,
}

impl LastWords {
    fn hear(&mut self, stderr: &[u8]) {
        let text = String::from_utf8_lossy(stderr);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.lines.push_back(clip(line, 500));
            if self.lines.len() > STDERR_LINES_MAX {
                self.lines.pop_front();
            }
        }
    }

    fn added_to(&self, reason: &str) -> String {
        let mut told = reason.to_owned();
        match self.exit_code {
            Some(137) => told.push_str(", exit code 137: it was killed, or took more memory than its sandbox may"),
            Some(code) => told.push_str(&format!(", exit code {code}")),
            None => {}
        }
        if !self.lines.is_empty() {
            let said = self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
            told.push_str(&format!("; it said: {}", clip(&said, 1_200)));
        }
        told
    }
}

#[async_trait]
impl Agent for External {
    async fn prompt(
        &mut self,
        prompt: Prompt,
        host: &dyn TurnHost,
        stop: CancellationToken,
    ) -> Result<TurnEnd, AgentError> {
        let ended = self.acp.prompt(prompt, host, stop).await;
        ended.map_err(|error| self.with_last_words(error))
    }

    async fn get_ready(&mut self, host: &dyn TurnHost) -> Result<(), AgentError> {
        let ready = self.acp.get_ready(host).await;
        ready.map_err(|error| self.with_last_words(error))
    }

    async fn close(self: Box<Self>) {
        let Self { acp, ended, .. } = *self;
        Box::new(acp).close().await;
        drop(ended);
    }
}

async fn write_input(stdin: Stdin, mut to_agent: DuplexStream, ended: CancellationToken) {
    let mut buffer = vec![0; 64 << 10];
    let copy = async {
        loop {
            match to_agent.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    if stdin.write(buffer.get(..length).unwrap_or_default()).await.is_err() {
                        return;
                    }
                }
            }
        }
        if stdin.close().await.is_err() {
            tracing::debug!("an agent was gone before its standard input was closed");
        }
    };
    ended.run_until_cancelled(copy).await;
}

async fn read_output(
    mut process: Process,
    mut from_agent: DuplexStream,
    last_words: Arc<Mutex<LastWords>>,
    ended: CancellationToken,
) {
    let heard = || last_words.lock().unwrap_or_else(PoisonError::into_inner);
    let copy = async {
        loop {
            match process.next().await {
                Some(ProcessEvent::Stdout(bytes)) => {
                    if from_agent.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Some(ProcessEvent::Stderr(bytes)) => heard().hear(&bytes),
                Some(ProcessEvent::Exited(exit)) => {
                    heard().exit_code = Some(exit.code);
                    return;
                }
                Some(ProcessEvent::Lost) | None => return,
            }
        }
    };
    ended.run_until_cancelled(copy).await;
    drop(from_agent);
    if let Err(error) = process.kill().await {
        tracing::debug!("an agent's process could not be killed, so its sandbox is gone: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_told_with_its_exit_code_and_the_last_lines() {
        let mut last_words = LastWords::default();
        assert_eq!(last_words.added_to("its output ended"), "its output ended");
        for line in 0..20 {
            last_words.hear(format!("line {line}\n\n").as_bytes());
        }
        last_words.exit_code = Some(1);
        let told = last_words.added_to("its output ended");
        assert!(told.starts_with("its output ended, exit code 1; it said: line 8; line 9; "), "{told}");
        assert!(told.ends_with("; line 19"), "{told}");
    }

    #[test]
    fn a_kill_is_told_as_one() {
        let last_words = LastWords { exit_code: Some(137), ..LastWords::default() };
        assert!(last_words.added_to("its output ended").contains("it was killed, or took more memory"));
    }
}

//! Starts an agent of the catalogue in a session's sandbox, and joins its standard input and output to the ACP client.

use hob_agent::catalogue::{Access, Entry, LaunchSpec, Permissions};
use hob_agent::{AcpAgent, AcpConfig, Agent, AgentError, Deadlines, Resume, WorkspaceError};
use hob_sandbox::{Command, Process, ProcessEvent, Sandbox};
use hob_session::event::{Event, EventKind};
use hob_session::{AgentStart, ModelFacts, WORKSPACE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio_util::task::TaskTracker;

/// Where a sandbox sees the agent's toolchain folder.
pub(super) const TOOLCHAIN: &str = "/opt/hob/agent";
/// The home folder of a sandbox.
const HOME: &str = "/root";
/// Bytes between an agent and the client of its protocol, in each direction.
const PIPE_BYTES: usize = 256 << 10;
/// What is taken at once from the client.
const INPUT_BYTES: usize = 16 << 10;
/// What an agent is told of a conversation that it cannot load, in bytes.
const TRANSCRIPT_BYTES_MAX: usize = 64 << 10;

pub(super) async fn start(
    entry: &'static Entry,
    start: AgentStart,
    model: &ModelFacts,
    permissions: Permissions,
    tasks: &TaskTracker,
) -> Result<Box<dyn Agent>, AgentError> {
    let access = Access {
        toolchain: TOOLCHAIN.into(),
        home: HOME.into(),
        workspace: WORKSPACE.into(),
        gateway: start.access.inside_url.clone(),
        token: start.access.token.clone(),
        model: start.model.clone(),
        format: model.format,
        context_tokens: model.context_tokens,
        max_output_tokens: model.max_output_tokens,
        permissions,
    };
    let launch = entry
        .launch(&access)
        .map_err(|error| AgentError::Protocol { agent: entry.name.into(), reason: error.to_string() })?;
    let lost = |reason: String| AgentError::Workspace(WorkspaceError::Sandbox { reason });
    let sandbox = start.sandbox.ready().await.map_err(lost)?;
    for file in &launch.files {
        let bytes = bytes::Bytes::copy_from_slice(file.text.as_bytes());
        sandbox.write_file(&file.path, bytes).await.map_err(|error| lost(error.to_string()))?;
    }
    let process = spawn(&sandbox, &launch).await.map_err(lost)?;
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let (from_client, to_client) = tokio::io::split(theirs);
    tasks.spawn(pump(entry.name, process, from_client, to_client));
    let (output, input) = tokio::io::split(ours);
    let config = AcpConfig {
        agent: entry.name.into(),
        cwd: WORKSPACE.into(),
        id_prefix: start.id_prefix,
        resume: start.resume.map(|agent_session| Resume { agent_session, transcript: transcript(&start.history) }),
        settings: launch.settings,
        model_prefix: launch.model_prefix,
        mcp_servers: Vec::new(),
        deadlines: Deadlines::default(),
    };
    Ok(Box::new(AcpAgent::new(Box::new(output), Box::new(input), config)))
}

async fn spawn(sandbox: &Sandbox, launch: &LaunchSpec) -> Result<Process, String> {
    let mut argv = launch.argv.clone();
    if !launch.path.is_empty() {
        // Only the sandbox knows its own PATH, so its shell adds to it.
        let line = format!("PATH=\"$PATH:{}\" exec \"$@\"", launch.path.join(":"));
        argv.splice(0..0, ["/bin/sh".to_owned(), "-c".to_owned(), line, "sh".to_owned()]);
    }
    let mut command = Command::new(argv).cwd(WORKSPACE).with_stdin();
    for (name, value) in &launch.env {
        command = command.env(name, value);
    }
    sandbox.exec(command).await.map_err(|error| error.to_string())
}

/// Carries bytes until the agent ends or its client lets go; then nothing of it is left running.
async fn pump(
    agent: &'static str,
    mut process: Process,
    mut from_client: ReadHalf<DuplexStream>,
    mut to_client: WriteHalf<DuplexStream>,
) {
    let stdin = process.stdin();
    let input = async {
        let mut piece = vec![0; INPUT_BYTES];
        loop {
            let len = from_client.read(&mut piece).await.unwrap_or(0);
            if len == 0 || stdin.write(&piece[..len]).await.is_err() {
                break;
            }
        }
        // The client has let go: the agent reads the end of its input and may leave by itself.
        if let Err(error) = stdin.close().await {
            tracing::debug!(agent, "failed to {error}: the sandbox ended before its agent");
        }
        std::future::pending::<()>().await;
    };
    let output = async {
        while let Some(event) = process.next().await {
            match event {
                ProcessEvent::Stdout(bytes) => {
                    if to_client.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                ProcessEvent::Stderr(bytes) => {
                    tracing::debug!(agent, "{}", String::from_utf8_lossy(&bytes).trim_end());
                }
                ProcessEvent::Exited(_) | ProcessEvent::Lost => break,
            }
        }
    };
    tokio::select! { () = input => {}, () = output => {} }
    if let Err(error) = process.kill().await {
        tracing::debug!(agent, "failed to {error}: the sandbox ended before its agent");
    }
}

/// The end of a conversation in words, for an agent that cannot load it.
fn transcript(history: &[Event]) -> String {
    let mut text = String::new();
    for event in history {
        match &event.kind {
            EventKind::PromptQueued { author, text: words, .. } => {
                text.push_str(&format!("\n{}: {words}\n", author.name));
            }
            EventKind::Message { text: words, .. } => text.push_str(words),
            EventKind::ToolCall(call) if call.status == hob_agent::ToolStatus::Completed => {
                text.push_str(&format!("\n[{}]\n", call.title));
            }
            _ => {}
        }
    }
    let mut from = text.len().saturating_sub(TRANSCRIPT_BYTES_MAX);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.split_off(from)
}

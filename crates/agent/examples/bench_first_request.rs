//! Measures the time from a prompt to the first byte of its request at the model, with the built-in agent.
//!
//! Each sample is a new agent with a history of twenty turns. The floor is the same request, written to a new
//! connection as bytes.

#![expect(clippy::print_stdout, reason = "figures go to standard output")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use hob_agent::{
    Agent as _, Answer, Author, BuiltIn, BuiltInConfig, DirEntry, ModelEndpoint, ModelFormat, PastCall, PastStep,
    PastTurn, PermissionOutcome, PermissionRequest, Prompt, Question, ShellCommand, ShellProcess, TurnHost, Update,
    Workspace, WorkspaceError,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const SAMPLES: usize = 300;
const WARM_UP: usize = 20;
const PAST_TURNS: usize = 20;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (mut model, address) = Model::start().await?;
    let cold = model.samples(address, Sandbox::Starting).await?;
    let ready = model.samples(address, Sandbox::Ready).await?;
    let floor = model.floor(address).await?;
    let floor_p50 = percentile(&floor, 50);
    report("agent.bare_request", &floor, floor_p50);
    report("agent.first_request_sandbox_starting", &cold, floor_p50);
    report("agent.first_request_sandbox_ready", &ready, floor_p50);
    Ok(())
}

/// A model that says one word, and when each request's first byte came.
struct Model {
    arrivals: mpsc::Receiver<(Instant, Vec<u8>)>,
}

impl Model {
    async fn start() -> Result<(Self, std::net::SocketAddr), Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (arrived, arrivals) = mpsc::channel(16);
        let tasks = TaskTracker::new();
        let connections = tasks.clone();
        tasks.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, arrived.clone()));
            }
        });
        Ok((Self { arrivals }, address))
    }

    async fn samples(&mut self, address: std::net::SocketAddr, sandbox: Sandbox) -> Result<Vec<f64>, Failure> {
        let mut samples = Vec::with_capacity(SAMPLES);
        for round in 0..WARM_UP + SAMPLES {
            let mut config = BuiltInConfig::new(endpoint(address), "scripted-1");
            config.id_prefix = round.to_string();
            let mut agent = BuiltIn::new(config, Arc::new(sandbox), history())?;
            let prompt =
                Prompt { text: "Fix the failing test".to_owned(), images: Vec::new(), author: ada(), model: None };
            let begun = Instant::now();
            agent.prompt(prompt, &Nobody, CancellationToken::new()).await?;
            let (at, _) = self.arrivals.recv().await.ok_or("the model is gone")?;
            if round >= WARM_UP {
                samples.push(milliseconds(at.duration_since(begun)));
            }
            Box::new(agent).close().await;
        }
        Ok(samples)
    }

    async fn floor(&mut self, address: std::net::SocketAddr) -> Result<Vec<f64>, Failure> {
        let mut agent =
            BuiltIn::new(BuiltInConfig::new(endpoint(address), "scripted-1"), Arc::new(Sandbox::Starting), history())?;
        let prompt = Prompt { text: "Fix the failing test".to_owned(), images: Vec::new(), author: ada(), model: None };
        agent.prompt(prompt, &Nobody, CancellationToken::new()).await?;
        let (_, request) = self.arrivals.recv().await.ok_or("the model is gone")?;
        let mut samples = Vec::with_capacity(SAMPLES);
        for round in 0..WARM_UP + SAMPLES {
            let begun = Instant::now();
            let mut socket = TcpStream::connect(address).await?;
            socket.write_all(&request).await?;
            let (at, _) = self.arrivals.recv().await.ok_or("the model is gone")?;
            if round >= WARM_UP {
                samples.push(milliseconds(at.duration_since(begun)));
            }
        }
        Ok(samples)
    }
}

async fn serve(mut socket: TcpStream, arrived: mpsc::Sender<(Instant, Vec<u8>)>) -> std::io::Result<()> {
    let events = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Yes.\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let reply = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{events}",
        events.len()
    );
    let mut request = Vec::new();
    let mut first = None;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = socket.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let at = *first.get_or_insert_with(Instant::now);
        request.extend_from_slice(&buffer[..length]);
        if is_whole(&request) {
            socket.write_all(reply.as_bytes()).await?;
            first = None;
            if arrived.send((at, std::mem::take(&mut request))).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn is_whole(request: &[u8]) -> bool {
    let Some(head) = request.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let headers = String::from_utf8_lossy(&request[..head]).to_lowercase();
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    request.len() >= head + 4 + length.unwrap_or(0)
}

fn endpoint(address: std::net::SocketAddr) -> ModelEndpoint {
    ModelEndpoint::at(&format!("http://{address}"), "session-token", ModelFormat::OpenAiChat)
}

fn ada() -> Author {
    Author { name: "Ada".to_owned(), email: "ada@example.org".to_owned() }
}

fn history() -> Vec<PastTurn> {
    let turn = |number: usize| {
        let call = PastCall {
            id: format!("past-{number}"),
            name: "shell".to_owned(),
            input: serde_json::json!({ "command": "cargo test" }),
            output: "test result: ok. 12 passed\n".repeat(60),
            images: Vec::new(),
        };
        let step = PastStep { text: "I ran the tests.".to_owned(), calls: vec![call] };
        PastTurn { author: ada(), text: format!("Prompt number {number}"), images: Vec::new(), steps: vec![step] }
    };
    (0..PAST_TURNS).map(turn).collect()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * percent / 100]
}

fn report(name: &str, samples: &[f64], floor: f64) {
    let (p50, p95) = (percentile(samples, 50), percentile(samples, 95));
    let round = |value: f64| (value * 1_000.0).round() / 1_000.0;
    println!(
        r#"{{"name":"{name}","unit":"ms","p50":{},"p95":{},"n":{},"against":"agent.bare_request","ratio":{}}}"#,
        round(p50),
        round(p95),
        samples.len(),
        round(p50 / floor),
    );
}

/// A workspace that holds nothing, or is not there yet.
#[derive(Clone, Copy)]
enum Sandbox {
    Starting,
    Ready,
}

impl Sandbox {
    async fn nothing<T>(self, path: &str) -> Result<T, WorkspaceError> {
        match self {
            Self::Starting => std::future::pending().await,
            Self::Ready => Err(WorkspaceError::NotFound { path: path.to_owned() }),
        }
    }
}

#[async_trait]
impl Workspace for Sandbox {
    fn root(&self) -> &str {
        "/workspace"
    }

    async fn writable(&self) -> Result<(), WorkspaceError> {
        self.nothing("/workspace").await
    }

    async fn read(&self, path: &str, _max_bytes: usize) -> Result<Bytes, WorkspaceError> {
        self.nothing(path).await
    }

    async fn write(&self, path: &str, _bytes: Bytes) -> Result<(), WorkspaceError> {
        self.nothing(path).await
    }

    async fn list(&self, path: &str) -> Result<Vec<DirEntry>, WorkspaceError> {
        self.nothing(path).await
    }

    async fn shell(&self, command: ShellCommand) -> Result<Box<dyn ShellProcess>, WorkspaceError> {
        self.nothing(&command.line).await
    }
}

/// A session that nobody follows.
struct Nobody;

#[async_trait]
impl TurnHost for Nobody {
    async fn update(&self, _update: Update) {}

    async fn permission(&self, _request: PermissionRequest) -> PermissionOutcome {
        PermissionOutcome::Cancelled
    }

    async fn ask(&self, _question: Question) -> Answer {
        Answer::None { reason: "nobody is there".to_owned() }
    }
}

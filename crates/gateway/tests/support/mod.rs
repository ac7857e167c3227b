//! What the gateway's tests share: a provider made of a script, a meter that keeps what it is told, and raw clients
//! that can send what no library would.

#![allow(dead_code, reason = "each test program uses a part")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what cannot be set up fails the test")]

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hob_gateway::{
    Access, AccessSpec, Gateway, GatewayConfig, HostRule, Meter, ModelCall, Notice, Outside, RefusedEgress, Resolve,
    UnknownModel,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// The key that must never be seen inside.
pub(crate) const KEY: &str = "sk-real-0123456789-abcdef";

/// The longest that any test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps what it is told.
#[derive(Default)]
pub(crate) struct Ledger {
    entries: Mutex<Entries>,
    changed: Notify,
}

#[derive(Default, Clone)]
pub(crate) struct Entries {
    pub(crate) calls: Vec<ModelCall>,
    pub(crate) refused: Vec<RefusedEgress>,
    pub(crate) notices: Vec<Notice>,
}

impl Ledger {
    fn push(&self, add: impl FnOnce(&mut Entries)) {
        add(&mut self.entries.lock().unwrap());
        self.changed.notify_waiters();
    }

    pub(crate) fn now(&self) -> Entries {
        self.entries.lock().unwrap().clone()
    }

    /// Waits until the entries are as wished.
    pub(crate) async fn when(&self, wish: impl Fn(&Entries) -> bool) -> Entries {
        within(async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let now = self.now();
                if wish(&now) {
                    return now;
                }
                changed.await;
            }
        })
        .await
    }

    pub(crate) async fn call(&self) -> ModelCall {
        self.when(|entries| !entries.calls.is_empty()).await.calls.remove(0)
    }
}

impl Meter for Ledger {
    fn model_call(&self, call: ModelCall) {
        self.push(|entries| entries.calls.push(call));
    }
    fn refused(&self, refused: RefusedEgress) {
        self.push(|entries| entries.refused.push(refused));
    }
    fn notice(&self, notice: Notice) {
        self.push(|entries| entries.notices.push(notice));
    }
}

/// Resolves names from a table.
pub(crate) struct Names(pub HashMap<String, Vec<IpAddr>>);

impl Resolve for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let found = self.0.get(host).cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name"));
        Box::pin(async move { found })
    }
}

/// One step of a provider's answer.
#[derive(Clone)]
pub(crate) enum Step {
    /// Send these bytes.
    Send(String),
    /// Wait for the test.
    Wait(Arc<Notify>),
}

/// A request as a provider saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A provider that plays a script: one entry per request, the last one for ever.
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    tasks: TaskTracker,
    task: tokio::task::AbortHandle,
}

impl Provider {
    pub(crate) async fn start(script: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (tasks, kept) = (TaskTracker::new(), Arc::clone(&seen));
        let inner = tasks.clone();
        let task = tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (kept, script) = (Arc::clone(&kept), script.clone());
                inner.spawn(async move {
                    let Some(request) = read_request(&mut stream).await else { return };
                    let at = {
                        let mut seen = kept.lock().unwrap();
                        seen.push(request);
                        (seen.len() - 1).min(script.len() - 1)
                    };
                    for step in &script[at] {
                        match step {
                            Step::Wait(notify) => notify.notified().await,
                            Step::Send(text) => {
                                if stream.write_all(text.as_bytes()).await.is_err() {
                                    return;
                                }
                            }
                        }
                    }
                    stream.shutdown().await.ok();
                });
            }
        });
        Self { address, seen, task: task.abort_handle(), tasks }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
        self.tasks.close();
    }
}

/// A whole answer with a JSON body.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Vec<Step> {
    let length = body.len();
    vec![Step::Send(format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
    ))]
}

/// The head of a streamed answer; its body ends with the connection.
pub(crate) fn stream_head() -> Step {
    Step::Send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".into())
}

/// A streamed answer of these events.
pub(crate) fn stream(events: &[&str]) -> Vec<Step> {
    let events = events.iter().map(|event| Step::Send(format!("data: {event}\n\n")));
    std::iter::once(stream_head()).chain(events).collect()
}

/// A gateway under test.
pub(crate) struct House {
    pub(crate) gateway: Gateway,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) dir: tempfile::TempDir,
}

impl House {
    /// A gateway with this configuration, and these names.
    pub(crate) async fn start(config: &str, names: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), KEY).unwrap();
        let config = config.replace("KEY", &format!("file:{}", dir.path().join("key").display()));
        let config: GatewayConfig = toml::from_str(&config).unwrap();
        let ledger = Arc::new(Ledger::default());
        let names = names.iter().map(|(name, address)| ((*name).to_owned(), vec![address.parse().unwrap()]));
        let outside = Outside { resolver: Arc::new(Names(names.collect())), jitter: Arc::new(|| 0.0) };
        let gateway = Gateway::start_with(config, Arc::<Ledger>::clone(&ledger), outside).await.unwrap();
        Self { gateway, ledger, dir }
    }

    /// A gateway with the model `m` at this provider, in all formats, without waits between attempts.
    pub(crate) async fn with_provider(provider: &Provider) -> Self {
        Self::start(&one_model(provider.address, ""), &[]).await
    }

    pub(crate) async fn open(&self, session: &str) -> Access {
        self.gateway.open(self.spec(session, 1)).await.unwrap()
    }

    pub(crate) fn spec(&self, session: &str, epoch: u64) -> AccessSpec {
        AccessSpec {
            session: session.into(),
            epoch,
            token: token(session, epoch),
            unix_socket: Some(self.socket(session)),
            default_model: "m".into(),
            unknown_model: UnknownModel::UseDefault,
            allow: Vec::new(),
        }
    }

    pub(crate) async fn open_to(&self, session: &str, allow: &[HostRule]) -> Access {
        let spec = AccessSpec { allow: allow.to_vec(), ..self.spec(session, 1) };
        self.gateway.open(spec).await.unwrap()
    }

    pub(crate) fn socket(&self, session: &str) -> PathBuf {
        self.dir.path().join(format!("{session}.sock"))
    }

    pub(crate) async fn connect(&self, session: &str) -> UnixStream {
        UnixStream::connect(self.socket(session)).await.unwrap()
    }

    /// Sends raw bytes on a session's socket and reads to the end.
    pub(crate) async fn raw(&self, session: &str, request: &str) -> Reply {
        exchange(self.connect(session).await, request).await
    }

    /// Sends raw bytes to the loopback port and reads to the end.
    pub(crate) async fn raw_tcp(&self, request: &str) -> Reply {
        let address = self.gateway.base_url().trim_start_matches("http://").to_owned();
        exchange(TcpStream::connect(address).await.unwrap(), request).await
    }

    /// Posts JSON with a session's own token.
    pub(crate) async fn post(&self, session: &str, path: &str, body: &str) -> Reply {
        self.raw(session, &post(path, &token(session, 1), body)).await
    }
}

/// The configuration of one model `m` in all formats.
pub(crate) fn one_model(address: SocketAddr, more: &str) -> String {
    format!(
        r#"
        {more}
        [retry]
        wait_ms = 0
        [[providers]]
        name = "p"
        kind = "openai"
        base_url = "http://{address}"
        key = "KEY"
        formats = ["chat-completions", "responses", "messages", "generate-content"]
        [[models]]
        id = "m"
        provider = "p"
        upstream = "upstream-m"
        price = {{ input = 3.0, cached_input = 0.3, cache_write = 3.75, output = 15.0 }}
        "#
    )
}

pub(crate) fn token(session: &str, epoch: u64) -> String {
    format!("token-of-{session}-at-{epoch}")
}

pub(crate) fn post(path: &str, token: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> Reply {
    let mut text = Vec::new();
    within(async {
        // A gateway that closes early resets the connection; what it said before counts.
        stream.write_all(request.as_bytes()).await.ok();
        stream.read_to_end(&mut text).await.ok();
    })
    .await;
    reply(&text)
}

pub(crate) fn reply(text: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { dechunk(body) } else { body.to_owned() };
    Reply { status, head: head.to_owned(), body }
}

fn dechunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let Some(part) = rest.get(..size).filter(|_| size > 0) else { break };
        body.push_str(part);
        text = rest.get(size + 2..).unwrap_or("");
    }
    body
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { head, body: String::from_utf8(body).ok()? })
}

/// Runs something that must not take long.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

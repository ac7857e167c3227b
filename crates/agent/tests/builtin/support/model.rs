//! A server that stands in for a model: it gives its replies in the order of the requests, in the format of the path.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hob_agent::{ModelEndpoint, ModelFormat};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::wire;

/// A piece of a reply.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Text(String),
    /// Thinking, with the signature that the provider wants back.
    Thought(String, String),
    /// A tool's name and its arguments, as they are on the wire.
    Call(String, String),
}

/// How a reply ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Done,
    OutputLimit,
    /// The connection breaks.
    Cut,
    /// Nothing more comes, and the connection stays.
    Hang,
}

/// What the model gives to one request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Stream(Vec<Part>, Ending),
    /// Events as they are.
    Raw(String),
    /// An error with this status and body.
    Refuse(u16, String),
}

pub(crate) fn says(text: &str) -> Reply {
    Reply::Stream(vec![Part::Text(text.to_owned())], Ending::Done)
}

pub(crate) fn calls<const N: usize>(calls: [(&str, Value); N]) -> Reply {
    let parts = calls.map(|(name, input)| Part::Call(name.to_owned(), input.to_string()));
    Reply::Stream(parts.to_vec(), Ending::Done)
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) fn has(&self, needle: &str) -> bool {
        self.body.to_string().contains(needle)
    }

    /// About what a provider would count.
    pub(crate) fn tokens(&self) -> usize {
        self.body.to_string().len() / 4
    }
}

#[derive(Default)]
struct Shared {
    replies: Mutex<VecDeque<Reply>>,
    asked: Mutex<Vec<Asked>>,
    changed: Notify,
}

pub(crate) struct ModelServer {
    shared: Arc<Shared>,
    address: std::net::SocketAddr,
    _closes: DropGuard,
}

impl ModelServer {
    pub(crate) async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("is bound");
        let shared = Arc::new(Shared { replies: Mutex::new(replies.into()), ..Shared::default() });
        let closed = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (serving, ending, tracker) = (Arc::clone(&shared), closed.clone(), tasks.clone());
        tasks.spawn(async move {
            while let Some(Ok((socket, _))) = ending.run_until_cancelled(listener.accept()).await {
                let (shared, ending) = (Arc::clone(&serving), ending.clone());
                tracker.spawn(async move { ending.run_until_cancelled(serve(socket, &shared)).await });
            }
        });
        Self { shared, address, _closes: closed.drop_guard() }
    }

    pub(crate) fn endpoint(&self, format: ModelFormat) -> ModelEndpoint {
        ModelEndpoint::at(&format!("http://{}/", self.address), "session-token", format)
    }

    /// Adds a reply after those that are waiting.
    pub(crate) fn then(&self, reply: Reply) {
        self.shared.replies.lock().expect("no panic").push_back(reply);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no panic").clone()
    }

    /// Returns when so many requests have come.
    pub(crate) async fn until_asked(&self, count: usize) {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.asked().len() >= count {
                return;
            }
            changed.await;
        }
    }
}

/// Serves the requests of one connection.
async fn serve(socket: TcpStream, shared: &Shared) {
    let mut socket = BufReader::new(socket);
    while let Some(asked) = read_request(&mut socket).await {
        let (path, tokens) = (asked.path.clone(), asked.tokens());
        shared.asked.lock().expect("no panic").push(asked);
        shared.changed.notify_waiters();
        let reply = shared.replies.lock().expect("no panic").pop_front();
        let reply = reply.unwrap_or_else(|| Reply::Refuse(400, "the script is over".to_owned()));
        if !answer(socket.get_mut(), &path, tokens, reply).await {
            return;
        }
    }
}

async fn read_request(socket: &mut BufReader<TcpStream>) -> Option<Asked> {
    if socket.fill_buf().await.ok()?.is_empty() {
        return None;
    }
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await.ok()?;
        match line.trim_end() {
            "" => break,
            line => headers.push(line.to_owned()),
        }
    }
    let path = headers.first()?.split(' ').nth(1)?.to_owned();
    let length = headers.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    Some(Asked { path, headers, body: serde_json::from_slice(&body).expect("the body is JSON") })
}

/// Answers, and says whether the connection goes on.
async fn answer(socket: &mut TcpStream, path: &str, tokens: usize, reply: Reply) -> bool {
    let (events, ending) = match reply {
        Reply::Stream(parts, ending) => (wire::events(path, &parts, ending, tokens).concat(), ending),
        Reply::Raw(events) => (events, Ending::Done),
        Reply::Refuse(status, body) => {
            let head = format!("HTTP/1.1 {status} No\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            return socket.write_all(head.as_bytes()).await.is_ok();
        }
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("{head}{:x}\r\n{events}\r\n", events.len());
    if socket.write_all(chunk.as_bytes()).await.is_err() {
        return false;
    }
    match ending {
        Ending::Done | Ending::OutputLimit => socket.write_all(b"0\r\n\r\n").await.is_ok(),
        Ending::Cut => false,
        Ending::Hang => {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            false
        }
    }
}

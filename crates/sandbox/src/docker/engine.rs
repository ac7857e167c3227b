//! A client for the API of a Docker or Podman daemon, over its unix socket.
//!
//! Each request has a connection of its own: the daemon is on this machine, and a connection costs less than a
//! millisecond. Requests name no version of the API, so that every daemon answers with the one that it has; of an answer
//! only what is asked for is read.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::provider::SandboxError;

/// How long the daemon may take for an answer that moves no files.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to read or write all files of a sandbox.
const FILES_LIMIT: Duration = Duration::from_secs(1_800);

/// The longest answer that is read.
const ANSWER_MAX: usize = 32 << 20;

/// Why the daemon did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// Nobody answers at its socket.
    #[error("reach the container daemon at {}: {source}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It refused.
    #[error("{what}: {message}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The status of its answer.
        status: StatusCode,
        /// Its own words.
        message: String,
    },
    /// It took longer than it may.
    #[error("{what} within {} s", limit.as_secs())]
    Deadline {
        /// What was asked for.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// Its answer is none, or breaks off.
    #[error("understand the answer to {what}: {reason}")]
    Garbled {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<EngineError> for SandboxError {
    fn from(error: EngineError) -> Self {
        Self::Machine { reason: error.to_string() }
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An archive on its way to the daemon, in pieces.
pub(super) type Archive = mpsc::Receiver<io::Result<Bytes>>;

/// A daemon.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    socket: PathBuf,
    tasks: TaskTracker,
}

impl Engine {
    /// Takes the path of its socket; nothing is asked yet.
    pub(crate) fn new(socket: &Path, tasks: &TaskTracker) -> Self {
        Self { socket: socket.to_owned(), tasks: tasks.clone() }
    }

    /// Asks for something.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        understand(path, &self.exchange(Method::GET, path, empty(), ANSWER_LIMIT).await?)
    }

    /// Asks for something that may not be there.
    pub(super) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, EngineError> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(EngineError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes something of a description.
    pub(super) async fn make<T: DeserializeOwned>(&self, path: &str, of: &impl Serialize) -> Result<T, EngineError> {
        let garbled =
            |error: serde_json::Error| EngineError::Garbled { what: path.to_owned(), reason: error.to_string() };
        let json = serde_json::to_vec(of).map_err(garbled)?;
        let body = Full::new(Bytes::from(json)).map_err(|never| match never {}).boxed_unsync();
        understand(path, &self.exchange(Method::POST, path, body, FILES_LIMIT).await?)
    }

    /// Has something done.
    pub(super) async fn act(&self, method: Method, path: &str) -> Result<(), EngineError> {
        self.exchange(method, path, empty(), ANSWER_LIMIT).await.map(drop)
    }

    /// Has something done to what may not be there, or may be done already.
    pub(super) async fn settle(&self, method: Method, path: &str) -> Result<(), EngineError> {
        match self.act(method, path).await {
            Err(EngineError::Refused { status: StatusCode::NOT_FOUND | StatusCode::CONFLICT, .. }) => Ok(()),
            other => other,
        }
    }

    /// Waits for an answer as long as it takes.
    pub(super) async fn wait<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        let response = self.send(Method::POST, path, empty()).await?;
        understand(path, &read(path, response).await?)
    }

    /// Sends an archive, and returns what the daemon said of it.
    pub(super) async fn load(&self, method: Method, path: &str, archive: Archive) -> Result<Bytes, EngineError> {
        let frames = futures_util::stream::unfold(archive, |mut archive| async {
            archive.recv().await.map(|piece| (piece.map(Frame::data), archive))
        });
        self.exchange(method, path, StreamBody::new(frames).boxed_unsync(), FILES_LIMIT).await
    }

    /// Sends one answer of the daemon back to it as an archive.
    pub(super) async fn turn_around(&self, from: &str, to: &str) -> Result<Bytes, EngineError> {
        let turned = async {
            let body =
                self.send(Method::GET, from, empty()).await?.into_body().map_err(io::Error::other).boxed_unsync();
            read(to, self.send(Method::POST, to, body).await?).await
        };
        within(to, FILES_LIMIT, turned).await
    }

    async fn exchange(&self, method: Method, path: &str, body: Body, limit: Duration) -> Result<Bytes, EngineError> {
        within(path, limit, async { read(path, self.send(method, path, body).await?).await }).await
    }

    /// Sends a request; the answer is one that says yes.
    async fn send(&self, method: Method, path: &str, body: Body) -> Result<Response<Incoming>, EngineError> {
        let unreachable = |source| EngineError::Unreachable { socket: self.socket.clone(), source };
        let garbled = |reason: String| EngineError::Garbled { what: path.to_owned(), reason };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| garbled(error.to_string()))?;
        // How a connection ends is told by the request that it carries.
        self.tasks.spawn(async move { connection.await.unwrap_or_default() });
        let request = Request::builder().method(method).uri(path).header("host", "docker");
        let request = request.header("content-type", content_type(path)).body(body);
        let request = request.map_err(|error| garbled(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| garbled(chain(&error)))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let said = read(path, response).await.unwrap_or_default();
        Err(EngineError::Refused { what: path.to_owned(), status, message: message(&said) })
    }
}

async fn within<T>(
    path: &str,
    limit: Duration,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    let late = |_| EngineError::Deadline { what: path.to_owned(), limit };
    tokio::time::timeout(limit, work).await.map_err(late)?
}

async fn read(path: &str, response: Response<Incoming>) -> Result<Bytes, EngineError> {
    let garbled = |reason: String| EngineError::Garbled { what: path.to_owned(), reason };
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    Ok(body.map_err(|error| garbled(error.to_string()))?.to_bytes())
}

fn understand<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(bytes)
        .map_err(|error| EngineError::Garbled { what: path.to_owned(), reason: error.to_string() })
}

fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}

/// Archives go to two paths, all else is JSON.
fn content_type(path: &str) -> &'static str {
    if path.contains("/archive?") || path.contains("fromSrc=") { "application/x-tar" } else { "application/json" }
}

/// The daemon's own words, cut where they are long.
fn message(bytes: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        message: String,
    }
    let said = serde_json::from_slice(bytes).map(|said: Said| said.message);
    let said = said.unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned());
    said.trim().chars().take(1_000).collect()
}

/// An error with its causes: hyper's own words say only what it was doing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push_str(&format!(": {error}"));
        cause = error.source();
    }
    said
}

/// A text as it may stand in a query (RFC 3986, section 2.3).
pub(super) fn quoted(text: &str) -> String {
    let quote = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(quote).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_any_text_and_a_refusal_is_told_in_the_daemons_words() {
        assert_eq!(quoted(r#"{"label":["a=b c"]}"#), "%7B%22label%22%3A%5B%22a%3Db%20c%22%5D%7D");
        assert_eq!(message(br#"{"message":"no such container\n"}"#), "no such container");
        assert_eq!(message(b"<html>"), "<html>");
    }
}

//! A client of the server's HTTP interface.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use hob_agent::Author;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::api::AUTHOR_HEADER;
use crate::auth::Secret;
use crate::problem::Problem;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The longest silence of a stream: the server's keep-alives come every 15 s.
const SILENT_AFTER: Duration = Duration::from_secs(45);

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server could not be reached, or broke off.
    #[error("reach the server at {url}: {reason}")]
    Unreachable {
        /// The server.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The server refused.
    #[error("{}", .0.detail)]
    Problem(Problem),
    /// The server's answer is not what this version expects.
    #[error("understand the server's answer: {0}")]
    Answer(String),
}

/// A client of one server. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

/// A server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSent {
    /// Its sequence number.
    pub seq: u64,
    /// Its JSON.
    pub json: String,
}

impl Client {
    /// A client that shows the token with every request, and names a person.
    ///
    /// # Errors
    /// The token cannot stand in a header, or no HTTP client can be made.
    pub fn new(url: &str, token: &Secret, author: Option<Author>) -> Result<Self, ClientError> {
        let url = url.trim_end_matches('/').to_owned();
        let unusable = |reason: String| ClientError::Unreachable { url: url.clone(), reason };
        let mut headers = HeaderMap::new();
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.as_str()))
            .map_err(|_| unusable("the token holds characters that no header may have".into()))?;
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
        let person = author.map(|author| format!("{} <{}>", author.name, author.email));
        if let Some(person) = person.and_then(|person| HeaderValue::from_bytes(person.as_bytes()).ok()) {
            headers.insert(AUTHOR_HEADER, person);
        }
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_WITHIN)
            .read_timeout(SILENT_AFTER)
            .no_proxy()
            .http1_only()
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { http, url })
    }

    /// The server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// The server cannot be reached, refuses, or answers something else.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(self.send(self.request(Method::GET, path)).await?).await
    }

    /// Reads bytes, however long the server takes to make them.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn bytes(&self, path: &str) -> Result<bytes::Bytes, ClientError> {
        let request = self.request(Method::GET, path).timeout(Duration::from_mins(10));
        let response = self.send(request).await?;
        response.bytes().await.map_err(|error| self.unreachable(&error))
    }

    /// Sends JSON and reads JSON.
    ///
    /// # Errors
    /// The server cannot be reached, refuses, or answers something else.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.json(self.send(self.request(Method::POST, path).json(body)).await?).await
    }

    /// Sends JSON; the answer has no body.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn send_json(&self, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.send(self.request(Method::POST, path).json(body)).await.map(drop)
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn act(&self, path: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::POST, path)).await.map(drop)
    }

    /// Asks for something to be removed.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, path)).await.map(drop)
    }

    /// Bytes as they come, until the server has no more or the connection breaks.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn pieces(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<bytes::Bytes, ClientError>> + Unpin + use<>, ClientError> {
        let response = self.send(self.request(Method::GET, path)).await?;
        let client = self.clone();
        Ok(Box::pin(response.bytes_stream().map(move |piece| piece.map_err(|error| client.unreachable(&error)))))
    }

    /// The log of a session after `since`, and then what comes. It ends when the connection does; whoever wants more
    /// asks again after the last event seen.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn events(
        &self,
        session: &str,
        since: u64,
    ) -> Result<impl Stream<Item = Result<ServerSent, ClientError>> + Unpin + use<>, ClientError> {
        let path = format!("/api/v1/sessions/{session}/events?since={since}");
        let request = self.request(Method::GET, &path).header(header::ACCEPT, "text/event-stream");
        let response = self.send(request).await?;
        let url = self.url.clone();
        let mut parser = SseParser::default();
        let pieces = response.bytes_stream().map(move |piece| match piece {
            Ok(bytes) => parser.feed(&bytes),
            Err(error) => vec![Err(ClientError::Unreachable { url: url.clone(), reason: root_cause(&error) })],
        });
        Ok(Box::pin(pieces.flat_map(futures_util::stream::iter)))
    }

    /// Opens a WebSocket.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn socket(&self, path: &str) -> Result<WebSocketStream<reqwest::Upgraded>, ClientError> {
        let request = self
            .request(Method::GET, path)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key());
        let response = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ClientError::Answer(format!("a socket was asked for, and {} came", response.status())));
        }
        let upgraded = response.upgrade().await.map_err(|error| self.unreachable(&error))?;
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        Err(match serde_json::from_slice(&body) {
            Ok(problem) => ClientError::Problem(problem),
            Err(_) => ClientError::Answer(format!("it answered {status}; is {} a Hob server?", self.url)),
        })
    }

    async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Answer(error.to_string()))
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { url: self.url.clone(), reason: root_cause(error) }
    }
}

/// What the system said, without the layers around it.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Reads `text/event-stream` (HTML Living Standard §9.2.6) as our server writes it.
#[derive(Debug, Default)]
struct SseParser {
    rest: Vec<u8>,
    seq: Option<u64>,
    data: String,
    kind: String,
}

impl SseParser {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Result<ServerSent, ClientError>> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|&byte| byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[start..start + length]).into_owned();
            start += length + 1;
            events.extend(self.line(line.trim_end_matches('\r')));
        }
        self.rest.drain(..start);
        events
    }

    fn line(&mut self, line: &str) -> Option<Result<ServerSent, ClientError>> {
        if line.is_empty() {
            let (seq, data) = (self.seq.take(), std::mem::take(&mut self.data));
            let kind = std::mem::take(&mut self.kind);
            return match (kind.as_str(), seq) {
                ("error", _) => Some(Err(ClientError::Answer(data))),
                (_, Some(seq)) => Some(Ok(ServerSent { seq, json: data })),
                _ => None,
            };
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.seq = value.parse().ok(),
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_wherever_the_stream_is_cut() {
        let text = ": keep-alive\n\nid: 7\ndata: {\"a\":1}\n\nid: 8\ndata: {\"ü\":2}\n\n";
        for cut in 0..=text.len() {
            let mut parser = SseParser::default();
            let (before, after) = text.as_bytes().split_at(cut);
            let events: Vec<_> =
                [parser.feed(before), parser.feed(after)].into_iter().flatten().collect::<Result<_, _>>().unwrap();
            let expect =
                [ServerSent { seq: 7, json: "{\"a\":1}".into() }, ServerSent { seq: 8, json: "{\"ü\":2}".into() }];
            assert_eq!(events, expect, "cut at {cut}");
        }
    }
}

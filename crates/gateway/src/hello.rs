//! Holds a tunnel to its word: a TLS connection through it must name the host that the tunnel was opened to.
//!
//! Allowed hosts often live on a content network that serves thousands of others at the same address, and picks by
//! the name in the TLS hello. Without this check, a tunnel to an allowed host would be one to all of them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The largest TLS hello that is waited for, in bytes: one with post-quantum keys takes two kilobytes.
const HELLO_BYTES_MAX: usize = 32 << 10;

/// The content type of a TLS record that carries a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// The client's side of a tunnel. What is not TLS passes as it is: the far side may speak first, too.
pub(crate) struct Guarded<S> {
    stream: S,
    host: String,
    state: State,
}

enum State {
    /// The hello is not complete; what there is of it is held back.
    Waiting { acceptor: Box<Acceptor>, held: Vec<u8> },
    /// The hello was good; what was held back goes first.
    Open { held: Vec<u8>, passed: usize },
    /// The hello names something else.
    Foreign(String),
}

/// What is to be done with what there is of a hello.
enum Hello {
    Incomplete,
    Pass,
    Foreign(String),
}

impl<S> Guarded<S> {
    /// Guards a tunnel to this host.
    pub(crate) fn new(stream: S, host: String) -> Self {
        let state = State::Waiting { acceptor: Box::default(), held: Vec::new() };
        Self { stream, host, state }
    }

    /// A tunnel that leads to an address, and not to a name that could be checked.
    pub(crate) fn open(stream: S) -> Self {
        Self { stream, host: String::new(), state: State::Open { held: Vec::new(), passed: 0 } }
    }

    /// The name in the hello, if it was not the host's.
    pub(crate) fn foreign(&self) -> Option<&str> {
        match &self.state {
            State::Foreign(name) => Some(name),
            State::Waiting { .. } | State::Open { .. } => None,
        }
    }
}

/// Judges the hello with the bytes that have just come.
fn judge(acceptor: &mut Acceptor, held: &[u8], mut fresh: &[u8], host: &str) -> Hello {
    if held.first().is_some_and(|first| *first != HANDSHAKE) {
        return Hello::Pass;
    }
    while !fresh.is_empty() {
        if !acceptor.read_tls(&mut fresh).is_ok_and(|read| read > 0) {
            return Hello::Foreign("something unreadable".to_owned());
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                return match accepted.client_hello().server_name() {
                    Some(name) if name.trim_end_matches('.').eq_ignore_ascii_case(host) => Hello::Pass,
                    Some(name) => Hello::Foreign(name.to_owned()),
                    None => Hello::Foreign("nobody".to_owned()),
                };
            }
            Err(_) => return Hello::Foreign("something unreadable".to_owned()),
        }
    }
    if held.len() > HELLO_BYTES_MAX { Hello::Foreign("something endless".to_owned()) } else { Hello::Incomplete }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Open { held, passed } if *passed < held.len() => {
                    let part = (held.len() - *passed).min(buf.remaining());
                    buf.put_slice(&held[*passed..*passed + part]);
                    *passed += part;
                    return Poll::Ready(Ok(()));
                }
                State::Open { .. } => return Pin::new(&mut this.stream).poll_read(cx, buf),
                State::Foreign(_) => return Poll::Ready(Err(io::ErrorKind::PermissionDenied.into())),
                State::Waiting { acceptor, held } => {
                    let mut chunk = [0; 4096];
                    let mut chunk = ReadBuf::new(&mut chunk);
                    std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, &mut chunk))?;
                    held.extend_from_slice(chunk.filled());
                    let hello = match chunk.filled() {
                        // The client hung up: what it has said is of no use to anyone, and goes nowhere.
                        [] => return Poll::Ready(Ok(())),
                        fresh => judge(acceptor, held, fresh, &this.host),
                    };
                    match hello {
                        Hello::Incomplete => {}
                        Hello::Pass => this.state = State::Open { held: std::mem::take(held), passed: 0 },
                        Hello::Foreign(name) => this.state = State::Foreign(name),
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// The hello of a real TLS client for this name.
    fn hello(name: &'static str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// Sends bytes in parts of this size through a guard for `allowed.test`, and returns what passes.
    async fn pass(bytes: &[u8], part: usize) -> Result<Vec<u8>, String> {
        let (mut client, server) = tokio::io::duplex(64);
        let mut guarded = Guarded::new(server, "allowed.test".to_owned());
        let mut passed = Vec::new();
        let sending = async {
            for part in bytes.chunks(part) {
                if client.write_all(part).await.is_err() {
                    break;
                }
            }
            drop(client);
        };
        let receiving = async {
            let received = guarded.read_to_end(&mut passed).await;
            let verdict = guarded.foreign().map(str::to_owned);
            drop(guarded);
            received.map_err(|_| verdict.unwrap_or_default())
        };
        let ((), received) = tokio::join!(sending, receiving);
        received.map(|_| passed)
    }

    #[tokio::test]
    async fn a_hello_for_the_host_passes_whole_however_it_is_cut() {
        let mut bytes = hello("allowed.test");
        bytes.extend(b"more");
        for part in [1, 7, 64, 5000] {
            assert_eq!(pass(&bytes, part).await.as_deref(), Ok(bytes.as_slice()), "{part}");
        }
    }

    #[tokio::test]
    async fn a_hello_for_another_host_does_not_pass() {
        for part in [1, 64, 5000] {
            assert_eq!(pass(&hello("other.test"), part).await, Err("other.test".to_owned()));
        }
        assert_eq!(pass(&hello("192.0.2.1"), 64).await, Err("nobody".to_owned()));
        assert_eq!(pass(&[22, 3, 1, 0, 4, 9, 9, 9, 9, 0, 0], 64).await, Err("something unreadable".to_owned()));
    }

    #[tokio::test]
    async fn what_is_no_tls_passes() {
        assert_eq!(pass(b"SSH-2.0-client\r\n", 3).await.as_deref(), Ok(b"SSH-2.0-client\r\n".as_slice()));
    }

    #[tokio::test]
    async fn half_a_hello_goes_nowhere() {
        let bytes = hello("other.test");
        assert_eq!(pass(&bytes[..bytes.len() / 2], 64).await.as_deref(), Ok([].as_slice()));
    }
}

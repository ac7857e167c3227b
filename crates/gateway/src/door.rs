//! Accepts connections and tells the two kinds of request apart: proxy requests, and calls of the model API.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::access::Door;
use crate::answer::{Body, problem};
use crate::gateway::{Shared, Socket};
use crate::registry::Owner;
use crate::{egress, model};

/// How long a connection may take to send a request head, and may stay idle between two requests.
const HEAD_WAIT: Duration = Duration::from_secs(60);

/// How long to wait before accepting again when the system refuses, such as for want of file descriptors.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// Accesses may share the loopback listener, so that it holds as many connections as this many accesses.
const LOOPBACK_ACCESSES: usize = 16;

/// A connection, as its requests see it.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) way: Way,
    /// Held by the connection, and by the tunnel that it may turn into.
    pub(crate) permit: Arc<OwnedSemaphorePermit>,
}

/// How a request came in.
#[derive(Clone)]
pub(crate) enum Way {
    /// Through a session's own socket, which says whose it is.
    Socket(Arc<Door>),
    /// Through the shared loopback port, where only the token says so.
    Loopback,
}

/// Serves a session's socket until its access closes.
pub(crate) async fn serve_socket(shared: Arc<Shared>, door: Arc<Door>, socket: Socket) {
    let permits = Arc::new(Semaphore::new(shared.config.limits.connections_max));
    while let Some(permit) = permit(&permits, &door.closed).await {
        let accepted = tokio::select! {
            () = door.closed.cancelled() => break,
            accepted = socket.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let way = Way::Socket(Arc::clone(&door));
                let connection = Connection { shared: Arc::clone(&shared), way, permit };
                door.tasks.spawn(serve(connection, stream, door.closed.clone()));
            }
            Err(error) => pause(&error, &door.closed).await,
        }
    }
}

/// Serves the loopback port until the gateway is shut down.
pub(crate) async fn serve_loopback(shared: Arc<Shared>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(shared.config.limits.connections_max.saturating_mul(LOOPBACK_ACCESSES)));
    while let Some(permit) = permit(&permits, &shared.closed).await {
        let accepted = tokio::select! {
            () = shared.closed.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection stays with Nagle's algorithm");
                }
                let connection = Connection { shared: Arc::clone(&shared), way: Way::Loopback, permit };
                shared.tasks.spawn(serve(connection, stream, shared.closed.clone()));
            }
            Err(error) => pause(&error, &shared.closed).await,
        }
    }
}

async fn permit(permits: &Arc<Semaphore>, closed: &CancellationToken) -> Option<Arc<OwnedSemaphorePermit>> {
    tokio::select! {
        () = closed.cancelled() => None,
        permit = Arc::clone(permits).acquire_owned() => permit.ok().map(Arc::new),
    }
}

async fn pause(error: &std::io::Error, closed: &CancellationToken) {
    tracing::warn!(%error, "the gateway cannot accept a connection");
    tokio::select! {
        () = closed.cancelled() => {}
        () = tokio::time::sleep(ACCEPT_WAIT) => {}
    }
}

/// Serves one connection until it ends or is cut.
async fn serve<S>(connection: Connection, stream: S, closed: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let head_bytes_max = connection.shared.config.limits.head_bytes_max;
    let service = service_fn(move |request| {
        let connection = connection.clone();
        async move { Ok::<_, Infallible>(handle(connection, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(head_bytes_max.max(8 << 10))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        () = closed.cancelled() => {}
        served = serving => {
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the gateway broke");
            }
        }
    }
}

async fn handle(connection: Connection, request: Request<Incoming>) -> Response<Body> {
    let proxied = request.method() == Method::CONNECT || request.uri().authority().is_some();
    if !proxied {
        return model::serve(&connection, request).await;
    }
    let door = match proxy_door(&connection, request.headers()) {
        Ok(door) => door,
        Err(response) => return *response,
    };
    tokio::select! {
        () = door.closed.cancelled() => closed(),
        response = egress::serve(&connection, &door, request) => response,
    }
}

/// The answer to what comes too late.
pub(crate) fn closed() -> Response<Body> {
    let mut response =
        problem(StatusCode::FORBIDDEN, "access closed", "this session's access to the gateway was closed");
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Whose proxy request it is. Package tools send no credentials, and on a session's socket they need none.
fn proxy_door(connection: &Connection, headers: &HeaderMap) -> Result<Arc<Door>, Box<Response<Body>>> {
    if let Way::Socket(door) = &connection.way {
        return Ok(Arc::clone(door));
    }
    let owner = proxy_token(headers).map(|token| connection.shared.registry.owner(&token));
    if let Some(Owner::Open(door)) = owner {
        return Ok(door);
    }
    let detail = "on the loopback port the proxy needs the session's token, as http://hob:TOKEN@host:port";
    let mut response = problem(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "token needed", detail);
    let challenge = HeaderValue::from_static("Basic realm=\"hob gateway\"");
    response.headers_mut().insert(header::PROXY_AUTHENTICATE, challenge);
    Err(Box::new(response))
}

/// The token of `Proxy-Authorization`: a bearer token, or the password of a basic one.
fn proxy_token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::PROXY_AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.trim().to_owned());
    }
    let basic = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(credentials.trim()).ok())??;
    let basic = String::from_utf8(basic).ok()?;
    basic.split_once(':').map(|(_, token)| token.to_owned())
}

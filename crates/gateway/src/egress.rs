//! The egress proxy: `CONNECT` and absolute-form requests, by the access's allow-list.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::access::Door;
use crate::answer::{Body, BodyError, empty, problem};
use crate::dial::{DialError, Target, dial};
use crate::door::Connection;
use crate::gateway::Shared;
use crate::headers::strip_hop_by_hop;
use crate::hello::Guarded;
use crate::host::Host;
use crate::meter::RefusalReason;
use crate::tunnel::{Counted, spent};

/// How long a client may take to start using the tunnel that it asked for.
const UPGRADE_WAIT: Duration = Duration::from_secs(30);

/// Answers a proxy request.
pub(crate) async fn serve(connection: &Connection, door: &Arc<Door>, request: Request<Incoming>) -> Response<Body> {
    let shared = &connection.shared;
    let tunnel = request.method() == Method::CONNECT;
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    let default_port = (!tunnel).then_some(80);
    let Some(target) = Target::parse(&authority, default_port) else {
        return refuse(shared, door, &authority, 0, RefusalReason::Unreadable);
    };
    if !tunnel && request.uri().scheme() != Some(&Scheme::HTTP) {
        return problem(
            StatusCode::BAD_REQUEST,
            "use CONNECT",
            "this proxy forwards http:// only; tunnel the rest by CONNECT",
        );
    }
    let host = target.host.to_string();
    let bytes_max = shared.config.limits.egress_bytes_max;
    if spent(door, bytes_max) {
        return refuse(shared, door, &host, target.port, RefusalReason::ByteLimit(bytes_max));
    }
    let stream = match dial(shared, door, &target).await {
        Ok(stream) => Counted::new(stream, Arc::clone(door), bytes_max),
        Err(DialError::Refused(reason)) => return refuse(shared, door, &host, target.port, reason),
        Err(error @ DialError::TooSlow) => {
            return problem(StatusCode::GATEWAY_TIMEOUT, "host too slow", &format!("{target}: {error}"));
        }
        Err(error) => return problem(StatusCode::BAD_GATEWAY, "host not reached", &format!("{target}: {error}")),
    };
    if tunnel {
        door.tasks.spawn(carry(connection.clone(), Arc::clone(door), target, request, stream));
        return Response::new(empty());
    }
    forward(shared, door, &target, request, stream).await
}

/// Refuses, tells the meter, and tells the client what to do about it.
fn refuse(shared: &Shared, door: &Door, host: &str, port: u16, reason: RefusalReason) -> Response<Body> {
    let status = match reason {
        RefusalReason::Unreadable => StatusCode::BAD_REQUEST,
        _ => StatusCode::FORBIDDEN,
    };
    let response = problem(status, "egress refused", &format!("{host}:{port}: {reason}"));
    door.refused(shared, host, port, reason);
    response
}

/// Carries a tunnel from the client's first byte to the end.
async fn carry(connection: Connection, door: Arc<Door>, target: Target, request: Request<Incoming>, stream: Counted) {
    let _permit = Arc::clone(&connection.permit);
    let shared = &connection.shared;
    let mut outside = stream;
    let mut inside = match timeout(UPGRADE_WAIT, hyper::upgrade::on(request)).await {
        Ok(Ok(upgraded)) => match &target.host {
            Host::Name(name) => Guarded::new(TokioIo::new(upgraded), name.clone()),
            Host::Address(_) => Guarded::open(TokioIo::new(upgraded)),
        },
        Ok(Err(error)) => return tracing::debug!(%error, %target, "a tunnel was not taken up"),
        Err(_) => return tracing::debug!(%target, "a tunnel was not taken up in time"),
    };
    let activity = outside.activity();
    let idle = Duration::from_millis(shared.config.limits.egress_idle_ms);
    tokio::select! {
        () = door.closed.cancelled() => {}
        () = activity.silence(idle) => tracing::debug!(%target, "a silent tunnel was cut"),
        carried = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {
            if let Err(error) = carried {
                tracing::debug!(%error, %target, "a tunnel broke");
            }
        }
    }
    if let Some(name) = inside.foreign() {
        let reason = RefusalReason::ServerName(name.to_owned());
        door.refused(shared, &target.host.to_string(), target.port, reason);
    }
    report_limit(shared, &door, &target);
}

/// Sends a plain request on and hands the answer back, both as they come.
async fn forward(
    shared: &Arc<Shared>,
    door: &Arc<Door>,
    target: &Target,
    request: Request<Incoming>,
    stream: Counted,
) -> Response<Body> {
    let limits = &shared.config.limits;
    let activity = stream.activity();
    let failed =
        |error: &dyn std::fmt::Display| problem(StatusCode::BAD_GATEWAY, "host failed", &format!("{target}: {error}"));
    let (mut sender, driver) = match http1::handshake(TokioIo::new(stream)).await {
        Ok(pair) => pair,
        Err(error) => return failed(&error),
    };
    let idle = Duration::from_millis(limits.egress_idle_ms);
    let (watched, shared_too, aim) = (Arc::clone(door), Arc::clone(shared), target.clone());
    door.tasks.spawn(async move {
        tokio::select! {
            () = watched.closed.cancelled() => {}
            () = activity.silence(idle) => tracing::debug!(target = %aim, "a silent connection was cut"),
            driven = driver => {
                if let Err(error) = driven {
                    tracing::debug!(%error, target = %aim, "a forwarded connection broke");
                }
            }
        }
        report_limit(&shared_too, &watched, &aim);
    });
    let request = match outward(request, target) {
        Ok(request) => request,
        Err(error) => return failed(&error),
    };
    let answered = timeout(Duration::from_millis(limits.answer_head_ms), sender.send_request(request)).await;
    match answered {
        Ok(Ok(response)) => inward(response),
        Ok(Err(error)) => failed(&error),
        Err(_) => problem(StatusCode::GATEWAY_TIMEOUT, "host too slow", &format!("{target} did not answer in time")),
    }
}

/// The request as the host sees it: origin-form, with the host that was checked as its `Host`.
fn outward(request: Request<Incoming>, target: &Target) -> Result<Request<Incoming>, http::Error> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    parts.version = http::Version::HTTP_11;
    strip_hop_by_hop(&mut parts.headers);
    parts.headers.remove(header::EXPECT);
    let host = if target.port == 80 { target.host.to_string() } else { target.to_string() };
    parts.headers.insert(header::HOST, HeaderValue::try_from(host)?);
    Ok(Request::from_parts(parts, body))
}

fn inward(response: Response<Incoming>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    parts.version = http::Version::HTTP_11;
    Response::from_parts(parts, body.map_err(BodyError::from).boxed_unsync())
}

/// Makes it visible when a connection ended since the access has carried all that it may.
fn report_limit(shared: &Shared, door: &Door, target: &Target) {
    let bytes_max = shared.config.limits.egress_bytes_max;
    if spent(door, bytes_max) {
        door.refused(shared, &target.host.to_string(), target.port, RefusalReason::ByteLimit(bytes_max));
    }
}

//! One session followed by 500 WebSocket clients at 100 events a second: from the append to the client's hands.
//!
//! The server is the real one with its store on disk; only the clients share its process, and so its two cores. The
//! figure is set against the same append without any client: what `record_refusal` takes to return.

#![expect(clippy::expect_used, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark, run by hand")]

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use hob::config::Config;
use hob::serve::{Listen, Server};
use hob_agent::Author;
use hob_session::{NewSession, Refusal, State};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const CLIENTS: usize = 500;
const EVENTS: u32 = 1_000;
const EVERY: Duration = Duration::from_millis(10);

const CONFIG: &str =
    "[providers.none]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9\"\n[models.none]\nprovider = \"none\"\n";

#[tokio::main]
async fn main() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let home = tempfile::tempdir().unwrap();
    let mut config = Config::parse(CONFIG, "bench.toml".as_ref()).unwrap();
    config.server.listen = "127.0.0.1:0".into();
    let data_dir = home.path().join("data");
    let server = Server::start(&config, data_dir.clone(), Listen::Exactly).await.expect("the server starts");
    let (engine, address) = (server.engine(), server.address);
    let token = std::fs::read_to_string(data_dir.join("token")).unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    tasks.spawn(server.run(stop.clone()));

    let session = NewSession {
        repository: repository(home.path()),
        base: None,
        agent: "hob".into(),
        model: "none".into(),
        author: Author { name: "Bench".into(), email: "bench@localhost".into() },
        title: None,
        prompt: None,
        idempotency_key: None,
    };
    let id = engine.create(session).await.expect("a session").session;
    while engine.get(&id).await.unwrap().state != State::Idle {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // The session's owner counts its epochs from the start of the store; the one that counts now takes the append.
    let mut epoch = 1;
    let probe = || Refusal { host: "bench.example".into(), port: 443, reason: "0".into() };
    while engine.record_refusal(&id, epoch, probe()).await.is_err() {
        epoch += 1;
        assert!(epoch < 100, "the session has an owner");
    }

    let origin = Instant::now();
    let append = async || {
        let began = Instant::now();
        let reason = format!("{}", origin.elapsed().as_nanos());
        let refusal = Refusal { host: "bench.example".into(), port: 443, reason };
        engine.record_refusal(&id, epoch, refusal).await.expect("an append");
        began.elapsed()
    };
    let mut alone = Vec::new();
    let mut tick = tokio::time::interval(EVERY);
    for _ in 0..EVENTS / 4 {
        tick.tick().await;
        alone.push(append().await);
    }

    let (latencies, mut measured) = mpsc::channel::<Vec<Duration>>(CLIENTS);
    let since = engine.get(&id).await.unwrap().seq;
    let (ready, mut readied) = mpsc::channel::<()>(CLIENTS);
    for _ in 0..CLIENTS {
        let mut request = format!("ws://{address}/api/v1/ws").into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("a socket");
        socket.send(Message::text(r#"{"op":"hello","protocol":1}"#)).await.unwrap();
        let sub = format!(r#"{{"op":"sub","topic":"sessions/{id}","since":{since}}}"#);
        socket.send(Message::text(sub)).await.unwrap();
        let (latencies, ready) = (latencies.clone(), ready.clone());
        tasks.spawn(async move {
            let mut seen = Vec::with_capacity(EVENTS as usize);
            while let Some(Ok(message)) = socket.next().await {
                let Message::Text(text) = message else { continue };
                if text.contains("\"op\":\"replay\"") {
                    ready.send(()).await.unwrap();
                }
                let Some((_, rest)) = text.split_once("\"reason\":\"") else { continue };
                let sent = rest.split('"').next().unwrap().parse().unwrap();
                seen.push(origin.elapsed().saturating_sub(Duration::from_nanos(sent)));
                if seen.len() == EVENTS as usize {
                    break;
                }
            }
            latencies.send(seen).await.unwrap();
        });
    }
    for _ in 0..CLIENTS {
        readied.recv().await.expect("every client is ready");
    }
    let mut tick = tokio::time::interval(EVERY);
    for _ in 0..EVENTS {
        tick.tick().await;
        append().await;
    }
    let mut all = Vec::new();
    for _ in 0..CLIENTS {
        all.extend(measured.recv().await.expect("every client answers"));
    }
    assert_eq!(all.len(), CLIENTS * EVENTS as usize, "no client lost an event");
    let base = percentile(&mut alone, 50);
    let name = "fanout.append_alone";
    println!(
        "{{\"name\":\"{name}\",\"unit\":\"ms\",\"p50\":{base:.3},\"p95\":{:.3},\"n\":{},\"against\":\"{name}\",\"ratio\":1.00}}",
        percentile(&mut alone, 95),
        alone.len()
    );
    let p50 = percentile(&mut all, 50);
    println!(
        "{{\"name\":\"fanout.delivery_500_clients\",\"unit\":\"ms\",\"p50\":{p50:.3},\"p95\":{:.3},\"n\":{},\"against\":\"{name}\",\"ratio\":{:.2}}}",
        percentile(&mut all, 95),
        all.len(),
        p50 / base
    );
    stop.cancel();
    tasks.close();
    drop(tokio::time::timeout(Duration::from_secs(15), tasks.wait()).await);
    // The helper outlives its server by design.
    let sandboxes = hob_sandbox::LocalConfig::new(data_dir.join("sandboxes"));
    hob_sandbox::Local::open(sandboxes).await.unwrap().shutdown().await.unwrap();
}

/// A repository with one commit.
fn repository(home: &std::path::Path) -> String {
    let folder = home.join("repository");
    std::fs::create_dir(&folder).unwrap();
    let commit = ["-c", "user.name=B", "-c", "user.email=b@x", "commit", "-q", "--allow-empty", "-m", "empty"];
    for arguments in [&["init", "-q"][..], &commit[..]] {
        assert!(hob::git::run(Some(&folder), arguments).unwrap().status.success());
    }
    folder.display().to_string()
}

/// Milliseconds.
fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1_000.0
}

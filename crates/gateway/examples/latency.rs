//! Measures what the gateway adds to the first byte of a model's answer: through the gateway against direct.
//!
//! Prints one JSON line per way in, in the shape of the project's benchmarks. The provider is the scripted model on
//! this machine, so that nearly all of the direct time is loopback, and the difference is the gateway's own.

#![expect(clippy::print_stdout, reason = "the figures are the output")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hob_gateway::{AccessSpec, Gateway, GatewayConfig, Meter, ModelCall, Notice, RefusedEgress, UnknownModel};
use hob_scripted_model::{ScriptedModel, Scripts, Step};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::TaskTracker;

const TOKEN: &str = "token-for-measuring";
const ROUNDS: usize = 400;
const WARM_UP: usize = 40;
const PATIENCE: Duration = Duration::from_secs(10);

type Client = SendRequest<Full<Bytes>>;

/// A meter that keeps nothing.
struct Unheard;

impl Meter for Unheard {
    fn model_call(&self, _: ModelCall) {}
    fn refused(&self, _: RefusedEgress) {}
    fn notice(&self, _: Notice) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let tasks = TaskTracker::new();
    let model = ScriptedModel::start(Scripts::new().script("greet", [Step::say("Hello.")])).await?;
    let dir = std::env::temp_dir().join(format!("hob-gateway-latency-{}", std::process::id()));
    let socket = dir.join("gateway.sock");
    let gateway = Gateway::start(config(&model.address().to_string())?, Arc::new(Unheard)).await?;
    let access = gateway
        .open(AccessSpec {
            session: "bench".into(),
            epoch: 1,
            token: TOKEN.into(),
            unix_socket: Some(socket.clone()),
            default_model: "m".into(),
            unknown_model: UnknownModel::UseDefault,
            allow: Vec::new(),
        })
        .await?;

    let mut direct = client(&tasks, TcpStream::connect(model.address()).await?).await?;
    let loopback = gateway.base_url().replace("http://", "");
    let mut tcp = client(&tasks, TcpStream::connect(loopback).await?).await?;
    let mut unix = client(&tasks, UnixStream::connect(&socket).await?).await?;
    let mut times = [const { Vec::new() }; 3];
    // Interleaved, so that noise of the machine meets all three alike.
    for round in 0..ROUNDS + WARM_UP {
        for (client, times) in [&mut direct, &mut tcp, &mut unix].into_iter().zip(&mut times) {
            let elapsed = tokio::time::timeout(PATIENCE, first_byte(client)).await??;
            if round >= WARM_UP {
                times.push(elapsed);
            }
        }
    }
    let [mut direct, mut tcp, mut unix] = times;
    report("gateway.direct", &mut direct, None);
    report("gateway.loopback", &mut tcp, Some(&direct));
    report("gateway.socket", &mut unix, Some(&direct));

    access.close().await;
    gateway.shutdown(PATIENCE).await;
    model.shutdown().await;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn config(provider: &str) -> Result<GatewayConfig, serde_json::Error> {
    serde_json::from_value(json!({
        "providers": [{ "name": "p", "kind": "openai", "base_url": format!("http://{provider}") }],
        "models": [{ "id": "m", "provider": "p" }],
    }))
}

async fn client<S>(tasks: &TaskTracker, stream: S) -> Result<Client, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driver) = handshake(TokioIo::new(stream)).await?;
    tasks.spawn(driver);
    Ok(sender)
}

/// One streamed call: the time to the first byte of its body.
async fn first_byte(client: &mut Client) -> Result<Duration, Box<dyn Error>> {
    let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"@@script:greet@@"}]}"#;
    let request = Request::post("/v1/chat/completions")
        .header("host", "localhost")
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(body.as_bytes())))?;
    client.ready().await?;
    let started = Instant::now();
    let mut response = client.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(format!("the answer is {}", response.status()).into());
    }
    response.body_mut().frame().await.ok_or("the answer has no body")??;
    let elapsed = started.elapsed();
    response.into_body().collect().await?;
    Ok(elapsed)
}

/// Prints a figure; `direct` is sorted, as it was reported before.
fn report(name: &str, times: &mut [Duration], direct: Option<&[Duration]>) {
    let ms = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
    times.sort_unstable();
    let (p50, p95) = (times[times.len() / 2], times[times.len() * 95 / 100]);
    let ratio = direct.map(|direct| p50.as_secs_f64() / direct[direct.len() / 2].as_secs_f64());
    let line = json!({
        "name": name,
        "unit": "ms",
        "p50": ms(p50),
        "p95": ms(p95),
        "n": times.len(),
        "against": direct.map(|_| "gateway.direct"),
        "ratio": ratio.map(|ratio| (ratio * 100.0).round() / 100.0),
    });
    println!("{line}");
}

//! The egress proxy on a session's socket: what it lets through, what it refuses, and how one learns of it.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod support;

use std::net::SocketAddr;

use hob_gateway::{HostRule, RefusalReason};
use support::{House, Provider, answer, token, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A rule for a host on this port that may lead to a private address, as every host of these tests does.
fn private(host: &str, port: u16) -> HostRule {
    format!("{host}:{port}").parse::<HostRule>().unwrap().private()
}

/// A server that greets whoever connects, and then echoes.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio_util::task::TaskTracker::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"hello\n").await.ok();
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await.ok();
        }
    });
    address
}

fn connect(target: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn an_allowed_host_is_reached_through_a_tunnel() {
    let echo = echo().await;
    let house = House::start("egress.allow = []", &[("git.test", "127.0.0.1")]).await;
    let access = house.open_to("s1", &[private("git.test", echo.port())]).await;
    let mut client = house.connect("s1").await;
    client.write_all(connect(&format!("Git.Test:{}", echo.port())).as_bytes()).await.unwrap();
    let mut text = Vec::new();
    within(async {
        while !text.ends_with(b"hello\n") {
            client.read_buf(&mut text).await.unwrap();
        }
        client.write_all(b"ping").await.unwrap();
        while !text.ends_with(b"ping") {
            client.read_buf(&mut text).await.unwrap();
        }
    })
    .await;
    assert!(text.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(access.totals().egress_bytes, 14);

    // Closing the access cuts the tunnel, though both ends would go on.
    let totals = within(access.close()).await;
    assert_eq!(totals.egress_bytes, 14);
    assert!(matches!(within(client.read_buf(&mut text)).await, Ok(0) | Err(_)));
    assert!(!house.socket("s1").exists());
}

#[tokio::test]
async fn a_plain_request_is_forwarded_with_the_checked_host_and_without_proxy_headers() {
    let server = Provider::start(vec![answer("200 OK", "x-answer: yes\r\n", "package")]).await;
    let port = server.address.port();
    let house = House::start("", &[("deb.test", "127.0.0.1")]).await;
    let _access = house.open_to("s1", &[private("deb.test", port)]).await;
    let request = format!(
        "GET http://deb.test:{port}/pool/a.deb?x=1 HTTP/1.1\r\nHost: elsewhere.test\r\nProxy-Authorization: Basic eDp5\r\n\
         Proxy-Connection: keep-alive\r\nX-Hop: 1\r\nConnection: close, x-hop\r\nAccept: */*\r\n\r\n"
    );
    let reply = house.raw("s1", &request).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "package"));
    assert!(reply.head.contains("x-answer: yes"));
    let head = server.seen()[0].head.to_ascii_lowercase();
    assert!(head.starts_with("get /pool/a.deb?x=1 http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: deb.test:{port}\r\n")) && head.contains("accept: */*"), "{head}");
    for hidden in ["elsewhere", "proxy-", "x-hop"] {
        assert!(!head.contains(hidden), "{head}");
    }
}

#[tokio::test]
async fn a_refusal_says_how_to_allow_the_host_and_is_metered() {
    let house = House::start("", &[]).await;
    let access = house.open("s1").await;
    let reply = house.raw("s1", &connect("evil.test:443")).await;
    assert_eq!(reply.status, 403);
    assert!(reply.head.contains("application/problem+json"));
    assert!(
        reply.body.contains("evil.test:443: the host is not on the allow-list; add it to the egress"),
        "{}",
        reply.body
    );
    let reply =
        house.raw("s1", "GET http://evil.test/x HTTP/1.1\r\nhost: evil.test\r\nconnection: close\r\n\r\n").await;
    assert_eq!(reply.status, 403);
    let refused = house.ledger.now().refused;
    assert_eq!((refused[0].host.as_str(), refused[0].port), ("evil.test", 443));
    assert_eq!((refused[1].host.as_str(), refused[1].port), ("evil.test", 80));
    assert!(refused.iter().all(|refused| refused.reason == RefusalReason::HostNotAllowed && refused.session == "s1"));
    assert_eq!(access.totals().refused, 2);

    // A sandbox that is refused again and again is told of ever more rarely, and counted exactly.
    for _ in 0..30 {
        house.raw("s1", &connect("evil.test:443")).await;
    }
    let times: Vec<u64> = house.ledger.now().refused.iter().skip(2).map(|refused| refused.times).collect();
    assert_eq!((times, access.totals().refused), (vec![2, 4, 8, 16], 32));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_or_answer_is_no_refusal() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let house = House::start("", &[("down.test", "127.0.0.1")]).await;
    let rules = [private("gone.test", 443), private("down.test", nobody.port())];
    let _access = house.open_to("s1", &rules).await;
    let reply = house.raw("s1", &connect("gone.test:443")).await;
    assert!(reply.status == 502 && reply.body.contains("does not resolve"), "{reply:?}");
    let reply = house.raw("s1", &connect(&format!("down.test:{}", nobody.port()))).await;
    assert!(reply.status == 502 && reply.body.contains("no connection"), "{reply:?}");
    assert!(house.ledger.now().refused.is_empty());
}

#[tokio::test]
async fn an_access_that_has_carried_its_limit_carries_no_more() {
    let echo = echo().await;
    let house = House::start("limits.egress_bytes_max = 1000", &[("a.test", "127.0.0.1")]).await;
    let access = house.open_to("s1", &[private("a.test", echo.port())]).await;
    let target = format!("a.test:{}", echo.port());
    let reply = house.raw("s1", &format!("{}{}", connect(&target), "x".repeat(5000))).await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.len() < 5000);
    house.ledger.when(|entries| entries.refused.iter().any(|one| one.reason == RefusalReason::ByteLimit(1000))).await;
    assert_eq!(house.raw("s1", &connect(&target)).await.status, 403);
    assert!(access.totals().egress_bytes < 20_000);
}

#[tokio::test]
async fn a_silent_tunnel_is_cut() {
    let echo = echo().await;
    let house = House::start("limits.egress_idle_ms = 50", &[("a.test", "127.0.0.1")]).await;
    let _access = house.open_to("s1", &[private("a.test", echo.port())]).await;
    // It would never end by itself: the client reads until the gateway hangs up.
    let reply = house.raw("s1", &connect(&format!("a.test:{}", echo.port()))).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "hello\n"));
}

#[tokio::test]
async fn the_machines_own_proxy_is_used_when_it_is_configured() {
    // The proxy stands in for one of an office: it answers CONNECT and then plays the far side itself.
    let office = Provider::start(vec![vec![support::Step::Send("HTTP/1.1 200 Connected\r\n\r\nhello\n".into())]]).await;
    let house = House::start(&format!("egress.proxy = 'http://{}'", office.address), &[]).await;
    let _access = house.open_to("s1", &["far.test".parse().unwrap()]).await;
    let mut client = house.connect("s1").await;
    client.write_all(connect("far.test:443").as_bytes()).await.unwrap();
    let mut text = Vec::new();
    within(async {
        while !text.ends_with(b"hello\n") {
            client.read_buf(&mut text).await.unwrap();
        }
    })
    .await;
    assert!(text.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(office.seen()[0].head.starts_with("CONNECT far.test:443 HTTP/1.1\r\n"));
    assert_eq!(house.raw("s1", &connect("other.test:443")).await.status, 403);
    assert_eq!(office.seen().len(), 1);
}

#[tokio::test]
async fn on_the_loopback_port_the_proxy_asks_for_the_sessions_token() {
    let echo = echo().await;
    let house = House::start("", &[("a.test", "127.0.0.1")]).await;
    let _access = house.open_to("s1", &[private("a.test", echo.port())]).await;
    let target = format!("a.test:{}", echo.port());
    let with = |credentials: &str| {
        format!("CONNECT {target} HTTP/1.1\r\nconnection: close\r\nproxy-authorization: {credentials}\r\n\r\n")
    };
    assert_eq!(house.raw_tcp(&connect(&target)).await.status, 407);
    assert_eq!(house.raw_tcp(&with("Bearer token-of-nobody-at-1")).await.status, 407);
    let address = house.gateway.base_url().trim_start_matches("http://").to_owned();
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(with(&format!("Bearer {}", token("s1", 1))).as_bytes()).await.unwrap();
    let mut text = [0; 12];
    within(client.read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"HTTP/1.1 200");
}

//! What code in a sandbox might try at its gateway. Each test tries, and fails to get through.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod support;

use std::sync::Arc;

use hob_gateway::{AccessSpec, HostRule, NoticeKind, OpenError, RefusalReason};
use support::{House, KEY, Provider, Step, answer, one_model, post, stream_head, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CALL: &str = r#"{"model":"m"}"#;

async fn house() -> (House, Provider) {
    let provider = Provider::start(vec![answer("200 OK", "", "{}")]).await;
    (House::with_provider(&provider).await, provider)
}

#[tokio::test]
async fn another_sessions_token_is_refused_on_this_sessions_socket_and_told() {
    let (house, provider) = house().await;
    let _mine = house.open("mine").await;
    let _theirs = house.open("theirs").await;
    let reply = house.raw("mine", &post("/v1/messages", &token("theirs", 1), CALL)).await;
    assert_eq!(reply.status, 403);
    assert!(!reply.body.contains("theirs"), "{}", reply.body);
    let notices = house.ledger.now().notices;
    assert_eq!((notices[0].session.as_str(), &notices[0].kind), ("mine", &NoticeKind::ForeignToken));
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn a_made_up_token_or_none_is_refused_everywhere() {
    let (house, provider) = house().await;
    let _access = house.open("s1").await;
    let made_up = post("/v1/messages", "token-of-nobody-at-all", CALL);
    let none = made_up.replace("authorization", "x-other");
    for request in [&made_up, &none] {
        assert_eq!(house.raw("s1", request).await.status, 401);
        assert_eq!(house.raw_tcp(request).await.status, 401);
    }
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn the_models_are_not_listed_without_a_token() {
    let (house, _provider) = house().await;
    let _access = house.open("s1").await;
    assert_eq!(house.raw("s1", "GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.status, 401);
}

#[tokio::test]
async fn a_later_epoch_closes_the_earlier_one_and_its_token_is_refused() {
    let (house, provider) = house().await;
    let old = house.open("s1").await;
    let new = house.gateway.open(house.spec("s1", 2)).await.unwrap();
    support::within(old.closed()).await;
    let stale = house.raw("s1", &post("/v1/messages", &token("s1", 1), CALL)).await;
    assert_eq!(stale.status, 401);
    assert!(stale.body.contains("earlier epoch"), "{}", stale.body);
    assert_eq!(house.ledger.now().notices[0].kind, NoticeKind::StaleToken);
    assert_eq!(house.raw_tcp(&post("/v1/messages", &token("s1", 1), CALL)).await.status, 401);
    assert!(provider.seen().is_empty());

    // Dropping the old access neither closes the new one nor takes its socket.
    drop(old);
    assert_eq!(house.raw("s1", &post("/v1/messages", &token("s1", 2), CALL)).await.status, 200);
    drop(new);
}

#[tokio::test]
async fn an_earlier_or_equal_epoch_cannot_be_opened() {
    let (house, _provider) = house().await;
    let access = house.gateway.open(house.spec("s1", 5)).await.unwrap();
    for epoch in [4, 5] {
        let refused = house.gateway.open(house.spec("s1", epoch)).await.unwrap_err();
        assert!(matches!(refused, OpenError::StaleEpoch { latest: 5, .. }), "{refused}");
    }
    access.close().await;
    let refused = house.gateway.open(house.spec("s1", 5)).await.unwrap_err();
    assert!(matches!(refused, OpenError::StaleEpoch { .. }), "{refused}");
    assert!(house.gateway.open(house.spec("s1", 6)).await.is_ok());
}

#[tokio::test]
async fn a_weak_or_taken_token_cannot_be_used() {
    let (house, _provider) = house().await;
    let _access = house.open("s1").await;
    for bad in ["short", "with a space in it, and long", &token("s1", 1)] {
        let spec = AccessSpec { token: bad.into(), ..house.spec("s2", 1) };
        assert!(matches!(house.gateway.open(spec).await, Err(OpenError::Token(_))), "{bad}");
    }
}

#[tokio::test]
async fn the_token_is_not_in_the_debug_output_of_anything() {
    let (house, _provider) = house().await;
    let access = house.open("s1").await;
    let text = format!("{:?} {:?} {:?}", house.spec("s1", 1), access, house.gateway);
    assert!(!text.contains(&token("s1", 1)) && !text.contains(KEY), "{text}");
}

/// Plays a provider that repeats all headers of the request, and checks that the key does not come back.
async fn check_echo(script: Vec<Step>) {
    let provider = Provider::start(vec![script]).await;
    let house = House::with_provider(&provider).await;
    let _access = house.open("s1").await;
    let reply = house.post("s1", "/v1/chat/completions", CALL).await;
    assert!(provider.seen()[0].head.contains(KEY));
    assert!(!reply.head.contains(KEY) && !reply.body.contains(KEY), "{reply:?}");
    assert!(reply.body.contains("[redacted]"), "{reply:?}");
}

#[tokio::test]
async fn the_real_key_does_not_come_back_when_the_provider_echoes_it() {
    let (first, second) = KEY.split_at(9);
    check_echo(answer("401 Unauthorized", &format!("x-echo: Bearer {KEY}\r\n"), &format!("bad key {KEY}"))).await;
    let split = vec![stream_head(), Step::Send(format!("data: {KEY} {first}")), Step::Send(format!("{second}\n\n"))];
    check_echo(split).await;
}

#[tokio::test]
async fn a_provider_cannot_send_the_key_elsewhere_by_a_redirect() {
    let elsewhere = Provider::start(vec![answer("200 OK", "", "{}")]).await;
    let location = format!("location: http://{}/steal\r\n", elsewhere.address);
    let provider = Provider::start(vec![answer("307 Temporary Redirect", &location, "{}")]).await;
    let house = House::with_provider(&provider).await;
    let _access = house.open("s1").await;
    assert_eq!(house.post("s1", "/v1/messages", CALL).await.status, 307);
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn a_compressed_answer_could_hide_the_key_and_is_refused() {
    let provider = Provider::start(vec![answer("200 OK", "content-encoding: gzip\r\n", "zzz")]).await;
    let house = House::with_provider(&provider).await;
    let _access = house.open("s1").await;
    let reply = house.post("s1", "/v1/messages", CALL).await;
    assert_eq!(reply.status, 502);
    assert!(reply.body.contains("compressed"), "{}", reply.body);
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_413_and_nothing_is_lost() {
    let provider = Provider::start(vec![answer("200 OK", "", "{}")]).await;
    let house = House::start(&one_model(provider.address, "limits.body_bytes_max = 100000"), &[]).await;
    let access = house.open("s1").await;
    let large = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(150_000));
    let reply = house.post("s1", "/v1/messages", &large).await;
    assert_eq!(reply.status, 413);
    assert!(reply.body.contains("larger than 100000 bytes"), "{}", reply.body);
    let chunked = post("/v1/messages", &token("s1", 1), "").replace("content-length: 0", "transfer-encoding: chunked");
    let chunks = format!("{chunked}{}0\r\n\r\n", format!("4000\r\n{}\r\n", "x".repeat(0x4000)).repeat(10));
    assert_eq!(house.raw("s1", &chunks).await.status, 413);
    let endless = format!("{chunked}{}", format!("4000\r\n{}\r\n", "x".repeat(0x4000)).repeat(200));
    assert!([0, 413].contains(&house.raw("s1", &endless).await.status));
    assert!(provider.seen().is_empty());
    // The access goes on.
    assert_eq!(house.post("s1", "/v1/messages", CALL).await.status, 200);
    assert_eq!(access.close().await.model_calls, 1);
}

#[tokio::test]
async fn requests_that_two_servers_might_read_differently_are_refused() {
    let (house, provider) = house().await;
    let _access = house.open("s1").await;
    let own = post("/v1/messages", &token("s1", 1), CALL);
    let smuggled = [
        own.replace("content-length: 13", "content-length: 13\r\ncontent-length: 14"),
        own.replace("content-length: 13", "content-length: +13"),
        own.replace("content-length: 13", "content-length: 13, 14"),
        own.replace("content-length: 13", "transfer-encoding: gzip"),
        own.replace("content-length: 13", "transfer-encoding : chunked"),
        own.replace("HTTP/1.1\r\n", "HTTP/1.1\r\nbad header: 1\r\n"),
        own.replace("HTTP/1.1\r\n", &format!("HTTP/1.1\r\nx-giant: {}\r\n", "x".repeat(200_000))),
        own.replace("HTTP/1.1\r\n", &format!("HTTP/1.1\r\n{}", "x-many: 1\r\n".repeat(500))),
        own.replace("HTTP/1.1", "HTTP/3.7"),
        own.replace("POST", "PO ST"),
        "\0\0\0\0\r\n\r\n".to_owned(),
        post("/v1/messages", &token("s1", 1), r#"{"model":"m","model":"dear"}"#),
    ];
    for request in &smuggled {
        let reply = house.raw("s1", request).await;
        assert!([0, 400, 431].contains(&reply.status), "{reply:?} to {}", &request[..request.len().min(200)]);
    }
    assert!(provider.seen().is_empty());
    assert_eq!(house.raw("s1", &own).await.status, 200);
}

#[tokio::test]
async fn a_chunked_body_with_a_length_beside_it_reaches_the_provider_as_one_request() {
    let (house, provider) = house().await;
    let _access = house.open("s1").await;
    let inner = post("/v1/messages", &token("s1", 1), CALL);
    let outer = post("/v1/messages", &token("s1", 1), "")
        .replace("content-length: 0", "content-length: 5\r\ntransfer-encoding: chunked");
    house.raw("s1", &format!("{outer}d\r\n{CALL}\r\n0\r\n\r\n{inner}")).await;
    for seen in provider.seen() {
        assert_eq!(seen.body, r#"{"model":"upstream-m"}"#);
        assert!(seen.head.contains("content-length: 22") && !seen.head.contains("transfer-encoding"), "{}", seen.head);
    }
}

/// Asks for a tunnel with every name allowed, and checks why it is refused.
async fn check_refused(
    targets: &[&str],
    allow: &[&str],
    names: &[(&str, &str)],
    expect: impl Fn(&RefusalReason) -> bool,
) {
    let house = House::start("", names).await;
    let rules: Vec<HostRule> = allow.iter().filter_map(|rule| rule.parse().ok()).collect();
    let _access = house.open_to("s1", &rules).await;
    for (at, target) in targets.iter().enumerate() {
        let reply =
            house.raw("s1", &format!("CONNECT {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
        assert!([400, 403].contains(&reply.status), "{target}: {reply:?}");
        let refused = house.ledger.when(|entries| entries.refused.len() > at).await.refused;
        assert!(expect(&refused[at].reason), "{target}: {refused:?}");
    }
}

#[tokio::test]
async fn addresses_are_not_reached_even_where_every_name_is_allowed() {
    let targets = [
        "169.254.169.254:80",
        "127.0.0.1:443",
        "[::1]:443",
        "[::ffff:127.0.0.1]:443",
        "[::ffff:a9fe:a9fe]:80",
        "10.0.0.1:443",
        "8.8.8.8:443",
    ];
    check_refused(&targets, &["*"], &[], |reason| *reason == RefusalReason::HostNotAllowed).await;
}

#[tokio::test]
async fn odd_spellings_of_addresses_and_targets_are_unreadable() {
    let targets = [
        "2130706433:443",
        "0x7f000001:443",
        "0x7f.0.0.1:443",
        "0177.0.0.1:443",
        "127.1:443",
        "user@a.test:443",
        "user:pass@a.test:443",
        "a.test:443@evil.test:443",
        "a.test:0",
        "a..test:443",
        "[fe80::1%25eth0]:443",
    ];
    check_refused(&targets, &["*"], &[], |reason| *reason == RefusalReason::Unreadable).await;
}

#[tokio::test]
async fn other_ports_of_this_machine_are_not_reached() {
    let names = [("localhost", "127.0.0.1"), ("a.test", "203.0.113.9")];
    check_refused(&["localhost:443"], &["*"], &names, |reason| matches!(reason, RefusalReason::PrivateAddress(_)))
        .await;
    let targets = ["localhost:22", "a.test:22", "a.test:5432"];
    check_refused(&targets, &["*"], &names, |reason| *reason == RefusalReason::PortNotAllowed).await;
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_refused_after_resolution() {
    let names = [
        ("loop.test", "127.0.0.1"),
        ("mapped.test", "::ffff:127.0.0.1"),
        ("lan.test", "192.168.1.1"),
        ("ula.test", "fd12::1"),
        ("nat64.test", "64:ff9b::a00:1"),
    ];
    let targets = ["loop.test:443", "mapped.test:443", "lan.test:443", "ula.test:443", "nat64.test:443"];
    check_refused(&targets, &["*"], &names, |reason| matches!(reason, RefusalReason::PrivateAddress(_))).await;
}

/// The first bytes of a real TLS client that asks for this host.
fn tls_hello(name: &'static str) -> Vec<u8> {
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

#[tokio::test]
async fn a_tunnel_to_an_allowed_host_does_not_carry_tls_to_its_neighbours() {
    // A server of a content network: it hosts the allowed name, and the attacker's.
    let network = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("allowed.test:{}", network.local_addr().unwrap().port());
    let house = House::start("", &[("allowed.test", "127.0.0.1")]).await;
    let _access = house.open_to("s1", &[target.parse::<HostRule>().unwrap().private()]).await;
    for (name, passes) in [("attacker.test", false), ("allowed.test", true)] {
        let hello = tls_hello(name);
        let mut client = house.connect("s1").await;
        client.write_all(format!("CONNECT {target} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        client.write_all(&hello).await.unwrap();
        client.shutdown().await.unwrap();
        let (mut stream, _) = support::within(network.accept()).await.unwrap();
        let mut received = Vec::new();
        support::within(stream.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received, if passes { hello } else { Vec::new() }, "{name}");
    }
    let refused = house.ledger.when(|entries| !entries.refused.is_empty()).await.refused;
    assert_eq!(refused[0].reason, RefusalReason::ServerName("attacker.test".into()));
    assert_eq!(refused.len(), 1);
}

#[tokio::test]
async fn metadata_is_out_of_reach_even_with_a_private_rule() {
    let names = [("meta.test", "169.254.169.254"), ("meta6.test", "fd00:ec2::254"), ("zero.test", "0.0.0.0")];
    let house = House::start("", &names).await;
    let rules: Vec<HostRule> =
        ["*", "169.254.169.254"].iter().map(|rule| rule.parse::<HostRule>().unwrap().private()).collect();
    let _access = house.open_to("s1", &rules).await;
    for target in ["meta.test", "meta6.test", "zero.test", "169.254.169.254"] {
        let reply = house
            .raw("s1", &format!("GET http://{target}/latest HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
            .await;
        assert_eq!(reply.status, 403, "{target}");
    }
    let refused = house.ledger.now().refused;
    assert!(refused.iter().all(|one| matches!(one.reason, RefusalReason::ForbiddenAddress(_))), "{refused:?}");
}

#[tokio::test]
async fn absolute_form_requests_cannot_carry_credentials_or_another_scheme() {
    let house = House::start("", &[("a.test", "203.0.113.9")]).await;
    let _access = house.open_to("s1", &["*".parse().unwrap()]).await;
    for uri in
        ["http://user@a.test/", "http://user:pass@a.test/", "https://a.test/", "ftp://a.test/", "http://a.test:22/"]
    {
        let reply = house.raw("s1", &format!("GET {uri} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")).await;
        assert!([400, 403].contains(&reply.status), "{uri}: {reply:?}");
    }
}

#[tokio::test]
async fn the_model_api_is_not_reached_as_a_proxied_host() {
    let (house, provider) = house().await;
    let _access = house.open("s1").await;
    let port = house.gateway.base_url().rsplit(':').next().unwrap_or_default().to_owned();
    let request = post(&format!("http://127.0.0.1:{port}/v1/messages"), &token("s1", 1), CALL);
    assert_eq!(house.raw("s1", &request).await.status, 403);
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn a_session_cannot_take_all_model_calls() {
    let never = Arc::new(tokio::sync::Notify::new());
    let provider =
        Provider::start(vec![vec![stream_head(), Step::Send("data: x\n\n".into()), Step::Wait(never)]]).await;
    let house = House::start(&one_model(provider.address, "limits.model_calls_max = 1"), &[]).await;
    let _access = house.open("s1").await;
    let mut first = house.connect("s1").await;
    let request = post("/v1/messages", &token("s1", 1), CALL);
    first.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    support::within(first.read_exact(&mut head)).await.unwrap();
    assert_eq!(house.raw("s1", &request).await.status, 429);
}

#[tokio::test]
async fn the_socket_is_for_every_user_and_replaces_only_a_socket() {
    use std::os::unix::fs::PermissionsExt;
    let (house, _provider) = house().await;
    let access = house.open("s1").await;
    let mode = std::fs::metadata(house.socket("s1")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    access.close().await;
    std::fs::write(house.socket("s2"), "precious").unwrap();
    assert!(matches!(house.gateway.open(house.spec("s2", 1)).await, Err(OpenError::Socket { .. })));
    assert_eq!(std::fs::read_to_string(house.socket("s2")).unwrap(), "precious");
    // A socket that could not be made does not use the epoch up.
    std::fs::remove_file(house.socket("s2")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(house.socket("s2")).unwrap());
    assert!(house.gateway.open(house.spec("s2", 1)).await.is_ok());
}

#[tokio::test]
async fn a_shutdown_cuts_everything() {
    let (house, _provider) = house().await;
    let access = house.open("s1").await;
    let House { gateway, dir, .. } = house;
    assert!(gateway.shutdown(support::PATIENCE).await);
    support::within(access.closed()).await;
    assert!(!dir.path().join("s1.sock").exists());
}

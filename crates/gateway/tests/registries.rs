//! Real package tools fetch real packages through the egress proxy, and nothing from elsewhere.
//!
//! These tests need the programs and their registries, and say so by name.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod support;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use hob_gateway::{HostRule, RefusalReason};
use support::{House, token};
use tokio::process::Command;

/// The longest that a package tool may take.
const TOOL_PATIENCE: Duration = Duration::from_secs(180);

async fn run(command: &mut Command) -> Output {
    let output = command.kill_on_drop(true).output();
    tokio::time::timeout(TOOL_PATIENCE, output).await.unwrap().unwrap()
}

/// The rule for where a tool of this machine is set up to fetch from; it may be a mirror on the machine's network.
fn rule_for(registry: &str) -> Option<HostRule> {
    let registry = reqwest::Url::parse(registry.trim()).ok()?;
    let rule = format!("{}:{}", registry.host_str()?, registry.port_or_known_default()?);
    rule.parse::<HostRule>().ok().map(HostRule::private)
}

/// The proxy as its users name it.
fn proxy(house: &House) -> String {
    house.gateway.base_url().replace("http://", &format!("http://hob:{}@", token("s1", 1)))
}

async fn npm(house: &House, folder: &Path, arguments: &[&str]) -> Output {
    let proxy = proxy(house);
    run(Command::new("npm")
        .args(arguments)
        .args(["--no-audit", "--no-fund", "--fetch-retries=0", "--no-update-notifier"])
        .current_dir(folder)
        .env("npm_config_cache", folder.join("cache"))
        .env("npm_config_proxy", &proxy)
        .env("npm_config_https_proxy", &proxy)
        .env("npm_config_noproxy", ""))
    .await
}

/// A gateway with the system's resolver, and an access with the default rules and the registry of this machine's tool.
async fn house(registry: &str) -> (House, hob_gateway::Access) {
    let mut house = House::start("", &[]).await;
    let config = hob_gateway::GatewayConfig::default();
    house.gateway =
        hob_gateway::Gateway::start(config, std::sync::Arc::<support::Ledger>::clone(&house.ledger)).await.unwrap();
    let rules: Vec<HostRule> = rule_for(registry).into_iter().collect();
    let access = house.open_to("s1", &rules).await;
    (house, access)
}

#[tokio::test]
async fn npm_installs_a_package_and_is_refused_another_host_needs_the_registries() {
    let registry = run(Command::new("npm").args(["config", "get", "registry"])).await;
    let (house, access) = house(&String::from_utf8(registry.stdout).unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let installed = npm(&house, folder.path(), &["install", "is-number@7.0.0"]).await;
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    assert!(folder.path().join("node_modules/is-number/index.js").exists());
    assert!(access.totals().egress_bytes > 1000, "it did not come through the gateway: {:?}", access.totals());
    assert!(house.ledger.now().refused.is_empty(), "{:?}", house.ledger.now().refused);

    let elsewhere = npm(&house, folder.path(), &["install", "https://packages.example.com/is-odd.tgz"]).await;
    assert!(!elsewhere.status.success());
    let refused = house.ledger.when(|entries| !entries.refused.is_empty()).await.refused;
    assert_eq!(
        (refused[0].host.as_str(), &refused[0].reason),
        ("packages.example.com", &RefusalReason::HostNotAllowed)
    );
}

#[tokio::test]
async fn a_provider_is_called_over_tls_with_the_machines_roots_needs_the_registries() {
    // Any server that this machine trusts will do: that it answers at all, with whatever status, is the point.
    let registry = run(Command::new("npm").args(["config", "get", "registry"])).await;
    let url = String::from_utf8(registry.stdout).unwrap();
    let config = format!(
        "providers = [{{ name = 'p', kind = 'anthropic', base_url = '{}' }}]\nmodels = [{{ id = 'm', provider = 'p' }}]",
        url.trim()
    );
    let house = House::start(&config, &[]).await;
    let _access = house.open("s1").await;
    let reply = house.post("s1", "/v1/messages", r#"{"model":"m"}"#).await;
    let call = house.ledger.call().await;
    assert!((400..500).contains(&call.status), "{call:?} {reply:?}");
}

#[tokio::test]
async fn cargo_fetches_a_crate_needs_the_registries() {
    let (house, access) = house("").await;
    let folder = tempfile::tempdir().unwrap();
    let manifest =
        "[package]\nname = \"a\"\nedition = \"2024\"\n[lib]\npath = \"a.rs\"\n[dependencies]\nitoa = \"=1.0.17\"\n";
    std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::write(folder.path().join("a.rs"), "").unwrap();
    let fetched = run(Command::new(env!("CARGO"))
        .arg("fetch")
        .current_dir(folder.path())
        .env("CARGO_HOME", folder.path().join("home"))
        .env("CARGO_HTTP_PROXY", proxy(&house)))
    .await;
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(access.totals().egress_bytes > 1000, "it did not come through the gateway: {:?}", access.totals());
    assert!(house.ledger.now().refused.is_empty(), "{:?}", house.ledger.now().refused);
}

//! Memory of the server: idle, and what each idle session adds to it. Sandboxes are processes of their own and not
//! counted here.
//!
//! The binary beside this program is started, so build it first: `cargo build --release -p hob`.

#![expect(clippy::expect_used, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark, run by hand")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

const SESSIONS: u64 = 200;
const CONFIG: &str =
    "[providers.none]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9\"\n[models.none]\nprovider = \"none\"\n";

#[tokio::main]
async fn main() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("hob.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let hob = std::env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().join("hob");
    let mut server = Command::new(hob)
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(&config)
        .arg("--data-dir")
        .arg(home.path().join("data"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary is beside this program");
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("Hob listens on ").expect("it says where").to_owned();
    let token = std::fs::read_to_string(home.path().join("data/token")).unwrap();
    let settled = || std::thread::sleep(Duration::from_secs(2));
    settled();
    let idle = resident_mib(server.id());

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for _ in 0..SESSIONS {
        // A repository that is not there: the session has its task and its log, and no sandbox.
        let request = http.post(format!("{url}/api/v1/sessions")).bearer_auth(&token);
        let response = request.json(&json!({ "repository": "https://127.0.0.1:9/x.git" })).send().await.unwrap();
        assert_eq!(response.status(), 201);
    }
    settled();
    let each = (resident_mib(server.id()) - idle) / SESSIONS as f64;
    let (kib, name) = (each * 1024.0, "memory.idle_server");
    println!(
        "{{\"name\":\"{name}\",\"unit\":\"MiB\",\"p50\":{idle:.3},\"p95\":{idle:.3},\"n\":1,\"against\":\"{name}\",\"ratio\":1.00}}"
    );
    println!(
        "{{\"name\":\"memory.idle_session\",\"unit\":\"KiB\",\"p50\":{kib:.1},\"p95\":{kib:.1},\"n\":{SESSIONS},\"against\":\"{name}\",\"ratio\":{:.4}}}",
        each / idle
    );
    server.kill().unwrap();
    server.wait().unwrap();
    // The helper outlives its server by design.
    let sandboxes = hob_sandbox::LocalConfig::new(home.path().join("data/sandboxes"));
    hob_sandbox::Local::open(sandboxes).await.unwrap().shutdown().await.unwrap();
}

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

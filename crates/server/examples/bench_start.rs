//! How soon a session can be worked in, as a person sees it over HTTP: a workspace of about 80,000 files and more than a
//! gigabyte, of which git tracks 9,000.
//!
//! `start.shell_*` is from the request for a session, or for a command in one, to the first byte of a shell in the
//! workspace; `start.ready` to a finished `git status`; `start.postgres` to an answer of Postgres, which a service starts
//! from a database that the warm-up made. What ends in `_from_pool` finds a sandbox that was made warm while somebody
//! typed; all else is measured without a pool. `start.token_*` is from the prompt to the first word of the model. They stand
//! against `start.git_clone`, a clone of the repository alone, or against the model's own first byte, `start.model`.
//!
//! The binary beside this program is started, so build it first: `cargo build --release -p hob`. Usage:
//! `bench_start [ROUNDS]`. What the machine lacks (Postgres) is left out, and said.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a benchmark, run by hand"
)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use hob_scripted_model::{ScriptedModel, Scripts, Step};
use reqwest::Client;
use serde_json::{Value, json};

/// Writes what a project's package manager and builds would: 71,000 files, and 200 of 5 MB.
const TREE: &str = r#"
for my $package (1 .. 710) {
    mkdir "modules/$package";
    for my $file (1 .. 100) { open my $out, ">", "modules/$package/$file.js"; print $out "module.exports = $package * $file;\n" x 12; }
}
mkdir "artifacts";
for my $file (1 .. 200) { open my $out, ">", "artifacts/$file.bin"; print $out chr($file % 256) x 5_000_000; }
"#;

const ENVIRONMENT: &str = "warm = ['mkdir -p modules && perl tree.pl']\n";

/// A database that was made ahead; a start is a start.
const POSTGRES: &str = r#"
[[services]]
name = "postgres"
command = 'bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1); data=/var/lib/hob-postgres; if [ ! -s $data/PG_VERSION ]; then install -d -o postgres -m 700 $data; su postgres -s /bin/sh -c "$bin/initdb --auth trust --pgdata $data"; fi; rm -f $data/postmaster.pid; exec su postgres -s /bin/sh -c "exec $bin/postgres -D $data -c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp"'
port = 5432
"#;

/// Asks Postgres until it answers.
const ASK: &str = "bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1); until $bin/psql -h 127.0.0.1 -U postgres -qAtc 'select 1' 2>/dev/null; do sleep 0.002; done";

struct Server {
    process: Child,
    url: String,
    token: String,
    http: Client,
    home: tempfile::TempDir,
}

#[tokio::main]
async fn main() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let rounds: usize = std::env::args().nth(1).map_or(20, |rounds| rounds.parse().unwrap());
    let model = ScriptedModel::start(scripts()).await.unwrap();
    let server = Server::start(&model.base_url(), tempfile::tempdir().unwrap(), 0);
    let repository = server.home.path().join("repository");
    make_repository(&repository);
    let clone = git_clone(&repository, server.home.path(), rounds.min(10));
    let base = print("start.git_clone", clone, None);

    let first = Instant::now();
    let id = server.session(&repository, None).await;
    server.shell(&id, "echo").await;
    eprintln!("the image was built in {:.1} s", first.elapsed().as_secs_f64());

    let (mut shell, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        let id = server.session(&repository, None).await;
        server.shell(&id, "echo").await;
        shell.push(begun.elapsed());
        server.archive(&id).await;
        let begun = Instant::now();
        let id = server.session(&repository, None).await;
        server.shell(&id, "git status --porcelain | wc -l").await;
        ready.push(begun.elapsed());
        server.archive(&id).await;
    }
    print("start.shell_from_image", shell, Some(("start.git_clone", base)));
    print("start.ready", ready, Some(("start.git_clone", base)));
    print("start.shell_from_snapshot", from_snapshot(&server, &id, rounds).await, Some(("start.git_clone", base)));
    tokens(&server, &repository, &model.base_url(), rounds).await;
    let has_postgres = Path::new("/usr/lib/postgresql").is_dir();
    if has_postgres {
        commit(&repository, &format!("{ENVIRONMENT}{POSTGRES}"), "A database");
        print("start.postgres", postgres(&server, &repository, rounds).await, Some(("start.git_clone", base)));
    } else {
        eprintln!("no Postgres to start: install the package postgresql");
    }
    let server = Server::start(&model.base_url(), server.end().await, 1);
    let from_pool = [("start.shell_from_pool", "echo"), ("start.ready_from_pool", "git status --porcelain | wc -l")];
    for (name, line) in from_pool.into_iter().chain(has_postgres.then_some(("start.postgres_from_pool", ASK))) {
        print(name, from_pool_of(&server, &repository, line, rounds).await, Some(("start.git_clone", base)));
    }
    server.end().await;
    model.shutdown().await;
}

/// From a command in a session that was put away to the first byte of its shell.
async fn from_snapshot(server: &Server, id: &str, rounds: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        server.shell(id, "head -c 100000 /dev/urandom > note.txt; echo").await;
        server.until(id, "state", "suspended").await;
        let begun = Instant::now();
        server.shell(id, "echo").await;
        times.push(begun.elapsed());
    }
    times
}

/// From the prompt to the first word of the model, in a session of its own.
async fn tokens(server: &Server, repository: &Path, model: &str, rounds: usize) {
    let own = model_itself(&server.http, model, rounds).await;
    let base = print("start.model", own, None);
    let mut built_in = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        let id = server.session(repository, Some("@@script:say@@")).await;
        server.first_word(&id).await;
        built_in.push(begun.elapsed());
        server.archive(&id).await;
    }
    print("start.token_built_in", built_in, Some(("start.model", base)));
}

/// The first byte of the model's answer, without Hob.
async fn model_itself(http: &Client, model: &str, rounds: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    let body = json!({
        "model": "scripted-model", "stream": true, "messages": [{ "role": "user", "content": "@@script:say@@" }]
    });
    for _ in 0..rounds {
        let begun = Instant::now();
        let response =
            http.post(format!("{model}/v1/chat/completions")).bearer_auth("x").json(&body).send().await.unwrap();
        response.bytes_stream().next().await.unwrap().unwrap();
        times.push(begun.elapsed());
    }
    times
}

async fn postgres(server: &Server, repository: &Path, rounds: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for round in 0..=rounds {
        let begun = Instant::now();
        let id = server.session(repository, None).await;
        server.shell(&id, ASK).await;
        // The first one builds the image.
        if round > 0 {
            times.push(begun.elapsed());
        }
        server.archive(&id).await;
    }
    times
}

/// From the request for a session to the end of its first command, where a sandbox was made warm before.
async fn from_pool_of(server: &Server, repository: &Path, line: &str, rounds: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        server.type_for(repository).await;
        let begun = Instant::now();
        let id = server.session(repository, None).await;
        server.shell(&id, line).await;
        times.push(begun.elapsed());
        server.archive(&id).await;
    }
    times
}

fn scripts() -> Scripts {
    Scripts::new().script("say", [Step::say("Hello.")])
}

fn make_repository(folder: &Path) {
    for package in 0..90 {
        let inside = folder.join(format!("src/package{package}"));
        std::fs::create_dir_all(&inside).unwrap();
        for file in 0..100 {
            let text = format!("// File {file} of package {package}.\n").repeat(200);
            std::fs::write(inside.join(format!("file{file}.js")), text).unwrap();
        }
    }
    std::fs::write(folder.join(".gitignore"), "/modules/\n/artifacts/\n").unwrap();
    std::fs::write(folder.join("tree.pl"), TREE).unwrap();
    std::fs::create_dir_all(folder.join(".hob")).unwrap();
    git(folder, &["init", "-q", "-b", "main"]);
    commit(folder, ENVIRONMENT, "As it was found");
}

fn commit(folder: &Path, environment: &str, message: &str) {
    std::fs::write(folder.join(".hob/environment.toml"), environment).unwrap();
    git(folder, &["add", "-A"]);
    git(folder, &["-c", "user.name=B", "-c", "user.email=b@x", "commit", "-qm", message]);
}

fn git(folder: &Path, arguments: &[&str]) {
    assert!(Command::new("git").args(arguments).current_dir(folder).status().unwrap().success());
}

fn git_clone(repository: &Path, home: &Path, rounds: usize) -> Vec<Duration> {
    let url = format!("file://{}", repository.display());
    let mut times = Vec::new();
    for round in 0..rounds {
        let target: PathBuf = home.join(format!("clone-{round}"));
        let begun = Instant::now();
        git(home, &["clone", "-q", &url, &target.display().to_string()]);
        times.push(begun.elapsed());
        std::fs::remove_dir_all(target).unwrap();
    }
    times
}

impl Server {
    fn start(model: &str, home: tempfile::TempDir, pool: u32) -> Self {
        let config = home.path().join("hob.toml");
        let text = format!(
            "[session]\nsuspend_after = \"300ms\"\n[pool]\nsandboxes = {pool}\n[providers.scripted]\nkind = \"openai\"\nbase_url = \"{model}/v1\"\n\
             [models.scripted-model]\nprovider = \"scripted\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let hob = std::env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().join("hob");
        let mut process = Command::new(hob)
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(home.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary is beside this program");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("Hob listens on ").expect("it says where").to_owned();
        let token = std::fs::read_to_string(home.path().join("data/token")).unwrap();
        Self { process, url, token, http: Client::builder().no_proxy().build().unwrap(), home }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token);
        let response = request.json(&body).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
        response.json().await.unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.http.get(format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token);
        request.send().await.unwrap().json().await.unwrap()
    }

    async fn session(&self, repository: &Path, prompt: Option<&str>) -> String {
        let created = self.post("/sessions", json!({ "repository": repository, "prompt": prompt })).await;
        created["id"].as_str().unwrap().to_owned()
    }

    async fn shell(&self, id: &str, line: &str) {
        let ran = self.post(&format!("/sessions/{id}/exec"), json!({ "argv": ["sh", "-c", line] })).await;
        assert_eq!(ran["exit_code"], 0, "{ran}");
    }

    async fn archive(&self, id: &str) {
        self.post(&format!("/sessions/{id}/archive"), json!({})).await;
    }

    async fn until(&self, id: &str, key: &str, value: &str) {
        while self.get(&format!("/sessions/{id}")).await[key] != value {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Types until a sandbox is warm, with all that runs in it.
    async fn type_for(&self, repository: &Path) {
        let typing = self.http.post(format!("{}/api/v1/typing", self.url)).bearer_auth(&self.token);
        assert!(typing.json(&json!({ "repository": repository })).send().await.unwrap().status().is_success());
        loop {
            let request = self.http.get(format!("{}/metrics", self.url)).bearer_auth(&self.token);
            let told = request.send().await.unwrap().text().await.unwrap();
            if told.contains("hob_pool_settled 1\n") && told.contains("hob_pool_making 0\n") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the first event with words of the agent.
    async fn first_word(&self, id: &str) {
        let request = self.http.get(format!("{}/api/v1/sessions/{id}/events", self.url)).bearer_auth(&self.token);
        let response = request.header("accept", "text/event-stream").send().await.unwrap();
        let mut pieces = response.bytes_stream();
        let mut text = String::new();
        while !text.contains("\"type\":\"message\"") {
            text.push_str(&String::from_utf8_lossy(&pieces.next().await.unwrap().unwrap()));
        }
    }

    /// Ends it, and gives its folder.
    async fn end(mut self) -> tempfile::TempDir {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        // The helper outlives its server by design.
        let sandboxes = hob_sandbox::LocalConfig::new(self.home.path().join("data/sandboxes"));
        hob_sandbox::Local::open(sandboxes).await.unwrap().shutdown().await.unwrap();
        self.home
    }
}

/// Prints a figure as a line of JSON, against another one. Gives its median.
fn print(name: &str, mut times: Vec<Duration>, against: Option<(&str, Duration)>) -> Duration {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (against, base) = against.unwrap_or((name, at(50)));
    println!(
        "{{\"name\":\"{name}\",\"unit\":\"ms\",\"p50\":{:.3},\"p95\":{:.3},\"n\":{},\"against\":\"{against}\",\"ratio\":{:.3}}}",
        ms(at(50)),
        ms(at(95)),
        times.len(),
        at(50).as_secs_f64() / base.as_secs_f64()
    );
    at(50)
}

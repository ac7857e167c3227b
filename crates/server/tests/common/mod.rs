//! A real server for tests: the binary, a data folder of its own, a scripted model, a small repository with a bug.

#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests are test code too")]
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hob_scripted_model::{Running, ScriptedModel, Scripts, Step};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// The longest that any single thing in a test may take.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A prompt whose script mends the repository's bug.
pub const FIX: &str = "@@script:fix@@ mend add";
/// A prompt whose script runs a command that does not end by itself.
pub const SLEEP: &str = "@@script:sleep@@ sleep";
/// A prompt whose script only says something.
pub const SAY: &str = "@@script:say@@ say it";

/// A server in a process of its own.
pub struct TestServer {
    pub url: String,
    pub login_url: String,
    pub token: String,
    pub model: Running,
    home: Home,
    process: Child,
    http: reqwest::Client,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts it with more lines at the end of its configuration.
    pub async fn start_with(configuration: &str) -> Self {
        let model = ScriptedModel::start(scripts()).await.expect("the scripted model starts");
        let text = format!(
            "[providers.scripted]\nkind = \"openai\"\nbase_url = \"{}/v1\"\n\n[models.scripted-model]\n\
             provider = \"scripted\"\ninput_usd = 1.0\noutput_usd = 2.0\n\n{configuration}",
            model.base_url()
        );
        Self::start_on(model, &text, &[]).await
    }

    /// Starts it on a model of the test's own, with this configuration, and with these variables for every `hob`.
    pub async fn start_on(model: Running, configuration: &str, environment: &[(&str, &str)]) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::Builder::new().prefix("hob-doors-").tempdir().expect("a folder");
        std::fs::write(folder.path().join("hob.toml"), configuration).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let home = Home { folder, environment };
        let (process, url, login_url) = serve(&home).await;
        let token = std::fs::read_to_string(home.path().join("data/token")).unwrap();
        // A connection that the server has closed is never taken for a live one.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(DEADLINE).build().unwrap();
        Self { url, login_url, token, model, home, process, http }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// `kill -9`, and a new server on the same data folder.
    pub async fn crash_and_restart(&mut self) {
        self.process.kill().await.unwrap();
        (self.process, self.url, self.login_url) = serve(&self.home).await;
    }

    /// Asks the server to end, and waits.
    pub async fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_raw(self.process.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        tokio::time::timeout(DEADLINE, self.process.wait()).await.expect("it ends").unwrap()
    }

    /// A repository with a bug, a check that is red because of it, and one commit.
    pub fn repository(&self) -> PathBuf {
        self.repository_with("")
    }

    /// The same, with more lines at the start of its environment.
    pub fn repository_with(&self, environment: &str) -> PathBuf {
        let environment = format!("{environment}[[checks]]\nname = \"test\"\ncommand = \"sh test.sh\"\n");
        self.repository_of(&[
            ("calc.sh", "add() {\n    echo $(($1 - $2))\n}\n"),
            ("test.sh", ". ./calc.sh\n[ \"$(add 1 2)\" = 3 ] || { echo 'test.sh:2: add 1 2 is not 3'; exit 1; }\n"),
            (".hob/environment.toml", &environment),
        ])
    }

    /// A repository of these files, by name and text, in one commit.
    pub fn repository_of(&self, files: &[(&str, &str)]) -> PathBuf {
        let folder =
            self.home.path().join(format!("repository-{}", std::fs::read_dir(self.home.path()).unwrap().count()));
        for (name, text) in files {
            let file = folder.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        assert!(hob::git::run(Some(&folder), &["init", "-q", "-b", "main"]).unwrap().status.success());
        self.commit(&folder, "as it was found");
        folder
    }

    /// Commits everything that lies in a repository.
    pub fn commit(&self, repository: &Path, message: &str) {
        let commit = ["-c", "user.name=T", "-c", "user.email=t@x", "commit", "-qm", message];
        for arguments in [&["add", "-A"][..], &commit] {
            assert!(hob::git::run(Some(repository), arguments).unwrap().status.success());
        }
    }

    /// Runs the command line against this server.
    pub async fn hob(&self, arguments: &[&str]) -> Output {
        self.hob_in(self.home.path(), arguments).await
    }

    pub async fn hob_in(&self, folder: &Path, arguments: &[&str]) -> Output {
        self.hob_within(DEADLINE, folder, arguments).await
    }

    /// The same, for what takes its time.
    pub async fn hob_within(&self, limit: Duration, folder: &Path, arguments: &[&str]) -> Output {
        let mut hob = self.home.hob();
        hob.args(arguments).current_dir(folder).stdin(Stdio::null());
        tokio::time::timeout(limit, hob.output()).await.expect("the command ends").unwrap()
    }

    /// The same, with something on its standard input.
    pub async fn hob_fed(&self, folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
        let file = self.home.path().join("input");
        std::fs::write(&file, input).unwrap();
        let mut hob = self.home.hob();
        hob.args(arguments).current_dir(folder).stdin(std::fs::File::open(file).unwrap());
        tokio::time::timeout(DEADLINE, hob.output()).await.expect("the command ends").unwrap()
    }

    /// A command that runs beside the test.
    pub fn hob_started(&self, folder: &Path, arguments: &[&str]) -> Child {
        let mut hob = self.home.hob();
        hob.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        hob.spawn().unwrap()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    pub async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let response = self.request(Method::POST, path).json(&body).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    /// Waits until a sandbox is warm.
    pub async fn until_warm(&self) {
        let warm = async {
            loop {
                let told = self.request(Method::GET, "/metrics").send().await.expect("an answer").text().await;
                if told.expect("text").contains("hob_pool_ready 1\n") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, warm).await.expect("a sandbox is made warm");
    }

    /// A session, with a first prompt where there is one.
    pub async fn session(&self, prompt: Option<&str>) -> Session<'_> {
        self.session_on(&self.repository(), prompt).await
    }

    /// A session on this repository.
    pub async fn session_on(&self, repository: &Path, prompt: Option<&str>) -> Session<'_> {
        let body = json!({ "repository": repository, "prompt": prompt });
        let (status, created) = self.post("/api/v1/sessions", body).await;
        assert_eq!(status, 201, "{created}");
        Session { server: self, id: created["id"].as_str().unwrap().to_owned() }
    }

    /// A WebSocket that has said hello.
    pub async fn socket(&self) -> Socket {
        let mut request = self.url.replace("http://", "ws://").into_client_request().unwrap();
        *request.uri_mut() = format!("{}/api/v1/ws", request.uri().to_string().trim_end_matches('/')).parse().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        let address = self.url.strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("a socket");
        let mut socket = Socket(socket);
        socket.say(json!({ "op": "hello", "protocol": 1 })).await;
        assert_eq!(socket.next().await["op"], "welcome");
        socket
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // Sandboxes outlive their server by design, and so does a private server its client; those of a test must not.
        // They are found by the data folder among their arguments.
        drop(self.process.start_kill());
        let data = self.data_dir().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&data) {
                let pid = entry.file_name().to_string_lossy().parse().ok().and_then(rustix::process::Pid::from_raw);
                pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
            }
        }
    }
}

/// A session of a test.
pub struct Session<'a> {
    pub server: &'a TestServer,
    pub id: String,
}

impl Session<'_> {
    pub fn path(&self, rest: &str) -> String {
        format!("/api/v1/sessions/{}{rest}", self.id)
    }

    /// Runs a command line in the sandbox.
    pub async fn sh(&self, command: &str) -> Value {
        let (status, ran) = self.server.post(&self.path("/exec"), json!({ "argv": ["sh", "-c", command] })).await;
        assert_eq!(status, 200, "{ran}");
        ran
    }

    pub async fn prompt(&self, text: &str) -> Value {
        let (status, accepted) = self.server.post(&self.path("/prompts"), json!({ "text": text })).await;
        assert_eq!(status, 202, "{accepted}");
        accepted
    }

    /// The stream after `since`, up to an event that fits.
    pub async fn events_until(&self, since: u64, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let request = self.server.request(Method::GET, &self.path("/events")).header("accept", "text/event-stream");
        let response = request.header("last-event-id", since).send().await.unwrap();
        let mut bytes = response.bytes_stream();
        let mut text = String::new();
        let mut events = Vec::new();
        let read = async {
            loop {
                let piece = bytes.next().await.expect("the stream goes on").unwrap();
                text.push_str(std::str::from_utf8(&piece).unwrap());
                while let Some((block, rest)) = text.split_once("\n\n") {
                    if let Some(data) = block.lines().find_map(|line| line.strip_prefix("data: ")) {
                        let event: Value = serde_json::from_str(data).unwrap();
                        events.push(event.clone());
                        if fits(&event) {
                            return;
                        }
                    }
                    text = rest.to_owned();
                }
            }
        };
        if tokio::time::timeout(DEADLINE, read).await.is_err() {
            panic!("no event fits; the log is {events:#?}");
        }
        events
    }

    /// Everything up to the end of the `count`th turn.
    pub async fn turns(&self, count: usize) -> Vec<Value> {
        let ended = std::cell::Cell::new(0);
        self.events_until(0, |event| {
            ended.set(ended.get() + usize::from(event["type"] == "turn_ended"));
            ended.get() == count
        })
        .await
    }

    /// The whole log as pages give it.
    pub async fn log(&self) -> Vec<Value> {
        let page = self.server.get(&self.path("/events?limit=1000")).await;
        page["events"].as_array().unwrap().clone()
    }
}

/// A client's socket.
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    pub async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub async fn next(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.0.next()).await.expect("a frame comes");
            match message.expect("the socket is open").unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(frame) => {
                    return json!({ "op": "close", "code": frame.map(|frame| u16::from(frame.code)) });
                }
                _ => {}
            }
        }
    }

    /// The next frame with this `op`.
    pub async fn next_of(&mut self, op: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["op"] == op {
                return frame;
            }
        }
    }
}

/// Ctrl-C.
pub fn interrupt(process: &Child) {
    let pid = rustix::process::Pid::from_raw(process.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

pub fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

/// Sequence numbers from 1, without a gap and without a double.
#[track_caller]
pub fn assert_gap_free(events: &[Value]) {
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
}

fn scripts() -> Scripts {
    Scripts::new()
        .script(
            "fix",
            [
                Step::Parallel(vec![Step::say("I will look at it."), Step::read("calc.sh")]),
                Step::edit("calc.sh", "    echo $(($1 - $2))", "    echo $(($1 + $2))"),
                Step::shell("sh test.sh"),
                Step::say("The sign was wrong."),
            ],
        )
        .script("sleep", [Step::shell("sleep 300"), Step::say("Slept.")])
        .script(
            "wrong",
            [Step::edit("calc.sh", "    echo $(($1 - $2))", "    echo $(($1 * $2))"), Step::say("Mended.")],
        )
        .script("busy", [Step::status(429, Some(1)), Step::say("Said after all.")])
        .script("say", [Step::say("Said.")])
}

/// A folder for everything of one server, and the environment of its programs.
struct Home {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

impl Home {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn hob(&self) -> Command {
        let mut hob = Command::new(env!("CARGO_BIN_EXE_hob"));
        hob.env("HOB_DATA_DIR", self.path().join("data")).env("HOB_CONFIG", self.path().join("hob.toml"));
        hob.env("GIT_AUTHOR_NAME", "Mona").env_remove("HOB_SERVER").env_remove("HOB_TOKEN");
        hob.envs(self.environment.iter().map(|(name, value)| (name, value)));
        hob.kill_on_drop(true);
        hob
    }
}

async fn serve(home: &Home) -> (Child, String, String) {
    let log_file = home.path().join("server.log");
    let log = std::fs::File::options().create(true).append(true).open(&log_file).unwrap();
    let mut hob = home.hob();
    hob.args(["serve", "--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut process = hob.spawn().expect("hob starts");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut line = async |prefix: &str| {
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("the server says where it listens");
        let log = || std::fs::read_to_string(&log_file).unwrap_or_default();
        let line = line.unwrap().unwrap_or_else(|| panic!("the server did not start: {}", log()));
        line.strip_prefix(prefix).unwrap_or_else(|| panic!("{line}")).to_owned()
    };
    let url = line("Hob listens on ").await;
    let login_url = line("Sign in once with ").await;
    (process, url, login_url)
}

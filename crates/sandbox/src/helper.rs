//! The server's end of the sandbox helper: finds the one that runs, or starts one, and asks it.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hob_guest::frame::{self, Decoder};
use hob_guest::launch::{FromHelper, HELPER_SOCKET, Plan, ToHelper};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ids::Ids;
use crate::spec::Gate;

/// How long the helper may take to answer; starts and kills of many sandboxes wait for each other.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to come up.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long its program may be busy.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// Something ended without having been told to.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// Which sandbox; none stands for all of them, as the helper is gone.
    pub(crate) id: Option<String>,
    /// Whether it was only the sandbox's writer.
    pub(crate) writer: bool,
    /// Why, in words.
    pub(crate) reason: String,
}

/// A connection to the helper.
#[derive(Debug)]
pub(crate) struct Helper {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Waiting,
    next: std::sync::atomic::AtomicU64,
    gone: CancellationToken,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<FromHelper>>>>;

impl Helper {
    /// Connects to the helper of this data folder, and starts it where none runs.
    pub(crate) async fn connect(
        folder: &Path,
        program: &Path,
        ids: &Ids,
        ended: broadcast::Sender<Ended>,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let stream = match dial(folder).await {
            Ok(stream) => stream,
            Err(_) => {
                let (folder, program, ids) = (folder.to_owned(), program.to_owned(), ids.clone());
                let started = tokio::task::spawn_blocking({
                    let folder = folder.clone();
                    move || start(&folder, &program, &ids)
                });
                match tokio::time::timeout(START_LIMIT, started).await {
                    Ok(Ok(result)) => result?,
                    Ok(Err(error)) => return Err(format!("start the sandbox helper: {error}")),
                    Err(_) => return Err(format!("start the sandbox helper within {} s", START_LIMIT.as_secs())),
                }
                dial(&folder).await.map_err(|error| format!("reach the sandbox helper: {error}"))?
            }
        };
        let (reader, writer) = stream.into_split();
        let (waiting, gone) = (Waiting::default(), CancellationToken::new());
        tasks.spawn(listen(reader, Arc::clone(&waiting), ended, gone.clone()));
        Ok(Self { writer: writer.into(), waiting, next: 1.into(), gone })
    }

    /// Whether it does not answer any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Starts a sandbox, and says how its gate stands.
    pub(crate) async fn start(&self, plan: Plan) -> Result<Gate, String> {
        let plan = Box::new(plan);
        self.started(|request| ToHelper::Start { request, plan }).await
    }

    /// Starts a writer for the sandbox of the plan's name, in place of the one that it may have.
    pub(crate) async fn start_writer(&self, plan: Plan) -> Result<Gate, String> {
        let plan = Box::new(plan);
        self.started(|request| ToHelper::Writer { request, plan }).await
    }

    async fn started(&self, message: impl FnOnce(u64) -> ToHelper) -> Result<Gate, String> {
        match self.ask(message).await? {
            FromHelper::Started { closed, .. } => Ok(gate(closed)),
            FromHelper::Failed { reason, .. } => Err(reason),
            other => Err(format!("understand {other:?}")),
        }
    }

    /// Ends a sandbox's writer and opens its gate.
    pub(crate) async fn open_gate(&self, id: &str) -> Result<(), String> {
        let id = id.to_owned();
        match self.ask(|request| ToHelper::Open { request, id }).await? {
            FromHelper::Done { .. } => Ok(()),
            FromHelper::Failed { reason, .. } => Err(reason),
            other => Err(format!("understand {other:?}")),
        }
    }

    /// Kills every process of a sandbox and returns when all are gone.
    pub(crate) async fn kill(&self, id: &str) -> Result<(), String> {
        let id = id.to_owned();
        self.ask(|request| ToHelper::Kill { request, id }).await.map(drop)
    }

    /// Names of the sandboxes that run, and how the gate of each stands.
    pub(crate) async fn running(&self) -> Result<BTreeMap<String, Gate>, String> {
        match self.ask(|request| ToHelper::List { request }).await? {
            FromHelper::Running { ids, closed, .. } => {
                Ok(ids.into_iter().map(|id| (id.clone(), gate(closed.contains(&id)))).collect())
            }
            other => Err(format!("understand {other:?}")),
        }
    }

    /// Ends the helper and every sandbox.
    pub(crate) async fn shutdown(&self) -> Result<(), String> {
        self.send(&ToHelper::Shutdown).await?;
        tokio::time::timeout(ANSWER_LIMIT, self.gone.cancelled()).await.map_err(|_| "see the helper end".to_owned())
    }

    async fn ask(&self, message: impl FnOnce(u64) -> ToHelper) -> Result<FromHelper, String> {
        let request = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(request, answer);
        self.send(&message(request)).await?;
        tokio::select! {
            answer = answered => answer.map_err(|_| "reach the sandbox helper: it is gone".to_owned()),
            () = self.gone.cancelled() => Err("reach the sandbox helper: it is gone".to_owned()),
            () = tokio::time::sleep(ANSWER_LIMIT) => Err("hear of the sandbox helper in time".to_owned()),
        }
    }

    async fn send(&self, message: &ToHelper) -> Result<(), String> {
        let mut bytes = Vec::new();
        frame::encode(message, &[], &mut bytes).map_err(|error| error.to_string())?;
        let mut writer = self.writer.lock().await;
        writer.write_all(&bytes).await.map_err(|error| format!("reach the sandbox helper: {error}"))
    }
}

/// Connects through the open folder: a socket's path may be only 108 bytes long.
async fn dial(folder: &Path) -> std::io::Result<UnixStream> {
    let open = std::fs::File::open(folder)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{HELPER_SOCKET}", open.as_raw_fd())).await
}

/// Starts the helper and gives it its range of IDs, which only a process outside of its namespace can do.
fn start(folder: &Path, program: &Path, ids: &Ids) -> Result<(), String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what} the sandbox helper: {error}");
    let mut command = Command::new(program);
    command.arg("helper").arg(folder).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
    if matches!(ids, Ids::Borrowed { .. }) {
        command.arg("--rootless");
    }
    let mut child = spawn(command.stderr(Stdio::inherit())).map_err(failed("start"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    child.wait().map_err(failed("start"))?;
    for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        let line = line.map_err(failed("hear of"))?;
        if line == "ready" {
            return Ok(());
        }
        if let Some(pid) = line.strip_prefix("unshared ") {
            ids.map(pid)?;
            let mut stdin = stdin.as_ref().ok_or("answer the sandbox helper")?;
            stdin.write_all(b"mapped\n").map_err(failed("answer"))?;
        }
    }
    let log: PathBuf = folder.join("helper.log");
    Err(format!("start the sandbox helper: it ended at once (see {})", log.display()))
}

/// Starts a program that may have been written a moment ago. What another thread starts at the same time holds the file
/// open for writing until it has executed, and the kernel refuses to run it for so long.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let begun = Instant::now();
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && begun.elapsed() < BUSY_LIMIT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn gate(closed: bool) -> Gate {
    if closed { Gate::Closed } else { Gate::Open }
}

async fn listen(mut reader: OwnedReadHalf, waiting: Waiting, ended: broadcast::Sender<Ended>, gone: CancellationToken) {
    let mut decoder = Decoder::default();
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length) = reader.read(&mut bytes).await {
        decoder.push(bytes.get(..length).unwrap_or_default());
        if length == 0 {
            break;
        }
        while let Ok(Some((message, _))) = decoder.decode::<FromHelper>() {
            hear(message, &waiting, &ended);
        }
    }
    gone.cancel();
    // Sandboxes end with their helper. Nobody listening is no loss.
    let reason = "the sandbox helper is gone".to_owned();
    drop(ended.send(Ended { id: None, writer: false, reason }));
}

fn hear(message: FromHelper, waiting: &Waiting, ended: &broadcast::Sender<Ended>) {
    let request = match &message {
        FromHelper::Started { request, .. }
        | FromHelper::Failed { request, .. }
        | FromHelper::Done { request }
        | FromHelper::Running { request, .. } => *request,
        FromHelper::Ended { id, writer, reason } => {
            // Nobody listening is no loss.
            drop(ended.send(Ended { id: Some(id.clone()), writer: *writer, reason: reason.clone() }));
            return;
        }
    };
    let waiter = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&request);
    if let Some(waiter) = waiter {
        // One that gave up needs no answer.
        drop(waiter.send(message));
    }
}

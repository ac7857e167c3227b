//! The sandbox helper: starts sandboxes and their writers, opens gates, notices their end, kills them. It outlives the
//! server.
//!
//! One process with one thread and its own session. Everything it does is told to it by the server over a socket in the
//! server's data folder; nothing from inside a sandbox reaches it. Sandboxes end with it (`--die-with-parent`), and it
//! does not end with the server.

mod gate;
mod running;
mod start;

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hob_guest::frame::{self, Decoder};
use hob_guest::launch::{FromHelper, HELPER_SOCKET, Plan, ToHelper};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::thread::UnshareFlags;

use running::Running;

/// Servers that are connected at once; a second one is there while one replaces the other.
const CLIENTS_MAX: usize = 32;

/// How often the helper looks whether its folder is still there.
const FOLDER_CHECK: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Starts the helper as a process of its own and returns, so that it is no child of the server.
pub(crate) fn detach(arguments: &[String]) -> Result<(), String> {
    let me = std::env::current_exe().map_err(|error| format!("find this program: {error}"))?;
    Command::new(me).arg("helper-run").args(arguments).spawn().map_err(|error| format!("start the helper: {error}"))?;
    Ok(())
}

/// Runs the helper: `DATA_DIR` and, without privileges, `--rootless`.
///
/// It says `unshared PID` and waits for a line when it needs its ID map from outside, then says `ready`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let folder = PathBuf::from(arguments.first().ok_or("start the helper without a folder")?);
    rustix::process::setsid().map_err(|error| format!("leave the server's session: {error}"))?;
    std::env::set_current_dir("/").map_err(|error| format!("enter /: {error}"))?;
    let lock =
        fs::File::create(folder.join("helper.lock")).map_err(|error| format!("lock {}: {error}", folder.display()))?;
    if lock.try_lock().is_err() {
        // Another server was faster. Its helper serves this one too.
        return say("ready");
    }
    let listener = listen(&folder).map_err(|error| format!("listen in {}: {error}", folder.display()))?;
    if arguments.get(1).is_some_and(|argument| argument == "--rootless") {
        unshare()?;
        say(&format!("unshared {}", rustix::process::getpid()))?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(|error| format!("wait for the ID map: {error}"))?;
    }
    say("ready")?;
    forget_stdio(&folder)?;
    let mut helper =
        Helper { listener, clients: Vec::new(), sandboxes: BTreeMap::new(), writers: BTreeMap::new(), stopping: false };
    while !helper.stopping {
        helper.turn()?;
        // A data folder that was deleted takes its sandboxes with it: nobody could ever reach them again.
        if !folder.join(HELPER_SOCKET).exists() {
            helper.answer(ToHelper::Shutdown);
        }
    }
    drop(lock);
    Ok(())
}

fn say(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| format!("answer the server: {error}"))
}

#[expect(deprecated, reason = "the safe form is enough: this process has one thread and shares no file table")]
fn unshare() -> Result<(), String> {
    rustix::thread::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
        .map_err(|error| format!("enter a user namespace: {error}"))
}

/// Binds the socket under a new name and moves it in place: whoever finds it can connect.
fn listen(folder: &Path) -> std::io::Result<UnixListener> {
    let open = fs::File::open(folder)?;
    let by_descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
    let fresh = Path::new(&by_descriptor).join(format!("{HELPER_SOCKET}.new"));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    fs::rename(&fresh, Path::new(&by_descriptor).join(HELPER_SOCKET))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Lets go of the server's standard streams; what goes wrong from now on is written to a file.
fn forget_stdio(folder: &Path) -> Result<(), String> {
    let open = |path: &Path| fs::File::options().read(true).append(true).create(true).open(path);
    let null = open(Path::new("/dev/null")).map_err(|error| format!("open /dev/null: {error}"))?;
    let log = open(&folder.join("helper.log")).map_err(|error| format!("open helper.log: {error}"))?;
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&log))
        .map_err(|error| format!("let go of the server: {error}"))
}

struct Client {
    stream: UnixStream,
    decoder: Decoder,
    gone: bool,
}

struct Helper {
    listener: UnixListener,
    clients: Vec<Client>,
    sandboxes: BTreeMap<String, Running>,
    /// Of sandboxes that run, by the sandbox.
    writers: BTreeMap<String, Running>,
    stopping: bool,
}

impl Helper {
    /// Waits for a client or the end of a sandbox, and serves whatever is there.
    fn turn(&mut self) -> Result<(), String> {
        let mut watched = vec![PollFd::new(&self.listener, PollFlags::IN)];
        watched.extend(self.clients.iter().map(|client| PollFd::new(&client.stream, PollFlags::IN)));
        let running = self.sandboxes.values().chain(self.writers.values());
        watched.extend(running.map(|running| PollFd::new(&running.bwrap_watch, PollFlags::IN)));
        match rustix::event::poll(&mut watched, Some(&FOLDER_CHECK)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("wait: {error}")),
        }
        let ready: Vec<bool> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (clients, running) = ready.get(1..).unwrap_or_default().split_at(self.clients.len());
        let (sandboxes, writers) = running.split_at(self.sandboxes.len());
        let talking: Vec<usize> = positions(clients);
        let ended = |of: &BTreeMap<String, Running>, flags| -> Vec<String> {
            positions(flags).into_iter().filter_map(|at| of.keys().nth(at).cloned()).collect()
        };
        let (sandboxes, writers) = (ended(&self.sandboxes, sandboxes), ended(&self.writers, writers));
        for id in writers {
            self.kill_writer(&id);
            self.tell_all(&FromHelper::Ended { id, writer: true, reason: "its process 1 ended".to_owned() });
        }
        for id in sandboxes {
            self.end(&id, "its process 1 ended");
        }
        for at in talking {
            self.serve(at);
        }
        if ready.first() == Some(&true) {
            self.accept();
        }
        self.clients.retain(|client| !client.gone);
        Ok(())
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < CLIENTS_MAX && stream.set_write_timeout(Some(Duration::from_secs(1))).is_ok() {
                self.clients.push(Client { stream, decoder: Decoder::default(), gone: false });
            }
        }
    }

    fn serve(&mut self, at: usize) {
        let Some(client) = self.clients.get_mut(at) else { return };
        let mut bytes = [0; 64 << 10];
        match client.stream.read(&mut bytes) {
            Ok(0) | Err(_) => client.gone = true,
            Ok(length) => client.decoder.push(bytes.get(..length).unwrap_or_default()),
        }
        while let Some(client) = self.clients.get_mut(at).filter(|client| !client.gone) {
            match client.decoder.decode::<ToHelper>() {
                Ok(Some((message, _))) => {
                    if let Some(answer) = self.answer(message) {
                        self.tell(at, &answer);
                    }
                }
                Ok(None) => break,
                Err(_) => client.gone = true,
            }
        }
    }

    fn answer(&mut self, message: ToHelper) -> Option<FromHelper> {
        match message {
            ToHelper::Start { request, plan } => Some(answered(request, self.start(*plan))),
            ToHelper::Writer { request, plan } => Some(answered(request, self.start_writer(*plan))),
            ToHelper::Open { request, id } => Some(match self.open(&id) {
                Ok(()) => FromHelper::Done { request },
                Err(reason) => FromHelper::Failed { request, reason },
            }),
            ToHelper::Kill { request, id } => {
                self.end(&id, "it was killed");
                Some(FromHelper::Done { request })
            }
            ToHelper::List { request } => {
                let closed = self.sandboxes.iter().filter(|(_, sandbox)| sandbox.is_closed());
                let closed = closed.map(|(id, _)| id.clone()).collect();
                Some(FromHelper::Running { request, ids: self.sandboxes.keys().cloned().collect(), closed })
            }
            ToHelper::Shutdown => {
                for id in self.sandboxes.keys().cloned().collect::<Vec<_>>() {
                    self.end(&id, "the helper was told to end");
                }
                self.stopping = true;
                None
            }
        }
    }

    /// Starts a sandbox, or finds it running; true when its gate is closed.
    fn start(&mut self, plan: Plan) -> Result<bool, String> {
        if let Some(running) = self.sandboxes.get(&plan.id) {
            return Ok(running.is_closed());
        }
        let running = start::start(&plan, None)?;
        let closed = running.is_closed();
        self.sandboxes.insert(plan.id, running);
        Ok(closed)
    }

    /// Starts a writer in place of the one that there may be.
    fn start_writer(&mut self, plan: Plan) -> Result<bool, String> {
        self.kill_writer(&plan.id);
        let sandbox = self.sandboxes.get(&plan.id).ok_or("find the sandbox: it does not run")?;
        let (writer, closed) = (start::start(&plan, Some(sandbox))?, sandbox.is_closed());
        self.writers.insert(plan.id, writer);
        Ok(closed)
    }

    /// Ends whoever has passed the gate, then opens it: the writers before and after never meet.
    fn open(&mut self, id: &str) -> Result<(), String> {
        self.kill_writer(id);
        let sandbox = self.sandboxes.get_mut(id).ok_or("find the sandbox: it does not run")?;
        if let Some(gate) = sandbox.gate.as_mut().filter(|gate| gate.closed) {
            gate::open(&sandbox.first, &gate.target)?;
            gate.closed = false;
        }
        Ok(())
    }

    fn tell(&mut self, at: usize, message: &FromHelper) {
        if let Some(client) = self.clients.get_mut(at) {
            client.gone |= frame::write(&client.stream, message, &[]).is_err();
        }
    }

    /// Kills what is left of a sandbox and of its writer, waits until all of it is gone, and tells everybody.
    fn end(&mut self, id: &str, reason: &str) {
        self.kill_writer(id);
        let Some(mut running) = self.sandboxes.remove(id) else { return };
        running.kill();
        self.tell_all(&FromHelper::Ended { id: id.to_owned(), writer: false, reason: reason.to_owned() });
    }

    /// Nobody is told: whoever asked for what needs this knows what becomes of the writer.
    fn kill_writer(&mut self, id: &str) {
        if let Some(mut writer) = self.writers.remove(id) {
            writer.kill();
        }
    }

    fn tell_all(&mut self, message: &FromHelper) {
        for at in 0..self.clients.len() {
            self.tell(at, message);
        }
    }
}

fn answered(request: u64, started: Result<bool, String>) -> FromHelper {
    match started {
        Ok(closed) => FromHelper::Started { request, closed },
        Err(reason) => FromHelper::Failed { request, reason },
    }
}

fn positions(flags: &[bool]) -> Vec<usize> {
    flags.iter().enumerate().filter_map(|(at, flag)| flag.then_some(at)).collect()
}

/// Writes to the helper's log.
#[expect(clippy::print_stderr, reason = "standard error is the helper's log")]
fn complain(what: &str) {
    eprintln!("{what}");
}

/// Standard streams of a stage: its socket, nothing, and the log.
fn stage_stdio(command: &mut Command, socket: UnixStream, log: &Path) -> Result<(), String> {
    let log = fs::File::options()
        .append(true)
        .create(true)
        .open(log)
        .map_err(|error| format!("open {}: {error}", log.display()))?;
    command.stdin(Stdio::from(OwnedFd::from(socket))).stdout(Stdio::null()).stderr(log);
    Ok(())
}

fn borrow(files: &[OwnedFd]) -> Vec<std::os::fd::BorrowedFd<'_>> {
    files.iter().map(OwnedFd::as_fd).collect()
}

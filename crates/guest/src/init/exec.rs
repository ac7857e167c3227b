//! One command inside: its supervisor, its streams, and what its host has taken of them.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hob_guest::frame::{self, Decoder};
use hob_guest::protocol::{self, Exit, FromGuest, Process, WINDOW};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::link::{Link, is_pause};
use crate::passing;
use crate::supervise::{FromSupervisor, ToSupervisor};

/// Output in one frame.
const CHUNK: usize = 32 << 10;

/// A supervisor without a command.
pub(super) struct Spare {
    socket: UnixStream,
}

impl Spare {
    pub(super) fn new() -> std::io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        // Its end is seen by the socket and reaped by process 1: the handle is of no use.
        Command::new("/proc/self/exe").arg("supervise").stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        Ok(Self { socket })
    }
}

/// A command.
pub(super) struct Exec {
    argv: Vec<String>,
    supervisor: Option<UnixStream>,
    decoder: Decoder,
    started: Option<u64>,
    terminal: Option<OwnedFd>,
    outputs: [Output; 2],
    input: Input,
    exit: Option<Exit>,
    told: bool,
    forgotten: bool,
    attached: bool,
    timeout: Option<Instant>,
    timed_out: bool,
    kills: Vec<u64>,
}

impl Exec {
    /// Hands the command to a supervisor. It is running only when [`Exec::step`] has said so.
    pub(super) fn start(spare: Spare, request: u64, command: protocol::Exec) -> std::io::Result<Self> {
        let protocol::Exec { argv, cwd, env, stdin, timeout_ms, pty } = command;
        let (terminal, theirs, outputs, input) = match pty {
            Some(size) => open_terminal(size)?,
            None => open_pipes(stdin)?,
        };
        let run = ToSupervisor::Run { argv: argv.clone(), cwd, env, terminal: terminal.is_some() };
        frame::write(&spare.socket, &run, &[]).map_err(std::io::Error::other)?;
        let theirs: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        passing::send(&spare.socket, &theirs)?;
        spare.socket.set_nonblocking(true)?;
        Ok(Self {
            argv,
            supervisor: Some(spare.socket),
            decoder: Decoder::default(),
            started: Some(request),
            terminal,
            outputs,
            input,
            exit: None,
            told: false,
            forgotten: false,
            attached: true,
            timeout: timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms)),
            timed_out: false,
            kills: Vec::new(),
        })
    }

    pub(super) fn watch<'a>(&'a self, watched: &mut Vec<PollFd<'a>>, room: bool) {
        watched.extend(self.supervisor.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        for output in &self.outputs {
            if let Some(file) =
                output.file.as_ref().filter(|_| output.wants_more(self.attached, self.terminal.is_some()))
            {
                watched.push(PollFd::new(file, PollFlags::IN));
            }
            if room && self.attached && output.has_unsent() {
                // There is something to send at once: an always-ready descriptor ends the wait.
                watched.extend(self.supervisor.iter().map(|socket| PollFd::new(socket, PollFlags::OUT)));
            }
        }
        if let Some(file) = self.input.file.as_ref().filter(|_| !self.input.bytes.is_empty()) {
            watched.push(PollFd::new(file, PollFlags::OUT));
        }
    }

    /// When its time is up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timeout.filter(|_| !self.timed_out && self.exit.is_none())
    }

    /// Whether nothing of it runs any more.
    pub(super) fn is_over(&self) -> bool {
        self.supervisor.is_none()
    }

    pub(super) fn describe(&self, exec: u64) -> Process {
        let [stdout, stderr] = &self.outputs;
        Process { exec, argv: self.argv.clone(), exit: self.exit, written: (stdout.end(), stderr.end()) }
    }

    /// The host is gone, or another one has come: nothing is sent before it asks.
    pub(super) fn detach(&mut self) {
        self.attached = false;
    }

    pub(super) fn attach(&mut self, from: (u64, u64)) {
        self.attached = true;
        self.told = false;
        for (output, from) in self.outputs.iter_mut().zip([from.0, from.1]) {
            output.seek(from);
        }
    }

    /// Nobody will ever read it.
    pub(super) fn discard(&mut self) {
        self.outputs.iter_mut().for_each(|output| output.discarding = true);
    }

    /// Its end was heard.
    pub(super) fn forget(&mut self) {
        self.forgotten = true;
        self.discard();
    }

    pub(super) fn acknowledge(&mut self, stream: u8, offset: u64) {
        if let Some(output) = self.outputs.get_mut(usize::from(stream)) {
            output.acknowledged = output.acknowledged.max(offset.min(output.sent));
        }
    }

    pub(super) fn feed(&mut self, blob: &[u8], end: bool) {
        self.input.bytes.extend_from_slice(blob);
        self.input.ended |= end;
    }

    pub(super) fn resize(&mut self, (columns, rows): (u16, u16)) {
        if let Some(terminal) = &self.terminal {
            // A terminal whose other end is closed has no size to change.
            rustix::termios::tcsetwinsize(terminal, winsize(columns, rows)).unwrap_or_default();
        }
    }

    /// Kills it and all that it started; `request` is answered when all are gone.
    pub(super) fn kill(&mut self, request: Option<u64>) {
        self.kills.extend(request);
        if let Some(supervisor) = &self.supervisor {
            // A supervisor that cannot be told is dying, and the end of its socket says the rest.
            drop(frame::write(supervisor, &ToSupervisor::Kill, &[]));
        }
    }

    /// Moves what can be moved now; false when its record may go.
    pub(super) fn step(&mut self, id: u64, now: Instant, link: &mut Link) -> bool {
        if self.deadline().is_some_and(|at| at <= now) {
            self.timed_out = true;
            self.kill(None);
        }
        let kept = self.hear(id, link);
        self.input.step(id, link);
        self.transfer(id, link);
        if self.exit.is_some() && !self.told && self.attached && self.is_drained() {
            self.told = true;
            self.tell_exit(id, link);
        }
        if self.is_over() {
            for request in self.kills.drain(..) {
                link.send(&FromGuest::Done { request }, &[]);
            }
        }
        kept && !(self.is_over() && self.forgotten)
    }

    fn tell_exit(&self, exec: u64, link: &mut Link) {
        if let Some(exit) = self.exit {
            link.send(&FromGuest::Exited { exec, exit }, &[]);
        }
    }

    /// Whether all that it wrote before its end was sent.
    fn is_drained(&self) -> bool {
        self.outputs.iter().all(|output| output.drained && !output.has_unsent())
    }

    fn transfer(&mut self, id: u64, link: &mut Link) {
        // The command can be faster than the word that it runs, and output of an unknown process is nobody's.
        if self.started.is_some() {
            return;
        }
        let (attached, terminal, exited) = (self.attached, self.terminal.is_some(), self.exit.is_some());
        for (stream, output) in self.outputs.iter_mut().enumerate() {
            // Read before the check of the exit: what was written before the end is in the pipe by then.
            output.fill(attached, terminal, exited);
            while attached && link.has_room() && output.has_unsent() {
                let (offset, chunk) = output.take();
                link.send(&FromGuest::Output { exec: id, stream: stream as u8, offset }, &chunk);
            }
        }
    }

    /// Hears what the supervisor says; false when there never was a command.
    fn hear(&mut self, id: u64, link: &mut Link) -> bool {
        let Some(socket) = &mut self.supervisor else { return true };
        let mut bytes = [0; 4096];
        let gone = match socket.read(&mut bytes) {
            Ok(0) => true,
            Ok(length) => {
                self.decoder.push(bytes.get(..length).unwrap_or_default());
                false
            }
            Err(error) => !is_pause(&error),
        };
        while let Ok(Some((message, _))) = self.decoder.decode::<FromSupervisor>() {
            match message {
                FromSupervisor::Running => {
                    let request = self.started.take();
                    request.into_iter().for_each(|request| link.send(&FromGuest::Started { request, exec: id }, &[]));
                }
                FromSupervisor::Failed { not_found, reason } => {
                    let request = self.started.take();
                    let failed = |request| FromGuest::Failed { request, not_found, reason: reason.clone() };
                    request.into_iter().for_each(|request| link.send(&failed(request), &[]));
                    return false;
                }
                FromSupervisor::Exited { code } => self.exit = Some(Exit { code, timed_out: self.timed_out }),
            }
        }
        if gone {
            self.supervisor = None;
            // Killed by what it supervised: how the command ends is not known, only that it was not well.
            self.exit.get_or_insert(Exit { code: 137, timed_out: self.timed_out });
            if let Some(request) = self.started.take() {
                link.fail(request, &std::io::Error::other("the command was killed at its start"));
                return false;
            }
        }
        true
    }
}

/// What the guest keeps, what the command gets, and where its streams go.
type Streams = (Option<OwnedFd>, Vec<OwnedFd>, [Output; 2], Input);

fn open_terminal((columns, rows): (u16, u16)) -> std::io::Result<Streams> {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::unlockpt(&ours)?;
    let name = rustix::pty::ptsname(&ours, Vec::new())?;
    let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::termios::tcsetwinsize(&ours, winsize(columns, rows))?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let streams = vec![theirs.try_clone()?, theirs.try_clone()?, theirs];
    let output = Output::new(Some(ours.try_clone()?));
    let input = Input { file: Some(ours.try_clone()?), terminal: true, ..Input::default() };
    Ok((Some(ours), streams, [output, Output::new(None)], input))
}

fn open_pipes(stdin: bool) -> std::io::Result<Streams> {
    let (stdout, stdout_theirs) = std::io::pipe()?;
    let (stderr, stderr_theirs) = std::io::pipe()?;
    let (stdin, stdin_theirs): (Option<OwnedFd>, OwnedFd) = if stdin {
        let (theirs, ours) = std::io::pipe()?;
        (Some(ours.into()), theirs.into())
    } else {
        (None, std::fs::File::open("/dev/null")?.into())
    };
    let (stdout, stderr): (OwnedFd, OwnedFd) = (stdout.into(), stderr.into());
    for file in [&stdout, &stderr].into_iter().chain(&stdin) {
        rustix::io::ioctl_fionbio(file, true)?;
    }
    let streams = vec![stdin_theirs, stdout_theirs.into(), stderr_theirs.into()];
    let input = Input { file: stdin, ..Input::default() };
    Ok((None, streams, [Output::new(Some(stdout)), Output::new(Some(stderr))], input))
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Bytes of a stream from `start` on: what was not taken by the host yet, and some of what was.
struct Output {
    file: Option<OwnedFd>,
    bytes: Vec<u8>,
    start: u64,
    sent: u64,
    acknowledged: u64,
    drained: bool,
    discarding: bool,
}

impl Output {
    fn new(file: Option<OwnedFd>) -> Self {
        let drained = file.is_none();
        Self { file, bytes: Vec::new(), start: 0, sent: 0, acknowledged: 0, drained, discarding: false }
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn has_unsent(&self) -> bool {
        !self.discarding && self.sent < self.end()
    }

    /// A slow reader holds a process back. Where nobody is attached, a pipe holds it back too, so that nothing is lost;
    /// a terminal runs on and forgets its oldest lines, as a person would expect.
    fn wants_more(&self, attached: bool, terminal: bool) -> bool {
        self.discarding || (terminal && !attached) || self.end() - self.acknowledged < WINDOW
    }

    fn fill(&mut self, attached: bool, terminal: bool, exited: bool) {
        let mut chunk = [0; CHUNK];
        while self.wants_more(attached, terminal) {
            let Some(file) = &self.file else { return };
            match rustix::io::read(file, &mut chunk) {
                Ok(length) if length > 0 => self.keep(chunk.get(..length).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.drained |= exited;
                    return;
                }
                // A terminal says EIO where a pipe says end of file.
                Ok(_) | Err(_) => {
                    self.drained = true;
                    self.file = None;
                }
            }
        }
    }

    fn keep(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
        if self.discarding {
            self.acknowledged = self.end();
            self.sent = self.end();
        }
        let surplus = self.bytes.len().saturating_sub(2 * WINDOW as usize);
        if surplus > 0 {
            self.bytes.drain(..surplus);
            self.start += surplus as u64;
            self.sent = self.sent.max(self.start);
            self.acknowledged = self.acknowledged.max(self.start);
        }
    }

    fn seek(&mut self, from: u64) {
        let from = from.clamp(self.start, self.end());
        (self.sent, self.acknowledged, self.discarding) = (from, from, false);
    }

    fn take(&mut self) -> (u64, Vec<u8>) {
        let offset = self.sent;
        let at = (offset - self.start) as usize;
        let rest = self.bytes.get(at..).unwrap_or_default();
        let chunk = rest.get(..rest.len().min(CHUNK)).unwrap_or_default().to_vec();
        self.sent += chunk.len() as u64;
        (offset, chunk)
    }
}

/// Bytes for standard input.
#[derive(Default)]
struct Input {
    file: Option<OwnedFd>,
    bytes: Vec<u8>,
    taken: u64,
    ended: bool,
    terminal: bool,
}

impl Input {
    fn step(&mut self, exec: u64, link: &mut Link) {
        let Some(file) = &self.file else {
            self.bytes.clear();
            return;
        };
        let before = self.taken;
        let mut closed = false;
        while !self.bytes.is_empty() {
            match rustix::io::write(file, &self.bytes) {
                Ok(length) => {
                    self.bytes.drain(..length);
                    self.taken += length as u64;
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(_) => {
                    closed = true;
                    break;
                }
            }
        }
        if self.taken > before {
            link.send(&FromGuest::StdinTaken { exec, offset: self.taken }, &[]);
        }
        if closed {
            link.send(&FromGuest::StdinClosed { exec }, &[]);
        }
        if closed || (self.ended && self.bytes.is_empty()) {
            // A terminal ends its input by a character, not by being closed.
            if self.terminal && !closed {
                self.ended = false;
                self.bytes.push(4);
            } else {
                self.file = None;
            }
        }
    }
}

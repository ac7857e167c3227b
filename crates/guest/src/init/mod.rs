//! Process 1 of a sandbox: one thread, one loop over everything that can be waited for.
//!
//! It has no thread per command, so that a sandbox that used up its processes can still be told to kill them.

mod exec;
mod files;
mod join;
mod link;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hob_guest::protocol::{FOLDER, FromGuest, GATEWAY_PORT, GATEWAY_SOCKET, Purpose, ToGuest};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets};

use exec::{Exec, Spare};
use files::Writes;
use join::Join;
use link::Link;

/// Commands at once; each costs four descriptors.
const EXECS_MAX: usize = 200;

/// Joined connections at once; each costs two descriptors.
const JOINS_MAX: usize = 256;

/// After this time without anything to do, process 1 gets ready for the next command.
const QUIET: Duration = Duration::from_millis(3);

/// Runs until the sandbox is killed.
pub(crate) fn run() -> Result<(), String> {
    // What runs below has the same user and capabilities: it could take the descriptors of this process, one of which is
    // a log on the host that no limit of the sandbox counts.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| error.to_string())?;
    drop_capabilities().map_err(|error| format!("drop capabilities: {error}"))?;
    let listener =
        TcpListener::bind(("127.0.0.1", GATEWAY_PORT)).map_err(|error| format!("listen for the gateway: {error}"))?;
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    let mut guest = Guest {
        link: Link::default(),
        listener,
        execs: BTreeMap::new(),
        next_exec: 1,
        spare: None,
        joins: Vec::new(),
        writes: Writes::default(),
        kills: Vec::new(),
    };
    loop {
        guest.turn()?;
    }
}

/// Keeps what it was given, and sees to it that nothing below it can ever have more: `bwrap` leaves the bounding set as
/// it was. The capability to do this goes with it.
fn drop_capabilities() -> rustix::io::Result<()> {
    let given = rustix::thread::capabilities(None)?.permitted;
    let kept = given - CapabilitySet::SETPCAP;
    for capability in CapabilitySet::all() - kept {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A newer library knows capabilities that an older kernel does not.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: none })
}

struct Guest {
    link: Link,
    listener: TcpListener,
    execs: BTreeMap<u64, Exec>,
    next_exec: u64,
    spare: Option<Spare>,
    joins: Vec<Join>,
    writes: Writes,
    /// Requests to kill everything that wait for the last command to be gone.
    kills: Vec<u64>,
}

impl Guest {
    fn turn(&mut self) -> Result<(), String> {
        let now = Instant::now();
        if self.link.dial(now) {
            self.execs.values_mut().for_each(Exec::detach);
            self.writes = Writes::default();
            // The host's first word is on its way: the time until then is enough for the first command's supervisor.
            self.keep_a_spare();
        }
        if self.wait(now)? {
            // Nobody waits for anything now: the time to get ready for the next command.
            self.keep_a_spare();
        }
        reap()?;
        self.link.read();
        self.serve();
        self.run_commands();
        self.accept();
        self.joins.retain_mut(Join::step);
        // What was made for the host in this turn leaves in this turn. Nothing is read here: what is read after the
        // serving would wait for the next event.
        self.link.write();
        Ok(())
    }

    /// Waits until anything can go on; true when nothing could for a while. Readiness is not kept: every part tries, and
    /// none of them ever blocks.
    fn wait(&self, now: Instant) -> Result<bool, String> {
        let mut watched = Vec::new();
        self.link.watch(&mut watched);
        if self.joins.len() < JOINS_MAX {
            watched.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        let room = self.link.has_room();
        self.execs.values().for_each(|exec| exec.watch(&mut watched, room));
        self.joins.iter().for_each(|join| join.watch(&mut watched));
        let deadlines = self.execs.values().filter_map(Exec::deadline).chain(self.link.redial_at());
        let limit = deadlines.min().map_or(Duration::from_secs(1), |at| at.saturating_duration_since(now));
        let limit = limit.min(if self.spare.is_some() { Duration::from_secs(1) } else { QUIET });
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        match rustix::event::poll(&mut watched, Some(&limit)) {
            Ok(ready) => Ok(ready == 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(format!("wait: {error}")),
        }
    }

    fn serve(&mut self) {
        while let Some((message, blob)) = self.link.next() {
            self.answer(message, &blob);
        }
    }

    fn answer(&mut self, message: ToGuest, blob: &[u8]) {
        match message {
            // The link has noted that it was believed.
            ToGuest::Welcome => {}
            ToGuest::Exec { request, command } => self.start(request, command),
            ToGuest::Attach { request, exec, from } => match self.execs.get_mut(&exec) {
                Some(process) => {
                    process.attach(from);
                    self.link.send(&FromGuest::Started { request, exec }, &[]);
                }
                None => self.link.fail(request, &Errno::SRCH.into()),
            },
            ToGuest::List { request } => {
                let processes = self.execs.iter().map(|(exec, process)| process.describe(*exec)).collect();
                self.link.send(&FromGuest::Processes { request, processes }, &[]);
            }
            ToGuest::Kill { request, exec: Some(exec) } => match self.execs.get_mut(&exec) {
                Some(process) => process.kill(Some(request)),
                None => self.link.send(&FromGuest::Done { request }, &[]),
            },
            ToGuest::Kill { request, exec: None } => {
                self.execs.values_mut().for_each(|process| process.kill(None));
                self.kills.push(request);
            }
            ToGuest::Dial { request, port } => self.connect(request, port),
            ToGuest::Detach { exec } => self.with(exec, Exec::discard),
            ToGuest::Forget { exec } => self.with(exec, Exec::forget),
            ToGuest::Stdin { exec, end } => self.with(exec, |process| process.feed(blob, end)),
            ToGuest::Ack { exec, stream, offset } => self.with(exec, |process| process.acknowledge(stream, offset)),
            ToGuest::Resize { exec, size } => self.with(exec, |process| process.resize(size)),
            file => self.writes.answer(file, blob, &mut self.link),
        }
    }

    fn with(&mut self, exec: u64, act: impl FnOnce(&mut Exec)) {
        if let Some(process) = self.execs.get_mut(&exec) {
            act(process);
        }
    }

    fn start(&mut self, request: u64, command: hob_guest::protocol::Exec) {
        self.keep_a_spare();
        let started = match self.spare.take() {
            _ if self.execs.len() >= EXECS_MAX => {
                Err(std::io::Error::other(format!("{EXECS_MAX} commands run already")))
            }
            Some(spare) => Exec::start(spare, request, command),
            None => Err(std::io::Error::other("the sandbox cannot start another process")),
        };
        match started {
            Ok(process) => {
                self.execs.insert(self.next_exec, process);
                self.next_exec += 1;
            }
            Err(error) => self.link.fail(request, &error),
        }
    }

    /// A supervisor that waits for its command, so that a command costs one new process and not two.
    fn keep_a_spare(&mut self) {
        if self.spare.is_none() {
            self.spare = Spare::new().ok();
        }
    }

    fn run_commands(&mut self) {
        let now = Instant::now();
        let link = &mut self.link;
        self.execs.retain(|id, process| process.step(*id, now, link));
        // What a dead supervisor left was adopted by this process; nobody else would ever kill it.
        if self.execs.values().all(Exec::is_over) {
            for request in self.kills.drain(..) {
                self.link.send(&FromGuest::Done { request }, &[]);
            }
        }
    }

    fn accept(&mut self) {
        while self.joins.len() < JOINS_MAX {
            let Ok((inside, _)) = self.listener.accept() else { return };
            // A gateway that is not there closes the connection: the client hears of it at once.
            if let Ok(outside) = UnixStream::connect(format!("{FOLDER}/{GATEWAY_SOCKET}")) {
                self.joins.extend(Join::new(inside.into(), outside.into()).ok());
            }
        }
    }

    fn connect(&mut self, request: u64, port: u16) {
        if self.joins.len() >= JOINS_MAX {
            return self.link.fail(request, &std::io::Error::other("too many connections"));
        }
        let joined = join::dial(port).and_then(|inside| {
            let outside = link::open(Purpose::Dial { request })?;
            Join::new(inside.into(), outside.into())
        });
        match joined {
            Ok(join) => self.joins.push(join),
            Err(error) => self.link.fail(request, &error),
        }
    }
}

/// Reaps every process that ended: supervisors, and what was orphaned to process 1.
fn reap() -> Result<(), String> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(()),
            Err(error) => return Err(format!("reap: {error}")),
        }
    }
}

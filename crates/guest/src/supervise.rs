//! The supervisor of one command: everything that the command starts stays below it, whatever it does.
//!
//! A process that leaves its group, its session and its parent is adopted by the nearest *child subreaper*, which is
//! this one. So "kill this command and all it started" has an exact answer. It ends when the last of them has ended.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use hob_guest::frame;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use crate::passing;

/// This program itself.
const PROGRAM: &str = "/proc/self/exe";

/// To a supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToSupervisor {
    /// Run this; its three standard streams come with it.
    Run {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Its folder.
        cwd: String,
        /// Environment beside the guest's own.
        env: std::collections::BTreeMap<String, String>,
        /// Whether its standard input is a terminal that it shall control.
        terminal: bool,
    },
    /// Kill everything.
    Kill,
}

/// From a supervisor. It closes its socket when nothing is left.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromSupervisor {
    /// The command runs.
    Running,
    /// It could not be started.
    Failed {
        /// Whether the program or the folder is not there.
        not_found: bool,
        /// What the kernel said.
        reason: String,
    },
    /// The command ended; what it left behind may still run.
    Exited {
        /// Exit code, or 128 + signal.
        code: i32,
    },
}

/// Runs a supervisor on the socket that is its standard input.
pub(crate) fn run() -> Result<(), String> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(|error| error.to_string())?;
    let socket = UnixStream::from(socket);
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").map_err(|error| error.to_string())?;
    rustix::stdio::dup2_stdin(&null).map_err(|error| error.to_string())?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| error.to_string())?;
    let tell = |message: &FromSupervisor| frame::write(&socket, message, &[]).map_err(|error| error.to_string());

    let Ok((ToSupervisor::Run { argv, cwd, env, terminal }, _)) = frame::read(&socket) else { return Ok(()) };
    let streams = passing::receive(&socket).map_err(|error| error.to_string())?;
    // The thread that kills is there before the command, which could use up every process the sandbox may have.
    let killer = socket.try_clone().map_err(|error| error.to_string())?;
    let started = std::thread::Builder::new()
        .stack_size(64 << 10)
        .spawn(move || kill_on_request(&killer))
        // Its own folder and not only the command's: a spawn that has nothing to change but files needs no copy of memory.
        .and_then(|_| std::env::set_current_dir(&cwd))
        .and_then(|()| spawn(&argv, env, terminal, streams));
    match started {
        Ok(command) => {
            tell(&FromSupervisor::Running)?;
            reap(command, |code| tell(&FromSupervisor::Exited { code }))
        }
        Err(error) => {
            let not_found = error.kind() == std::io::ErrorKind::NotFound;
            let reason = if not_found && !std::path::Path::new(&cwd).is_dir() {
                format!("there is no folder {cwd}")
            } else {
                error.to_string()
            };
            tell(&FromSupervisor::Failed { not_found, reason })
        }
    }
}

fn spawn(
    argv: &[String],
    env: std::collections::BTreeMap<String, String>,
    terminal: bool,
    streams: Vec<OwnedFd>,
) -> std::io::Result<Pid> {
    let mut streams = streams.into_iter();
    let (Some(stdin), Some(stdout), Some(stderr)) = (streams.next(), streams.next(), streams.next()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let (program, arguments) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut command = if terminal {
        let mut command = Command::new(PROGRAM);
        command.arg("terminal").arg(program);
        command
    } else {
        let mut command = Command::new(program);
        command.process_group(0);
        command
    };
    command.args(arguments).envs(env);
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    Ok(Pid::from_child(&command.spawn()?))
}

/// Waits for every process below, until none is left.
fn reap(command: Pid, mut exited: impl FnMut(i32) -> Result<(), String>) -> Result<(), String> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                exited(status.exit_status().or(signal).unwrap_or(255))?;
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(()),
            Err(error) => return Err(format!("wait: {error}")),
        }
    }
}

/// Waits for the word, then kills until the other thread finds that nothing is left and ends this process.
fn kill_on_request(socket: &UnixStream) {
    if !matches!(frame::read(socket), Ok((ToSupervisor::Kill, _))) {
        return;
    }
    loop {
        // Stopped first: what is stopped starts nothing new while the rest is found.
        for signal in [Signal::STOP, Signal::KILL] {
            let mut seen = 0;
            loop {
                let below = descendants();
                for pid in &below {
                    match rustix::process::kill_process(*pid, signal) {
                        // Gone in the meantime is what was wanted.
                        Ok(()) | Err(_) => {}
                    }
                }
                if below.len() <= seen {
                    break;
                }
                seen = below.len();
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Every process below this one.
fn descendants() -> Vec<Pid> {
    let mut found = Vec::new();
    let mut open = vec![rustix::process::getpid()];
    while let Some(pid) = open.pop() {
        let children = children(pid);
        open.extend(&children);
        found.extend(children);
    }
    found
}

fn children(pid: Pid) -> Vec<Pid> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .filter_map(Pid::from_raw)
        .collect()
}

/// Makes the terminal that is standard input the controlling one, and becomes the command.
pub(crate) fn terminal(arguments: &[String]) -> String {
    let Some((program, rest)) = arguments.split_first() else { return "run nothing".to_owned() };
    let session = rustix::process::setsid().and_then(|_| rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()));
    if let Err(error) = session {
        return format!("take the terminal: {error}");
    }
    let error = Command::new(program).args(rest).exec();
    format!("{program}: {error}")
}

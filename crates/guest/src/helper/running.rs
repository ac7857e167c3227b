//! A running sandbox or writer, and how it is ended.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use hob_guest::launch::Gate;
use rustix::process::{PidfdFlags, Signal};

use super::{complain, start};

/// How long the processes of a sandbox may take to be gone after they were killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A running sandbox or writer: `bwrap` and, inside, process 1.
pub(super) struct Running {
    pub(super) bwrap: Child,
    pub(super) bwrap_watch: OwnedFd,
    pub(super) first: OwnedFd,
    /// Removed at its end; a writer is in those of its sandbox.
    pub(super) cgroups: Vec<PathBuf>,
    pub(super) gate: Option<Gate>,
}

impl Running {
    /// Whether its gate is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.closed)
    }

    /// The kernel ends every process of a PID namespace with its process 1, and reports process 1 as ended only when
    /// the others are gone.
    pub(super) fn kill(&mut self) {
        let deadline = Instant::now() + KILL_LIMIT;
        match rustix::process::pidfd_send_signal(&self.first, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => complain(&format!("failed to kill a process 1: {error}")),
        }
        start::wait_until(&self.bwrap_watch, deadline);
        if let Err(error) = self.bwrap.kill().and_then(|()| self.bwrap.wait()) {
            complain(&format!("failed to wait for bwrap: {error}"));
        }
        start::wait_until(&self.first, deadline);
        for folder in &self.cgroups {
            start::remove_cgroup(folder, deadline);
        }
    }
}

/// A descriptor that can be waited on until a process has ended.
pub(super) fn watch(process: rustix::process::Pid) -> Result<OwnedFd, String> {
    rustix::process::pidfd_open(process, PidfdFlags::empty())
        .map_err(|error| format!("watch process {process}: {error}"))
}

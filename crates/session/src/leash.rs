//! A command that must not outlive the future that waits for it.
//!
//! A [`Process`] that is dropped runs on, since a server that goes away must not take the agent's work with it. A
//! turn that is stopped is the other case: what it started has to go.

use std::ops::{Deref, DerefMut};

use hob_sandbox::Process;
use tokio_util::task::TaskTracker;

/// A process that is killed, with all it started, when this is dropped before [`Leash::let_go`].
pub(crate) struct Leash {
    process: Option<Process>,
    tasks: TaskTracker,
}

impl Leash {
    pub(crate) fn new(process: Process, tasks: TaskTracker) -> Self {
        Self { process: Some(process), tasks }
    }

    /// The process has ended, or is somebody else's now.
    pub(crate) fn let_go(mut self) {
        self.process = None;
    }
}

impl Deref for Leash {
    type Target = Process;
    #[expect(clippy::expect_used, reason = "only `let_go` and `drop` take the process, and both consume the leash")]
    fn deref(&self) -> &Process {
        self.process.as_ref().expect("a leash holds a process until it is gone")
    }
}

impl DerefMut for Leash {
    #[expect(clippy::expect_used, reason = "only `let_go` and `drop` take the process, and both consume the leash")]
    fn deref_mut(&mut self) -> &mut Process {
        self.process.as_mut().expect("a leash holds a process until it is gone")
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        self.tasks.spawn(async move {
            if let Err(error) = process.kill().await {
                tracing::debug!("a command could not be killed, so its sandbox is gone: {error}");
            }
        });
    }
}

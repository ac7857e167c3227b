//! Limits that the kernel holds, and how the owner of a sandbox hears of them.

use crate::cgroup;
use crate::command::SandboxEvent;
use crate::disk::Gauge;
use crate::sandbox::Sandbox;

/// What was last known of one sandbox.
pub(crate) struct Watched {
    pub(crate) gauge: Gauge,
    oom_kills: u64,
    refusals: u64,
}

impl Watched {
    /// Nothing is known yet.
    pub(crate) fn new(sandbox: &Sandbox) -> Self {
        Self { gauge: Gauge::new(sandbox.parts().limits.disk_bytes), oom_kills: 0, refusals: 0 }
    }

    /// Tells the owner what the control groups have counted since the last look.
    pub(crate) fn look_at_groups(&mut self, sandbox: &Sandbox) {
        let groups = &sandbox.parts().groups;
        let kills = cgroup::stats(groups).oom_kills.unwrap_or_default();
        if kills > self.oom_kills {
            self.oom_kills = kills;
            tell(sandbox, SandboxEvent::OutOfMemory { kills });
        }
        let refusals = cgroup::refused_processes(groups).unwrap_or_default();
        if refusals > self.refusals {
            self.refusals = refusals;
            tell(sandbox, SandboxEvent::ProcessesFull { refusals });
        }
    }
}

/// Tells the owner of a sandbox that a limit was reached.
pub(crate) fn tell(sandbox: &Sandbox, event: SandboxEvent) {
    tracing::info!(sandbox.id = %sandbox.id(), "a limit was reached: {event:?}");
    // Nobody listening is no loss.
    drop(sandbox.parts().events.send(event));
}

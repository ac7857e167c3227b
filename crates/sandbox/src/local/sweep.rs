//! Removes what a crash left behind and nobody will ask for again: control groups of sandboxes that do not run, and
//! whatever still runs in them.
//!
//! Namespaces, mounts and networks need no hand: they are gone with the last process that is in them. Files are not
//! touched, they may be wanted again; whoever does not want them any more destroys the sandbox.

use std::io::ErrorKind;
use std::path::Path;

use rustix::process::{Pid, Signal};

use super::{Inner, remove_group};
use crate::freezer::Freezer;
use crate::provider::SandboxError;

impl Inner {
    /// Removes every control group of this data folder whose sandbox the helper does not run.
    pub(super) async fn sweep(&self) -> Result<(), SandboxError> {
        self.sweep_probes();
        for (id, groups) in self.cgroups.left() {
            // Nobody starts it meanwhile, so what the helper does not run now is no sandbox.
            let turn = self.turn_of(&id);
            let _turn = turn.lock().await;
            let helper = self.helper().await?;
            let running = helper.running().await.map_err(|reason| SandboxError::Machine { reason })?;
            if running.contains_key(id.as_str()) {
                continue;
            }
            tracing::info!(sandbox.id = %id, "removing the control groups that a crash left behind");
            for group in groups {
                kill_members(&group);
                remove_group(&group).await?;
            }
        }
        Ok(())
    }

    /// Lets go on what a server that was killed in the midst of a live snapshot left frozen: it cannot even be killed.
    pub(super) fn thaw_all(&self) {
        for (id, groups) in self.cgroups.left() {
            if let Some(freezer) = Freezer::of(&groups)
                && let Err(error) = freezer.thaw()
            {
                tracing::error!(sandbox.id = %id, "a sandbox may be frozen: failed to thaw it: {error}");
            }
        }
    }

    /// Removes the groups with which a server that was killed tried out what this machine can do.
    fn sweep_probes(&self) {
        for (pid, folder) in self.cgroups.probes() {
            if !Path::new("/proc").join(pid.to_string()).exists()
                && let Err(error) = std::fs::remove_dir(&folder)
                && error.kind() != ErrorKind::NotFound
            {
                tracing::warn!("failed to remove {}: {error}", folder.display());
            }
        }
    }
}

/// Kills what is in a group: a stage whose helper died under it, for instance.
fn kill_members(group: &Path) {
    let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        match rustix::process::kill_process(pid, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::warn!("failed to kill process {pid} of {}: {error}", group.display()),
        }
    }
}

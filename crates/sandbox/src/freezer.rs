//! Stops every process of a sandbox for a moment, so that its files hold still, and lets them go on.
//!
//! A frozen process does not even die. So whoever freezes a sandbox holds [`Frozen`], which thaws it however that ends;
//! what a killed server left frozen is thawed by the next one.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long processes may take to stop: one that is in the midst of a system call stops after it.
const FREEZE_LIMIT: Duration = Duration::from_secs(2);

/// How often it is looked whether all have stopped.
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// The control group by which a sandbox is frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Freezer {
    /// Of version 1: its `freezer.state` (kernel documentation, cgroup-v1/freezer-subsystem).
    V1(PathBuf),
    /// Of version 2: the group (kernel documentation, cgroup-v2, "cgroup.freeze").
    V2(PathBuf),
}

/// A frozen sandbox.
#[derive(Debug)]
pub(crate) struct Frozen<'a>(&'a Freezer);

impl Freezer {
    /// The freezer among a sandbox's control groups; `None` where it has none.
    pub(crate) fn of(groups: &[PathBuf]) -> Option<Self> {
        let v1 = groups.iter().map(|group| group.join("freezer.state")).find(|state| state.exists()).map(Self::V1);
        v1.or_else(|| groups.iter().find(|group| group.join("cgroup.freeze").exists()).cloned().map(Self::V2))
    }

    /// Stops all processes, and waits until the last one has.
    pub(crate) fn freeze(&self) -> io::Result<Frozen<'_>> {
        let frozen = Frozen(self);
        let begun = Instant::now();
        // Version 1 has to be asked again: one that was just being started may have been passed over.
        while !self.ask(true)? {
            if begun.elapsed() > FREEZE_LIMIT {
                return Err(ErrorKind::TimedOut.into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(frozen)
    }

    /// Lets all processes go on. Those that run are left as they are.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.ask(false).map(drop)
    }

    /// Asks for it, and says whether it is so.
    fn ask(&self, frozen: bool) -> io::Result<bool> {
        match self {
            Self::V1(state) => {
                fs::write(state, if frozen { "FROZEN" } else { "THAWED" })?;
                Ok(!frozen || fs::read_to_string(state)?.trim() == "FROZEN")
            }
            Self::V2(group) => {
                fs::write(group.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
                Ok(!frozen || is_frozen(&fs::read_to_string(group.join("cgroup.events"))?))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::V1(path) | Self::V2(path) => path,
        }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.thaw() {
            tracing::error!(
                "a sandbox stays frozen until the next start: failed to thaw {}: {error}",
                self.0.path().display()
            );
        }
    }
}

fn is_frozen(events: &str) -> bool {
    events.lines().any(|line| line == "frozen 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freezer_is_found_among_the_groups() {
        let place = tempfile::tempdir().unwrap();
        let group = |name: &str, file: &str| {
            let group = place.path().join(name);
            fs::create_dir(&group).unwrap();
            fs::write(group.join(file), "").unwrap();
            group
        };
        let (memory, old) = (group("memory", "memory.usage_in_bytes"), group("freezer", "freezer.state"));
        let new = group("unified", "cgroup.freeze");
        assert_eq!(Freezer::of(std::slice::from_ref(&memory)), None);
        assert_eq!(Freezer::of(&[memory.clone(), new.clone()]), Some(Freezer::V2(new.clone())));
        assert_eq!(Freezer::of(&[new, memory, old.clone()]), Some(Freezer::V1(old.join("freezer.state"))));
    }

    #[test]
    fn version_2_tells_when_all_have_stopped() {
        assert!(is_frozen("populated 1\nfrozen 1\n"));
        assert!(!is_frozen("populated 1\nfrozen 0\n"));
    }
}

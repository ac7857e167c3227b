//! Which user and group IDs of the host a sandbox's own IDs stand for.
//!
//! As root, each sandbox has a range of its own, so that even a process that left its sandbox is nobody on the host and
//! nobody in the next sandbox. Without root there are the ranges of `/etc/subuid`, entered once by the helper, and root
//! inside is the person who runs Hob; every sandbox is still a user namespace of its own.

use std::process::Command;

/// The first ID of the first sandbox: within the range that systemd keeps for containers, above what others take first.
const OWNED_FIRST: u32 = 0x3000_0000;

/// IDs of one sandbox.
const RANGE: u32 = 0x1_0000;

/// Sandboxes that have a range, at most.
pub(crate) const SLOTS: u32 = 8_192;

/// Where IDs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ids {
    /// This process is root: a range for each sandbox.
    Owned,
    /// It is not: a range that the machine's administrator has lent to its user, which may be empty.
    Borrowed {
        /// The user and the group.
        me: (u32, u32),
        /// The first and the number of lent user IDs.
        users: (u32, u32),
        /// The first and the number of lent group IDs.
        groups: (u32, u32),
    },
}

impl Ids {
    /// What this process has.
    pub(crate) fn of_this_process() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if uid.is_root() {
            return Self::Owned;
        }
        let name = user_name(uid.as_raw());
        let lent = |file| lent(&std::fs::read_to_string(file).unwrap_or_default(), uid.as_raw(), name.as_deref());
        let (users, groups) = (lent("/etc/subuid"), lent("/etc/subgid"));
        let has_tools = ["newuidmap", "newgidmap"].iter().all(|tool| find_program(tool).is_some());
        let (users, groups) = if has_tools { (users, groups) } else { (None, None) };
        let none = (0, 0);
        Self::Borrowed {
            me: (uid.as_raw(), gid.as_raw()),
            users: users.unwrap_or(none),
            groups: groups.unwrap_or(none),
        }
    }

    /// Whether owners of the host's files can be shifted, which needs root.
    pub(crate) fn can_shift(&self) -> bool {
        matches!(self, Self::Owned)
    }

    /// The map of a sandbox, in the helper's terms: inside, outside, how many.
    pub(crate) fn of_sandbox(&self, slot: u32) -> Vec<(u32, u32, u32)> {
        match self {
            Self::Owned => vec![(0, Self::first(slot), RANGE)],
            Self::Borrowed { users, groups, .. } => {
                // Two lines, since a line may not reach over two lines of the helper's own map.
                let lent = users.1.min(groups.1).min(RANGE - 1);
                [(0, 0, 1), (1, 1, lent)].into_iter().filter(|(_, _, count)| *count > 0).collect()
            }
        }
    }

    /// Root inside, as the host's files show it.
    pub(crate) fn first(slot: u32) -> u32 {
        OWNED_FIRST + slot.min(SLOTS) * RANGE
    }

    /// Maps the helper's own namespace: it is process `pid`, and has just entered it.
    pub(crate) fn map(&self, pid: &str) -> Result<(), String> {
        let Self::Borrowed { me, users, groups } = self else { return Ok(()) };
        if users.1 == 0 || groups.1 == 0 {
            // A user may always map itself alone, without the right to change groups.
            let write = |file: &str, text: String| {
                let path = format!("/proc/{pid}/{file}");
                std::fs::write(&path, text).map_err(|error| format!("write {path}: {error}"))
            };
            write("setgroups", "deny".to_owned())?;
            write("uid_map", format!("0 {} 1", me.0))?;
            return write("gid_map", format!("0 {} 1", me.1));
        }
        let run = |tool: &str, me: u32, lent: (u32, u32)| {
            let numbers = [0, me, 1, 1, lent.0, lent.1].map(|number| number.to_string());
            let output = Command::new(tool).arg(pid).args(numbers).output();
            let output = output.map_err(|error| format!("run {tool}: {error}"))?;
            let said = String::from_utf8_lossy(&output.stderr);
            if output.status.success() { Ok(()) } else { Err(format!("run {tool}: {}", said.trim())) }
        };
        run("newuidmap", me.0, *users)?;
        run("newgidmap", me.1, *groups)
    }
}

/// The first range of a user in the text of `/etc/subuid` or `/etc/subgid`, by name or number.
fn lent(text: &str, uid: u32, name: Option<&str>) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        (Some(owner) == name || owner.parse() == Ok(uid)).then_some(range)
    })
}

fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// A program on this process's `PATH`.
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let usual = ["/usr/local/bin", "/usr/bin", "/bin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "root:1:2\nana:100000:65536\n1001:165536:65536\n";
        assert_eq!(lent(text, 1000, Some("ana")), Some((100_000, 65_536)));
        assert_eq!(lent(text, 1001, None), Some((165_536, 65_536)));
        assert_eq!(lent(text, 1002, Some("bo")), None);
        assert_eq!(lent("ana:x:y\n", 1000, Some("ana")), None);
    }

    #[test]
    fn the_last_range_still_fits_below_the_signed_limit() {
        assert!(Ids::first(SLOTS).checked_add(RANGE).is_some_and(|end| end < i32::MAX as u32));
    }
}

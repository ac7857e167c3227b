//! Where limits can be set on this machine: control groups of version 1, of version 2, or some of each.
//!
//! Detection is pure: it reads two files of `/proc` as text and names, for each controller, the hierarchy that holds it.
//! Whether the machine lets us use it is only known by trying; [`Cgroups::probe`] tries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use hob_guest::launch::Cgroup;

use crate::command::Stats;
use crate::provider::Limit;
use crate::spec::{Limits, SandboxId};

/// Length of a scheduling period, in microseconds.
const PERIOD_US: u64 = 100_000;

/// A hierarchy of control groups, as far as it matters to one controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Its version.
    pub(crate) version: Version,
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// Our own group, under the mount.
    pub(crate) own: PathBuf,
}

/// A version of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// One hierarchy for each controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// The hierarchy of each controller that limits or counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    pub(crate) cpu: Option<Hierarchy>,
    pub(crate) cpu_count: Option<Hierarchy>,
    pub(crate) memory: Option<Hierarchy>,
    pub(crate) processes: Option<Hierarchy>,
    /// Only version 1 has a controller for it; every group of version 2 can be frozen.
    pub(crate) freezer: Option<Hierarchy>,
}

/// Finds the hierarchies from `/proc/self/cgroup`, `/proc/self/mountinfo` and the version 2 root's `cgroup.controllers`
/// (empty where there is none).
pub(crate) fn detect(own: &str, mountinfo: &str, v2_controllers: &str) -> Layout {
    let find = |controller: &str| find(controller, own, mountinfo, v2_controllers);
    let cpu = find("cpu");
    let cpu_count =
        if matches!(cpu, Some(Hierarchy { version: Version::V2, .. })) { cpu.clone() } else { find("cpuacct") };
    Layout { cpu, cpu_count, memory: find("memory"), processes: find("pids"), freezer: find("freezer") }
}

fn find(controller: &str, own: &str, mountinfo: &str, v2_controllers: &str) -> Option<Hierarchy> {
    let v1 = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let v2 = || {
        let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        v2_controllers.split_whitespace().any(|name| name == controller).then_some(path)
    };
    let (version, path) = v1.map(|path| (Version::V1, path)).or_else(|| v2().map(|path| (Version::V2, path)))?;
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let (mut before, mut after) = (before.split(' ').skip(3), after.split(' '));
        let (root, mount) = (before.next()?, before.next()?);
        let (kind, options) = (after.next()?, after.nth(1)?);
        let fits = match version {
            Version::V1 => kind == "cgroup" && options.split(',').any(|option| option == controller),
            Version::V2 => kind == "cgroup2",
        };
        // A container sees a part of the hierarchy: the mount's root is cut off the path. Where the path lies outside
        // of it, the mount itself is all there is.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let mount = PathBuf::from(mount.replace("\\040", " "));
        fits.then(|| Hierarchy { version, own: mount.join(below), mount })
    })
}

/// The groups that limit sandboxes on this machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cgroups {
    /// For each limit that holds: the hierarchy and the folder in which groups are made.
    held: Vec<(Kind, Version, PathBuf)>,
    /// Those that cannot hold, and why.
    pub(crate) unheld: Vec<(Limit, String)>,
    /// What the name of every group begins with.
    prefix: String,
}

/// What a group is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cpu,
    CpuCount,
    Memory,
    Processes,
    Freezer,
}

impl Kind {
    fn controller(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuCount => "cpuacct",
            Self::Memory => "memory",
            Self::Processes => "pids",
            Self::Freezer => "freezer",
        }
    }

    fn limits(self, version: Version, limits: &Limits) -> Vec<(&'static str, String)> {
        let quota = u64::from(limits.cpu_millicores) * PERIOD_US / 1000;
        match (self, version) {
            (Self::Cpu, Version::V1) => {
                vec![("cpu.cfs_period_us", PERIOD_US.to_string()), ("cpu.cfs_quota_us", quota.to_string())]
            }
            (Self::Cpu, Version::V2) => vec![("cpu.max", format!("{quota} {PERIOD_US}"))],
            (Self::CpuCount | Self::Freezer, _) => Vec::new(),
            (Self::Memory, Version::V1) => vec![("memory.limit_in_bytes", limits.memory_bytes.to_string())],
            (Self::Memory, Version::V2) => vec![("memory.max", limits.memory_bytes.to_string())],
            (Self::Processes, _) => vec![("pids.max", limits.processes.to_string())],
        }
    }

    /// Files that a kernel without swap accounting does not have.
    fn limits_where_present(self, version: Version, limits: &Limits) -> Vec<(&'static str, String)> {
        match (self, version) {
            (Self::Memory, Version::V1) => vec![("memory.memsw.limit_in_bytes", limits.memory_bytes.to_string())],
            (Self::Memory, Version::V2) => vec![("memory.swap.max", "0".to_owned())],
            _ => Vec::new(),
        }
    }
}

impl Cgroups {
    /// Finds out what this machine lets us do, by doing it once. `prefix` tells our groups from those of others.
    pub(crate) fn probe(prefix: &str) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mountinfo = read("/proc/self/mountinfo");
        let controllers = v2_mount(&mountinfo).map(|mount| read(&format!("{mount}/cgroup.controllers")));
        let layout = detect(&read("/proc/self/cgroup"), &mountinfo, &controllers.unwrap_or_default());
        let mut found = Self { prefix: prefix.to_owned(), ..Self::default() };
        let wanted = [
            (Kind::Cpu, Some(Limit::Cpu), layout.cpu),
            (Kind::CpuCount, None, layout.cpu_count),
            (Kind::Memory, Some(Limit::Memory), layout.memory),
            (Kind::Processes, Some(Limit::Processes), layout.processes),
            (Kind::Freezer, None, layout.freezer),
        ];
        for (kind, limit, hierarchy) in wanted {
            let parent = hierarchy
                .ok_or_else(|| format!("this kernel has no {} controller mounted", kind.controller()))
                .and_then(|hierarchy| Ok((hierarchy.version, usable_parent(kind, &hierarchy, prefix)?)));
            match (parent, limit) {
                (Ok((version, parent)), _) => found.held.push((kind, version, parent)),
                (Err(reason), Some(limit)) => found.unheld.push((limit, reason)),
                (Err(_), None) => {}
            }
        }
        found
    }

    /// Whether a sandbox's processes can be stopped for a moment and go on.
    pub(crate) fn can_freeze(&self) -> bool {
        self.held.iter().any(|(kind, version, _)| *kind == Kind::Freezer || *version == Version::V2)
    }

    /// The groups of a sandbox.
    pub(crate) fn plan(&self, id: &str, limits: &Limits) -> Vec<Cgroup> {
        let mut groups: Vec<Cgroup> = Vec::new();
        for (kind, version, parent) in &self.held {
            let folder = parent.join(format!("{}-{id}", self.prefix));
            let mut files = kind.limits(*version, limits);
            let optional = kind.limits_where_present(*version, limits).into_iter();
            files.extend(optional.filter(|(file, _)| has_file(*version, parent, file)));
            let files = files.into_iter().map(|(file, value)| (file.to_owned(), value));
            match groups.iter_mut().find(|group| group.folder == folder) {
                Some(group) => group.limits.extend(files),
                None => groups.push(Cgroup { folder, limits: files.collect() }),
            }
        }
        groups
    }
}

impl Cgroups {
    /// The groups that were made for sandboxes and are still there, by the sandbox.
    pub(crate) fn left(&self) -> BTreeMap<SandboxId, Vec<PathBuf>> {
        let mut left: BTreeMap<SandboxId, Vec<PathBuf>> = BTreeMap::new();
        for (name, folder) in self.named(&format!("{}-", self.prefix)) {
            if let Ok(id) = SandboxId::new(name) {
                left.entry(id).or_default().push(folder);
            }
        }
        left
    }

    /// The groups with which servers tried out this machine, and each server's process.
    pub(crate) fn probes(&self) -> Vec<(u32, PathBuf)> {
        let named = self.named(&format!("{}.probe.", self.prefix)).into_iter();
        named.filter_map(|(pid, folder)| Some((pid.parse().ok()?, folder))).collect()
    }

    /// The groups whose name begins so, with the rest of it.
    fn named(&self, prefix: &str) -> Vec<(String, PathBuf)> {
        let parents: BTreeSet<&Path> = self.held.iter().map(|(_, _, parent)| parent.as_path()).collect();
        let entries = parents.into_iter().flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten());
        let named = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_prefix(prefix)?.to_owned(), entry.path()))
        });
        named.collect()
    }
}

/// The groups of a process that somebody else has made.
pub(crate) fn of_process(pid: u32) -> Vec<PathBuf> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mountinfo = read("/proc/self/mountinfo");
    let controllers = v2_mount(&mountinfo).map(|mount| read(&format!("{mount}/cgroup.controllers")));
    let layout = detect(&read(&format!("/proc/{pid}/cgroup")), &mountinfo, &controllers.unwrap_or_default());
    let groups = [layout.cpu_count, layout.memory, layout.processes].into_iter().flatten();
    groups.map(|hierarchy| hierarchy.own).collect::<BTreeSet<_>>().into_iter().collect()
}

/// On version 2 the root has no such files, and every other group has those of its parent.
fn has_file(version: Version, parent: &Path, file: &str) -> bool {
    parent.join(file).exists()
        || (version == Version::V2 && file == "memory.swap.max" && Path::new("/proc/swaps").exists())
}

fn v2_mount(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4))?
    })
}

/// The folder in which a group with this limit can be made; tries it.
fn usable_parent(kind: Kind, hierarchy: &Hierarchy, prefix: &str) -> Result<PathBuf, String> {
    let candidates: Vec<&Path> = match hierarchy.version {
        Version::V1 => vec![&hierarchy.own],
        // A group with processes cannot have limited children, and ours has the server: begin above it.
        Version::V2 => {
            let above = hierarchy.own.ancestors().skip(1).take_while(|folder| folder.starts_with(&hierarchy.mount));
            if hierarchy.own == hierarchy.mount { vec![hierarchy.mount.as_path()] } else { above.collect() }
        }
    };
    let mut reason = "there is no folder for it".to_owned();
    for parent in candidates {
        match try_group(kind, hierarchy.version, parent, prefix) {
            Ok(()) => return Ok(parent.to_owned()),
            Err(error) => reason = error,
        }
    }
    Err(reason)
}

fn try_group(kind: Kind, version: Version, parent: &Path, prefix: &str) -> Result<(), String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    if version == Version::V2 {
        let control = parent.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&control).map_err(|error| failed(&control, error))?;
        if !enabled.split_whitespace().any(|name| name == kind.controller()) {
            fs::write(&control, format!("+{}", kind.controller())).map_err(|error| failed(&control, error))?;
        }
    }
    let folder = parent.join(format!("{prefix}.probe.{}", std::process::id()));
    fs::create_dir(&folder).map_err(|error| failed(&folder, error))?;
    let files = kind.limits(version, &Limits::default());
    let written = files.into_iter().try_for_each(|(file, value)| {
        fs::write(folder.join(file), value).map_err(|error| failed(&folder.join(file), error))
    });
    fs::remove_dir(&folder).map_err(|error| failed(&folder, error))?;
    written
}

/// What the groups have counted.
pub(crate) fn stats(groups: &[PathBuf]) -> Stats {
    let read = |file: &str| groups.iter().find_map(|group| fs::read_to_string(group.join(file)).ok());
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let field = |file: &str, name: &str| {
        let text = read(file)?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    Stats {
        cpu_us: number("cpuacct.usage").map(|ns| ns / 1000).or_else(|| field("cpu.stat", "usage_usec ")),
        memory_bytes: number("memory.usage_in_bytes").or_else(|| number("memory.current")),
        processes: number("pids.current"),
        disk_bytes: None,
        oom_kills: field("memory.oom_control", "oom_kill ").or_else(|| field("memory.events", "oom_kill ")),
    }
}

/// How often the kernel refused a process.
pub(crate) fn refused_processes(groups: &[PathBuf]) -> Option<u64> {
    let text = groups.iter().find_map(|group| fs::read_to_string(group.join("pids.events")).ok())?;
    text.lines().find_map(|line| line.strip_prefix("max ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests;

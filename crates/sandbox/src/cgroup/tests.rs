//! Tests of control groups. Version 2 is shown as far as the machine's kernel lets it: where its controllers belong to
//! version 1, a group is entered, counted and removed for real, and the limits are shown as the files and values to write.

use super::*;

fn at(version: Version, mount: &str, own: &str) -> Option<Hierarchy> {
    Some(Hierarchy { version, mount: mount.into(), own: own.into() })
}

#[test]
fn debian_12_has_one_hierarchy_for_all() {
    let own = "0::/system.slice/hob.service\n";
    let mounts =
        "30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    let layout = detect(own, mounts, "cpuset cpu io memory hugetlb pids rdma misc\n");
    let all = at(Version::V2, "/sys/fs/cgroup", "/sys/fs/cgroup/system.slice/hob.service");
    assert_eq!(
        layout,
        Layout { cpu: all.clone(), cpu_count: all.clone(), memory: all.clone(), processes: all, freezer: None }
    );
}

#[test]
fn an_old_system_has_a_hierarchy_for_each() {
    let own = "7:memory:/user.slice\n5:cpu,cpuacct:/user.slice/a\n3:pids:/user.slice\n1:name=systemd:/user.slice\n";
    let mounts = "\
        35 25 0:30 / /sys/fs/cgroup/memory rw shared:15 - cgroup cgroup rw,memory\n\
        36 25 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:16 - cgroup cgroup rw,cpu,cpuacct\n\
        37 25 0:32 / /sys/fs/cgroup/pids rw shared:17 - cgroup cgroup rw,pids\n";
    let layout = detect(own, mounts, "");
    let cpu = at(Version::V1, "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/user.slice/a");
    assert_eq!(layout.cpu, cpu);
    assert_eq!(layout.cpu_count, cpu);
    assert_eq!(layout.memory, at(Version::V1, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/user.slice"));
    assert_eq!(layout.processes, at(Version::V1, "/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/user.slice"));
}

#[test]
fn a_hybrid_system_has_some_of_each() {
    // Recorded on a virtual machine whose version 2 hierarchy holds only huge pages.
    let own = "8:pids:/\n6:freezer:/a\n4:memory:/process_api/60bd\n2:cpuacct:/\n1:cpu:/\n0::/\n";
    let mounts = "\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
        33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n\
        34 31 0:31 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    let layout = detect(own, mounts, "hugetlb\n");
    assert_eq!(layout.cpu, at(Version::V1, "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu"));
    assert_eq!(layout.memory, at(Version::V1, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/process_api/60bd"));
    assert_eq!(layout.freezer, at(Version::V1, "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/freezer/a"));
    let moved = detect("1:cpu:/\n0::/\n", mounts, "hugetlb memory\n");
    assert_eq!(moved.memory, at(Version::V2, "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified"));
    assert_eq!(moved.processes, None);
}

#[test]
fn in_a_container_the_mount_shows_only_a_part() {
    let own = "4:memory:/docker/abc\n";
    let mounts = "35 25 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    let layout = detect(own, mounts, "");
    assert_eq!(layout.memory, at(Version::V1, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory"));
}

#[test]
fn limits_are_written_in_the_words_of_the_version() {
    let limits = Limits { cpu_millicores: 1_500, memory_bytes: 1 << 20, processes: 7, disk_bytes: 0 };
    assert_eq!(Kind::Cpu.limits(Version::V2, &limits), [("cpu.max", "150000 100000".to_owned())]);
    assert_eq!(Kind::Memory.limits(Version::V1, &limits), [("memory.limit_in_bytes", "1048576".to_owned())]);
    assert_eq!(Kind::Processes.limits(Version::V2, &limits), [("pids.max", "7".to_owned())]);
}

/// The groups of a machine where version 2 holds everything.
fn version_2(parent: &Path) -> Cgroups {
    let held = [Kind::Cpu, Kind::CpuCount, Kind::Memory, Kind::Processes];
    let held = held.into_iter().map(|kind| (kind, Version::V2, parent.to_owned())).collect();
    Cgroups { held, unheld: Vec::new(), prefix: "hob-test".to_owned() }
}

#[test]
fn version_2_has_one_group_with_all_limits() {
    let limits = Limits { cpu_millicores: 1_500, memory_bytes: 1 << 30, processes: 77, disk_bytes: 0 };
    let groups = version_2(Path::new("/sys/fs/cgroup/hob.slice")).plan("one", &limits);
    let files =
        [("cpu.max", "150000 100000"), ("memory.max", "1073741824"), ("memory.swap.max", "0"), ("pids.max", "77")];
    let limits = files.map(|(file, value)| (file.to_owned(), value.to_owned())).to_vec();
    assert_eq!(groups, [Cgroup { folder: "/sys/fs/cgroup/hob.slice/hob-test-one".into(), limits }]);
}

#[test]
fn the_counts_of_version_2_are_read() {
    let folder = tempfile::tempdir().unwrap();
    // Recorded on Debian 12.
    for (file, text) in [
        ("cpu.stat", "usage_usec 93125\nuser_usec 40000\nsystem_usec 53125\n"),
        ("memory.current", "8192000\n"),
        ("memory.events", "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\noom_group_kill 0\n"),
        ("pids.current", "12\n"),
        ("pids.events", "max 3\n"),
    ] {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let groups = [folder.path().to_owned()];
    let counted = stats(&groups);
    assert_eq!((counted.cpu_us, counted.memory_bytes), (Some(93_125), Some(8_192_000)));
    assert_eq!((counted.processes, counted.oom_kills, refused_processes(&groups)), (Some(12), Some(1), Some(3)));
}

/// Where version 2 is mounted here, and the controllers it has.
fn mounted() -> (PathBuf, String) {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = PathBuf::from(v2_mount(&mountinfo).expect("this kernel mounts version 2"));
    let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap();
    (mount, controllers)
}

#[test]
fn a_limit_whose_controller_version_2_does_not_have_is_not_said_to_hold() {
    let (mount, controllers) = mounted();
    let hierarchy = Hierarchy { version: Version::V2, mount: mount.clone(), own: mount.clone() };
    let prefix = format!("hob-tried-{}", std::process::id());
    let usable = usable_parent(Kind::Memory, &hierarchy, &prefix);
    if !controllers.split_whitespace().any(|name| name == "memory") {
        let reason = usable.unwrap_err();
        assert!(reason.contains("cgroup.subtree_control"), "{reason}");
    }
    let left =
        fs::read_dir(&mount).unwrap().flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    assert!(!left, "a try leaves nothing behind");
}

#[test]
fn a_process_is_entered_into_a_group_of_version_2_and_counted() {
    assert!(rustix::process::geteuid().is_root(), "this test makes a control group and needs root");
    let (mount, _) = mounted();
    let group = mount.join(format!("hob-test-{}-entered", std::process::id()));
    fs::create_dir(&group).unwrap();
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
    assert_eq!(fs::read_to_string(group.join("cgroup.procs")).unwrap().trim(), child.id().to_string());
    assert!(stats(std::slice::from_ref(&group)).cpu_us.is_some(), "processor time is counted without any controller");
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_dir(&group).unwrap();
}

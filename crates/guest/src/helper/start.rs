//! Starts one sandbox, or a writer beside one: the stage, its control groups, its range of IDs, its folders, and the
//! number of its process 1.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use hob_guest::frame;
use hob_guest::launch::{Cgroup, Plan, Tree};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::process::Pid;

use super::running::{Running, watch};
use super::{borrow, complain, gate, stage_stdio};
use crate::{passing, syscall};

/// How long a step of the start may take; all of them take milliseconds on an idle machine.
const STEP_LIMIT: Duration = Duration::from_secs(10);

/// Starts a sandbox, or says why not and leaves nothing behind. A writer starts beside the sandbox that it writes for,
/// within its control groups, which are the sandbox's alone.
///
/// Entering a control group waits until every processor has noticed (an RCU grace period, milliseconds in which nothing
/// is computed). A thread does that while the stage builds the root; the stage goes on to `bwrap` when both are done.
pub(super) fn start(plan: &Plan, beside: Option<&Running>) -> Result<Running, String> {
    let own = plan.cgroups.iter().filter(|_| beside.is_none());
    let folders: Vec<PathBuf> = own.map(|cgroup| cgroup.folder.clone()).collect();
    let (ours, theirs) = UnixStream::pair().map_err(|error| format!("make a socket: {error}"))?;
    let mut stage = spawn_stage(plan, theirs)?;
    let running = std::thread::scope(|scope| {
        let pid = Pid::from_child(&stage);
        let entering = std::thread::Builder::new()
            .spawn_scoped(scope, move || enter_cgroups(&plan.cgroups, pid))
            .map_err(|error| format!("start a thread: {error}"))?;
        let built = build(plan, beside, &ours, pid);
        // The reason of the groups comes first: without them nothing may run, however well it was built.
        entering.join().map_err(|_| "enter the control groups".to_owned())??;
        built?;
        lead_to_bwrap(&ours, pid)
    });
    match running {
        Ok((bwrap_watch, first)) => {
            Ok(Running { bwrap: stage, bwrap_watch, first, cgroups: folders, gate: plan.gate.clone() })
        }
        Err(reason) => {
            if let Err(error) = stage.kill().and_then(|()| stage.wait()) {
                complain(&format!("failed to end a stage: {error}"));
            }
            let deadline = Instant::now() + STEP_LIMIT;
            folders.iter().for_each(|folder| remove_cgroup(folder, deadline));
            Err(explain(plan, reason))
        }
    }
}

/// Makes the control groups and puts the stage into them.
fn enter_cgroups(cgroups: &[Cgroup], pid: Pid) -> Result<(), String> {
    for cgroup in cgroups {
        make_cgroup(cgroup)?;
        let file = cgroup.folder.join("cgroup.procs");
        fs::write(&file, pid.to_string()).map_err(|error| format!("write {}: {error}", file.display()))?;
    }
    Ok(())
}

/// What the stage or `bwrap` wrote last says more than that they are gone.
fn explain(plan: &Plan, reason: String) -> String {
    let log = fs::read_to_string(&plan.log).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(3).collect();
    if last.is_empty() { reason } else { last.into_iter().rev().collect::<Vec<_>>().join("; ") }
}

fn spawn_stage(plan: &Plan, socket: UnixStream) -> Result<Child, String> {
    let me = std::env::current_exe().map_err(|error| format!("find this program: {error}"))?;
    if let Err(error) = fs::write(&plan.log, "") {
        return Err(format!("write {}: {error}", plan.log.display()));
    }
    let mut command = Command::new(me);
    command.arg("stage").env_clear();
    stage_stdio(&mut command, socket, &plan.log)?;
    command.spawn().map_err(|error| format!("start a stage: {error}"))
}

/// Leads the stage through the building of the root.
fn build(plan: &Plan, beside: Option<&Running>, socket: &UnixStream, pid: Pid) -> Result<(), String> {
    socket
        .set_read_timeout(Some(STEP_LIMIT))
        .and_then(|()| socket.set_write_timeout(Some(STEP_LIMIT)))
        .map_err(|error| format!("limit the wait: {error}"))?;
    hear(socket)?;
    map_ids(plan, pid)?;
    let namespace =
        fs::File::open(format!("/proc/{pid}/ns/user")).map_err(|error| format!("open a namespace: {error}"))?;
    let trees = plan.trees.iter().map(|tree| match beside {
        Some(sandbox) if tree.inside => gate::pass(&sandbox.first, &tree.source.to_string_lossy()),
        _ => open_tree(tree, &namespace),
    });
    let trees = trees.collect::<Result<Vec<_>, _>>()?;
    frame::write(socket, plan, &[]).map_err(|error| format!("hand over the plan: {error}"))?;
    for some in trees.chunks(passing::FILES_MAX) {
        passing::send(socket, &borrow(some)).map_err(|error| format!("hand over folders: {error}"))?;
    }
    hear(socket)
}

/// Hears that the stage has done its part.
fn hear(socket: &UnixStream) -> Result<(), String> {
    frame::read::<String>(socket).map(drop).map_err(|error| format!("hear of the stage: {error}"))
}

/// Lets the stage become `bwrap`; returns what to watch: `bwrap` and process 1.
fn lead_to_bwrap(socket: &UnixStream, pid: Pid) -> Result<(OwnedFd, OwnedFd), String> {
    frame::write(socket, &"go", &[]).map_err(|error| format!("let the stage go on: {error}"))?;
    let bwrap_watch = watch(pid)?;
    let first = watch(first_process(socket)?)?;
    Ok((bwrap_watch, first))
}

fn map_ids(plan: &Plan, pid: Pid) -> Result<(), String> {
    let map: String = plan.ids.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect();
    for file in ["uid_map", "gid_map"] {
        let file = format!("/proc/{pid}/{file}");
        fs::write(&file, &map).map_err(|error| format!("write {file}: {error}"))?;
    }
    Ok(())
}

/// Copies a mount of the host, so that it can be put into the sandbox with other attributes.
fn open_tree(tree: &Tree, namespace: &fs::File) -> Result<OwnedFd, String> {
    let failed = |error: Errno| format!("take {}: {error}", tree.source.display());
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = match rustix::mount::open_tree(CWD, &tree.source, flags) {
        // In a less privileged mount namespace, mounts below cannot be left out.
        Err(Errno::INVAL) => rustix::mount::open_tree(CWD, &tree.source, flags | OpenTreeFlags::AT_RECURSIVE),
        other => other,
    }
    .map_err(failed)?;
    let shift = tree.shifted.then(|| namespace.as_fd());
    let attributes = syscall::Attributes { writable: tree.writable, shift };
    syscall::set_mount_attributes(&mount, &attributes).map_err(failed)?;
    Ok(mount)
}

/// Reads `{"child-pid": N, …}`, which `bwrap` writes as soon as it has made process 1.
fn first_process(socket: &UnixStream) -> Result<Pid, String> {
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).map_err(|error| format!("hear of bwrap: {error}"))?;
    let status: serde_json::Value = serde_json::from_str(&line).map_err(|_| "bwrap ended at once".to_owned())?;
    let pid = status.get("child-pid").and_then(serde_json::Value::as_i64).and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw).ok_or_else(|| format!("find process 1 in {line:?}"))
}

fn make_cgroup(cgroup: &Cgroup) -> Result<(), String> {
    let failed = |path: &Path, error: std::io::Error| format!("write {}: {error}", path.display());
    match fs::create_dir(&cgroup.folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(&cgroup.folder, error)),
        Ok(()) | Err(_) => {}
    }
    for (file, value) in &cgroup.limits {
        let path = cgroup.folder.join(file);
        fs::write(&path, value).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

/// Removes a control group. For a moment after its last process the kernel still calls it busy.
pub(super) fn remove_cgroup(folder: &Path, deadline: Instant) {
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return,
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return complain(&format!("failed to remove {}: {error}", folder.display())),
        }
    }
}

/// Waits until a process has ended, at most until `deadline`.
pub(super) fn wait_until(process: &OwnedFd, deadline: Instant) {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit)) {
            Err(Errno::INTR) => {}
            Ok(0) => return complain("failed to see a killed process end in time"),
            Ok(_) => return,
            Err(error) => return complain(&format!("failed to wait for a process: {error}")),
        }
    }
}

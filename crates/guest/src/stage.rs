//! The first stage of a sandbox: enters its user and mount namespaces, builds its root, becomes `bwrap`.
//!
//! The helper executes it with one socket as standard input. It unshares, says so, and waits: only a process outside
//! can give it its range of IDs and the folders of the host, as detached mounts whose owners are already shifted. It says
//! so again when the root is built, and waits until its control groups hold it. What it mounts is seen by nobody else
//! and is gone with it.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use hob_guest::frame;
use hob_guest::launch::{Gate, Part, Plan, Step};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::FdFlags;
use rustix::mount::{MountFlags, MoveMountFlags};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::UnshareFlags;

use crate::place::{self, Kind};
use crate::{passing, syscall};

/// Where the root is built: an empty memory filesystem hides the host's `/tmp` in this namespace first.
const SITE: &str = "/tmp";
const ROOT: &str = "/tmp/root";

/// Where the writable layers are that live in memory, and how large they may be together: enough for locks, sockets and
/// temporary files.
const MEMORY: &str = "/tmp/memory";
const MEMORY_OPTIONS: &std::ffi::CStr = c"mode=0755,size=64m";

/// The devices of the host that a sandbox sees.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links in `/dev`, and where they lead.
const DEVICE_LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// What failed, in words for a person.
type Failure = String;

/// Runs the stage; returns only when something failed.
pub(crate) fn run() -> Failure {
    match prepare() {
        Ok(mut bwrap) => failed("execute bwrap")(bwrap.exec()),
        Err(failure) => failure,
    }
}

fn failed<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Failure {
    move |error| format!("{what}: {error}")
}

fn prepare() -> Result<Command, Failure> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(failed("keep the socket"))?;
    let socket = UnixStream::from(socket);
    enter_namespaces()?;
    frame::write(&socket, &"unshared", &[]).map_err(failed("reach the helper"))?;
    let (plan, _) = frame::read::<Plan>(&socket).map_err(failed("read the plan"))?;
    let mut trees = Vec::new();
    while trees.len() < plan.trees.len() {
        trees.extend(passing::receive(&socket).map_err(failed("receive folders"))?);
    }
    become_root()?;
    build(&plan, &trees)?;
    drop(trees);
    limit(&plan)?;
    // From here on there is a process that the host's limits have to hold: the helper has entered it into its groups.
    frame::write(&socket, &"built", &[]).map_err(failed("reach the helper"))?;
    frame::read::<String>(&socket).map_err(failed("wait for the helper"))?;
    let null = fs::File::options().read(true).write(true).open("/dev/null").map_err(failed("open /dev/null"))?;
    bwrap(&plan, socket, null)
}

#[expect(deprecated, reason = "the safe form is enough: this process has one thread and shares no file table")]
fn enter_namespaces() -> Result<(), Failure> {
    rustix::thread::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
        .map_err(failed("enter a new user namespace (is it allowed on this machine? see hob doctor)"))
}

fn become_root() -> Result<(), Failure> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    // Where the kernel forbids it (a map of a single ID), the groups that are left are not mapped and give nothing.
    match rustix::thread::set_thread_groups(&[]) {
        Ok(()) | Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(failed("leave the host's groups")(error)),
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("become root inside"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("become root inside"))?;
    // No user namespaces below this one, also for a program that gets past the seccomp filter.
    fs::write("/proc/sys/user/max_user_namespaces", "0").map_err(failed("forbid nested user namespaces"))
}

fn build(plan: &Plan, trees: &[OwnedFd]) -> Result<(), Failure> {
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .map_err(failed("leave the host's mounts"))?;
    rustix::mount::mount("hob", SITE, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755,size=1m")
        .map_err(failed("make a place to build in"))?;
    let layers = plan.steps.iter().flat_map(|step| match step {
        Step::Overlay { lower, upper, .. } => lower.iter().chain([upper]).map(|part| part.tree).collect::<Vec<_>>(),
        Step::Fleeting { lower, .. } => lower.iter().map(|part| part.tree).collect(),
        Step::Attach { .. } | Step::Devices => Vec::new(),
    });
    for tree in layers.collect::<std::collections::BTreeSet<_>>() {
        let path = format!("{SITE}/{tree}");
        fs::create_dir(&path).map_err(failed(&path))?;
        let site = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed(&path))?;
        attach(trees, tree, &site).map_err(failed(plan_name(plan, tree)))?;
    }
    fs::create_dir(ROOT).map_err(failed(ROOT))?;
    for step in &plan.steps {
        build_step(plan, trees, step)?;
    }
    plan.gate.as_ref().map_or(Ok(()), make_gate)?;
    // What bwrap mounts there it mounts where a link leads.
    if place::is_link(ROOT, "proc") { Err("mount /proc: the base has a link there".to_owned()) } else { Ok(()) }
}

fn plan_name(plan: &Plan, tree: usize) -> String {
    plan.trees.get(tree).map_or_else(String::new, |tree| format!("mount {}", tree.source.display()))
}

fn build_step(plan: &Plan, trees: &[OwnedFd], step: &Step) -> Result<(), Failure> {
    match step {
        Step::Overlay { lower, upper, work, target } => {
            let place = make_place(target, Kind::Folder)?;
            let lower: Vec<String> = lower.iter().map(site).collect();
            overlay(&lower, &site(upper), &site(work), &place).map_err(failed(format!("mount the overlay of {target}")))
        }
        Step::Fleeting { lower, target } => {
            let place = make_place(target, Kind::Folder)?;
            let lower: Vec<String> = lower.iter().map(site).collect();
            fleeting(&lower, &place).map_err(failed(format!("mount the overlay of {target}")))
        }
        Step::Attach { tree, target } => {
            // Asked of the mount: the path it has on the host cannot be reached from here.
            let kind = trees.get(*tree).and_then(|tree| rustix::fs::fstat(tree).ok()).map(|stat| stat.st_mode);
            let folder = kind.is_some_and(|mode| FileType::from_raw_mode(mode).is_dir());
            let place = make_place(target, if folder { Kind::Folder } else { Kind::File })?;
            attach(trees, *tree, &place).map_err(failed(plan_name(plan, *tree)))
        }
        Step::Devices => devices(),
    }
}

fn make_place(target: &str, kind: Kind) -> Result<OwnedFd, Failure> {
    place::make(ROOT, target, kind).map_err(failed(format!("make a place for {target}")))
}

/// Builds `/dev`. That of `bwrap` costs a millisecond more, as it reads the table of all mounts again for each device.
fn devices() -> Result<(), Failure> {
    let (flags, none) = (MountFlags::NOSUID | MountFlags::NODEV, MountFlags::NOSUID | MountFlags::NOEXEC);
    let below = make_place("/dev", Kind::Folder)?;
    rustix::mount::mount("hob", place::path_of(&below), "tmpfs", flags, c"mode=0755").map_err(failed("mount /dev"))?;
    let mounted = place::find(ROOT, "/dev").map_err(failed("find /dev"))?;
    let dev = place::path_of(&mounted);
    for device in DEVICES {
        let place = format!("{dev}/{device}");
        fs::write(&place, "").map_err(failed(&place))?;
        rustix::mount::mount_bind(format!("/dev/{device}"), &place).map_err(failed(&place))?;
    }
    for (name, target) in DEVICE_LINKS {
        std::os::unix::fs::symlink(target, format!("{dev}/{name}")).map_err(failed(format!("/dev/{name}")))?;
    }
    for folder in ["shm", "pts"] {
        fs::create_dir(format!("{dev}/{folder}")).map_err(failed(format!("/dev/{folder}")))?;
    }
    fs::set_permissions(format!("{dev}/shm"), Permissions::from_mode(0o1777)).map_err(failed("/dev/shm"))?;
    rustix::mount::mount("hob", format!("{dev}/pts"), "devpts", none, c"newinstance,ptmxmode=0666,mode=0620")
        .map_err(failed("mount /dev/pts"))
}

fn attach(trees: &[OwnedFd], tree: usize, place: &OwnedFd) -> rustix::io::Result<()> {
    move_to(trees.get(tree).ok_or(rustix::io::Errno::BADF)?, place)
}

fn move_to(mount: &OwnedFd, place: &OwnedFd) -> rustix::io::Result<()> {
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", place, c"", both)
}

fn site(part: &Part) -> String {
    let Part { tree, path } = part;
    if path.is_empty() { format!("{SITE}/{tree}") } else { format!("{SITE}/{tree}/{path}") }
}

/// Mounts an overlay. `userxattr` keeps its marks readable where this namespace is not the machine's own. By mount(2),
/// whose options may be a page long: a string of fsconfig(2) ends at 255 bytes, which ten layers fill.
fn overlay(lower: &[String], upper: &str, work: &str, place: &OwnedFd) -> std::io::Result<()> {
    let lower = lower.join(":");
    let options = CString::new(format!("userxattr,lowerdir={lower},upperdir={upper},workdir={work}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(rustix::mount::mount("hob", place::path_of(place), "overlay", flags, options.as_c_str())?)
}

/// Mounts an overlay that writes to memory. Who may enter its top folder is what the topmost layer says.
fn fleeting(lower: &[String], place: &OwnedFd) -> std::io::Result<()> {
    if !fs::exists(MEMORY)? {
        fs::create_dir(MEMORY)?;
        rustix::mount::mount("hob", MEMORY, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, MEMORY_OPTIONS)?;
    }
    let number = fs::read_dir(MEMORY)?.count();
    let [upper, work] = ["upper", "work"].map(|name| format!("{MEMORY}/{number}/{name}"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    if let Some(top) = lower.first().map(fs::metadata).transpose()? {
        fs::set_permissions(&upper, top.permissions())?;
    }
    overlay(lower, &upper, &work, place)
}

/// Makes the gate's folder a mount of its own. Always, so that it never shares a file with another folder: a second name
/// outside, made while the gate stood open, would be a way around it the next time.
fn make_gate(gate: &Gate) -> Result<(), Failure> {
    let target = &gate.target;
    if place::is_link(ROOT, target.trim_start_matches('/')) {
        // What it leads to is no folder of this name: whoever replaces the link has another one there.
        return if gate.closed { Err(format!("close {target}: the base has a link there")) } else { Ok(()) };
    }
    let place = make_place(target, Kind::Folder)?;
    let failed = |error| format!("mount {target}: {error}");
    if !is_mount(&place).map_err(failed)? {
        rustix::mount::mount_bind(place::path_of(&place), place::path_of(&place)).map_err(failed)?;
    }
    let mounted = place::find(ROOT, target).map_err(failed)?;
    if gate.closed { syscall::set_writable(&mounted, false).map_err(failed) } else { Ok(()) }
}

fn is_mount(place: &OwnedFd) -> rustix::io::Result<bool> {
    let found = rustix::fs::statx(place, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn limit(plan: &Plan) -> Result<(), Failure> {
    let file = Rlimit { current: Some(plan.file_bytes), maximum: Some(plan.file_bytes) };
    rustix::process::setrlimit(Resource::Fsize, file).map_err(failed("limit the size of files"))?;
    let core = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, core).map_err(failed("forbid core dumps"))
}

/// `bwrap` with its two descriptors: where it tells the number of process 1, and the filters of system calls.
fn bwrap(plan: &Plan, socket: UnixStream, null: fs::File) -> Result<Command, Failure> {
    let mut filters = Vec::new();
    for filter in &plan.filters {
        filters.push(place::open_file(ROOT, &filter.to_string_lossy()).map_err(failed(filter.display()))?);
    }
    for inherited in filters.iter().map(AsFd::as_fd).chain([socket.as_fd()]) {
        rustix::io::fcntl_setfd(inherited, FdFlags::empty()).map_err(failed("hand over a descriptor"))?;
    }
    let (program, arguments) = plan.bwrap.split_first().ok_or("find bwrap in the plan")?;
    let mut command = Command::new(program);
    command
        .args(["--json-status-fd", &socket.as_raw_fd().to_string()])
        .args(filters.iter().flat_map(|filter| ["--add-seccomp-fd".to_owned(), filter.as_raw_fd().to_string()]))
        .args(["--dev-bind", ROOT, "/"])
        .args(arguments)
        .env_clear()
        .envs(&plan.env)
        .current_dir("/")
        .stdin(Stdio::from(null.try_clone().map_err(failed("open /dev/null"))?))
        .stdout(Stdio::from(null));
    // All stay open until the program is replaced: closing them is its matter then.
    std::mem::forget((socket, filters));
    Ok(command)
}

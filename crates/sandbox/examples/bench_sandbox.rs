//! Measures sandboxes against the floor of the same machine in the same run, as JSON lines.
//!
//! The floor is what the kernel alone asks for a shell in such a sandbox, by bare system calls of one small process and
//! its fork, with nobody to talk to: the same control groups with the same limits, the same seven namespaces, an overlay
//! for each one that a sandbox has, of the same layers, `/proc`, `/dev` with its devices and terminals, the new root, the
//! same seccomp programs, `/bin/sh`. To enter a group is to wait for the kernel and not to compute, so there is a second
//! figure for the floor without groups: the least that any sandbox could take, with limits or without. Left out of it are
//! the shift of owners, toolchain folders, `lo`, dropped capabilities and everything that makes a sandbox answer: helper,
//! `bwrap`, guest, sockets, records. `cold` is from the request for a sandbox to the first byte of a shell in it; `exec`
//! is a shell in a sandbox that is up, against a plain spawn of the same shell.
//!
//! Rounds are interleaved, so that noise of the machine falls on all alike; the load average is printed with them. Needs
//! root. Usage: `bench_sandbox [ROUNDS]`.

#![expect(clippy::print_stdout, reason = "figures are this program's output")]

mod figures;

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};
use std::time::{Duration, Instant};

use figures::{Failure, percentile, print, shell, spec};
use hob_sandbox::{Local, LocalConfig, Provider};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;
use seccompiler::sock_filter;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--floor", data, name] => enter_groups(Path::new(data), name).and_then(|()| floor(Path::new(data), name)),
        ["--floor-ungrouped", data, name] => floor(Path::new(data), name),
        [] => measure(60),
        [rounds, ..] => measure(rounds.parse()?),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn measure(rounds: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let local = Local::open(LocalConfig::new(&data)).await?;
    local.warm().await?;
    let standing = local.create(spec("standing")?).await?;
    let (mut spawn, mut cold, mut exec) = (Vec::new(), Vec::new(), Vec::new());
    let (mut floor, mut ungrouped) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        spawn.push(first_byte(Program::new("/bin/sh").args(["-c", "echo"]))?);
        floor.push(measure_floor("--floor", &data, &format!("floor-{round}"))?);
        ungrouped.push(measure_floor("--floor-ungrouped", &data, &format!("ungrouped-{round}"))?);
        let begun = Instant::now();
        let sandbox = local.create(spec(&format!("cold-{round}"))?).await?;
        shell(&sandbox).await?;
        cold.push(begun.elapsed());
        let begun = Instant::now();
        shell(&standing).await?;
        exec.push(begun.elapsed());
        local.destroy(sandbox.id()).await?;
    }
    local.shutdown().await?;
    let floor_p50 = percentile(&mut floor, 50);
    let ungrouped_p50 = percentile(&mut ungrouped, 50);
    let spawn_p50 = percentile(&mut spawn, 50);
    print("sandbox.spawn", &mut spawn, "sandbox.spawn", spawn_p50);
    print("sandbox.floor", &mut floor, "sandbox.floor", floor_p50);
    print("sandbox.floor_ungrouped", &mut ungrouped, "sandbox.floor", floor_p50);
    print("sandbox.cold", &mut cold, "sandbox.floor", floor_p50);
    print("sandbox.cold_to_ungrouped", &mut cold, "sandbox.floor_ungrouped", ungrouped_p50);
    print("sandbox.exec", &mut exec, "sandbox.spawn", spawn_p50);
    println!("load: {}", fs::read_to_string("/proc/loadavg")?.trim());
    Ok(())
}

fn measure_floor(which: &str, data: &Path, name: &str) -> Result<Duration, Failure> {
    let elapsed = first_byte(Program::new(std::env::current_exe()?).arg(which).arg(data).arg(name));
    for own in groups(data)?.iter().map(|group| beside(group, name)).filter(|own| own.exists()) {
        fs::remove_dir(own)?;
    }
    elapsed
}

/// The control groups of the sandbox that stands.
fn groups(data: &Path) -> Result<Vec<PathBuf>, Failure> {
    let record = fs::read(data.join("sandboxes/standing/record.json"))?;
    let record: serde_json::Value = serde_json::from_slice(&record)?;
    Ok(serde_json::from_value(record["groups"].clone())?)
}

fn beside(group: &Path, name: &str) -> PathBuf {
    PathBuf::from(format!("{}-{name}", group.display()))
}

fn enter_groups(data: &Path, name: &str) -> Result<(), Failure> {
    for group in groups(data)? {
        let own = beside(&group, name);
        fs::create_dir(&own)?;
        for file in ["cpu.cfs_quota_us", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "pids.max"] {
            if group.join(file).exists() {
                fs::write(own.join(file), fs::read(group.join(file))?)?;
            }
        }
        fs::write(own.join("cgroup.procs"), "0")?;
    }
    Ok(())
}

/// The floor without its groups: namespaces, and the rest in a fork, which is the first process of its PID namespace.
#[expect(deprecated, reason = "the safe form is enough: this process has one thread")]
fn floor(data: &Path, name: &str) -> Result<(), Failure> {
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWNET;
    rustix::thread::unshare(flags | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP)?;
    for (file, text) in [("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")] {
        fs::write(format!("/proc/self/{file}"), text)?;
    }
    // SAFETY: this process has one thread, so the child has whatever a lock could guard.
    #[expect(unsafe_code, reason = "a second execution of this program would make the floor look slow")]
    match unsafe { libc::fork() } {
        0 => floor_inside(data, name),
        -1 => Err(std::io::Error::last_os_error().into()),
        _ => rustix::process::wait(rustix::process::WaitOptions::empty()).map(drop).map_err(Into::into),
    }
}

fn floor_inside(data: &Path, name: &str) -> Result<(), Failure> {
    let none = MountFlags::empty();
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let filters = [0, 1].map(|number| fs::read(data.join(format!("bin/filter-{number}.bpf"))));
    let base = fs::read_dir(data.join("base"))?.next().ok_or("find the base")??.path();
    let layers = data.join("layers/standing.1/tree");
    let root = data.join("sandboxes").join(name).join("root");
    // The root's own overlay comes before those inside it.
    let mut names: Vec<String> = fs::read_dir(layers)?.flatten().flat_map(|e| e.file_name().into_string()).collect();
    names.sort_by_key(|name| name != "root");
    for layer in names {
        let own = data.join("sandboxes").join(name).join(&layer);
        let (upper, work) = (own.join("upper"), own.join("work"));
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        let inside = layer.replace("var-lib-", "var/lib/");
        let (target, lower) = if layer == "root" {
            fs::create_dir_all(&root)?;
            (root.clone(), base.join("skeleton").display().to_string())
        } else {
            (root.join(&inside), format!("{}:/{inside}", base.join("mask").join(&layer).display()))
        };
        let (upper, work) = (upper.display(), work.display());
        let options = CString::new(format!("lowerdir={lower},upperdir={upper},workdir={work},userxattr"))?;
        rustix::mount::mount("x", &target, "overlay", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())?;
    }
    rustix::mount::mount("x", root.join("proc"), "proc", none, None)?;
    let dev = root.join("dev");
    rustix::mount::mount("x", &dev, "tmpfs", MountFlags::NOSUID, None)?;
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        fs::write(dev.join(device), "")?;
        rustix::mount::mount_bind(format!("/dev/{device}"), dev.join(device))?;
    }
    fs::create_dir(dev.join("pts"))?;
    rustix::mount::mount("x", dev.join("pts"), "devpts", none, c"newinstance,ptmxmode=0666")?;
    std::env::set_current_dir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    for filter in filters {
        seccompiler::apply_filter(&instructions(&filter?))?;
    }
    Err(Program::new("/bin/sh").args(["-c", "echo"]).exec().into())
}

fn instructions(program: &[u8]) -> Vec<sock_filter> {
    let one = |bytes: &[u8; 8]| {
        let [code, code_high, jt, jf, k @ ..] = *bytes;
        sock_filter { code: u16::from_ne_bytes([code, code_high]), jt, jf, k: u32::from_ne_bytes(k) }
    };
    program.as_chunks().0.iter().map(one).collect()
}

fn first_byte(program: &mut Program) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let mut child = program.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut byte = [0];
    child.stdout.take().ok_or("read a shell")?.read_exact(&mut byte)?;
    let elapsed = begun.elapsed();
    child.wait()?;
    Ok(elapsed)
}

//! Measures sandboxes against the floor of the same machine in the same run, as JSON lines.
//!
//! The floor is this program in the same namespaces with the same kinds of mounts (one overlay, `/proc`, one memory file
//! system; no limits, no filter, no guest) and a shell that prints one byte, by bare system calls. `cold` is from the
//! request for a sandbox to the first byte of a shell in it; `exec` is a shell in a sandbox that is up, against a plain
//! spawn of the same shell.
//!
//! Rounds are interleaved, so that noise of the machine falls on all alike. Usage: `bench_sandbox [ROUNDS]`.

#![expect(clippy::print_stdout, reason = "figures are this program's output")]

use std::ffi::CString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command as Program, Stdio};
use std::time::{Duration, Instant};

use hob_sandbox::{Base, Command, Limits, Local, LocalConfig, ProcessEvent, Provider, Sandbox, SandboxId, Spec, Token};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--floor", folder] => floor(folder),
        ["--floor-inside", folder] => floor_inside(folder),
        [] => measure(60),
        [rounds, ..] => measure(rounds.parse()?),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn measure(rounds: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let local = Local::open(LocalConfig::new(folder.path().join("data"))).await?;
    local.warm().await?;
    let standing = local.create(spec("standing")?).await?;
    let (mut spawn, mut floor, mut cold, mut exec) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        spawn.push(first_byte(Program::new("/bin/sh").args(["-c", "echo"]))?);
        floor.push(measure_floor(&folder.path().join(format!("floor-{round}")))?);
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
    let spawn_p50 = percentile(&mut spawn, 50);
    print("sandbox.spawn", &mut spawn, "spawn", spawn_p50);
    print("sandbox.floor", &mut floor, "floor", floor_p50);
    print("sandbox.cold", &mut cold, "floor", floor_p50);
    print("sandbox.exec", &mut exec, "spawn", spawn_p50);
    Ok(())
}

fn spec(name: &str) -> Result<Spec, Failure> {
    Ok(Spec {
        id: SandboxId::new(name)?,
        epoch: 1,
        token: Token("bench".to_owned()),
        base: Base::Host,
        workspace: None,
        mounts: Vec::new(),
        env: [].into(),
        limits: Limits::default(),
        gateway: None,
    })
}

async fn shell(sandbox: &Sandbox) -> Result<(), Failure> {
    let mut process = sandbox.exec(Command::new(["/bin/sh", "-c", "echo"]).cwd("/")).await?;
    match process.next().await {
        Some(ProcessEvent::Stdout(_)) => Ok(()),
        other => Err(format!("hear of a shell: {other:?}").into()),
    }
}

fn measure_floor(folder: &Path) -> Result<Duration, Failure> {
    for part in ["upper", "work", "root"] {
        std::fs::create_dir_all(folder.join(part))?;
    }
    first_byte(Program::new(std::env::current_exe()?).arg("--floor").arg(folder))
}

/// The first half of the floor: the namespaces. The second half is a child, which is the first in its PID namespace.
#[expect(deprecated, reason = "the safe form is enough: this process has one thread")]
fn floor(folder: &str) -> Result<(), Failure> {
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    flags |= UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    if !rustix::process::geteuid().is_root() {
        flags |= UnshareFlags::NEWUSER;
    }
    rustix::thread::unshare(flags)?;
    Program::new(std::env::current_exe()?).args(["--floor-inside", folder]).status()?;
    Ok(())
}

/// The second half of the floor: the mounts, and a shell.
fn floor_inside(folder: &str) -> Result<(), Failure> {
    let root = format!("{folder}/root");
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let layers = CString::new(format!("lowerdir=/,upperdir={folder}/upper,workdir={folder}/work,userxattr"))?;
    rustix::mount::mount("x", &root, "overlay", MountFlags::empty(), layers.as_c_str())?;
    rustix::mount::mount("x", format!("{root}/proc"), "proc", MountFlags::empty(), None)?;
    rustix::mount::mount("x", format!("{root}/dev"), "tmpfs", MountFlags::empty(), None)?;
    rustix::process::chroot(&root)?;
    std::env::set_current_dir("/")?;
    Err(Program::new("/bin/sh").args(["-c", "echo"]).exec().into())
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

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn print(name: &str, times: &mut [Duration], against: &str, base: Duration) {
    let (p50, p95) = (percentile(times, 50), percentile(times, 95));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let ratio = p50.as_secs_f64() / base.as_secs_f64().max(f64::EPSILON);
    println!(
        "{{\"name\":\"{name}\",\"unit\":\"ms\",\"p50\":{:.3},\"p95\":{:.3},\"n\":{},\"against\":\"{against}\",\"ratio\":{ratio:.2}}}",
        ms(p50),
        ms(p95),
        times.len()
    );
}

//! The first step of a container that another program has made: what `bwrap` does for a sandbox of this machine's own, as
//! far as that program leaves it open. Then it becomes process 1, see [`init`](crate::init).
//!
//! The environment arrives in a file and not as the container's own, so that neither the daemon's records nor a snapshot
//! of the container ever hold it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use hob_guest::protocol::{ENTRY_FILE, Entered, FOLDER};
use rustix::process::{Resource, Rlimit};

use crate::syscall;

/// Runs the step; returns only when something failed.
pub(crate) fn run() -> String {
    match prepare() {
        Ok(mut init) => failed("execute process 1")(init.exec()),
        Err(failure) => failure,
    }
}

fn failed<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

fn prepare() -> Result<Command, String> {
    let path = format!("{FOLDER}/{ENTRY_FILE}");
    let text = std::fs::read(&path).map_err(failed(&path))?;
    let entered: Entered = serde_json::from_slice(&text).map_err(failed(&path))?;
    let file = Rlimit { current: Some(entered.file_bytes), maximum: Some(entered.file_bytes) };
    rustix::process::setrlimit(Resource::Fsize, file).map_err(failed("limit the size of files"))?;
    let core = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, core).map_err(failed("forbid core dumps"))?;
    // No program from here on gains anything by being executed; without that the kernel takes no filters.
    rustix::thread::set_no_new_privs(true).map_err(failed("give up new privileges"))?;
    for name in &entered.filters {
        let path = format!("{FOLDER}/{name}");
        let program = std::fs::read(&path).map_err(failed(&path))?;
        syscall::filter_system_calls(&program).map_err(failed(format!("filter system calls by {path}")))?;
    }
    let mut init = Command::new("/proc/self/exe");
    init.arg("init").env_clear().envs(&entered.env).current_dir("/");
    Ok(init)
}

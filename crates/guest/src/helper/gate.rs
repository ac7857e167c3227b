//! The gate of a sandbox, from outside: opened, or passed by for a writer.
//!
//! Only a process within a mount namespace changes its mounts or copies them. A thread enters that of the sandbox for one
//! call and ends; it looks at nothing there but the gate, and the helper itself stays where it is.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use crate::syscall;

/// Lets every process of the sandbox write to the folder `target`, as far as it may otherwise.
pub(super) fn open(first: &OwnedFd, target: &str) -> Result<(), String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    inside(first, || {
        let gate = rustix::fs::openat2(CWD, target, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        syscall::set_writable(&gate, true)
    })
    .map_err(|error| format!("open {target}: {error}"))
}

/// A copy of the mount at `target`, for somebody who writes while the gate is closed.
pub(super) fn pass(first: &OwnedFd, target: &str) -> Result<OwnedFd, String> {
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = copy | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    inside(first, || {
        let mount = rustix::mount::open_tree(CWD, target, flags)?;
        syscall::set_writable(&mount, true)?;
        Ok(mount)
    })
    .map_err(|error| format!("take {target}: {error}"))
}

/// Does something in the mount namespace of a process.
fn inside<T: Send>(process: &OwnedFd, act: impl FnOnce() -> Result<T, Errno> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            enter(process)?;
            act()
        });
        let thread = thread.map_err(|error| format!("start a thread: {error}"))?;
        let done = thread.join().map_err(|_| "enter the sandbox".to_owned())?;
        done.map_err(|error| error.to_string())
    })
}

#[expect(
    deprecated,
    reason = "the safe form is enough: only the folders that this thread stands in are no longer shared"
)]
fn enter(process: &OwnedFd) -> Result<(), Errno> {
    rustix::thread::unshare(UnshareFlags::FS)?;
    rustix::thread::move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::MOUNT)
}

//! The one system call that no safe wrapper offers: shifting the owners that a mount shows.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// `struct mount_attr` of `<linux/mount.h>`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const IDMAP: u64 = 0x0010_0000;

/// Attributes to give to a detached mount.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<F> {
    /// No writes through it.
    pub(crate) read_only: bool,
    /// The user namespace whose ID map shifts owners.
    pub(crate) shift: Option<F>,
}

/// Sets attributes of a whole detached mount tree; never devices, never set-user-ID.
pub(crate) fn set_mount_attributes(mount: impl AsFd, attributes: &Attributes<impl AsFd>) -> Result<(), Errno> {
    let read_only = if attributes.read_only { RDONLY } else { 0 };
    let mut attr = MountAttr { attr_set: NOSUID | NODEV | read_only, attr_clr: 0, propagation: 0, userns_fd: 0 };
    if let Some(namespace) = &attributes.shift {
        attr.attr_set |= IDMAP;
        attr.userns_fd = namespace.as_fd().as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is a constant C string and `attr` a live, initialised structure whose size is passed beside it;
    // the kernel reads both during the call only, and both descriptors are borrowed for as long.
    #[expect(unsafe_code, reason = "rustix has no mount_setattr")]
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw mut attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

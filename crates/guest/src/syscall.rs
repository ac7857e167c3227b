//! The system calls that no safe wrapper offers: shifting the owners that a mount shows, who may write through it, and
//! filtering system calls.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

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

/// Attributes to give to a mount.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<F> {
    /// Whether it can be written through.
    pub(crate) writable: bool,
    /// The user namespace whose ID map shifts owners.
    pub(crate) shift: Option<F>,
}

/// Sets attributes of a whole detached mount tree; never devices, never set-user-ID.
pub(crate) fn set_mount_attributes(mount: impl AsFd, attributes: &Attributes<impl AsFd>) -> Result<(), Errno> {
    let read_only = if attributes.writable { 0 } else { RDONLY };
    let mut attr = MountAttr { attr_set: NOSUID | NODEV | read_only, attr_clr: 0, propagation: 0, userns_fd: 0 };
    if let Some(namespace) = &attributes.shift {
        attr.attr_set |= IDMAP;
        attr.userns_fd = namespace.as_fd().as_raw_fd() as u64;
    }
    mount_setattr(mount.as_fd(), libc::AT_RECURSIVE, &mut attr)
}

/// Lets nobody write through a mount, or everybody who may. What is mounted below it stays as it is.
pub(crate) fn set_writable(mount: impl AsFd, writable: bool) -> Result<(), Errno> {
    let (attr_set, attr_clr) = if writable { (0, RDONLY) } else { (RDONLY, 0) };
    mount_setattr(mount.as_fd(), 0, &mut MountAttr { attr_set, attr_clr, propagation: 0, userns_fd: 0 })
}

fn mount_setattr(mount: BorrowedFd<'_>, flags: libc::c_int, attr: &mut MountAttr) -> Result<(), Errno> {
    // SAFETY: the path is a constant C string and `attr` a live, initialised structure whose size is passed beside it;
    // the kernel reads both during the call only. Both descriptors, the mount's and the one that `attr` may name, are
    // borrowed by the callers for as long.
    #[expect(unsafe_code, reason = "rustix has no mount_setattr")]
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags | libc::AT_EMPTY_PATH,
            std::ptr::from_mut(attr),
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// Lets a seccomp program decide on every system call of this thread from here on, and of all that it starts.
///
/// # Errors
/// These bytes are no program, or the kernel does not take it.
pub(crate) fn filter_system_calls(program: &[u8]) -> Result<(), Errno> {
    let (instructions, rest) = program.as_chunks::<{ size_of::<libc::sock_filter>() }>();
    let mut filter: Vec<libc::sock_filter> = instructions.iter().map(instruction).collect();
    let len = u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?;
    if len == 0 || !rest.is_empty() {
        return Err(Errno::INVAL);
    }
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `program` is a live, initialised structure that says how many instructions `filter` has; the kernel copies
    // both during the call and keeps neither address.
    #[expect(unsafe_code, reason = "rustix has no seccomp")]
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// `struct sock_filter` in this machine's byte order.
fn instruction([c0, c1, jt, jf, k0, k1, k2, k3]: &[u8; 8]) -> libc::sock_filter {
    let (code, k) = (u16::from_ne_bytes([*c0, *c1]), u32::from_ne_bytes([*k0, *k1, *k2, *k3]));
    libc::sock_filter { code, jt: *jt, jf: *jf, k }
}

//! The system calls that a sandbox may not make, as seccomp programs for `bwrap`.
//!
//! The second wall: without capabilities in the host's namespaces most of these would fail anyway. What is refused is
//! what is not namespaced (keys, kernel modules, BPF, virtual sockets), what has often been a way out (mounts, nested
//! user namespaces, `io_uring`, `userfaultfd`), and what only a debugger of the kernel needs.

use std::collections::BTreeMap;

use rustix::net::AddressFamily;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Refused with "operation not permitted", whatever the arguments.
const REFUSED: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Answered with "no such system call", so that programs fall back to the older one.
const ABSENT: &[i64] = &[
    // Its flags lie in memory, where a filter cannot see whether they ask for a user namespace; libc falls back to clone.
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Families of sockets that work inside; any other is refused, above all virtual sockets, which lead to the hypervisor.
const FAMILIES: [AddressFamily; 4] =
    [AddressFamily::UNIX, AddressFamily::INET, AddressFamily::INET6, AddressFamily::NETLINK];

/// On x86-64 the same calls have a second number, for programs with short pointers.
const X32: i64 = 0x4000_0000;

/// Both programs, as the kernel wants them.
///
/// # Errors
/// This machine's processor is none that filters can be made for.
pub(crate) fn programs() -> Result<Vec<Vec<u8>>, String> {
    let refused = compile(refused()?, SeccompAction::Errno(libc::EPERM as u32))?;
    let absent =
        compile(ABSENT.iter().map(|call| (*call, Vec::new())).collect(), SeccompAction::Errno(libc::ENOSYS as u32))?;
    Ok(vec![bytes(&refused), bytes(&absent)])
}

fn refused() -> Result<BTreeMap<i64, Vec<SeccompRule>>, String> {
    let mut rules: BTreeMap<_, _> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let flag = libc::CLONE_NEWUSER as u64;
    rules.insert(libc::SYS_clone, vec![rule(vec![(0, SeccompCmpOp::MaskedEq(flag), flag)])?]);
    // Typing into somebody else's terminal.
    let ioctls = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| rule(vec![(1, SeccompCmpOp::Eq, request)]));
    rules.insert(libc::SYS_ioctl, ioctls.into_iter().collect::<Result<_, _>>()?);
    let other = FAMILIES.map(|family| (0, SeccompCmpOp::Ne, u64::from(family.as_raw())));
    rules.insert(libc::SYS_socket, vec![rule(other.to_vec())?]);
    Ok(rules)
}

/// A rule that holds where all conditions (argument, comparison, value) hold, on the lower halves of the arguments.
fn rule(conditions: Vec<(u8, SeccompCmpOp, u64)>) -> Result<SeccompRule, String> {
    let condition =
        |(argument, operator, value)| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    let conditions = conditions.into_iter().map(condition).collect::<Result<_, _>>();
    conditions.and_then(SeccompRule::new).map_err(|error| error.to_string())
}

fn compile(mut rules: BTreeMap<i64, Vec<SeccompRule>>, answer: SeccompAction) -> Result<BpfProgram, String> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    if architecture == TargetArch::x86_64 {
        rules.extend(rules.clone().into_iter().map(|(call, rule)| (call | X32, rule)));
    }
    SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture)
        .and_then(BpfProgram::try_from)
        .map_err(|error| error.to_string())
}

/// `struct sock_filter` of each instruction, in this machine's byte order.
fn bytes(program: &BpfProgram) -> Vec<u8> {
    let one = |i: &seccompiler::sock_filter| [&i.code.to_ne_bytes()[..], &[i.jt, i.jf], &i.k.to_ne_bytes()].concat();
    program.iter().flat_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_compile_and_fit_the_kernel() {
        for program in programs().unwrap() {
            assert!(!program.is_empty() && program.len().is_multiple_of(8));
            assert!(program.len() / 8 < 4096, "the kernel takes at most 4096 instructions");
        }
    }
}

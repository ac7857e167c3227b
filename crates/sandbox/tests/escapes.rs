//! Ways out of a sandbox that others have found in others: kernel settings, keys, handles, terminals, sockets without a
//! path, another set of system calls, what the guest itself holds. Each test tries one and has to fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use bytes::Bytes;
use common::{Bench, fails, ok, run};
use hob_sandbox::{Command, Sandbox, Size};

/// Runs a program of Python's inside and returns what it printed.
async fn python(sandbox: &Sandbox, program: &str) -> String {
    sandbox.write_file("/tmp/try.py", Bytes::copy_from_slice(program.as_bytes())).await.unwrap();
    ok(sandbox, "python3 /tmp/try.py").await
}

#[tokio::test]
async fn the_kernels_settings_are_not_changed() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("settings").await;
    for setting in [
        "fs/file-max",
        "kernel/core_pattern",
        "kernel/hostname",
        "kernel/modprobe",
        "kernel/ns_last_pid",
        "kernel/panic",
        "kernel/pid_max",
        "kernel/randomize_va_space",
        "kernel/sysrq",
        "kernel/threads-max",
        "user/max_net_namespaces",
        "user/max_user_namespaces",
        "vm/drop_caches",
        "vm/overcommit_memory",
    ] {
        fails(&sandbox, &format!("echo 1 > /proc/sys/{setting}")).await;
    }
    for file in ["/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/mtrr", "/proc/acpi/wakeup"] {
        fails(&sandbox, &format!("echo 1 > {file}")).await;
    }
    assert_eq!(ok(&sandbox, "ls -A /sys").await, "", "there is nothing of the machine's devices and control groups");
    bench.close().await;
}

#[tokio::test]
async fn the_kernels_memory_and_messages_are_not_read() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("kernel").await;
    for file in ["kcore", "kmsg", "kpagecount", "kpageflags", "vmallocinfo", "slabinfo", "timer_list"] {
        fails(&sandbox, &format!("head -c 1 /proc/{file}")).await;
    }
    fails(&sandbox, "dmesg").await;
    let addresses = ok(&sandbox, "cut -d' ' -f1 /proc/kallsyms 2>/dev/null | sort -u").await;
    assert!(addresses.chars().all(|digit| digit == '0'), "{addresses}");
    bench.close().await;
}

#[tokio::test]
async fn system_calls_that_lead_out_are_refused_under_each_of_their_numbers() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("calls").await;
    // add_key, request_key, keyctl, perf_event_open, open_by_handle_at, setns, kexec_file_load, bpf, userfaultfd,
    // open_tree, move_mount, fsopen, mount_setattr; absent: the three of io_uring. Then the same for short pointers.
    let program = "import ctypes\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        def answer(call):\n  r = libc.syscall(ctypes.c_long(call), 0, 0, 0, 0, 0); return (r, ctypes.get_errno())\n\
        for x32 in (0, 0x40000000):\n  \
          print({answer(c | x32) for c in (248, 249, 250, 298, 304, 308, 320, 321, 323, 428, 429, 430, 442)})\n  \
          print({answer(c | x32) for c in (425, 426, 427)})\n";
    if cfg!(target_arch = "x86_64") {
        assert_eq!(python(&sandbox, program).await, "{(-1, 1)}\n{(-1, 38)}\n{(-1, 1)}\n{(-1, 38)}");
    }
    bench.close().await;
}

#[tokio::test]
async fn system_calls_of_another_architecture_end_their_process() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("compat").await;
    if cfg!(target_arch = "x86_64") {
        // mov eax, 20; int 0x80; ret: getpid() for 32-bit programs, whose numbers the filter does not know.
        let program = "import ctypes, mmap\n\
            m = mmap.mmap(-1, 4096, prot=7); m.write(bytes.fromhex('b814000000cd80c3'))\n\
            f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m))); print(f())\n";
        sandbox.write_file("/tmp/compat.py", Bytes::from(program)).await.unwrap();
        let ran = run(&sandbox, "python3 /tmp/compat.py").await;
        // SIGSYS, or SIGSEGV from a kernel that has no such calls at all.
        assert!([159, 139].contains(&ran.code), "{ran:?}");
    }
    bench.close().await;
}

#[tokio::test]
async fn nothing_is_typed_into_a_terminal() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("typing").await;
    // Once as it is, once with bits above the 32 that the kernel looks at.
    let program = "import ctypes, termios\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        for request in (termios.TIOCSTI, termios.TIOCSTI | 1 << 32, 0x541c):\n  \
          print(libc.syscall(16, 0, ctypes.c_long(request), b'x'), ctypes.get_errno())\n";
    sandbox.write_file("/tmp/type.py", Bytes::from(program)).await.unwrap();
    let command = Command::new(["python3", "/tmp/type.py"]).cwd("/").pty(Size { columns: 80, rows: 24 });
    let output = sandbox.exec(command).await.unwrap().wait_output(1000).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "-1 1\r\n-1 1\r\n-1 1\r\n");
    bench.close().await;
}

#[tokio::test]
async fn the_hosts_sockets_without_a_path_are_not_reached() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("abstract").await;
    let name = format!("hob-test-{}", std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let program = format!("import socket; print(socket.socket(socket.AF_UNIX).connect_ex('\\0{name}'))");
    assert_eq!(python(&sandbox, &program).await, "111", "connection refused");
    assert!(listener.accept().is_err(), "nobody came");
    assert!(!ok(&sandbox, "cat /proc/net/unix").await.contains(&name));
    bench.close().await;
}

#[tokio::test]
async fn the_hosts_control_groups_are_neither_named_nor_reached() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("groups").await;
    let named = ok(&sandbox, "cat /proc/1/cgroup /proc/self/cgroup").await;
    assert!(!named.contains("hob-"), "{named}");
    fails(&sandbox, "grep -e '- cgroup' /proc/self/mountinfo").await;
    fails(&sandbox, "mount -t cgroup -o memory x /mnt").await;
    fails(&sandbox, "mount -t cgroup2 x /mnt").await;
    fails(&sandbox, "find / -xdev -name cgroup.procs -o -name release_agent | grep .").await;
    bench.close().await;
}

#[tokio::test]
async fn process_1_is_not_looked_into_and_its_descriptors_are_not_taken() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("descriptors").await;
    // Its log lies outside and is not counted: whoever could write to it could fill the host's disk.
    for file in ["fd/2", "environ", "mem", "maps"] {
        fails(&sandbox, &format!("cat /proc/1/{file}")).await;
    }
    fails(&sandbox, "ls /proc/1/fd/ /proc/1/root/").await;
    // pidfd_open, pidfd_getfd; ptrace(PTRACE_ATTACH); process_vm_readv.
    let program = "import ctypes\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        fd = libc.syscall(434, 1, 0)\n\
        for call in ((438, fd, 2, 0), (101, 16, 1, 0, 0), (310, 1, 0, 0, 0, 0, 0)):\n  \
          print(libc.syscall(*call), ctypes.get_errno())\n";
    if cfg!(target_arch = "x86_64") {
        let said = python(&sandbox, program).await;
        assert!(said.lines().take(2).all(|line| line == "-1 1"), "{said}");
    }
    let folders = ok(&sandbox, "readlink /proc/self/cwd /proc/self/root").await;
    assert_eq!(folders, "/\n/");
    bench.close().await;
}

#[tokio::test]
async fn what_the_guest_is_made_of_is_read_only_and_its_token_is_for_root_inside() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("folder").await;
    let held = ok(&sandbox, "ls -A /.hob | tr '\\n' ' '").await;
    assert_eq!(held, "filter-0.bpf filter-1.bpf guest host.sock identity.json");
    for line in ["rm /.hob/host.sock", "mv /.hob/guest /tmp/", "touch /.hob/new", "chmod 666 /.hob/identity.json"] {
        let said = fails(&sandbox, line).await;
        assert!(said.contains("Read-only"), "{line}: {said}");
    }
    fails(&sandbox, "setpriv --reuid 1000 --regid 1000 --clear-groups cat /.hob/identity.json").await;
    fails(&sandbox, "setpriv --reuid 1000 --regid 1000 --clear-groups python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"/.hob/host.sock\")'").await;
    for mode in ["stage", "terminal", "nonsense"] {
        fails(&sandbox, &format!("/.hob/guest {mode} < /dev/null")).await;
    }
    assert_eq!(ok(&sandbox, "echo fine").await, "fine");
    bench.close().await;
}

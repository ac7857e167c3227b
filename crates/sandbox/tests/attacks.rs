//! What an agent inside a sandbox may try against its host, its neighbours and itself. Each test tries, and fails to
//! get through. They need bwrap and user namespaces, and fail where those are missing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Bench, fails, ok, run, spec};
use hob_sandbox::{Command, Limits, SandboxError, SandboxEvent};

/// A file with a secret where only the host's user may read it, gone when the test is.
struct Canary(PathBuf);

impl Canary {
    fn in_folder(folder: &str) -> Self {
        // Tests of one program run side by side, and two of them use the same folder.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(folder).join(format!(".hob-canary-{}-{number}", std::process::id()));
        std::fs::write(&path, "canary-secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self(path)
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn the_hosts_passwords_are_not_readable() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("shadow").await;
    let shadow = ok(&sandbox, "cat /etc/shadow /etc/gshadow").await;
    assert!(shadow.lines().all(|line| line.split(':').nth(1) == Some("*")), "{shadow}");
    fails(&sandbox, "cat /etc/shadow-").await;
    fails(&sandbox, "ls /etc/ssl/private").await;
    fails(&sandbox, "ls /etc/sudoers").await;
    assert_eq!(ok(&sandbox, "cat /etc/machine-id").await, "");
    bench.close().await;
}

#[tokio::test]
async fn a_private_file_of_the_hosts_etc_is_not_there_even_for_root_inside() {
    if !is_root() {
        panic!("this test writes to /etc and needs root");
    }
    let canary = Canary::in_folder("/etc");
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("etc").await;
    fails(&sandbox, &format!("cat {}", canary.0.display())).await;
    assert_eq!(ok(&sandbox, "grep -rls canary-secret /etc || true").await, "");
    bench.close().await;
}

#[tokio::test]
async fn home_folders_and_the_data_folder_are_not_there() {
    let home = Canary::in_folder(&std::env::var("HOME").unwrap());
    let bench = Bench::new().await;
    std::fs::write(bench.data().join("canary"), "canary-secret").unwrap();
    let sandbox = bench.sandbox("homes").await;
    fails(&sandbox, &format!("cat {}", home.0.display())).await;
    fails(&sandbox, &format!("ls {}", bench.data().display())).await;
    assert_eq!(ok(&sandbox, "ls -A /home /srv /mnt /tmp | grep -v : | tr -d '\\n'").await, "");
    let found = ok(&sandbox, "grep -rls canary-secret /root /home /tmp /srv /mnt /run /var 2>/dev/null || true").await;
    assert_eq!(found, "");
    bench.close().await;
}

#[tokio::test]
async fn the_servers_environment_is_not_inherited() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("env").await;
    let ours = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let seen = ok(&sandbox, "cat /proc/*/environ | tr '\\0' '\\n'; env").await;
    assert!(!seen.contains(&ours) && !seen.contains("CARGO_MANIFEST_DIR"), "{seen}");
    bench.close().await;
}

#[tokio::test]
async fn the_hosts_processes_are_neither_seen_nor_reached() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("processes").await;
    let names = ok(&sandbox, "cat /proc/[0-9]*/comm | sort -u | tr '\\n' ' '").await;
    assert!(!names.contains("attacks") && names.contains("guest"), "{names}");
    let ours = std::process::id();
    fails(&sandbox, &format!("kill -0 {ours}")).await;
    fails(&sandbox, &format!("cat /proc/{ours}/maps")).await;
    // The kernel must not let it attach to its own process 1's parent either: there is none in its namespace.
    assert_eq!(ok(&sandbox, "awk '/PPid/ {print $2}' /proc/1/status").await, "0");
    bench.close().await;
}

#[tokio::test]
async fn another_sandboxs_files_are_not_reached() {
    let bench = Bench::new().await;
    let (one, two) = (bench.sandbox("one").await, bench.sandbox("two").await);
    ok(&one, "echo canary-secret > /workspace/mine; echo canary-secret > /tmp/mine").await;
    assert_eq!(ok(&two, "ls -A /workspace /tmp | grep -v : | tr -d '\\n'").await, "");
    fails(&two, &format!("ls {}", bench.data().join("sandboxes/one").display())).await;
    if is_root() {
        // A process that left its sandbox would still be nobody in the next one and on the host, and nobody but root
        // reaches the folder in which what they write lies.
        let root_outside = async |sandbox| ok(sandbox, "awk '$1 == 0 {print $2}' /proc/self/uid_map").await;
        let (first, second): (u32, u32) =
            (root_outside(&one).await.parse().unwrap(), root_outside(&two).await.parse().unwrap());
        assert!(first != second && first > 65_536 && second > 65_536, "{first} {second}");
        assert_eq!(std::fs::metadata(bench.data()).unwrap().mode() & 0o77, 0);
    }
    bench.close().await;
}

#[tokio::test]
async fn the_network_is_not_reached_directly() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("network").await;
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    tcp.set_nonblocking(true).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_nonblocking(true).unwrap();
    let (tcp_port, udp_port) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    fails(&sandbox, &format!("exec 3<>/dev/tcp/127.0.0.1/{tcp_port}")).await;
    run(&sandbox, &format!("echo hello > /dev/udp/127.0.0.1/{udp_port}")).await;
    for address in ["169.254.169.254/80", "1.1.1.1/443", "10.0.0.1/22"] {
        let said = fails(&sandbox, &format!("exec 3<>/dev/tcp/{address}")).await;
        assert!(said.contains("unreachable"), "{said}");
    }
    let said = fails(&sandbox, "echo x > /dev/udp/8.8.8.8/53").await;
    assert!(said.contains("unreachable"), "{said}");
    assert_eq!(ok(&sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await, "lo");
    assert!(tcp.accept().is_err(), "nobody came");
    assert!(udp.recv_from(&mut [0; 16]).is_err(), "nothing came");
    bench.close().await;
}

#[tokio::test]
async fn abstract_and_virtual_sockets_lead_nowhere() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("sockets").await;
    let families = "import socket\nfor f in (40, 38, 17, 21):\n  try: socket.socket(f, socket.SOCK_STREAM); print('open', f)\n  except OSError as e: pass";
    assert_eq!(ok(&sandbox, &format!("python3 -c \"{families}\"")).await, "");
    bench.close().await;
}

#[tokio::test]
async fn a_fork_bomb_hurts_only_its_sandbox_and_can_be_killed() {
    let bench = Bench::new().await;
    let limits = Limits { processes: 200, ..Limits::default() };
    let bomb = bench.create(hob_sandbox::Spec { limits, ..spec("bomb") }).await;
    let calm = bench.sandbox("calm").await;
    let mut events = bomb.events();
    let process = bomb.exec(Command::shell("b() { b | b & }; b; sleep 600").cwd("/")).await.unwrap();
    loop {
        if let SandboxEvent::ProcessesFull { .. } =
            tokio::time::timeout(common::LIMIT, events.recv()).await.unwrap().unwrap()
        {
            break;
        }
    }
    assert!(bomb.stats().await.unwrap().processes.unwrap() <= 200);
    let start = Instant::now();
    assert_eq!(ok(&calm, "echo fine").await, "fine");
    assert!(start.elapsed() < Duration::from_secs(10), "the host stays responsive");
    process.kill().await.unwrap();
    assert_eq!(ok(&bomb, "echo fine").await, "fine");
    bench.close().await;
}

#[tokio::test]
async fn filling_memory_kills_the_one_that_fills_it() {
    let bench = Bench::new().await;
    let limits = Limits { memory_bytes: 128 << 20, ..Limits::default() };
    let sandbox = bench.create(hob_sandbox::Spec { limits, ..spec("memory") }).await;
    let mut events = sandbox.events();
    let ran = run(&sandbox, "exec python3 -c 'x = bytearray(1 << 30); print(len(x))'").await;
    assert_eq!(ran.code, 137, "{ran:?}");
    let event = tokio::time::timeout(common::LIMIT, events.recv()).await.unwrap().unwrap();
    assert!(matches!(event, SandboxEvent::OutOfMemory { .. }), "{event:?}");
    let shm = run(&sandbox, "dd if=/dev/zero of=/dev/shm/fill bs=1M count=512").await;
    assert_ne!(shm.code, 0, "memory files count as well");
    assert_eq!(ok(&sandbox, "rm -f /dev/shm/fill; echo fine").await, "fine");
    bench.close().await;
}

#[tokio::test]
async fn filling_the_disk_stops_the_one_that_fills_it() {
    let bench = Bench::new().await;
    let limits = Limits { disk_bytes: 64 << 20, ..Limits::default() };
    let sandbox = bench.create(hob_sandbox::Spec { limits, ..spec("disk") }).await;
    let mut events = sandbox.events();
    let one = run(&sandbox, "dd if=/dev/zero of=/tmp/one bs=1M count=200").await;
    assert_ne!(one.code, 0, "one file cannot be larger than all may be: {one:?}");
    ok(&sandbox, "rm /tmp/one").await;
    let many = "for i in $(seq 10000); do head -c 1000000 /dev/zero > /tmp/$i || exit 1; done";
    let mut filling = sandbox.exec(Command::shell(many).cwd("/")).await.unwrap();
    // Where it is not too quick for that, it is warned before.
    let (used_bytes, limit_bytes) = loop {
        match tokio::time::timeout(common::LIMIT, events.recv()).await.unwrap().unwrap() {
            SandboxEvent::DiskNearlyFull { used_bytes, limit_bytes } => assert!(used_bytes <= limit_bytes),
            SandboxEvent::DiskFull { used_bytes, limit_bytes } => break (used_bytes, limit_bytes),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(limit_bytes, 64 << 20);
    assert!(used_bytes < 4 << 30, "{used_bytes}");
    let output = tokio::time::timeout(common::LIMIT, filling.wait_output(1024)).await.unwrap();
    assert_eq!(output.exit.unwrap().code, 137);
    ok(&sandbox, "rm -rf /tmp/*").await;
    bench.close().await;
}

#[tokio::test]
async fn links_and_dots_in_paths_stay_inside() {
    let home = Canary::in_folder(&std::env::var("HOME").unwrap());
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("links").await;
    ok(&sandbox, &format!("ln -s {} /workspace/link; ln -s / /workspace/root", home.0.display())).await;
    let escape = format!("/workspace/{}{}", "../".repeat(40), home.0.display());
    let through = format!("/workspace/root{}", home.0.display());
    for path in ["/workspace/link", escape.as_str(), through.as_str()] {
        let read = sandbox.read_file(path, 0..1000).await;
        assert!(matches!(read, Err(SandboxError::NotFound { .. })), "{path}: {read:?}");
    }
    sandbox.write_file(&format!("{}etc/hob-canary", "../".repeat(40)), Bytes::from_static(b"inside")).await.unwrap();
    assert_eq!(ok(&sandbox, "cat /etc/hob-canary").await, "inside");
    assert!(!std::path::Path::new("/etc/hob-canary").exists());
    sandbox.write_file("/workspace/root/tmp/x", Bytes::from_static(b"inside")).await.unwrap();
    assert_eq!(ok(&sandbox, "cat /tmp/x").await, "inside");
    bench.close().await;
}

#[tokio::test]
async fn devices_and_pipes_do_not_hold_the_file_api() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("devices").await;
    ok(&sandbox, "mkfifo /workspace/pipe; ln -s /dev/zero /workspace/zero; ln -s /proc/kmsg /workspace/kmsg").await;
    for path in ["/workspace/pipe", "/workspace/zero", "/workspace", "/dev/tty"] {
        let read = tokio::time::timeout(Duration::from_secs(5), sandbox.read_file(path, 0..10)).await.unwrap();
        assert!(matches!(read, Err(SandboxError::Refused { .. })), "{path}: {read:?}");
    }
    let write = sandbox.write_file("/workspace/pipe", Bytes::from_static(b"x")).await;
    assert!(matches!(write, Err(SandboxError::Refused { .. })), "{write:?}");
    bench.close().await;
}

#[tokio::test]
async fn device_nodes_are_not_made() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("mknod").await;
    fails(&sandbox, "mknod /tmp/disk b 254 0").await;
    fails(&sandbox, "mknod /tmp/mem c 1 1").await;
    assert_eq!(ok(&sandbox, "ls /dev | grep -E 'vd|sd|nvme|kvm|mem|kmsg' || true").await, "");
    bench.close().await;
}

#[tokio::test]
async fn nothing_is_mounted_or_unmounted() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("mount").await;
    for line in
        ["mount -t tmpfs x /mnt", "mount --bind /root /mnt", "mount -t proc x /mnt", "umount /proc", "umount -l /etc"]
    {
        fails(&sandbox, line).await;
    }
    fails(&sandbox, "echo 1 > /proc/sys/kernel/core_pattern").await;
    fails(&sandbox, "echo b > /proc/sysrq-trigger").await;
    bench.close().await;
}

#[tokio::test]
async fn no_further_namespaces_are_entered() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("namespaces").await;
    assert_eq!(ok(&sandbox, "cat /proc/sys/user/max_user_namespaces").await, "0");
    for kind in ["--user", "--mount", "--net", "--pid --fork", "--user --map-root-user --mount"] {
        fails(&sandbox, &format!("unshare {kind} true")).await;
    }
    fails(&sandbox, "nsenter --target 1 --net true").await;
    // Past the filter by another system call: clone3 says that it does not exist, and clone is looked into.
    let clone = "import ctypes; l = ctypes.CDLL(None, use_errno=True); r = l.syscall(56, 0x10000000 | 17, 0, 0, 0, 0); \
                 print(r, ctypes.get_errno()); r = l.syscall(435, 0, 0); print(r, ctypes.get_errno())";
    assert_eq!(ok(&sandbox, &format!("python3 -c '{clone}'")).await, "-1 1\n-1 38");
    bench.close().await;
}

#[tokio::test]
async fn set_user_id_programs_gain_nothing() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("setuid").await;
    assert_eq!(ok(&sandbox, "awk '/NoNewPrivs/ {print $2}' /proc/self/status").await, "1");
    assert_eq!(ok(&sandbox, "awk '/Seccomp:/ {print $2}' /proc/self/status").await, "2");
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        let held = ok(&sandbox, &format!("awk '/{set}/ {{print $2}}' /proc/self/status")).await;
        // chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service, sys_chroot.
        assert_eq!(held, "00000000000404fb", "{set}");
    }
    let line = "cp /usr/bin/id /tmp/id; chmod 4755 /tmp/id; setpriv --reuid 1000 --clear-groups /tmp/id -u";
    assert_eq!(ok(&sandbox, line).await, "1000");
    bench.close().await;
}

#[tokio::test]
async fn the_hosts_folders_are_never_written_to() {
    let bench = Bench::new().await;
    let workspace = bench.folder.path().join("checkout");
    std::fs::create_dir(&workspace).unwrap();
    std::fs::write(workspace.join("file"), "host").unwrap();
    let sandbox = bench.create(hob_sandbox::Spec { workspace: Some(workspace.clone()), ..spec("lower") }).await;
    ok(&sandbox, "echo sandbox > /workspace/file; echo new > /workspace/new; rm /usr/bin/awk; echo x > /etc/hob-made")
        .await;
    assert_eq!(std::fs::read_to_string(workspace.join("file")).unwrap(), "host");
    assert_eq!(std::fs::read_dir(&workspace).unwrap().count(), 1);
    assert!(std::path::Path::new("/usr/bin/awk").exists() && !std::path::Path::new("/etc/hob-made").exists());
    fails(&sandbox, "echo x > /.hob/guest").await;
    bench.close().await;
}

#[tokio::test]
async fn a_flood_of_output_is_held_back_and_not_kept_in_memory() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("flood").await;
    let mut process = sandbox.exec(Command::shell("exec cat /dev/zero").cwd("/")).await.unwrap();
    assert!(process.next().await.is_some());
    let written = loop {
        let info = sandbox.processes().await.unwrap();
        let written = info[0].written.0;
        if written >= 256 << 10 {
            break written;
        }
        tokio::task::yield_now().await;
    };
    assert!(written < 2 << 20, "the guest stopped reading at {written}");
    process.kill().await.unwrap();
    bench.close().await;
}

#[tokio::test]
async fn a_stale_epoch_and_a_false_token_are_refused() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("epoch").await;
    let renewed = hob_sandbox::Spec { epoch: 2, token: hob_sandbox::Token("second".to_owned()), ..spec("epoch") };
    let again = bench.create(renewed).await;
    assert_eq!(ok(&again, "echo fine").await, "fine");
    // Whoever is root inside can read the token of its own sandbox, and with another one gets no answer.
    let dial = "import socket, json, struct\n\
        i = json.load(open('/.hob/identity.json')); assert i['epoch'] == 2\n\
        i['epoch'] = 1; i['token'] = 'first'\n\
        j = json.dumps({'protocol': 1, 'identity': i, 'purpose': 'control'}).encode()\n\
        s = socket.socket(socket.AF_UNIX); s.connect('/.hob/host.sock')\n\
        s.send(struct.pack('<II', len(j) + 4, len(j)) + j); print(len(s.recv(100)))";
    again.write_file("/tmp/dial.py", Bytes::from(dial)).await.unwrap();
    assert_eq!(ok(&again, "python3 /tmp/dial.py").await, "0");
    assert_eq!(ok(&sandbox, "echo fine").await, "fine", "an older handle speaks to the same sandbox");
    bench.close().await;
}

#[tokio::test]
async fn garbage_on_the_hosts_socket_is_refused_and_the_sandbox_lives() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("garbage").await;
    let dial = "import socket\nfor g in (b'\\xff' * 100, b'\\x10\\0\\0\\0' + b'x' * 16, b''):\n  \
        s = socket.socket(socket.AF_UNIX); s.connect('/.hob/host.sock'); s.send(g); s.shutdown(1)\n  try: print(len(s.recv(100)))\n  except ConnectionResetError: print(0)\n";
    sandbox.write_file("/tmp/dial.py", Bytes::from(dial)).await.unwrap();
    assert_eq!(ok(&sandbox, "python3 /tmp/dial.py").await, "0\n0\n0");
    assert_eq!(ok(&sandbox, "echo fine").await, "fine");
    bench.close().await;
}

#[test]
fn the_canaries_would_be_found_where_the_host_reads_them() {
    let canary = Canary::in_folder(&std::env::var("HOME").unwrap());
    let mut text = String::new();
    std::fs::File::open(&canary.0).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "canary-secret");
}

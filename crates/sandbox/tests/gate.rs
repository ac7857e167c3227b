//! The gate: `/workspace` is read by everybody in a sandbox and written by nobody, until it is opened. What is tried here
//! against it must fail before that, and work after it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use bytes::Bytes;
use common::{Bench, LIMIT, fails, id, ok, run, spec};
use hob_sandbox::{Base, Command, Gate, Limits, Local, LocalConfig, Provider, Sandbox, SandboxError, Spec, Token};

/// A closed sandbox over a checkout with a few files.
async fn closed(bench: &Bench, name: &str) -> Sandbox {
    let workspace = bench.folder.path().join("checkout");
    std::fs::create_dir_all(workspace.join("folder")).unwrap();
    for file in ["file", "other", "folder/file"] {
        std::fs::write(workspace.join(file), "host\n").unwrap();
    }
    let sandbox = bench.create_closed(Spec { workspace: Some(workspace), ..spec(name) }).await;
    assert_eq!(sandbox.gate(), Gate::Closed);
    sandbox
}

async fn writer(bench: &Bench, sandbox: &Sandbox) -> Sandbox {
    let writer = bench.local.writer(sandbox.id(), Token("writer".to_owned())).await;
    writer.unwrap_or_else(|error| panic!("failed to {error}"))
}

async fn open(bench: &Bench, sandbox: &Sandbox) {
    bench.local.open_gate(sandbox.id()).await.unwrap_or_else(|error| panic!("failed to {error}"));
    assert_eq!(sandbox.gate(), Gate::Open);
}

/// Runs a program of Python's and returns what it printed.
async fn python(sandbox: &Sandbox, program: &str) -> String {
    sandbox.write_file("/tmp/try.py", Bytes::copy_from_slice(program.as_bytes())).await.unwrap();
    ok(sandbox, "cd / && python3 /tmp/try.py").await
}

/// Everything that changes a folder or a file, as a shell does it.
const WRITES: [&str; 12] = [
    "echo x >> /workspace/file",
    ": > /workspace/folder/file",
    "echo x > /workspace/new",
    "mkdir /workspace/made",
    "rm /workspace/other",
    "mv /workspace/file /workspace/moved",
    "mv /workspace/file /tmp/taken",
    "mv /etc/hostname /workspace/brought",
    "ln -s file /workspace/link",
    "chmod 700 /workspace/file",
    "touch -d yesterday /workspace/file",
    "truncate -s 1 /workspace/file",
];

#[tokio::test]
async fn while_it_is_closed_everybody_reads_and_nobody_writes() {
    let bench = Bench::new().await;
    let sandbox = closed(&bench, "closed").await;
    assert_eq!(
        ok(&sandbox, "cat /workspace/file /workspace/folder/file; ls /workspace | wc -l").await,
        "host\nhost\n3"
    );
    for line in WRITES {
        fails(&sandbox, line).await;
    }
    let said = fails(&sandbox, "echo x > /workspace/new").await;
    assert!(said.contains("Read-only file system"), "{said}");
    let edit = sandbox.write_file("/workspace/file", Bytes::from_static(b"x")).await;
    assert!(matches!(edit, Err(SandboxError::Refused { .. })), "{edit:?}");
    assert!(sandbox.remove("/workspace/file").await.is_err());
    ok(&sandbox, "echo x > /tmp/x; echo x > /root/x; echo x > /etc/x; cd /workspace && cat file").await;
    open(&bench, &sandbox).await;
    ok(&sandbox, "echo x >> /workspace/file; mkdir /workspace/made; rm /workspace/other").await;
    sandbox.write_file("/workspace/made/file", Bytes::from_static(b"x")).await.unwrap();
    bench.close().await;
}

#[tokio::test]
async fn what_was_opened_before_does_not_write_either() {
    let bench = Bench::new().await;
    let sandbox = closed(&bench, "handles").await;
    let program = "import ctypes, errno, mmap, os\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        def tried(act):\n  try: act(); return 'worked'\n  except OSError as e: return errno.errorcode[e.errno]\n  except ValueError: return 'no'\n\
        fd = os.open('/workspace/file', os.O_RDONLY); folder = os.open('/workspace', os.O_PATH)\n\
        print(tried(lambda: os.open(f'/proc/self/fd/{fd}', os.O_RDWR)), tried(lambda: os.write(fd, b'x')),\n\
          tried(lambda: mmap.mmap(fd, 4, prot=mmap.PROT_READ | mmap.PROT_WRITE)), tried(lambda: os.ftruncate(fd, 0)),\n\
          tried(lambda: os.fchmod(fd, 0o777)), tried(lambda: os.setxattr(fd, 'user.x', b'x')),\n\
          tried(lambda: os.open('made', os.O_WRONLY | os.O_CREAT, dir_fd=folder)),\n\
          tried(lambda: os.open('/workspace', os.O_TMPFILE | os.O_RDWR)), tried(lambda: os.mkfifo('/workspace/pipe')))\n";
    assert_eq!(python(&sandbox, program).await, "EROFS EBADF EACCES EINVAL EROFS EROFS EROFS EROFS EROFS");
    bench.close().await;
}

#[tokio::test]
async fn nothing_inside_opens_it() {
    let bench = Bench::new().await;
    let sandbox = closed(&bench, "locked").await;
    for line in [
        "mount -o remount,rw /workspace",
        "mount -o remount,rw,bind /workspace",
        "mount --bind /workspace /mnt",
        "umount /workspace",
        "umount -l /workspace",
        "unshare --mount mount -o remount,rw /workspace",
        "unshare --user --map-root-user --mount mount -o remount,rw /workspace",
        "nsenter --target 1 --mount true",
        "rmdir /workspace",
        "mv /workspace /elsewhere",
    ] {
        fails(&sandbox, line).await;
    }
    // mount_setattr(2) on the gate, with MOUNT_ATTR_RDONLY to be cleared; then the same for short pointers.
    let program = "import ctypes\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        attr = (ctypes.c_uint64 * 4)(0, 1, 0, 0)\n\
        for call in (442, 442 | 0x40000000): print(libc.syscall(ctypes.c_long(call), -100, b'/workspace', 0, attr, 32))\n";
    assert_eq!(python(&sandbox, program).await, "-1\n-1");
    fails(&sandbox, "echo x > /workspace/new").await;
    bench.close().await;
}

#[tokio::test]
async fn no_other_name_leads_around_it() {
    let bench = Bench::new().await;
    let sandbox = closed(&bench, "names").await;
    fails(&sandbox, "ln /workspace/file /tmp/name").await;
    fails(&sandbox, "ln /workspace/file /name").await;
    let tried = "for root in /proc/[0-9]*/root /proc/[0-9]*/cwd /proc/[0-9]*/task/*/root; do \
        echo x > $root/workspace/new; echo x > $root/new-in-cwd; done 2>/dev/null; ls /workspace | wc -l";
    assert_eq!(ok(&sandbox, &format!("cd /workspace; {tried}")).await, "3");
    ok(&sandbox, "ln -s /workspace /tmp/there; ln -s /workspace/file /tmp/file").await;
    fails(&sandbox, "echo x > /tmp/there/new").await;
    fails(&sandbox, "echo x > /tmp/file").await;
    fails(&sandbox, "echo x > /workspace/../workspace/new").await;
    bench.close().await;
}

#[tokio::test]
async fn a_name_from_an_earlier_life_leads_around_nothing() {
    let bench = Bench::new().await;
    // Here the workspace is a folder of the root, not a checkout above it.
    let sandbox = bench.sandbox("earlier").await;
    ok(&sandbox, "echo mine > /workspace/file").await;
    let said = fails(&sandbox, "ln /workspace/file /root/name").await;
    assert!(said.contains("cross-device"), "{said}");
    fails(&sandbox, "mv /workspace /elsewhere && ln -s /tmp /workspace").await;
    bench.local.suspend(sandbox.id()).await.unwrap();
    let again = bench.create_closed(spec("earlier")).await;
    fails(&again, "echo x > /workspace/file").await;
    assert_eq!(ok(&again, "cat /workspace/file").await, "mine");
    let refused = bench.local.open_gate(&id("nobody")).await;
    assert!(matches!(refused, Err(SandboxError::Lost { .. })), "{refused:?}");
    open(&bench, &again).await;
    ok(&again, "echo x > /workspace/file").await;
    bench.close().await;
}

#[tokio::test]
async fn what_a_snapshot_holds_is_gated_and_is_the_writers_to_use() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("taken").await;
    let tool =
        "printf '#!/bin/sh\\necho tool > /workspace/file' > /usr/local/bin/tool && chmod 755 /usr/local/bin/tool";
    ok(&sandbox, &format!("echo frozen > /workspace/file; {tool}")).await;
    let layers = bench.local.snapshot(sandbox.id()).await.unwrap().layers;
    let fork = bench.create_closed(Spec { layers, ..spec("fork") }).await;
    fails(&fork, "tool").await;
    assert_eq!(ok(&fork, "cat /workspace/file").await, "frozen");
    ok(&writer(&bench, &fork).await, "tool").await;
    open(&bench, &fork).await;
    assert_eq!(ok(&fork, "cat /workspace/file").await, "tool");
    bench.close().await;
}

#[tokio::test]
async fn a_link_in_place_of_the_workspace_is_refused() {
    let bench = Bench::new().await;
    let root = bench.folder.path().join("rootfs");
    std::fs::create_dir_all(root.join("tmp")).unwrap();
    std::os::unix::fs::symlink("tmp", root.join("workspace")).unwrap();
    let spec = Spec { base: Base::Directory(root), ..spec("link") };
    let refused = bench.local.create_closed(spec).await.unwrap_err().to_string();
    assert!(refused.contains("close /workspace: the base has a link there"), "{refused}");
    bench.close().await;
}

#[tokio::test]
async fn a_background_process_writes_as_soon_as_it_is_open_and_not_before() {
    let bench = Bench::new().await;
    let sandbox = closed(&bench, "background").await;
    let line = "until echo written > /workspace/new; do echo refused; sleep 0.01; done 2>/dev/null; cat /workspace/new";
    let mut process = sandbox.exec(Command::shell(line).timeout(LIMIT)).await.unwrap();
    assert!(matches!(process.next().await, Some(hob_sandbox::ProcessEvent::Stdout(_))));
    open(&bench, &sandbox).await;
    let output = process.wait_output(1 << 20).await;
    assert_eq!(output.exit.unwrap().code, 0);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.ends_with("written\n"), "{said}");
    bench.close().await;
}

#[tokio::test]
async fn a_writer_writes_for_the_sandbox_and_is_gone_when_it_opens() {
    let bench = Bench::new().await;
    let sandbox = closed(&bench, "writer").await;
    let writer = writer(&bench, &sandbox).await;
    ok(&writer, "cd /workspace && echo new > file && rm other && mkdir made && echo x > made/file").await;
    writer.write_file("/workspace/edited", Bytes::from_static(b"edited\n")).await.unwrap();
    let seen = "cd /workspace && cat file edited && ls && stat -c %u:%g file made/file edited";
    assert_eq!(ok(&sandbox, seen).await, "new\nedited\nedited\nfile\nfolder\nmade\n0:0\n0:0\n0:0");
    fails(&sandbox, "echo x > /workspace/made/file").await;
    assert_eq!(std::fs::read_to_string(bench.folder.path().join("checkout/file")).unwrap(), "host\n");
    let line = "setsid sh -c 'while :; do date +%N > /workspace/late; done' & sleep 432109";
    let process = writer.exec(Command::shell(line).cwd("/")).await.unwrap();
    while sandbox.stat("/workspace/late").await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    open(&bench, &sandbox).await;
    ok(&sandbox, "echo mine > /workspace/late").await;
    assert_eq!(writer.closed().await, "the gate was opened");
    assert!(process.kill().await.is_err());
    assert_eq!(ok(&sandbox, "sleep 0.1; cat /workspace/late").await, "mine");
    assert!(!bench.data().join("sandboxes/writer/writer").exists());
    let another = bench.local.writer(sandbox.id(), Token("late".to_owned())).await;
    assert!(matches!(another, Err(SandboxError::Refused { .. })), "{another:?}");
    open(&bench, &sandbox).await;
    bench.close().await;
}

#[tokio::test]
async fn the_writer_is_neither_seen_nor_reached_from_inside() {
    let bench = Bench::new().await;
    let sandbox = closed(&bench, "apart").await;
    let writer = writer(&bench, &sandbox).await;
    writer.exec(Command::shell("exec sleep 321098").cwd("/workspace")).await.unwrap();
    ok(&writer, "echo secret > /tmp/mine; mkfifo /tmp/pipe; until pgrep -f 'sleep 32109[8]'; do :; done").await;
    let seen = ok(&sandbox, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls /tmp").await;
    assert!(!seen.contains("321098") && !seen.contains("mine"), "{seen}");
    // Under no number is there a process whose root is the writer's.
    let program = "import os\n\
        print([p for p in range(1, 4194304 // 64) if os.path.exists(f'/proc/{p}/root/tmp/mine')])\n";
    assert_eq!(python(&sandbox, program).await, "[]");
    fails(&sandbox, "grep -q writer /.hob/identity.json").await;
    // The other way round neither: what runs in the sandbox is not the writer's to see.
    assert!(!ok(&writer, "cat /proc/[0-9]*/comm").await.contains("bwrap"));
    assert_eq!(
        ok(&sandbox, "readlink /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/user | sort -u | wc -l").await,
        "3"
    );
    for kind in ["mnt", "pid", "net", "ipc", "user"] {
        let line = format!("readlink /proc/self/ns/{kind}");
        assert_ne!(ok(&sandbox, &line).await, ok(&writer, &line).await, "{kind}");
    }
    bench.close().await;
}

#[tokio::test]
async fn nothing_in_the_sandbox_leads_the_writer() {
    let bench = Bench::new().await;
    let sandbox = closed(&bench, "led").await;
    let lead = "printf '#!/bin/sh\\necho led > /workspace/led' > /tmp/false && chmod 755 /tmp/false && \
        for program in git env id; do rm -f /usr/bin/$program && cp /tmp/false /usr/bin/$program; done; \
        echo /tmp/false.so > /etc/ld.so.preload; echo 'export X=led' >> /etc/profile; \
        printf '[core]\\n\\tfsmonitor = /tmp/false\\n\\thooksPath = /tmp\\n' | tee /root/.gitconfig > /etc/gitconfig; id; true";
    fails(&sandbox, &format!("{lead}; test -e /workspace/led")).await;
    let writer = writer(&bench, &sandbox).await;
    // Also what it does after the writer is there is not seen by it.
    fails(&sandbox, &format!("{lead}; test -e /workspace/led")).await;
    assert_eq!(
        ok(&writer, "id -u; env true; git init -q /workspace/repository; git config --list --global || echo none")
            .await,
        "0\nnone"
    );
    assert_eq!(
        ok(&writer, "ls /etc/ld.so.preload /root/.gitconfig 2>/dev/null; ls /workspace").await,
        "file\nfolder\nother\nrepository"
    );
    let refused = run(&writer, "exec 3<>/dev/tcp/127.0.0.1/3128 && cat <&3").await;
    assert_eq!(refused.out, "", "there is no gateway behind the port");
    bench.close().await;
}

#[tokio::test]
async fn a_writer_is_as_confined_as_the_sandbox() {
    let bench = Bench::new().await;
    let limits = Limits { memory_bytes: 128 << 20, ..Limits::default() };
    let sandbox = bench.create_closed(Spec { limits, ..spec("confined") }).await;
    let writer = writer(&bench, &sandbox).await;
    for set in ["CapBnd", "CapEff", "CapPrm", "NoNewPrivs", "Seccomp"] {
        let line = format!("awk '/^{set}:/ {{print $2}}' /proc/self/status");
        assert_eq!(ok(&writer, &line).await, ok(&sandbox, &line).await, "{set}");
    }
    for line in
        ["mount -t tmpfs x /mnt", "unshare --mount true", "echo 1 > /proc/sys/kernel/hostname", "cat /etc/shadow-"]
    {
        fails(&writer, line).await;
    }
    assert_eq!(ok(&writer, "cat /proc/self/uid_map").await, ok(&sandbox, "cat /proc/self/uid_map").await);
    let counted = sandbox.usage().oom_kills.unwrap();
    assert_eq!(run(&writer, "exec python3 -c 'x = bytearray(1 << 30); print(len(x))'").await.code, 137);
    assert!(sandbox.usage().oom_kills.unwrap() > counted, "its memory is the sandbox's");
    fails(&writer, "dd if=/dev/zero of=/root/fill bs=1M count=80").await;
    ok(&writer, "rm -f /root/fill; echo x > /workspace/fine").await;
    bench.close().await;
}

#[tokio::test]
async fn a_writer_ends_with_its_sandbox_and_with_the_next_writer() {
    let bench = Bench::new().await;
    let sandbox = closed(&bench, "ends").await;
    let first = writer(&bench, &sandbox).await;
    first.exec(Command::shell("sleep 210987").cwd("/")).await.unwrap();
    let second = writer(&bench, &sandbox).await;
    assert_eq!(first.closed().await, "another writer takes its place");
    assert_eq!(ok(&second, "pgrep -f 'sleep 21098[7]' || echo none").await, "none");
    // Its process 1 ends: told of at once, and the sandbox lives.
    drop(run_until_lost(&second, "kill -9 $(pgrep -P 1 | head -1); kill -9 -1").await);
    assert_eq!(ok(&sandbox, "cat /workspace/file").await, "host");
    let third = writer(&bench, &sandbox).await;
    ok(&third, "echo third > /workspace/file").await;
    bench.local.suspend(sandbox.id()).await.unwrap();
    assert_eq!(third.closed().await, "it was suspended");
    let again = closed(&bench, "ends").await;
    assert_eq!(ok(&again, "cat /workspace/file").await, "third");
    let fourth = writer(&bench, &again).await;
    bench.kill_helper();
    let reason = tokio::time::timeout(LIMIT, fourth.closed()).await.unwrap();
    assert!(reason.contains("helper"), "{reason}");
    bench.close().await;
}

/// Runs a line that may end the shell that runs it.
async fn run_until_lost(sandbox: &Sandbox, line: &str) -> Option<hob_sandbox::ProcessEvent> {
    let mut process = sandbox.exec(Command::shell(line).cwd("/").timeout(LIMIT)).await.unwrap();
    process.next().await
}

#[tokio::test]
async fn the_next_server_knows_how_the_gate_stands() {
    let mut bench = Bench::new().await;
    let sandbox = closed(&bench, "next").await;
    let first = writer(&bench, &sandbox).await;
    ok(&first, "echo half > /workspace/file").await;
    bench.local = Local::open(LocalConfig::new(bench.data())).await.unwrap();
    let taken = taken_over(&bench, 2).await;
    assert_eq!(taken.gate(), Gate::Closed);
    fails(&taken, "echo x > /workspace/file").await;
    let second = writer(&bench, &taken).await;
    ok(&second, "echo whole > /workspace/file").await;
    open(&bench, &taken).await;
    bench.local = Local::open(LocalConfig::new(bench.data())).await.unwrap();
    let taken = taken_over(&bench, 3).await;
    assert_eq!(taken.gate(), Gate::Open);
    assert_eq!(ok(&taken, "cat /workspace/file; echo x > /workspace/file").await, "whole");
    bench.close().await;
}

async fn taken_over(bench: &Bench, epoch: u64) -> Sandbox {
    bench.local.attach(&id("next"), epoch, Token("next".to_owned())).await.unwrap().unwrap()
}

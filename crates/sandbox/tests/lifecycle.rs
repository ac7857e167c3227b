//! How sandboxes begin, outlive their server, and end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{Bench, LIMIT, id, ok, run, spec};
use hob_sandbox::{Base, Command, Local, LocalConfig, ProcessEvent, Provider, Spec, Token};

/// Processes of the host that have this word among their arguments.
fn host_processes(word: &str) -> Vec<String> {
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(word)).collect()
}

#[track_caller]
fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test]
async fn a_kill_reaches_what_left_its_group_its_session_and_its_parent() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("tree").await;
    let line = "setsid sleep 987654 & (setsid sh -c 'sleep 987655 & exec sleep 987656' &); nohup sleep 987657 & wait";
    let process = sandbox.exec(Command::shell(line).cwd("/")).await.unwrap();
    while host_processes("sleep 98765").len() < 4 {
        tokio::task::yield_now().await;
    }
    process.kill().await.unwrap();
    assert_none(&host_processes("sleep 98765"));
    assert_eq!(ok(&sandbox, "echo fine").await, "fine");
    bench.close().await;
}

#[tokio::test]
async fn a_time_limit_ends_the_command_and_all_it_started() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("timeout").await;
    let command =
        Command::shell("echo begun; setsid sleep 876543 & sleep 876544").cwd("/").timeout(Duration::from_millis(300));
    let mut process = sandbox.exec(command).await.unwrap();
    let output = process.wait_output(100).await;
    assert!(output.exit.unwrap().timed_out);
    assert_eq!(output.stdout, "begun\n");
    process.kill().await.unwrap();
    assert_none(&host_processes("sleep 87654"));
    bench.close().await;
}

#[tokio::test]
async fn destroying_a_sandbox_leaves_nothing_behind() {
    let bench = Bench::new().await;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let sandbox = bench.sandbox("gone").await;
    sandbox.exec(Command::shell("setsid sleep 765432 & sleep 765433").cwd("/")).await.unwrap();
    while host_processes("sleep 76543").len() < 2 {
        tokio::task::yield_now().await;
    }
    bench.local.destroy(&id("gone")).await.unwrap();
    assert_eq!(sandbox.closed().await, "it was destroyed");
    assert!(sandbox.exec(Command::new(["true"])).await.is_err());
    assert_none(&host_processes("sleep 76543"));
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    assert!(!bench.data().join("sandboxes/gone").exists());
    assert_none(&cgroups_named("-gone"));
    assert!(bench.local.list().await.unwrap().is_empty());
    bench.local.destroy(&id("gone")).await.unwrap();
    bench.close().await;
}

fn cgroups_named(end: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                if path.to_string_lossy().ends_with(end) {
                    found.push(path.display().to_string());
                }
                open.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn a_suspended_sandbox_comes_back_with_its_files() {
    let bench = Bench::new().await;
    let workspace = bench.folder.path().join("checkout");
    std::fs::create_dir(&workspace).unwrap();
    std::fs::write(workspace.join("lower"), "host\n").unwrap();
    let spec = Spec { workspace: Some(workspace), ..spec("files") };
    let sandbox = bench.create(spec.clone()).await;
    ok(&sandbox, "echo mine > /workspace/mine; echo more >> /workspace/lower; echo x > /etc/made; echo y > /root/made")
        .await;
    bench.local.suspend(&id("files")).await.unwrap();
    assert_eq!(sandbox.closed().await, "it was suspended");
    assert!(!bench.local.list().await.unwrap()[0].running);
    let again = bench.create(spec).await;
    assert_eq!(ok(&again, "cat /workspace/mine /workspace/lower /etc/made /root/made").await, "mine\nhost\nmore\nx\ny");
    bench.close().await;
}

#[tokio::test]
async fn files_of_the_workspace_belong_to_root_inside_and_can_change_hands() {
    let bench = Bench::new().await;
    let workspace = bench.folder.path().join("checkout");
    std::fs::create_dir(&workspace).unwrap();
    std::fs::write(workspace.join("file"), "x").unwrap();
    let sandbox = bench.create(Spec { workspace: Some(workspace), ..spec("chown") }).await;
    assert_eq!(
        ok(&sandbox, "stat -c %u:%g /workspace /workspace/file /etc/passwd /usr /root").await,
        ["0:0"; 5].join("\n")
    );
    // As the scripts of packages do.
    ok(&sandbox, "useradd -r tester && chown tester /workspace/file && install -d -o tester /var/lib/tester").await;
    assert_eq!(ok(&sandbox, "stat -c %U /workspace/file /var/lib/tester").await, "tester\ntester");
    assert_eq!(ok(&sandbox, "setpriv --reuid tester --clear-groups id -un").await, "tester");
    bench.close().await;
}

#[tokio::test]
async fn a_package_is_built_and_installed_inside() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("dpkg").await;
    let make = "mkdir -p /tmp/p/DEBIAN /tmp/p/usr/share/hobbit && echo there > /tmp/p/usr/share/hobbit/back && \
        printf 'Package: hobbit\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n' \
        > /tmp/p/DEBIAN/control && dpkg-deb -b /tmp/p /tmp/p.deb && dpkg -i /tmp/p.deb";
    ok(&sandbox, make).await;
    assert_eq!(ok(&sandbox, "cat /usr/share/hobbit/back; dpkg-query -W hobbit").await, "there\nhobbit\t1");
    assert!(!Path::new("/usr/share/hobbit").exists());
    bench.close().await;
}

#[tokio::test]
async fn the_hosts_toolchains_work_inside() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("tools").await;
    for tool in
        ["cargo --version", "rustc --version", "node --version", "npm --version", "python3 --version", "git --version"]
    {
        let host = std::process::Command::new("sh").args(["-c", tool]).current_dir("/").output().unwrap();
        if host.status.success() {
            assert_eq!(ok(&sandbox, tool).await, String::from_utf8_lossy(&host.stdout).trim(), "{tool}");
        }
    }
    let line = "cargo init -q --vcs none --name x /workspace/x && cd /workspace/x && cargo run -q --offline";
    assert_eq!(ok(&sandbox, line).await, "Hello, world!");
    bench.close().await;
}

#[tokio::test]
async fn fifty_sandboxes_live_at_once() {
    let bench = Bench::new().await;
    bench.local.warm().await.unwrap();
    let tasks = tokio_util::task::TaskTracker::new();
    let running: Vec<_> = (0..50)
        .map(|number| {
            let local = bench.local.clone();
            tasks.spawn(async move {
                let sandbox = local
                    .create(spec(&format!("many-{number}")))
                    .await
                    .unwrap_or_else(|error| panic!("failed to {error}"));
                assert_eq!(ok(&sandbox, "hostname").await, format!("many-{number}"));
            })
        })
        .collect();
    for one in running {
        one.await.unwrap();
    }
    let listed = bench.local.list().await.unwrap();
    assert_eq!(listed.iter().filter(|listed| listed.running).count(), 50);
    bench.close().await;
}

#[tokio::test]
async fn an_unpacked_system_is_a_base_as_well() {
    let bench = Bench::new().await;
    let root = bench.folder.path().join("rootfs");
    for folder in ["bin", "proc", "dev", "tmp", "workspace"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    // The smallest system there is: one static shell.
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let Some(busybox) = busybox else { return copy_shell_system(&bench, &root).await };
    std::fs::copy(busybox, root.join("bin/sh")).unwrap();
    check_directory_base(&bench, &root).await;
    bench.close().await;
}

/// Without busybox: a shell and the libraries that it names.
async fn copy_shell_system(bench: &Bench, root: &Path) {
    let listed = std::process::Command::new("ldd").arg("/bin/sh").output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/bin/sh"]) {
        let target = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(file, target).unwrap();
    }
    check_directory_base(bench, root).await;
    bench.local.shutdown().await.unwrap();
}

async fn check_directory_base(bench: &Bench, root: &Path) {
    let base = Base::Directory(root.to_owned());
    let sandbox = bench.create(Spec { base, ..spec("rootfs") }).await;
    let line = "echo x > /made && cd / && echo *; [ ! -e /usr/bin/gcc ] && echo alone";
    let mut process = sandbox.exec(Command::new(["/bin/sh", "-c", line]).cwd("/")).await.unwrap();
    let output = process.wait_output(1000).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("made") && said.contains("alone"), "{output:?}");
    assert!(!root.join("made").exists());
}

#[tokio::test]
async fn a_sandbox_that_dies_is_told_of() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("dies").await;
    let mut process = sandbox.exec(Command::shell("sleep 600").cwd("/")).await.unwrap();
    // The helper dies, and nothing that it started may live on.
    drop(bench.local.shutdown().await);
    let reason = tokio::time::timeout(LIMIT, sandbox.closed()).await.unwrap();
    assert!(reason.contains("helper"), "{reason}");
    assert_eq!(process.next().await, Some(ProcessEvent::Lost));
    let again = bench.sandbox("dies").await;
    assert_eq!(ok(&again, "echo back").await, "back");
    bench.close().await;
}

#[tokio::test]
async fn what_a_killed_helper_leaves_is_removed_with_its_sandbox() {
    let bench = Bench::new().await;
    // A name of its own: another run that was cut short may have left one.
    let name = format!("orphan-{}", std::process::id());
    let sandbox = bench.sandbox(&name).await;
    bench.kill_helper();
    tokio::time::timeout(LIMIT, sandbox.closed()).await.unwrap();
    bench.local.destroy(&id(&name)).await.unwrap();
    assert_none(&cgroups_named(&format!("-{name}")));
    bench.close().await;
}

#[tokio::test]
async fn a_sweep_removes_the_limits_of_what_a_killed_helper_ran_and_touches_nothing_that_runs() {
    let bench = Bench::new().await;
    let (dead, alive) = (format!("dead-{}", std::process::id()), format!("alive-{}", std::process::id()));
    let sandbox = bench.sandbox(&dead).await;
    assert_eq!(run(&sandbox, "echo kept > /root/file").await.code, 0);
    bench.kill_helper();
    tokio::time::timeout(LIMIT, sandbox.closed()).await.unwrap();
    let running = bench.sandbox(&alive).await;
    bench.local.sweep().await.unwrap();
    assert_none(&cgroups_named(&format!("-{dead}")));
    assert_eq!(ok(&running, "echo well").await, "well");
    assert!(running.stats().await.unwrap().memory_bytes.is_some(), "its limits hold");
    let again = bench.sandbox(&dead).await;
    assert_eq!(ok(&again, "cat /root/file").await, "kept");
    bench.close().await;
}

/// The server's part of the test below: this program, started again.
#[tokio::test]
async fn as_the_server_of_another_test() {
    let Some(data) = std::env::var_os("HOB_TEST_DATA") else { return };
    let local = Local::open(LocalConfig::new(data)).await.unwrap();
    let sandbox = local.create(spec("survivor")).await.unwrap_or_else(|error| panic!("failed to {error}"));
    let line = "read line; echo heard $line; echo early >&2; sleep 3; read line; echo heard $line; sleep 654321";
    let mut process = sandbox.exec(Command::shell(line).cwd("/").with_stdin()).await.unwrap();
    process.write_stdin(b"one\n").await.unwrap();
    assert_eq!(process.next().await, Some(ProcessEvent::Stdout("heard one\n".into())));
    println!("\nprocess {}", process.id().0);
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_sandbox_outlives_its_server_and_answers_the_next() {
    let bench = Bench::new().await;
    let mut server = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_the_server_of_another_test", "--nocapture"])
        .env("HOB_TEST_DATA", bench.data())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let process = lines.find_map(|line| line.unwrap().strip_prefix("process ").map(|id| id.parse().unwrap())).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();

    let sandbox =
        bench.local.attach(&id("survivor"), 2, Token("second".to_owned())).await.unwrap().expect("it runs on");
    let known = sandbox.processes().await.unwrap();
    assert_eq!(known.len(), 1, "{known:?}");
    let mut process = sandbox.reattach(hob_sandbox::ProcessId(process), (0, 0)).await.unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    process.write_stdin(b"two\n").await.unwrap();
    while !stdout.ends_with(b"heard two\n") {
        match tokio::time::timeout(LIMIT, process.next()).await.unwrap() {
            Some(ProcessEvent::Stdout(bytes)) => stdout.extend_from_slice(&bytes),
            Some(ProcessEvent::Stderr(bytes)) => stderr.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((stdout.as_slice(), stderr.as_slice()), (b"heard one\nheard two\n".as_slice(), b"early\n".as_slice()));
    process.kill().await.unwrap();
    assert_none(&host_processes("sleep 654321"));
    assert_eq!(bench.local.attach(&id("nobody"), 1, Token("x".to_owned())).await.unwrap().map(|_| ()), None);
    bench.close().await;
}

#[tokio::test]
async fn what_a_command_leaves_behind_runs_on_and_does_not_hold_its_end() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("background").await;
    let ran = run(&sandbox, "sleep 543210 & echo started").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "started\n"));
    while host_processes("sleep 543210").is_empty() {
        tokio::task::yield_now().await;
    }
    let left = sandbox.processes().await.unwrap();
    assert_eq!(left.len(), 1);
    sandbox.kill_all().await.unwrap();
    assert_none(&host_processes("sleep 543210"));
    bench.close().await;
}

//! Commands, terminals, files and ports: what rides on the guest's connection, whoever made the sandbox.

use hob_sandbox::{Command, Mount, ProcessEvent, Size, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{fails, ok, run};
use crate::house::{House, host_processes, until};

pub async fn a_command_runs_as_root_and_ends_as_it_says(house: &mut House) {
    let sandbox = house.sandbox("basic").await;
    assert_eq!(ok(&sandbox, "id -u; cat /proc/sys/kernel/hostname; pwd").await, "0\nbasic\n/");
    let ran = run(&sandbox, "echo out; echo err >&2; exit 3").await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (3, "out\n", "err\n"));
    assert!(sandbox.exec(Command::new(["no-such-program"])).await.is_err());
    let mut talk = sandbox.exec(Command::shell("read line; echo heard $line").with_stdin()).await.unwrap();
    talk.write_stdin(b"one\n").await.unwrap();
    assert_eq!(talk.next().await, Some(ProcessEvent::Stdout("heard one\n".into())));
}

pub async fn a_kill_reaches_what_left_its_group_and_its_parent(house: &mut House) {
    let sandbox = house.sandbox("tree").await;
    let nap = house.nap();
    let line = format!("setsid sleep {nap}1 & (setsid sh -c 'sleep {nap}2 & exec sleep {nap}3' &); wait");
    let process = sandbox.exec(Command::shell(line).cwd("/")).await.unwrap();
    let napping =
        || host_processes(&format!("sleep {nap}")).into_iter().filter(|line| line.starts_with("sleep")).count();
    until("three commands", || napping() == 3).await;
    process.kill().await.unwrap();
    assert_eq!(napping(), 0);
    assert_eq!(ok(&sandbox, "echo fine").await, "fine");
}

pub async fn a_terminal_has_a_size_an_echo_and_an_end(house: &mut House) {
    let sandbox = house.sandbox("terminal").await;
    let command = Command::new(["/bin/sh"]).cwd("/").env("PS1", "> ").pty(Size { columns: 91, rows: 17 });
    let mut terminal = sandbox.exec(command).await.unwrap();
    terminal.stdin().write(b"stty size; tty; exit 4\n").await.unwrap();
    let output = terminal.wait_output(10_000).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("17 91") && said.contains("/dev/pts/"), "{said}");
    assert_eq!(output.exit.unwrap().code, 4);
}

pub async fn files_are_written_whole_read_in_parts_listed_and_removed(house: &mut House) {
    let sandbox = house.sandbox("files").await;
    let big = bytes::Bytes::from((0..3_000_000_u32).map(|at| at as u8).collect::<Vec<_>>());
    sandbox.write_file("deep/er/big", big.clone()).await.unwrap();
    assert_eq!(sandbox.read_file("/workspace/deep/er/big", 0..u64::MAX).await.unwrap(), big);
    let names: Vec<_> = sandbox.list_dir("deep/er").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["big"]);
    assert_eq!(sandbox.stat("deep/er/big").await.unwrap().unwrap().size_bytes, 3_000_000);
    assert!(sandbox.remove("deep").await.unwrap() && !sandbox.remove("deep").await.unwrap());
}

pub async fn a_port_inside_is_dialled(house: &mut House) {
    let sandbox = house.sandbox("ports").await;
    assert!(sandbox.dial(8080).await.is_err());
    let serve = "use Socket; socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(8080, INADDR_LOOPBACK)) or die; \
                 listen(S, 1); $| = 1; print qq(up\\n); accept(C, S); sysread(C, $x, 99); syswrite(C, uc $x)";
    let mut server = sandbox.exec(Command::new(["perl", "-e", serve]).cwd("/").env("LC_ALL", "C")).await.unwrap();
    assert_eq!(server.next().await, Some(ProcessEvent::Stdout("up\n".into())));
    let mut stream = sandbox.dial(8080).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "HELLO");
}

pub async fn the_workspace_is_a_copy_and_what_is_mounted_is_read_only(house: &mut House) {
    let workspace = house.host_folder("checkout", &[("lower", "host\n"), ("deep/er/file", "deep\n")]);
    std::os::unix::fs::symlink("deep/er", workspace.join("link")).unwrap();
    let tool = house.host_folder("tool", &[("run", "tool\n")]);
    let mount = Mount { source: tool.clone(), target: "/opt/tool".into() };
    let env = [("GREETING".to_owned(), "hello there".to_owned())].into();
    let spec = Spec { workspace: Some(workspace.clone()), mounts: vec![mount], env, ..house.spec("folders") };
    let sandbox = house.create(spec).await;
    let seen = "echo $GREETING; cat /workspace/lower /workspace/link/file /opt/tool/run; stat -c %u:%g /workspace /workspace/lower";
    assert_eq!(ok(&sandbox, seen).await, "hello there\nhost\ndeep\ntool\n0:0\n0:0");
    ok(&sandbox, "echo mine >> /workspace/lower; rm -r /workspace/deep; chown 12:34 /workspace/lower").await;
    fails(&sandbox, "echo x > /opt/tool/made").await;
    assert_eq!(std::fs::read_to_string(workspace.join("lower")).unwrap(), "host\n");
    assert!(workspace.join("deep/er/file").exists() && !tool.join("made").exists());
}

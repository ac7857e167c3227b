//! What an owner does with a sandbox: commands, files, ports.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod common;

use common::{Bench, fails, ok, run};
use hob_sandbox::{Command, Size};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_command_runs_as_root_in_a_system_of_its_own() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("basic").await;
    assert_eq!(ok(&sandbox, "id -u; hostname; pwd").await, "0\nbasic\n/");
    let ran = run(&sandbox, "echo out; echo err >&2; exit 3").await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (3, "out\n", "err\n"));
    fails(&sandbox, "no-such-program").await;
    bench.close().await;
}

#[tokio::test]
async fn files_are_written_whole_read_in_parts_listed_and_removed() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("files").await;
    let big = bytes::Bytes::from((0..3_000_000_u32).map(|at| at as u8).collect::<Vec<_>>());
    sandbox.write_file("deep/er/big", big.clone()).await.unwrap();
    assert_eq!(sandbox.read_file("/workspace/deep/er/big", 0..u64::MAX).await.unwrap(), big);
    assert_eq!(sandbox.read_file("deep/er/big", 1_000_000..1_000_010).await.unwrap(), big.slice(1_000_000..1_000_010));
    let names: Vec<_> = sandbox.list_dir("deep/er").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["big"], "no unfinished file is left");
    assert_eq!(sandbox.stat("deep/er/big").await.unwrap().unwrap().size_bytes, 3_000_000);
    assert!(sandbox.remove("deep").await.unwrap() && !sandbox.remove("deep").await.unwrap());
    assert_eq!(sandbox.stat("deep").await.unwrap(), None);
    bench.close().await;
}

#[tokio::test]
async fn a_terminal_has_a_size_an_echo_and_an_end() {
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("terminal").await;
    let command = Command::new(["/bin/sh"]).cwd("/").env("PS1", "> ").pty(Size { columns: 91, rows: 17 });
    let mut terminal = sandbox.exec(command).await.unwrap();
    let stdin = terminal.stdin();
    stdin.write(b"stty size; tty\n").await.unwrap();
    stdin.write(b"exit 4\n").await.unwrap();
    let output = terminal.wait_output(10_000).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("17 91") && said.contains("/dev/pts/"), "{said}");
    assert_eq!(output.exit.unwrap().code, 4);
    bench.close().await;
}

#[tokio::test]
async fn a_port_inside_is_dialled_and_the_gateway_is_reached() {
    let bench = Bench::new().await;
    let gateway = bench.folder.path().join("gateway.sock");
    let listener = tokio::net::UnixListener::bind(&gateway).unwrap();
    let sandbox = bench.create(hob_sandbox::Spec { gateway: Some(gateway), ..common::spec("ports") }).await;
    assert_eq!(ok(&sandbox, "echo $HTTPS_PROXY").await, "http://127.0.0.1:3128");
    let asking = run(&sandbox, "exec 3<>/dev/tcp/127.0.0.1/3128; echo ask >&3; read answer <&3; echo $answer");
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).await.unwrap();
        stream.write_all(b"answer\n").await.unwrap();
        asked
    };
    let (ran, asked) = tokio::join!(asking, answering);
    assert_eq!((ran.out.as_str(), &asked), ("answer\n", b"ask\n"));

    assert!(sandbox.dial(8080).await.is_err());
    let serve = "import socket; s = socket.create_server(('127.0.0.1', 8080)); print('up', flush=True); \
                 c, _ = s.accept(); c.sendall(c.recv(100).upper()); c.close()";
    let mut server = sandbox.exec(Command::new(["python3", "-c", serve]).cwd("/")).await.unwrap();
    assert!(server.next().await.is_some());
    let mut stream = sandbox.dial(8080).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "HELLO");
    bench.close().await;
}

#[tokio::test]
async fn the_probe_names_all_that_sandboxes_need_and_says_how_to_mend_it() {
    let folder = tempfile::tempdir().unwrap();
    let findings = hob_sandbox::Local::probe(folder.path()).await;
    let names: Vec<&str> = findings.iter().map(|finding| finding.name.as_str()).collect();
    let expected = [
        "bubblewrap",
        "user namespaces",
        "user ID ranges",
        "limit on cpu",
        "limit on memory",
        "limit on processes",
        "limit on disk",
        "inotify instances",
        "process numbers",
        "free disk",
    ];
    assert_eq!(names, expected);
    for finding in &findings {
        assert!(!finding.detail.is_empty(), "{finding:?}");
        assert_eq!(finding.fix.is_empty(), finding.grade == hob_sandbox::Grade::Ok, "{finding:?}");
        // The other tests of this crate make sandboxes here.
        assert_ne!(finding.grade, hob_sandbox::Grade::Fail, "{finding:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a probe leaves nothing behind");
}

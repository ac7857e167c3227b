//! How sandboxes begin, change their owner, rest and end.

use std::collections::BTreeMap;

use hob_guest::frame;
use hob_guest::protocol::{FOLDER, HOST_SOCKET, Hello, Identity, PROTOCOL, Purpose};
use hob_sandbox::{Command, ProcessEvent, ProcessId, Sandbox, Spec, Token};

use crate::common::{LIMIT, id, ok};
use crate::house::{House, host_processes, until};

pub async fn making_a_sandbox_twice_gives_the_same_one(house: &mut House) {
    let (one, two) = tokio::join!(house.sandbox("twice"), house.sandbox("twice"));
    let process = one.exec(Command::shell("exec sleep 600").cwd("/")).await.unwrap();
    let again = house.sandbox("twice").await;
    for sandbox in [&two, &again] {
        assert_eq!(sandbox.processes().await.unwrap()[0].id, process.id());
    }
    assert_eq!(house.provider().list().await.unwrap().len(), 1);
}

/// Says hello from inside, as a guest that has kept its token would, and returns how many bytes came back.
async fn answered(sandbox: &Sandbox, token: &str, epoch: u64) -> String {
    let identity = Identity { sandbox: sandbox.id().to_string(), epoch, token: token.to_owned() };
    let mut hello = Vec::new();
    frame::encode(&Hello { protocol: PROTOCOL, identity, purpose: Purpose::Control }, &[], &mut hello).unwrap();
    sandbox.write_file("/tmp/hello", hello.into()).await.unwrap();
    let line = format!(
        "exec perl -e 'use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un(\"{FOLDER}/{HOST_SOCKET}\")) \
         or die $!; open F, \"/tmp/hello\"; local $/; syswrite(S, <F>); $n = sysread(S, $x, 4); print 0 + $n'"
    );
    ok(sandbox, &line).await
}

pub async fn a_token_of_an_older_epoch_is_refused(house: &mut House) {
    let first = Token("token of epoch 1".to_owned());
    house.create(Spec { token: first.clone(), ..house.spec("epochs") }).await;
    let second = Token("token of epoch 2".to_owned());
    let sandbox = house.create(Spec { epoch: 2, token: second, ..house.spec("epochs") }).await;
    for (token, epoch) in [(first.0.as_str(), 1), (first.0.as_str(), 2), ("token of epoch 2", 1), ("", 2)] {
        assert_eq!(answered(&sandbox, token, epoch).await, "0", "{token} of {epoch}");
    }
    assert_eq!(ok(&sandbox, "echo still here").await, "still here");
}

pub async fn a_sandbox_outlives_its_owner_and_answers_the_next(house: &mut House) {
    let sandbox = house.sandbox("survivor").await;
    let line = "read line; echo heard $line; read line; echo heard $line; exec sleep 600";
    let mut process = sandbox.exec(Command::shell(line).cwd("/").with_stdin()).await.unwrap();
    process.write_stdin(b"one\n").await.unwrap();
    assert_eq!(process.next().await, Some(ProcessEvent::Stdout("heard one\n".into())));
    let process: ProcessId = process.id();
    house.open_again().await;

    let sandbox = house.attach("survivor", 2).await.expect("it runs on");
    assert_eq!(sandbox.processes().await.unwrap().len(), 1);
    let mut process = sandbox.reattach(process, (0, 0)).await.unwrap();
    process.write_stdin(b"two\n").await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"heard two\n") {
        match tokio::time::timeout(LIMIT, process.next()).await.unwrap() {
            Some(ProcessEvent::Stdout(bytes)) => said.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    assert!(house.attach("nobody", 1).await.is_none());
}

/// Starts two commands, one of which leaves its session, and returns a word of their arguments.
async fn start_naps(house: &House, sandbox: &Sandbox) -> String {
    let nap = format!("sleep {}", house.nap());
    sandbox.exec(Command::shell(format!("setsid {nap}1 & {nap}2")).cwd("/")).await.unwrap();
    until("both commands", || host_processes(&nap).len() >= 2).await;
    nap
}

pub async fn a_suspended_sandbox_comes_back_with_its_files(house: &mut House) {
    let workspace = house.host_folder("checkout", &[("lower", "host\n")]);
    let spec = Spec { workspace: Some(workspace), ..house.spec("rests") };
    let sandbox = house.create(spec.clone()).await;
    ok(&sandbox, "echo mine > /workspace/mine; echo more >> /workspace/lower; echo x > /etc/made").await;
    let nap = start_naps(house, &sandbox).await;
    house.provider().suspend(&id("rests")).await.unwrap();
    assert_eq!(sandbox.closed().await, "it was suspended");
    assert!(!house.provider().list().await.unwrap()[0].running && host_processes(&nap).is_empty());
    assert!(house.attach("rests", 2).await.is_none(), "what does not run is not attached to");
    // Its next owner wants other limits and another environment than the last.
    let limits = hob_sandbox::Limits { processes: 100, ..spec.limits };
    let env = BTreeMap::from([("NEXT".to_owned(), "time".to_owned())]);
    let again = house.create(Spec { epoch: 3, limits, env, ..spec }).await;
    assert_eq!(
        ok(&again, "cat /workspace/mine /workspace/lower /etc/made; echo $NEXT").await,
        "mine\nhost\nmore\nx\ntime"
    );
    house.provider().suspend(&id("nobody")).await.unwrap();
}

pub async fn a_sandbox_that_dies_is_told_of_and_made_again(house: &mut House) {
    let sandbox = house.sandbox("dies").await;
    ok(&sandbox, "echo kept > /workspace/kept").await;
    let mut process = sandbox.exec(Command::shell("exec sleep 600").cwd("/")).await.unwrap();
    house.kill(&id("dies"));
    let reason = tokio::time::timeout(LIMIT, sandbox.closed()).await.unwrap();
    assert!(!reason.is_empty());
    assert_eq!(process.next().await, Some(ProcessEvent::Lost));
    assert!(sandbox.exec(Command::new(["true"])).await.is_err());
    assert_eq!(ok(&house.sandbox("dies").await, "cat /workspace/kept").await, "kept");
}

pub async fn a_sandbox_that_is_destroyed_leaves_nothing(house: &mut House) {
    let sandbox = house.sandbox("gone").await;
    let nap = start_naps(house, &sandbox).await;
    house.provider().snapshot(&id("gone")).await.unwrap();
    house.sandbox("gone").await;
    house.provider().destroy(&id("gone")).await.unwrap();
    assert_eq!(host_processes(&nap), Vec::<String>::new());
    assert_eq!(house.left(&id("gone")), Vec::<String>::new());
    assert!(house.provider().list().await.unwrap().is_empty());
    house.provider().destroy(&id("gone")).await.unwrap();
    house.provider().sweep().await.unwrap();
}

pub async fn the_list_is_sorted_and_says_what_runs(house: &mut House) {
    for name in ["c", "a", "b"] {
        house.sandbox(name).await;
    }
    house.provider().suspend(&id("b")).await.unwrap();
    house.open_again().await;
    let listed = house.provider().list().await.unwrap();
    let listed: Vec<_> = listed.iter().map(|listed| (listed.id.as_str(), listed.running)).collect();
    assert_eq!(listed, [("a", true), ("b", false), ("c", true)]);
}

//! What a sandbox cannot do: use more than it may, reach anything but the gateway, ask the kernel for more.

use hob_sandbox::{Gate, Limit, Limits, Sandbox, SandboxEvent, Spec, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{LIMIT, fails, ok, run};
use crate::house::House;

/// Whether the provider says that a limit holds here.
fn held(house: &House, limit: Limit) -> bool {
    let unheld = house.provider().capabilities().unheld;
    assert!(unheld.iter().all(|(_, reason)| !reason.is_empty()), "{unheld:?}");
    unheld.iter().all(|(unheld, _)| *unheld != limit)
}

async fn limited(house: &House, name: &str, limits: Limits) -> Sandbox {
    house.create(Spec { limits, ..house.spec(name) }).await
}

/// The next event that is of interest.
async fn told(events: &mut tokio::sync::broadcast::Receiver<SandboxEvent>, of_interest: fn(&SandboxEvent) -> bool) {
    let told = async { while !of_interest(&events.recv().await.unwrap()) {} };
    tokio::time::timeout(LIMIT, told).await.expect("the owner hears of it");
}

pub async fn processor_time_is_limited(house: &mut House) {
    let sandbox = limited(house, "cpu", Limits { cpu_millicores: 200, ..Limits::default() }).await;
    let before = sandbox.usage().cpu_us;
    run(&sandbox, "timeout 1.5 sh -c 'while :; do :; done'").await;
    let (Some(before), Some(after)) = (before, sandbox.usage().cpu_us) else {
        return assert!(!held(house, Limit::Cpu));
    };
    assert!(!held(house, Limit::Cpu) || after - before < 900_000, "{} µs", after - before);
}

pub async fn memory_is_limited_and_its_end_is_told(house: &mut House) {
    let sandbox = limited(house, "memory", Limits { memory_bytes: 64 << 20, ..Limits::default() }).await;
    let mut events = sandbox.events();
    if !held(house, Limit::Memory) {
        return;
    }
    let ran = run(&sandbox, "head -c 300000000 /dev/zero | tail | wc -c").await;
    assert!(!ran.out.contains("300000000"), "{ran:?}");
    told(&mut events, |event| matches!(event, SandboxEvent::OutOfMemory { .. })).await;
    assert!(sandbox.usage().oom_kills > Some(0) && sandbox.usage().memory_bytes > Some(0));
    assert_eq!(ok(&sandbox, "echo lives").await, "lives");
}

pub async fn processes_are_limited_and_the_sandbox_can_still_be_stopped(house: &mut House) {
    let sandbox = limited(house, "processes", Limits { processes: 60, ..Limits::default() }).await;
    let mut events = sandbox.events();
    if !held(house, Limit::Processes) {
        return;
    }
    // Not by the shell, which tries again for a quarter of a minute.
    let bomb = "exec perl -e 'for (1..200) { $p = fork; defined $p or die qq(fork: $!); $p or exec qw(sleep 600) }'";
    assert!(fails(&sandbox, bomb).await.contains("fork: "));
    told(&mut events, |event| matches!(event, SandboxEvent::ProcessesFull { .. })).await;
    sandbox.kill_all().await.unwrap();
    assert_eq!(ok(&sandbox, "echo lives").await, "lives");
}

pub async fn disk_is_limited_and_its_end_is_told(house: &mut House) {
    let sandbox = limited(house, "disk", Limits { disk_bytes: 30 << 20, ..Limits::default() }).await;
    let mut events = sandbox.events();
    if !held(house, Limit::Disk) {
        return;
    }
    let fill = "n=0; while :; do n=$((n + 1)); head -c 5000000 /dev/zero > /workspace/$n || exit 1; sleep 0.05; done";
    let ran = run(&sandbox, fill).await;
    assert_ne!(ran.code, 0);
    told(&mut events, |event| matches!(event, SandboxEvent::DiskFull { .. })).await;
    ok(&sandbox, "rm /workspace/*").await;
    assert!(sandbox.stats().await.unwrap().disk_bytes.is_some());
}

pub async fn there_is_no_network_but_the_gateway(house: &mut House) {
    let sandbox = house.sandbox("alone").await;
    assert_eq!(ok(&sandbox, "cat /proc/net/dev | tail -n +3 | grep -v ' *lo:' | wc -l").await, "0");
    assert_eq!(ok(&sandbox, "tail -n +2 /proc/net/route | wc -l").await, "0");
    fails(&sandbox, "exec 3<>/dev/tcp/127.0.0.1/3128; echo ask >&3; read answer <&3 && echo $answer").await;

    let gateway = house.folder.path().join("gateway.sock");
    let listener = tokio::net::UnixListener::bind(&gateway).unwrap();
    let sandbox = house.create(Spec { gateway: Some(gateway), ..house.spec("gated") }).await;
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
}

/// Each a line that works for root on a machine, and must not work for root in a sandbox.
const REFUSED: &[&str] = &[
    "mount -t tmpfs none /mnt || mount -t tmpfs none /tmp",
    "unshare --user true",
    "unshare --mount true",
    // socket(AF_VSOCK): the way to a hypervisor.
    "perl -e 'socket(S, 40, 1, 0) or exit 1'",
    // keyctl(KEYCTL_GET_KEYRING_ID), add_key and io_uring_setup by their numbers on x86-64 and arm64.
    "perl -e 'exit(syscall($^O eq q(linux) && `cat /proc/cpuinfo` =~ /CPU implementer/ ? 219 : 250, 0, -3, 0) < 0 ? 1 : 0)'",
    "perl -e 'exit(syscall(425, 8, pack(q(x512))) < 0 ? 1 : 0)'",
    "echo 1 > /proc/sys/kernel/panic",
    "cat /dev/mem /dev/kmsg /dev/sda /dev/vda",
];

pub async fn the_kernel_refuses_what_only_its_owner_may(house: &mut House) {
    let sandbox = house.sandbox("refused").await;
    for line in REFUSED {
        fails(&sandbox, line).await;
    }
    let bits = ok(&sandbox, "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'").await;
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE, SYS_CHROOT.
    assert_eq!(bits, "CapEff:00000000000404fb\nCapBnd:00000000000404fb\nNoNewPrivs:1\nSeccomp:2");
}

/// A provider without gates says so, and makes no sandbox that it was asked to close.
pub async fn a_closed_workspace_is_held_until_it_is_opened(house: &mut House) {
    let created = house.provider().create_closed(house.spec("closed")).await;
    if !house.provider().capabilities().gates {
        created.unwrap_err();
        return assert_eq!(house.sandbox("open").await.gate(), Gate::Open);
    }
    let sandbox = created.unwrap();
    assert_eq!(sandbox.gate(), Gate::Closed);
    fails(&sandbox, "echo x > /workspace/file").await;
    let writer = house.provider().writer(sandbox.id(), Token("writer".to_owned())).await;
    ok(&writer.unwrap(), "echo synced > /workspace/file").await;
    house.provider().open_gate(sandbox.id()).await.unwrap();
    assert_eq!(ok(&sandbox, "cat /workspace/file; echo x > /workspace/file").await, "synced");
    assert_eq!(sandbox.gate(), Gate::Open);
}

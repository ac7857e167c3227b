//! What an owner does with a sandbox: commands, files, ports.

mod common;

use common::{Bench, fails, ok, run};

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

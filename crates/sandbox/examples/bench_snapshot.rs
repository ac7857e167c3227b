//! Measures snapshots of what an hour's work leaves behind, as JSON lines: 2,000 small files, 300 changed ones and one of
//! 20 MB, about 33 MB in all.
//!
//! `snapshot.live` is a live snapshot, from the request to the frozen copy on disk, and `snapshot.pause` how long the
//! sandbox stood still for it, in whole milliseconds. `snapshot.taken` is from the request to the frozen layer on disk, the end of every process included. `snapshot.back`
//! is from the request for the sandbox to the first byte of a shell in it; `snapshot.fork` the same for another sandbox
//! that goes on from the same snapshot. Both stand against `sandbox.again`, a sandbox that is made anew and empty, in the
//! same rounds. Needs root. Usage: `bench_snapshot [ROUNDS]`.

#![expect(clippy::print_stdout, reason = "figures are this program's output")]

mod figures;

use std::time::{Duration, Instant};

use figures::{Failure, percentile, print, shell, spec};
use hob_sandbox::{Command, Local, LocalConfig, Provider, SandboxId, Spec};

/// Leaves 33 MB in 2,301 files.
const WORK: &str = "mkdir -p /workspace/new /workspace/old && cd /workspace && head -c 20000000 /dev/urandom > big && \
                    for n in $(seq 2000); do head -c 6000 /dev/zero > new/$n; done && \
                    for n in $(seq 300); do head -c 3000 /dev/urandom > old/$n; done";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let rounds = std::env::args().nth(1).map_or(Ok(15), |rounds| rounds.parse())?;
    let folder = tempfile::tempdir()?;
    let local = Local::open(LocalConfig::new(folder.path().join("data"))).await?;
    local.warm().await?;
    let (mut taken, mut back, mut fork, mut again) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut live, mut pause) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let name = format!("work-{round}");
        let id = SandboxId::new(name.clone())?;
        let sandbox = local.create(spec(&name)?).await?;
        let output = sandbox.exec(Command::shell(WORK).cwd("/")).await?.wait_output(1_000).await;
        output.exit.filter(|exit| exit.code == 0).ok_or("do the work")?;
        let begun = Instant::now();
        let paused_ms = local.snapshot_live(&id).await?.paused_ms.ok_or("freeze something new")?;
        live.push(begun.elapsed());
        pause.push(Duration::from_millis(paused_ms));
        // It has written everything out, which the next figure is to count.
        let output = sandbox.exec(Command::shell(WORK).cwd("/")).await?.wait_output(1_000).await;
        output.exit.filter(|exit| exit.code == 0).ok_or("do the work again")?;

        let begun = Instant::now();
        let snapshot = local.snapshot(&id).await?;
        taken.push(begun.elapsed());

        let begun = Instant::now();
        shell(&local.create(spec(&name)?).await?).await?;
        back.push(begun.elapsed());
        let begun = Instant::now();
        let other = local.create(Spec { layers: snapshot.layers, ..spec(&format!("fork-{round}"))? }).await?;
        shell(&other).await?;
        fork.push(begun.elapsed());
        let begun = Instant::now();
        let empty = local.create(spec(&format!("empty-{round}"))?).await?;
        shell(&empty).await?;
        again.push(begun.elapsed());
        for id in [&id, other.id(), empty.id()] {
            local.destroy(id).await?;
        }
    }
    local.shutdown().await?;
    let again_p50 = percentile(&mut again, 50);
    print("sandbox.again", &mut again, "sandbox.again", again_p50);
    print("snapshot.live", &mut live, "sandbox.again", again_p50);
    print("snapshot.pause", &mut pause, "sandbox.again", again_p50);
    print("snapshot.taken", &mut taken, "sandbox.again", again_p50);
    print("snapshot.back", &mut back, "sandbox.again", again_p50);
    print("snapshot.fork", &mut fork, "sandbox.again", again_p50);
    Ok(())
}

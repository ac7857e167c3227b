//! Measures what the gate of a workspace costs, as JSON lines: `gate.closed` is from the request for a sandbox with a
//! closed gate to the first byte of a shell in it, against `gate.none`, the same without a gate. `gate.writer` is from the
//! request for a writer to the first byte of a shell in it; `gate.open` is from the request to open, the end of the writer
//! included, until it is open. Rounds are interleaved. Needs root. Usage: `bench_gate [ROUNDS]`.

#![expect(clippy::print_stdout, reason = "figures are this program's output")]

mod figures;

use std::time::Instant;

use figures::{Failure, percentile, print, shell, spec};
use hob_sandbox::{Local, LocalConfig, Provider, Token};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let rounds = std::env::args().nth(1).map_or(Ok(40), |rounds| rounds.parse())?;
    let folder = tempfile::tempdir()?;
    let local = Local::open(LocalConfig::new(folder.path().join("data"))).await?;
    local.warm().await?;
    let (mut none, mut closed, mut writer, mut open) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let begun = Instant::now();
        let without = local.create(spec(&format!("none-{round}"))?).await?;
        shell(&without).await?;
        none.push(begun.elapsed());
        let begun = Instant::now();
        let sandbox = local.create_closed(spec(&format!("closed-{round}"))?).await?;
        shell(&sandbox).await?;
        closed.push(begun.elapsed());
        let begun = Instant::now();
        shell(&local.writer(sandbox.id(), Token("writer".to_owned())).await?).await?;
        writer.push(begun.elapsed());
        let begun = Instant::now();
        local.open_gate(sandbox.id()).await?;
        open.push(begun.elapsed());
        for id in [without.id(), sandbox.id()] {
            local.destroy(id).await?;
        }
    }
    local.shutdown().await?;
    let none_p50 = percentile(&mut none, 50);
    print("gate.none", &mut none, "gate.none", none_p50);
    print("gate.closed", &mut closed, "gate.none", none_p50);
    print("gate.writer", &mut writer, "gate.none", none_p50);
    print("gate.open", &mut open, "gate.none", none_p50);
    Ok(())
}

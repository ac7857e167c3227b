//! What the benchmarks of sandboxes share: what they measure, and how a figure is printed.

use std::time::Duration;

use hob_sandbox::{Base, Command, Limits, ProcessEvent, Sandbox, SandboxId, Spec, Token};

pub(crate) type Failure = Box<dyn std::error::Error>;

/// A sandbox of this machine's own system.
pub(crate) fn spec(name: &str) -> Result<Spec, Failure> {
    Ok(Spec {
        id: SandboxId::new(name)?,
        epoch: 1,
        token: Token("bench".to_owned()),
        base: Base::Host,
        layers: Vec::new(),
        workspace: None,
        mounts: Vec::new(),
        env: [].into(),
        limits: Limits::default(),
        gateway: None,
    })
}

/// Waits for the first byte of a shell.
pub(crate) async fn shell(sandbox: &Sandbox) -> Result<(), Failure> {
    let mut process = sandbox.exec(Command::new(["/bin/sh", "-c", "echo"]).cwd("/")).await?;
    match process.next().await {
        Some(ProcessEvent::Stdout(_)) => Ok(()),
        other => Err(format!("hear of a shell: {other:?}").into()),
    }
}

pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Prints a figure as a line of JSON, against the median of another one.
pub(crate) fn print(name: &str, times: &mut [Duration], against: &str, base: Duration) {
    let (p50, p95) = (percentile(times, 50), percentile(times, 95));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let ratio = p50.as_secs_f64() / base.as_secs_f64().max(f64::EPSILON);
    println!(
        "{{\"name\":\"{name}\",\"unit\":\"ms\",\"min\":{:.3},\"p50\":{:.3},\"p95\":{:.3},\"n\":{},\"against\":\"{against}\",\"ratio\":{ratio:.2}}}",
        ms(times.first().copied().unwrap_or_default()),
        ms(p50),
        ms(p95),
        times.len()
    );
}

//! Whether the machine has memory left for warm sandboxes.

use std::path::Path;

/// How much of the reserve above it is left free, so that the pool does not go back and forth: half.
const MARGIN: u64 = 2;

/// How the machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pressure {
    /// There is room for more.
    None,
    /// What is there may stay.
    Near,
    /// What is there goes.
    High,
}

/// Reads how the machine stands. Where it does not say what it has, nothing presses.
pub(super) async fn pressure(meminfo: &Path, reserve_bytes: u64) -> Pressure {
    match tokio::fs::read_to_string(meminfo).await.ok().as_deref().and_then(available) {
        Some(bytes) if bytes < reserve_bytes => Pressure::High,
        Some(bytes) if bytes < reserve_bytes.saturating_add(reserve_bytes / MARGIN) => Pressure::Near,
        _ => Pressure::None,
    }
}

/// `MemAvailable` of `/proc/meminfo` (proc(5)), in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.strip_suffix("kB"))?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pool_is_drained_before_the_machine_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meminfo");
        for (kib, expect) in [(99, Pressure::High), (100, Pressure::Near), (149, Pressure::Near), (150, Pressure::None)]
        {
            std::fs::write(&path, format!("MemTotal:  999 kB\nMemAvailable:   {kib} kB\n")).unwrap();
            assert_eq!(pressure(&path, 100 << 10).await, expect, "{kib} KiB");
        }
        assert_eq!(pressure(&folder.path().join("none"), 100).await, Pressure::None);
    }
}

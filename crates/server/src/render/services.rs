//! How a service of the sandbox fares.

use hob_session::event::ServiceStatus;

use super::style::{Style, clean, duration, first_line};

/// Of what a service wrote last, lines that are shown.
const LINES: usize = 6;

/// A line for a service; empty where it only begins.
pub(super) fn line(
    style: Style,
    name: &str,
    status: ServiceStatus,
    elapsed_ms: Option<u64>,
    detail: Option<&str>,
) -> String {
    let name = clean(name);
    let detail = detail.map(|detail| format!(": {}", first_line(detail))).unwrap_or_default();
    match status {
        ServiceStatus::Starting => String::new(),
        ServiceStatus::Ready => {
            let took = elapsed_ms.map(|ms| format!(" {}", duration(ms))).unwrap_or_default();
            style.dim(&format!("· service {name} is ready{took}")) + "\n"
        }
        ServiceStatus::Ended => format!("{} service {name}{detail}\n", style.yellow("!")),
        ServiceStatus::Failed => format!("{} service {name} has failed{detail}\n", style.red("✗")),
    }
}

/// What it wrote last.
pub(super) fn last_lines(style: Style, log: &str) -> String {
    let log = clean(log);
    let lines: Vec<&str> = log.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LINES)..];
    shown.iter().map(|line| style.dim(&format!("    {}", first_line(line))) + "\n").collect()
}

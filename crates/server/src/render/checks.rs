//! A check's result and what it found.

use hob_session::checks::{Diagnostic, Severity};
use hob_session::event::CheckRun;

use super::style::{Style, clean, duration, first_line};

/// Diagnostics that are shown for one check.
const DIAGNOSTICS: usize = 8;

pub(super) fn check_run(style: Style, run: &CheckRun) -> String {
    let name = clean(&run.name);
    let took = duration(run.elapsed_ms);
    let on_base = if run.round == 0 { " on the base" } else { "" };
    if run.exit_code == 0 {
        return format!("{} {name}{on_base}  {}\n", style.green("✓"), style.dim(&took));
    }
    let how = if run.timed_out { "ran out of time".to_owned() } else { format!("exit {}", run.exit_code) };
    let blame = if run.red_on_base && run.round > 0 { ", red on the base too" } else { "" };
    let mut out = format!("{} {name}{on_base}  {how}{blame}  {}\n", style.red("✗"), style.dim(&took));
    let errors = run.diagnostics.iter().filter(|found| found.severity == Severity::Error);
    let others = run.diagnostics.iter().filter(|found| found.severity != Severity::Error);
    for found in errors.chain(others).take(DIAGNOSTICS) {
        out.push_str(&diagnostic(style, found));
    }
    let left_out = run.diagnostics.len().saturating_sub(DIAGNOSTICS);
    if left_out > 0 {
        out.push_str(&style.dim(&format!("    … {left_out} more\n")));
    }
    out
}

fn diagnostic(style: Style, found: &Diagnostic) -> String {
    let mut place = found.file.as_deref().map(clean).unwrap_or_default();
    for number in [found.line, found.column].into_iter().flatten() {
        if !place.is_empty() {
            place.push_str(&format!(":{number}"));
        }
    }
    let word = match found.severity {
        Severity::Error => style.red("error"),
        Severity::Warning => style.yellow("warning"),
        Severity::Note => style.dim("note"),
    };
    let code = found.code.as_deref().map(|code| format!("[{}]", clean(code))).unwrap_or_default();
    let test = found.test.as_deref().map(|test| format!(" {}:", clean(test))).unwrap_or_default();
    let place = if place.is_empty() { String::new() } else { format!("{} ", style.bold(&place)) };
    format!("    {place}{word}{code}{test} {}\n", first_line(&found.message))
}

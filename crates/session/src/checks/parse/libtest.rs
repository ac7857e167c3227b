//! The text of Rust's own test harness, as `cargo test` shows it.

use super::found::Found;
use super::text::{Text, block, place};
use crate::checks::{DIAGNOSTICS_MAX, Diagnostic, Severity};

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    for stream in text.streams() {
        if stream.contains("... FAILED") || stream.contains(" stdout ----") {
            read_stream(stream, found);
        }
    }
}

fn read_stream(stream: &str, found: &mut Found<'_>) {
    let mut unexplained: Vec<&str> = Vec::new();
    let mut current: Option<(&str, Vec<&str>)> = None;
    for line in stream.lines() {
        if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            explain(current.replace((test, Vec::new())), &mut unexplained, found);
        } else if line == "failures:" || line.starts_with("test result: ") {
            explain(current.take(), &mut unexplained, found);
            if line != "failures:" {
                unexplained.drain(..).for_each(|test| push(test, &[], found));
            }
        } else if let Some((_, lines)) = &mut current {
            lines.push(line);
        } else if let Some(test) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            // More are not kept anyway, and each is looked for among the others.
            if unexplained.len() < DIAGNOSTICS_MAX {
                unexplained.push(test.strip_suffix(" - should panic").unwrap_or(test));
            }
        }
    }
    explain(current, &mut unexplained, found);
    unexplained.into_iter().for_each(|test| push(test, &[], found));
}

fn explain(failure: Option<(&str, Vec<&str>)>, unexplained: &mut Vec<&str>, found: &mut Found<'_>) {
    if let Some((test, lines)) = failure {
        // Failures are explained in the order of their names, not in the order they came.
        if let Some(at) = unexplained.iter().position(|name| *name == test) {
            unexplained.remove(at);
        }
        push(test, &lines, found);
    }
}

fn push(test: &str, lines: &[&str], found: &mut Found<'_>) {
    let mut diagnostic = Diagnostic { test: Some(test.to_owned()), ..Diagnostic::new(Severity::Error, "failed") };
    let panics: Vec<_> = (0..lines.len()).filter_map(|at| Some((at, panicked_at(lines[at])?))).collect();
    let chosen = panics.iter().find(|(_, (file, ..))| found.is_own(file)).or(panics.first());
    if let Some(&(at, (file, line, column, inline))) = chosen {
        let words: Vec<&str> = lines[at + 1..].iter().copied().take_while(|line| !ends_message(line)).collect();
        diagnostic.message = if inline.is_empty() { block(&words) } else { inline.to_owned() };
        diagnostic.file = Some(file.to_owned());
        diagnostic.line = Some(line);
        diagnostic.column = column;
    } else if !lines.is_empty() {
        diagnostic.message = block(lines);
        if let Some((file, line, column, _)) =
            lines.iter().find_map(|line| line.strip_prefix("note: test did not panic as expected at ").and_then(place))
        {
            diagnostic.file = Some(file.to_owned());
            diagnostic.line = Some(line);
            diagnostic.column = column;
        }
    }
    found.push(diagnostic);
}

/// `thread 'a' panicked at src/lib.rs:1:2:`, or as it was before Rust 1.73, `… panicked at 'message', src/lib.rs:1:2`.
fn panicked_at(line: &str) -> Option<(&str, u32, Option<u32>, &str)> {
    let rest = line.strip_prefix("thread '")?.split_once(" panicked at ")?.1;
    if let Some((message, at)) = rest.strip_prefix('\'').and_then(|rest| rest.rsplit_once("', ")) {
        let (file, line, column, _) = place(at)?;
        return Some((file, line, column, message));
    }
    let (file, line, column, _) = place(rest)?;
    Some((file, line, column, ""))
}

fn ends_message(line: &str) -> bool {
    line == "stack backtrace:" || line.starts_with("note: run with `RUST_BACKTRACE") || panicked_at(line).is_some()
}

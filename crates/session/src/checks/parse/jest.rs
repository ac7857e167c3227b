//! Jest and Vitest: a block for each failing test, with the error, a drawing of the source and a stack.

use super::found::{Found, NAME_BYTES_MAX};
use super::js;
use super::text::{Text, block};
use crate::checks::{DIAGNOSTICS_MAX, Diagnostic, Severity};

/// Lines of a block that several failing tests share: it is read once for each of them.
const SHARED_LINES_MAX: usize = 1_000;

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    for stream in text.streams() {
        if stream.contains("  ● ") {
            read_jest(stream, found);
        }
        if stream.contains(" FAIL  ") && stream.contains('⎯') {
            read_vitest(stream, found);
        }
    }
}

/// `FAIL file`, then `  ● suite › test`, then an indented block. The last one ends with the summary.
fn read_jest(stream: &str, found: &mut Found<'_>) {
    let mut file: Option<&str> = None;
    let mut current: Option<(&str, Vec<&str>)> = None;
    for line in stream.lines() {
        let suite = ["FAIL ", "PASS "].iter().find_map(|mark| line.strip_prefix(mark));
        let title = line.strip_prefix("  ● ");
        if suite.is_some() || title.is_some() || line.starts_with("Test Suites: ") || line.starts_with("Summary of all")
        {
            current.take().into_iter().for_each(|(title, lines)| push_jest(file, title, &lines, found));
        }
        if let Some(suite) = suite {
            // A slow file has its time behind its name.
            let name = suite.split_once(" (").map_or(suite, |(file, _)| file).trim();
            file = Some(name).filter(|name| name.len() <= NAME_BYTES_MAX);
        } else if let Some(title) = title {
            current = Some((title.trim(), Vec::new()));
        } else if let Some((_, lines)) = &mut current {
            lines.push(line);
        }
    }
    current.into_iter().for_each(|(title, lines)| push_jest(file, title, &lines, found));
}

fn push_jest(file: Option<&str>, title: &str, lines: &[&str], found: &mut Found<'_>) {
    // What a passing test wrote to the console has the same bullet.
    if title == "Console" {
        return;
    }
    let broken_suite = title.starts_with("Test suite failed to run");
    let mut words: Vec<&str> =
        lines.iter().copied().take_while(|line| !js::is_frame(line) && !is_drawing(line)).collect();
    if broken_suite && let Some(details) = words.iter().position(|line| line.trim() == "Details:") {
        // What comes before is the same advice each time.
        words.drain(..=details);
    }
    push(
        Diagnostic {
            test: (!broken_suite).then(|| title.split(" › ").collect::<Vec<_>>().join(" > ")),
            file: file.map(str::to_owned),
            ..Diagnostic::new(Severity::Error, block(&words))
        },
        lines,
        found,
    );
}

/// A line of the drawing of the source: `    > 3 | code`.
fn is_drawing(line: &str) -> bool {
    let line = line.trim_start();
    let line = line.strip_prefix("> ").unwrap_or(line).trim_start();
    let number = line.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &line[number..];
    number > 0 && (rest.starts_with(" |") || rest.starts_with('|'))
}

/// ` FAIL  file > suite > test`, then the error, then ` ❯ file:1:2` and a drawing, then a rule.
fn read_vitest(stream: &str, found: &mut Found<'_>) {
    let mut titles: Vec<&str> = Vec::new();
    let mut lines: Vec<&str> = Vec::new();
    for line in stream.lines() {
        if let Some(title) = line.strip_prefix(" FAIL  ") {
            // Tests that failed alike share one block.
            if !lines.is_empty() {
                titles.drain(..).for_each(|title| push_vitest(title, &lines, found));
                lines.clear();
            }
            if titles.len() < DIAGNOSTICS_MAX {
                titles.push(title);
            }
        } else if line.starts_with('⎯') {
            titles.drain(..).for_each(|title| push_vitest(title, &lines, found));
            lines.clear();
        } else if !titles.is_empty() && lines.len() < SHARED_LINES_MAX {
            lines.push(line);
        }
    }
    titles.drain(..).for_each(|title| push_vitest(title, &lines, found));
}

fn push_vitest(title: &str, lines: &[&str], found: &mut Found<'_>) {
    // A project of a workspace stands before the file, between bars.
    let title = title.strip_prefix('|').and_then(|rest| rest.split_once("| ")).map_or(title, |(_, rest)| rest);
    let (file, test) = title.split_once(" > ").map_or((title, None), |(file, test)| (file, Some(test)));
    let file = file.split_once(" [ ").map_or(file, |(file, _)| file);
    let words: Vec<&str> = lines.iter().copied().take_while(|line| !js::is_frame(line) && !is_drawing(line)).collect();
    let diagnostic = Diagnostic::new(Severity::Error, block(&words));
    push(Diagnostic { test: test.map(str::to_owned), file: Some(file.to_owned()), ..diagnostic }, lines, found);
}

fn push(mut diagnostic: Diagnostic, lines: &[&str], found: &mut Found<'_>) {
    let frames = lines.iter().copied().filter(|line| js::is_frame(line));
    if let Some((file, line, column)) = js::own_frame(frames, found) {
        (diagnostic.file, diagnostic.line, diagnostic.column) = (Some(file.to_owned()), Some(line), column);
    }
    if diagnostic.message.is_empty() {
        diagnostic.message = "failed".to_owned();
    }
    found.push(diagnostic);
}

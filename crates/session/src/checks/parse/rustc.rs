//! rustc, clippy and cargo: `--message-format=json` (a JSON object for each line, rustc book, "JSON Output") and the
//! text for people.

use serde::Deserialize;

use super::found::Found;
use super::text::{Text, place};
use crate::checks::{Diagnostic, Severity};

/// What cargo itself says of a failure that its compilers or tests have told already.
const SUMMARIES: &[&str] = &[
    "could not compile",
    "aborting due to",
    "test failed, to rerun",
    "doctest failed, to rerun",
    "build failed, waiting",
    "bench failed",
];

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    for stream in text.streams() {
        if stream.contains("\"compiler-message\"") || stream.contains("\"$message_type\"") {
            stream.lines().filter(|line| line.starts_with('{')).for_each(|line| read_json(line, found));
        }
        if stream.contains(" --> ") || stream.contains("could not compile") {
            read_text(stream, found);
        }
    }
}

/// A line of cargo, which wraps a message of rustc, or of rustc itself.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Cargo { message: Message },
    Rustc(Message),
}

#[derive(Deserialize)]
struct Message {
    message: String,
    level: String,
    #[serde(default)]
    code: Option<Code>,
    #[serde(default)]
    spans: Vec<Span>,
    #[serde(default)]
    children: Vec<Child>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct Span {
    file_name: String,
    line_start: u32,
    column_start: u32,
    is_primary: bool,
    label: Option<String>,
}

#[derive(Deserialize)]
struct Child {
    level: String,
    message: String,
}

fn read_json(line: &str, found: &mut Found<'_>) {
    let Ok(Line::Cargo { message } | Line::Rustc(message)) = serde_json::from_str(line) else { return };
    let Some(severity) = severity(&message.level) else { return };
    let primary = message.spans.iter().find(|span| span.is_primary);
    if primary.is_none() && (severity != Severity::Error || is_summary(&message.message)) {
        return;
    }
    let mut words = message.message;
    if let Some(label) = primary.and_then(|span| span.label.as_deref()) {
        words.push_str(&format!("\n{label}"));
    }
    for child in message.children.into_iter().filter(|child| !is_advice(&child.message)) {
        words.push_str(&format!("\n{}: {}", child.level, child.message));
    }
    found.push(Diagnostic {
        file: primary.map(|span| span.file_name.clone()),
        line: primary.map(|span| span.line_start),
        column: primary.map(|span| span.column_start),
        code: message.code.map(|code| code.code),
        ..Diagnostic::new(severity, words)
    });
}

fn severity(level: &str) -> Option<Severity> {
    match level {
        "error" | "error: internal compiler error" => Some(Severity::Error),
        "warning" => Some(Severity::Warning),
        _ => None,
    }
}

fn is_summary(message: &str) -> bool {
    SUMMARIES.iter().any(|summary| message.starts_with(summary))
        || message.ends_with("target failed:")
        || message.ends_with("targets failed:")
        || message.contains(" generated ")
        || message.contains(" emitted")
}

/// What rustc and clippy add to every finding alike.
fn is_advice(remark: &str) -> bool {
    remark.contains("for further information visit ") || remark.contains("to override `-D ")
}

/// Reads blocks of a header, a ` --> place`, a drawing of the source, and remarks; a blank line ends one.
fn read_text(stream: &str, found: &mut Found<'_>) {
    let mut block: Option<Diagnostic> = None;
    for line in stream.lines() {
        if let Some(header) = header(line) {
            finish(block.replace(header), found);
            continue;
        }
        let Some(diagnostic) = &mut block else { continue };
        let words = line.trim();
        if words.is_empty() {
            finish(block.take(), found);
        } else if let Some(at) = words.strip_prefix("--> ") {
            if diagnostic.file.is_none()
                && let Some((file, line, column, _)) = place(at)
            {
                diagnostic.file = Some(file.to_owned());
                diagnostic.line = Some(line);
                diagnostic.column = column;
            }
        } else if let Some(remark) = words.strip_prefix("= ") {
            if !is_advice(remark) {
                diagnostic.message.push_str(&format!("\n{remark}"));
            }
        } else if let Some((_, label)) = words.split_once('|').and_then(|(_, drawn)| drawn.rsplit_once('^')) {
            if !label.trim().is_empty() {
                diagnostic.message.push_str(&format!("\n{}", label.trim()));
            }
        } else if words.starts_with("help: ") || words.starts_with("note: ") {
            diagnostic.message.push_str(&format!("\n{words}"));
        }
    }
    finish(block, found);
}

/// `error[E0308]: mismatched types`, `error: …` or `warning: …`, at the start of a line.
fn header(line: &str) -> Option<Diagnostic> {
    let (level, message) = line.split_once(": ")?;
    let (level, code) = match level.split_once('[') {
        Some((level, code)) => (level, Some(code.strip_suffix(']')?)),
        None => (level, None),
    };
    Some(Diagnostic { code: code.map(str::to_owned), ..Diagnostic::new(severity(level)?, message) })
}

fn finish(diagnostic: Option<Diagnostic>, found: &mut Found<'_>) {
    let Some(mut diagnostic) = diagnostic else { return };
    let first_line = diagnostic.message.lines().next().unwrap_or_default();
    if diagnostic.file.is_none() && (diagnostic.severity != Severity::Error || is_summary(first_line)) {
        return;
    }
    // A lint's name stands in a remark only: "`-D clippy::needless-return` implied by `-D warnings`", or
    // "`#[warn(unused_variables)]` on by default". JSON writes it with underscores.
    if diagnostic.code.is_none() {
        let after = |mark: &str| diagnostic.message.split_once(mark).map(|(_, rest)| rest);
        let lint = after("note: `-D ").or_else(|| after("note: `-W ")).and_then(|rest| rest.split_once('`'));
        let attribute = || {
            let rest = after("note: `#[warn(").or_else(|| after("note: `#[deny("))?;
            rest.split_once(')')
        };
        diagnostic.code = lint.or_else(attribute).map(|(lint, _)| lint.replace('-', "_"));
    }
    found.push(diagnostic);
}

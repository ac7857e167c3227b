//! ESLint: the `stylish` (default), `unix` and `json` formatters.

use serde::Deserialize;

use super::found::{Found, NAME_BYTES_MAX};
use super::json;
use super::text::{Text, number, place};
use crate::checks::{Diagnostic, Severity};

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    for stream in text.streams() {
        if stream.contains("\"filePath\"") {
            read_json(stream, found);
        }
        if stream.contains("[Error/") || stream.contains("[Warning/") {
            stream.lines().filter_map(unix).for_each(|diagnostic| found.push(diagnostic));
        }
        if stream.contains(" error ") || stream.contains(" warning ") {
            read_stylish(stream, found);
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    file_path: String,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    message: String,
    severity: u8,
    #[serde(default)]
    rule_id: Option<String>,
    #[serde(default)]
    line: Option<u32>,
    #[serde(default)]
    column: Option<u32>,
}

fn read_json(stream: &str, found: &mut Found<'_>) {
    for file in json::document::<Vec<File>>(stream, '[').unwrap_or_default() {
        for message in file.messages.into_iter().filter(|_| file.file_path.len() <= NAME_BYTES_MAX) {
            let severity = if message.severity >= 2 { Severity::Error } else { Severity::Warning };
            found.push(Diagnostic {
                file: Some(file.file_path.clone()),
                line: message.line.filter(|n| *n > 0),
                column: message.column.filter(|n| *n > 0),
                code: message.rule_id,
                ..Diagnostic::new(severity, without_period(&message.message))
            });
        }
    }
}

/// `file:1:2: message [Error/rule]`.
fn unix(line: &str) -> Option<Diagnostic> {
    let (file, line, column, rest) = place(line)?;
    let (message, mark) = rest.strip_suffix(']')?.rsplit_once(" [")?;
    let (level, rule) = mark.split_once('/').unwrap_or((mark, ""));
    let severity = severity(&level.to_ascii_lowercase())?;
    Some(Diagnostic {
        file: Some(file.to_owned()),
        line: Some(line),
        column,
        code: Some(rule.to_owned()),
        ..Diagnostic::new(severity, without_period(message.trim_start()))
    })
}

/// A file's path on a line of its own, then a table of `line:column  severity  message  rule`, its columns two or more
/// spaces apart.
fn read_stylish(stream: &str, found: &mut Found<'_>) {
    let mut file: Option<&str> = None;
    for line in stream.lines() {
        if !line.starts_with(' ') {
            file = Some(line).filter(|line| !line.is_empty() && line.len() <= NAME_BYTES_MAX);
        } else if let Some(file) = file
            && let Some(diagnostic) = row(line.trim())
        {
            found.push(Diagnostic { file: Some(file.to_owned()), ..diagnostic });
        }
    }
}

fn row(row: &str) -> Option<Diagnostic> {
    let (line, rest) = number(row)?;
    let (column, rest) = number(rest.strip_prefix(':')?)?;
    let rest = rest.strip_prefix("  ")?.trim_start();
    let (level, rest) = rest.split_once("  ").unwrap_or_else(|| rest.split_once(' ').unwrap_or((rest, "")));
    let severity = severity(level.trim())?;
    // A syntax error belongs to no rule, and its row ends with the message.
    let (message, rule) = rest.rsplit_once("  ").filter(|(_, rule)| !rule.contains(' ')).unwrap_or((rest, ""));
    Some(Diagnostic {
        line: Some(line),
        column: Some(column),
        code: Some(rule.to_owned()),
        ..Diagnostic::new(severity, without_period(message.trim()))
    })
}

fn severity(level: &str) -> Option<Severity> {
    match level {
        "error" => Some(Severity::Error),
        "warning" => Some(Severity::Warning),
        _ => None,
    }
}

/// `stylish` drops the period that the other formatters keep: one text for one finding.
fn without_period(message: &str) -> &str {
    message.strip_suffix('.').unwrap_or(message)
}

//! The TypeScript compiler: `file(1,2): error TS1: …`, and `file:1:2 - error TS1: …` with `--pretty`.

use super::found::Found;
use super::text::{Text, indent, number, place};
use crate::checks::{Diagnostic, Severity};

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    if !text.streams().iter().any(|stream| stream.contains(" TS")) {
        return;
    }
    let mut current: Option<Diagnostic> = None;
    for line in text.lines() {
        if let Some(next) = header(line) {
            current.replace(next).into_iter().for_each(|done| found.push(done));
        } else if let Some(diagnostic) = &mut current {
            // What explains the message is indented and follows at once; the pretty drawing comes after a blank line.
            if indent(line) >= 2 && !line.trim().is_empty() {
                diagnostic.message.push_str(&format!("\n{line}"));
            } else {
                current.take().into_iter().for_each(|done| found.push(done));
            }
        }
    }
    current.into_iter().for_each(|done| found.push(done));
}

fn header(line: &str) -> Option<Diagnostic> {
    let level_at = ["error TS", "warning TS"].iter().find_map(|level| line.find(level))?;
    let (before, words) = line.split_at(level_at);
    let (level, words) = words.split_once(' ')?;
    let (code, message) = words.split_once(": ")?;
    if !code.bytes().skip(2).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let severity = if level == "error" { Severity::Error } else { Severity::Warning };
    let diagnostic = Diagnostic { code: Some(code.to_owned()), ..Diagnostic::new(severity, message) };
    if before.is_empty() {
        return Some(diagnostic);
    }
    let (file, line, column) = match before.strip_suffix("): ").and_then(|at| at.rsplit_once('(')) {
        Some((file, numbers)) => {
            let (line, rest) = number(numbers)?;
            (file, line, rest.strip_prefix(',').and_then(number).map(|(column, _)| column))
        }
        None => place(before.strip_suffix(" - ")?).map(|(file, line, column, _)| (file, line, column))?,
    };
    Some(Diagnostic { file: Some(file.to_owned()), line: Some(line), column, ..diagnostic })
}

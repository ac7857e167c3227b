//! `file:line:column: error: message`, the form of gcc and clang (GNU coding standards, "Formatting Error Messages"),
//! which javac, mypy, shellcheck and many others share; and the linker's undefined references.

use super::found::{Found, NAME_BYTES_MAX};
use super::python::is_rule;
use super::text::{Text, indent, place};
use crate::checks::{Diagnostic, Severity};

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    for stream in text.streams() {
        let mut directories = Directories::default();
        for line in stream.lines() {
            directories.follow(line);
            if let Some(mut diagnostic) = strict(line).or_else(|| undefined_reference(line)) {
                diagnostic.file = diagnostic.file.map(|file| directories.place(&file));
                found.push(diagnostic);
            }
        }
    }
}

/// The same without a severity, such as `file:1:2: F401 unused import`: only for a red check of which nothing better is
/// known, since a log line can look like it.
pub(super) fn read_loosely(text: &Text, found: &mut Found<'_>) {
    text.lines().filter_map(loose).for_each(|diagnostic| found.push(diagnostic));
}

/// The folders that make entered, innermost last: paths are relative to it.
#[derive(Default)]
struct Directories<'a>(Vec<&'a str>);

impl<'a> Directories<'a> {
    /// `make[1]: Entering directory '/workspace/src'`, and `Leaving`.
    fn follow(&mut self, line: &'a str) {
        let Some((_, rest)) = line.strip_prefix("make").and_then(|rest| rest.split_once(": ")) else { return };
        if let Some(directory) = rest.strip_prefix("Entering directory ") {
            // A recursion without end is make's trouble, not ours.
            if self.0.len() < 64 && directory.len() <= NAME_BYTES_MAX {
                self.0.push(directory.trim_matches(['\'', '`', '"']));
            }
        } else if rest.starts_with("Leaving directory ") {
            self.0.pop();
        }
    }

    fn place(&self, file: &str) -> String {
        match self.0.last() {
            Some(directory) if !file.starts_with('/') => format!("{directory}/{file}"),
            _ => file.to_owned(),
        }
    }
}

fn strict(line: &str) -> Option<Diagnostic> {
    let (file, line, column, rest) = place(line)?;
    let (level, message) = rest.trim_start().split_once(": ")?;
    let severity = match level {
        "error" | "fatal error" | "Error" => Severity::Error,
        "warning" | "Warning" => Severity::Warning,
        _ => return None,
    };
    // `[-Wunused]` of a compiler, `[return-value]` of mypy.
    let code = message.rsplit_once('[').and_then(|(words, code)| Some((words, code.strip_suffix(']')?)));
    let (message, code) = match code.filter(|(_, code)| !code.contains(' ') && !code.is_empty()) {
        Some((message, code)) => (message.trim_end(), Some(code.to_owned())),
        None => (message, None),
    };
    is_path(file).then(|| Diagnostic {
        file: Some(file.to_owned()),
        line: Some(line),
        column,
        code,
        ..Diagnostic::new(severity, message)
    })
}

/// `shelf.c:(.text+0x5): undefined reference to 'x'`, perhaps behind the linker's own name.
fn undefined_reference(line: &str) -> Option<Diagnostic> {
    let (before, name) = line.split_once(": undefined reference to ")?;
    let file = before.rsplit_once(":(").map_or(before, |(file, _)| file);
    let file = file.rsplit_once(": ").map_or(file, |(_, file)| file);
    let file = is_path(file).then(|| file.to_owned());
    Some(Diagnostic { file, ..Diagnostic::new(Severity::Error, format!("undefined reference to {name}")) })
}

fn loose(line: &str) -> Option<Diagnostic> {
    let (file, line, column, rest) = place(line)?;
    let words = rest.strip_prefix(' ')?.trim_start();
    if !is_path(file) || indent(file) > 0 || words.is_empty() {
        return None;
    }
    let first = words.split_once(' ').map_or(words, |(first, _)| first).trim_end_matches(':');
    let (code, message) = match words.split_once(' ').filter(|_| is_rule(first)) {
        Some((_, message)) => (Some(first.to_owned()), message.strip_prefix("[*] ").unwrap_or(message)),
        None => (None, words),
    };
    let diagnostic = Diagnostic::new(Severity::Error, message);
    Some(Diagnostic { file: Some(file.to_owned()), line: Some(line), column, code, ..diagnostic })
}

/// Whether it looks like a file of a program, and not like a time, a host or a sentence.
fn is_path(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let named = name.rsplit_once('.').map_or(name.ends_with("file"), |(stem, ending)| {
        !stem.is_empty() && !ending.is_empty() && ending.bytes().any(|b| b.is_ascii_alphabetic())
    });
    named && !file.contains([' ', '\t', '"', '(', '=']) && !file.contains("://")
}

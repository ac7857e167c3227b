//! Maven: the compiler plugin's errors, and surefire's failing tests.

use super::found::Found;
use super::text::{Text, block, number};
use crate::checks::{Diagnostic, Severity};

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    for stream in text.streams().into_iter().filter(|stream| stream.contains("[ERROR] ")) {
        let mut problem: Option<Diagnostic> = None;
        let mut test: Option<(&str, Vec<&str>)> = None;
        for line in stream.lines() {
            // The list at the end of the build marks the lines that go on, the list of the compiler does not.
            let words = line.strip_prefix("[ERROR] ").unwrap_or(line);
            if let Some(diagnostic) = &mut problem
                && words.starts_with("  ")
            {
                diagnostic.message.push_str(&format!("\n{}", words.trim()));
                continue;
            }
            problem.take().into_iter().for_each(|diagnostic| found.push(diagnostic));
            if let Some(name) = failed_test(line) {
                test.replace((name, Vec::new())).into_iter().for_each(|(name, lines)| push_test(name, &lines, found));
            } else if let Some((_, lines)) = &mut test
                && !line.starts_with("[ERROR]")
                && !line.starts_with("[INFO]")
            {
                lines.push(line);
            } else {
                test.take().into_iter().for_each(|(name, lines)| push_test(name, &lines, found));
                problem = compiler(line);
            }
        }
        problem.into_iter().for_each(|diagnostic| found.push(diagnostic));
        test.into_iter().for_each(|(name, lines)| push_test(name, &lines, found));
    }
}

/// `[ERROR] /workspace/A.java:[4,13] words`.
fn compiler(line: &str) -> Option<Diagnostic> {
    let (severity, rest) = match line.strip_prefix("[ERROR] ") {
        Some(rest) => (Severity::Error, rest),
        None => (Severity::Warning, line.strip_prefix("[WARNING] ")?),
    };
    let (file, rest) = rest.split_once(":[")?;
    let (line, rest) = number(rest)?;
    let (column, rest) = number(rest.strip_prefix(',')?)?;
    let diagnostic = Diagnostic::new(severity, rest.strip_prefix(']')?.trim());
    Some(Diagnostic { file: Some(file.to_owned()), line: Some(line), column: Some(column), ..diagnostic })
}

/// `[ERROR] adds(shelf.ShelfTest)  Time elapsed: 0.1 s  <<< FAILURE!`, or since surefire 3
/// `[ERROR] shelf.ShelfTest.adds -- Time elapsed: 0.1 s <<< FAILURE!`. A class's own summary begins with its counts.
fn failed_test(line: &str) -> Option<&str> {
    let rest =
        line.strip_prefix("[ERROR] ").filter(|_| line.ends_with("<<< FAILURE!") || line.ends_with("<<< ERROR!"))?;
    let (name, _) = rest.split_once("Time elapsed: ")?;
    let name = name.trim_end().trim_end_matches("--").trim_end();
    (!name.starts_with("Tests run: ") && !name.is_empty()).then_some(name)
}

/// A frame names a file without its folder, which only the build knows: it stays in the message.
fn push_test(name: &str, lines: &[&str], found: &mut Found<'_>) {
    let (class, test) = match name.split_once('(').and_then(|(test, class)| Some((class.strip_suffix(')')?, test))) {
        Some((class, method)) => (class, format!("{class}.{method}")),
        None => (name.rsplit_once('.').map_or(name, |(class, _)| class), name.to_owned()),
    };
    let is_frame = |line: &&&str| line.trim_start().starts_with("at ");
    let words: Vec<&str> = lines.iter().take_while(|line| !is_frame(line)).copied().collect();
    let mut message = block(&words);
    if let Some(frame) = lines.iter().filter(is_frame).find(|line| line.contains(class)) {
        message.push_str(&format!("\n{}", frame.trim()));
    }
    let message = if message.is_empty() { "failed".to_owned() } else { message };
    found.push(Diagnostic { test: Some(test), ..Diagnostic::new(Severity::Error, message) });
}

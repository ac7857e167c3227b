//! Python: pytest's text, `unittest`'s text, ruff's full text, and the traceback of a program that died.

use std::collections::HashMap;

use super::found::Found;
use super::text::{Text, block, number, place};
use crate::checks::{Diagnostic, Severity};

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    for stream in text.streams() {
        if stream.contains("\nFAILED ") || stream.contains("\nERROR ") || stream.contains("\n___") {
            read_pytest(stream, found);
        }
        if stream.contains("\nFAIL: ") || stream.contains("\nERROR: ") {
            read_unittest(stream, found);
        }
    }
    text.streams().into_iter().for_each(|stream| read_ruff(stream, found));
    if !found.has_error() {
        text.streams().into_iter().for_each(|stream| read_traceback(stream, found));
    }
}

/// Sections `==== FAILURES ====` and `==== ERRORS ====` with a block `____ name ____` for each test, then the short
/// summary, which alone has the full names.
fn read_pytest(stream: &str, found: &mut Found<'_>) {
    let mut blocks: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut summary: Vec<(&str, &str)> = Vec::new();
    let mut section = "";
    for line in stream.lines() {
        if let Some(title) = ruled(line, '=') {
            section = title;
        } else if matches!(section, "FAILURES" | "ERRORS") {
            if let Some(name) = ruled(line, '_').filter(|name| !name.chars().all(|c| c == '_' || c == ' ')) {
                blocks.push((name, Vec::new()));
            } else if let Some((_, lines)) = blocks.last_mut() {
                lines.push(line);
            }
        } else if section == "short test summary info"
            && let Some(entry) = line.strip_prefix("FAILED ").or_else(|| line.strip_prefix("ERROR "))
        {
            summary.push(entry.split_once(" - ").unwrap_or((entry, "")));
        }
    }
    // Full names by the short ones, the first of several last, so that `pop` gives it.
    let mut full: HashMap<String, Vec<&str>> = HashMap::new();
    for (id, _) in summary.iter().rev() {
        full.entry(short_name(id)).or_default().push(id);
    }
    let mut told: HashMap<&str, usize> = HashMap::new();
    for (title, lines) in &blocks {
        let name =
            title.strip_prefix("ERROR at ").and_then(|rest| rest.split_once(" of ")).map_or(*title, |(_, name)| name);
        let collecting = title.strip_prefix("ERROR collecting ");
        let id = collecting.or_else(|| full.get_mut(name).and_then(Vec::pop));
        *told.entry(id.unwrap_or(name)).or_default() += 1;
        push_pytest(id.unwrap_or(name), collecting.is_some(), lines, found);
    }
    for (id, message) in summary {
        let count = told.entry(id).or_default();
        if *count == 0 {
            push_pytest(id, !id.contains("::"), &[message], found);
        } else {
            *count -= 1;
        }
    }
}

/// `==== title ====`, as wide as the terminal.
fn ruled(line: &str, rule: char) -> Option<&str> {
    let inner = line.strip_prefix(rule)?.strip_suffix(rule)?.trim_matches(rule);
    let title = inner.strip_prefix(' ')?.strip_suffix(' ')?;
    (!title.is_empty()).then_some(title)
}

/// What stands over a test's block: `tests/a.py::Class::test[1]` is called `Class.test[1]` there.
fn short_name(id: &str) -> String {
    let (path, parameters) = id.split_once('[').map_or((id, None), |(path, rest)| (path, Some(rest)));
    let name = path.split("::").skip(1).collect::<Vec<_>>().join(".");
    parameters.map_or(name.clone(), |parameters| format!("{name}[{parameters}"))
}

fn push_pytest(id: &str, collecting: bool, lines: &[&str], found: &mut Found<'_>) {
    let errors: Vec<&str> =
        lines.iter().filter_map(|line| line.strip_prefix('E')).filter(|e| e.starts_with(' ')).collect();
    let message = if errors.is_empty() { block(lines) } else { block(&errors) };
    let message = if message.is_empty() { "failed".to_owned() } else { message };
    let mut diagnostic = Diagnostic::new(Severity::Error, message);
    diagnostic.file = id.split_once("::").map(|(file, _)| file.to_owned());
    if collecting {
        diagnostic.file = Some(id.to_owned());
    } else {
        diagnostic.test = Some(id.to_owned());
    }
    // A syntax error stands in the message; everything else in the last line of its own that names a place.
    let quoted = errors.iter().filter_map(|line| file_line(line));
    let named = lines.iter().filter(|line| !line.starts_with([' ', '\t', '>'])).filter_map(|line| {
        let (file, line, _, rest) = place(line)?;
        rest.starts_with(' ').then_some((file, line)).or_else(|| rest.is_empty().then_some((file, line)))
    });
    if let Some((file, line)) = named.chain(quoted).rfind(|(file, _)| found.is_own(file)) {
        (diagnostic.file, diagnostic.line) = (Some(file.to_owned()), Some(line));
    }
    found.push(diagnostic);
}

/// Blocks of a double rule, `FAIL: test_a (module.Class.test_a)`, a single rule, and a traceback.
fn read_unittest(stream: &str, found: &mut Found<'_>) {
    let mut current: Option<(&str, Vec<&str>)> = None;
    let mut after_rule = false;
    for line in stream.lines() {
        let title = line.strip_prefix("FAIL: ").or_else(|| line.strip_prefix("ERROR: ")).filter(|_| after_rule);
        after_rule = line.len() >= 70 && line.bytes().all(|b| b == b'=');
        let ends = after_rule || (line.starts_with("Ran ") && line.contains(" test"));
        if title.is_some() || ends {
            current.take().into_iter().for_each(|(title, lines)| push_unittest(title, &lines, found));
        }
        if let Some(title) = title {
            current = Some((title, Vec::new()));
        } else if let Some((_, lines)) = &mut current
            && !(line.len() >= 70 && line.bytes().all(|b| b == b'-'))
        {
            lines.push(line);
        }
    }
    current.into_iter().for_each(|(title, lines)| push_unittest(title, &lines, found));
}

fn push_unittest(title: &str, lines: &[&str], found: &mut Found<'_>) {
    // `test_a (module.Class.test_a)`, before Python 3.11 `test_a (module.Class)`; a subtest has its parameters behind.
    let test = match title.split_once(" (").and_then(|(name, rest)| Some((name, rest.split_once(')')?))) {
        Some((name, (path, subtest))) => {
            let dotted = format!(".{name}");
            format!("{}{}{subtest}", path.strip_suffix(&dotted).unwrap_or(path), dotted)
        }
        None => title.to_owned(),
    };
    let diagnostic = Diagnostic { test: Some(test), ..Diagnostic::new(Severity::Error, "failed") };
    found.push(traced(diagnostic, lines, found));
}

/// `F401 [*] words`, and below it ` --> file:1:2` and a drawing.
fn read_ruff(stream: &str, found: &mut Found<'_>) {
    let mut above = "";
    for line in stream.lines() {
        if let Some((file, line, column, "")) = line.trim_start().strip_prefix("--> ").and_then(place)
            && let Some((code, words)) = above.split_once(' ').filter(|(code, _)| is_rule(code))
        {
            found.push(Diagnostic {
                file: Some(file.to_owned()),
                line: Some(line),
                column,
                code: Some(code.to_owned()),
                ..Diagnostic::new(Severity::Error, words.strip_prefix("[*] ").unwrap_or(words))
            });
        }
        above = line;
    }
}

/// Capital letters, then digits.
pub(super) fn is_rule(code: &str) -> bool {
    let letters = code.bytes().take_while(u8::is_ascii_uppercase).count();
    letters > 0 && letters < code.len() && code.bytes().skip(letters).all(|b| b.is_ascii_digit())
}

/// The last traceback of a program that died of it.
fn read_traceback(stream: &str, found: &mut Found<'_>) {
    let Some(at) = stream.rfind("Traceback (most recent call last):") else { return };
    let lines: Vec<&str> = stream[at..].lines().collect();
    // Frames are indented; the first line that is not is the exception.
    let end = lines.iter().skip(1).position(|line| !line.starts_with(' ')).map_or(lines.len(), |end| end + 2);
    let diagnostic = traced(Diagnostic::new(Severity::Error, "failed"), &lines[..end.min(lines.len())], found);
    if diagnostic.file.is_some() {
        found.push(diagnostic);
    }
}

/// Adds what a traceback says: its last frame in the repository, and what stands below its last frame.
fn traced(mut diagnostic: Diagnostic, lines: &[&str], found: &Found<'_>) -> Diagnostic {
    let own = lines.iter().filter_map(|line| file_line(line)).rfind(|(file, _)| found.is_own(file));
    if let Some((file, line)) = own {
        (diagnostic.file, diagnostic.line) = (Some(file.to_owned()), Some(line));
    }
    let last_frame = lines.iter().rposition(|line| file_line(line).is_some());
    let below = last_frame.map_or(lines, |at| &lines[at + 1..]);
    let words: Vec<&str> =
        below.iter().copied().skip_while(|line| last_frame.is_some() && line.starts_with(' ')).collect();
    let message = block(if words.is_empty() { lines } else { &words });
    if !message.is_empty() {
        diagnostic.message = message;
    }
    diagnostic
}

/// `  File "a.py", line 3, in f`.
fn file_line(line: &str) -> Option<(&str, u32)> {
    let (file, rest) = line.trim_start().strip_prefix("File \"")?.split_once("\", line ")?;
    Some((file, number(rest)?.0))
}

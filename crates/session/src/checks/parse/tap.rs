//! Test Anything Protocol, versions 12 to 14 (testanything.org): node's `tap` reporter, tape, Mocha's `tap` reporter.

use super::found::{Found, NAME_BYTES_MAX};
use super::js;
use super::text::{Text, block, indent};
use crate::checks::{Diagnostic, Severity, clip};

/// Comments that are kept for a test that says no more than that it failed.
const NOTES_MAX: usize = 100;

/// Subtests inside each other.
const DEPTH_MAX: usize = 32;

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    for stream in text.streams().into_iter().filter(|stream| stream.contains("not ok") || stream.contains("Bail out!"))
    {
        let mut reader = Reader::default();
        stream.lines().for_each(|line| reader.line(line, found));
        reader.finish(found);
    }
}

#[derive(Default)]
struct Reader<'a> {
    /// Subtests that are open, outermost first, with their indentation.
    subtests: Vec<(usize, String)>,
    /// tape's name for what follows: a comment before the assertions.
    group: Option<String>,
    /// Comments since the last result.
    notes: Vec<&'a str>,
    failure: Option<Failure<'a>>,
    /// The indentation of the last failure: a failure further out that follows is only its parent.
    failed_at: Option<usize>,
}

struct Failure<'a> {
    indent: usize,
    test: String,
    words: String,
    /// What stands below it, indented: a YAML block, or plain words.
    below: Vec<&'a str>,
    in_yaml: bool,
    notes: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    fn line(&mut self, line: &'a str, found: &mut Found<'_>) {
        let depth = indent(line);
        let words = line.trim();
        if let Some(failure) = &mut self.failure {
            if failure.in_yaml && words == "..." {
                return self.finish(found);
            }
            if failure.in_yaml || words.is_empty() || depth > failure.indent {
                if words == "---" && failure.below.is_empty() {
                    failure.in_yaml = true;
                } else {
                    failure.below.push(line);
                }
                return;
            }
            self.finish(found);
        }
        if let Some(result) = result(words) {
            self.result(depth, &result);
        } else if let Some(name) = words.strip_prefix("# Subtest: ") {
            self.subtests.retain(|(outer, _)| *outer < depth);
            if self.subtests.len() < DEPTH_MAX {
                self.subtests.push((depth, clip(&unescaped(name), NAME_BYTES_MAX)));
            }
            self.group = None;
        } else if let Some(comment) = words.strip_prefix('#') {
            let comment = comment.strip_prefix(' ').unwrap_or(comment);
            if depth == 0 && self.subtests.is_empty() && !comment.trim().is_empty() {
                self.group = Some(clip(comment.trim(), NAME_BYTES_MAX));
            }
            if self.notes.len() < NOTES_MAX {
                self.notes.push(comment);
            }
        } else if let Some(reason) = line.strip_prefix("Bail out!") {
            found.push(Diagnostic::new(Severity::Error, format!("bailed out: {}", reason.trim())));
        }
    }

    fn result(&mut self, depth: usize, result: &Outcome<'_>) {
        let notes = std::mem::take(&mut self.notes);
        let is_parent = self.failed_at.is_some_and(|inner| inner > depth);
        self.subtests.retain(|(outer, _)| *outer < depth);
        if result.passed {
            // Its children are done with; its siblings' failures still count against their parent.
            self.failed_at = self.failed_at.filter(|_| !is_parent);
            return;
        }
        self.failed_at = Some(depth);
        if is_parent {
            return;
        }
        let words = unescaped(result.words);
        let outer = self.subtests.iter().map(|(_, name)| name.as_str()).chain(self.group.as_deref());
        let path: Vec<&str> = outer.chain(Some(words.as_str()).filter(|words| !words.is_empty())).collect();
        let test = path.join(" > ");
        self.failure = Some(Failure { indent: depth, test, words, below: Vec::new(), in_yaml: false, notes });
    }

    fn finish(&mut self, found: &mut Found<'_>) {
        if let Some(failure) = self.failure.take() {
            let diagnostic = failure.diagnostic(found);
            found.push(diagnostic);
        }
    }
}

struct Outcome<'a> {
    passed: bool,
    words: &'a str,
}

/// `not ok 2 - words # TODO why`. What is to do or was skipped has not failed.
fn result(line: &str) -> Option<Outcome<'_>> {
    let (ok, rest) = match line.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok")?),
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let rest = rest.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    let words = rest.strip_prefix("- ").unwrap_or(rest);
    let (words, directive) = words.rsplit_once(" # ").unwrap_or((words, ""));
    let excused = ["todo", "skip"].iter().any(|word| directive.get(..4).is_some_and(|d| d.eq_ignore_ascii_case(word)));
    Some(Outcome {
        passed: ok || excused,
        words: if excused { words } else { rest.strip_prefix("- ").unwrap_or(rest) },
    })
}

impl Failure<'_> {
    fn diagnostic(&self, found: &Found<'_>) -> Diagnostic {
        let field = |name: &str| if self.in_yaml { field(&self.below, name) } else { None };
        let error = field("error").or_else(|| field("message"));
        let mut message = match (&error, field("operator"), field("expected"), field("actual")) {
            (None, Some(operator), Some(expected), Some(actual)) => {
                format!("{}\n{operator}: expected {expected}, actual {actual}", self.words)
            }
            (Some(error), ..) => error.clone(),
            (None, ..) if !self.in_yaml => {
                block(&self.below.iter().copied().take_while(|line| !js::is_frame(line)).collect::<Vec<_>>())
            }
            _ => self.words.clone(),
        };
        let stack = field("stack").unwrap_or_else(|| if self.in_yaml { String::new() } else { self.below.join("\n") });
        let mut place = js::own_frame(stack.lines(), found).map(owned);
        // A file that died says nothing in its result; what it printed came before, as comments.
        if message == "test failed" && !self.notes.is_empty() {
            place = place.or_else(|| js::own_frame(self.notes.iter().copied(), found).map(owned));
            let notes: Vec<&str> = self.notes.iter().copied().filter(|line| !js::is_frame(line)).collect();
            message = format!("{message}\n{}", block(&notes));
        }
        let place = place.or_else(|| {
            let at = field("at").or_else(|| field("location"))?;
            js::frame(&at).map(owned)
        });
        if message.trim().is_empty() {
            message = if self.words.is_empty() { "failed".to_owned() } else { self.words.clone() };
        }
        let mut diagnostic = Diagnostic { test: Some(self.test.clone()), ..Diagnostic::new(Severity::Error, message) };
        if let Some((file, line, column)) = place {
            (diagnostic.file, diagnostic.line, diagnostic.column) = (Some(file), Some(line), column);
        }
        diagnostic
    }
}

fn owned((file, line, column): js::Place<'_>) -> (String, u32, Option<u32>) {
    (file.to_owned(), line, column)
}

/// The value of a key at the outermost level of a YAML block: a quoted or plain scalar, or the lines below it.
fn field(yaml: &[&str], name: &str) -> Option<String> {
    let level = yaml.iter().filter(|line| !line.trim().is_empty()).map(|line| indent(line)).min()?;
    let value_of = |line: &&str| {
        let value = line.get(level..)?.strip_prefix(name)?.strip_prefix(':')?.trim();
        (indent(line) == level).then(|| value.to_owned())
    };
    let (at, value) = yaml.iter().enumerate().find_map(|(at, line)| Some((at, value_of(line)?)))?;
    if !value.is_empty() && !value.starts_with(['|', '>']) {
        return Some(unquoted(&value));
    }
    let below = yaml[at + 1..].iter().copied().take_while(|line| line.trim().is_empty() || indent(line) > level);
    Some(block(&below.collect::<Vec<_>>()))
}

fn unquoted(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return inner.replace("''", "'");
    }
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\\n", "\n").replace("\\\"", "\"").replace("\\\\", "\\"),
        None => value.to_owned(),
    }
}

/// `\#` and `\\` stand for themselves in a description (TAP 14).
fn unescaped(words: &str) -> String {
    words.replace("\\#", "#").replace("\\\\", "\\")
}

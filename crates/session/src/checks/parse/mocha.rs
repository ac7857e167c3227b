//! Mocha's list of failures, which its `spec`, `dot`, `list` and `min` reporters all end with.

use super::found::Found;
use super::js;
use super::text::{Text, block, indent, number};
use crate::checks::{Diagnostic, Severity};

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    for stream in text.streams().into_iter().filter(|stream| stream.contains(" failing")) {
        let lines = stream.lines().skip_while(|line| !is_count(line)).skip(1);
        let mut current: Option<Failure<'_>> = None;
        for line in lines {
            if let Some(title) = header(line) {
                current.replace(Failure::new(title)).into_iter().for_each(|failure| failure.push(found));
            } else if let Some(failure) = &mut current
                && !failure.take(line)
            {
                current.take().into_iter().for_each(|failure| failure.push(found));
            }
        }
        current.into_iter().for_each(|failure| failure.push(found));
    }
}

/// `  4 failing`.
fn is_count(line: &str) -> bool {
    line.starts_with("  ") && number(line.trim_start()).is_some_and(|(_, rest)| rest == " failing")
}

/// `  1) title`; the list of passing tests, which has the same form, is above the count.
fn header(line: &str) -> Option<&str> {
    let (_, rest) = number(line.strip_prefix("  ")?)?;
    rest.strip_prefix(") ")
}

struct Failure<'a> {
    /// The titles of the suites and the test; the last one has a colon.
    titles: Vec<&'a str>,
    titled: bool,
    words: Vec<&'a str>,
    frames: Vec<&'a str>,
}

impl<'a> Failure<'a> {
    fn new(title: &'a str) -> Self {
        let mut failure = Self { titles: Vec::new(), titled: false, words: Vec::new(), frames: Vec::new() };
        failure.title(title);
        failure
    }

    fn title(&mut self, title: &'a str) {
        let title = title.trim();
        self.titled = title.ends_with(':');
        self.titles.push(title.strip_suffix(':').unwrap_or(title));
    }

    /// Takes a line, or says that it belongs to no failure any more.
    fn take(&mut self, line: &'a str) -> bool {
        if !self.titled && !line.trim().is_empty() && indent(line) > 4 {
            self.title(line);
        } else if js::is_frame(line) {
            self.frames.push(line);
        } else if !self.frames.is_empty() {
            // The stack is the end of it; what else is there was written by someone else.
            return line.trim().is_empty();
        } else {
            self.titled = true;
            self.words.push(line);
        }
        true
    }

    fn push(self, found: &mut Found<'_>) {
        let words = block(&self.words);
        // The first line is indented like the title above it, and what an assertion drew below it is not.
        let message = words.trim_start().to_owned();
        let named =
            message.lines().next().and_then(|line| line.strip_suffix(')')?.rsplit_once('(')).map(|(_, file)| file);
        let timed_out = named.filter(|file| found.is_own(file) && file.contains('.') && !file.contains(' '));
        let mut diagnostic = Diagnostic {
            test: Some(self.titles.join(" > ")),
            file: timed_out.map(str::to_owned),
            ..Diagnostic::new(Severity::Error, if message.is_empty() { "failed" } else { &message })
        };
        if let Some((file, line, column)) = js::own_frame(self.frames, found) {
            (diagnostic.file, diagnostic.line, diagnostic.column) = (Some(file.to_owned()), Some(line), column);
        }
        found.push(diagnostic);
    }
}

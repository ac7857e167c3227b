//! Checks: the repository's own commands that prove work, and what they found.
//!
//! Pure: nothing here runs a command or reads a file. The driver asks [`detect`] what to run (or
//! [`environment`](crate::environment), where the repository says so itself), runs it in the sandbox, hands the output
//! to [`parse`], holds it against the run on the base commit with [`compare`], and lets [`rounds`] decide whether the
//! agent gets another round.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub mod compare;
pub mod detect;
pub mod parse;
pub mod rounds;

/// Set for every check, so that tools neither watch for changes nor ask nor colour their output.
pub const CHECK_ENV: &[(&str, &str)] =
    &[("CI", "1"), ("NO_COLOR", "1"), ("CARGO_TERM_COLOR", "never"), ("TERM", "dumb")];

/// How long a check may take when the repository does not say.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// Diagnostics that one check may yield; errors stay longest.
pub const DIAGNOSTICS_MAX: usize = 200;

/// Bytes of one diagnostic's message.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// The [`Diagnostic::code`] of the tail that stands in where no parser understood a red check's output.
pub const TAIL_CODE: &str = "output";

/// A command of the repository that proves work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name, such as `test`; unique in the repository.
    pub name: String,
    /// The command line, for `sh -c`.
    pub command: String,
    /// The folder that it runs in, relative to the workspace; empty for the workspace itself.
    pub directory: String,
    /// How long it may take.
    pub timeout: Duration,
    /// Who reads its output.
    pub parser: parse::ParserKind,
    /// A command line for the same folder that must have succeeded before, once for each sandbox, such as `npm ci`.
    pub prepare: Option<String>,
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What the tool says, at most 4 KiB of it.
    pub message: String,
    /// The file, relative to the workspace where it lies in it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u32>,
    /// The column, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub column: Option<u32>,
    /// The tool's own code for it, such as `E0308` or `no-unused-vars`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
    /// The test that failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub test: Option<String>,
}

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Worth mending.
    Warning,
    /// It makes the check red.
    Error,
}

impl Diagnostic {
    /// A finding without a place.
    pub(crate) fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self { severity, message: message.into(), file: None, line: None, column: None, code: None, test: None }
    }

    /// Whether it is the tail of an output that no parser understood.
    pub fn is_tail(&self) -> bool {
        self.test.is_none() && self.file.is_none() && self.code.as_deref() == Some(TAIL_CODE)
    }

    /// `file:line:column`, as far as it is known.
    pub fn place(&self) -> Option<String> {
        let mut place = self.file.clone()?;
        for number in [self.line, self.line.and(self.column)].into_iter().flatten() {
            place.push_str(&format!(":{number}"));
        }
        Some(place)
    }
}

/// At most `max` bytes of a text, cut at a character, with `…` where something is missing.
pub(crate) fn clip(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let cut = text.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_keeps_characters_whole() {
        assert_eq!(clip("ééé", 6), "ééé");
        assert_eq!(clip("éééé", 7), "éé…");
    }

    #[test]
    fn a_place_is_told_as_far_as_it_is_known() {
        let mut diagnostic = Diagnostic { column: Some(3), ..Diagnostic::new(Severity::Error, "x") };
        assert_eq!(diagnostic.place(), None);
        diagnostic.file = Some("a.c".into());
        assert_eq!(diagnostic.place().as_deref(), Some("a.c"));
        diagnostic.line = Some(7);
        assert_eq!(diagnostic.place().as_deref(), Some("a.c:7:3"));
    }
}

//! What is wrong with an environment file, and where.

use std::fmt;

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

impl Place {
    /// The place of a byte.
    pub(super) fn of(text: &str, at: usize) -> Self {
        let before = &text[..text.floor_char_boundary(at)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        Self { line, column: before[line_start..].chars().count() + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// What is wrong with the file. Follows "failed to read .hob/environment.toml: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// It is too long to be one.
    #[error("it is longer than {max} bytes")]
    TooLong {
        /// What is read at most.
        max: usize,
    },
    /// It is not in its language, or names a key twice.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A key that nobody knows.
    #[error("{place}: unknown key `{key}`{}", nearest.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key, with the tables that it is in.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
    /// A value that does not fit its key.
    #[error("{place}: `{key}`: {message}")]
    Value {
        /// Where.
        place: Place,
        /// The key, with the tables that it is in.
        key: String,
        /// What is wrong with it, and what would be right.
        message: String,
    },
}

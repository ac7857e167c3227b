//! Reads what a check printed into diagnostics.
//!
//! One file for each format, each a function over the cleaned [`Text`]. The input comes from a sandbox: it is bounded,
//! need not be UTF-8, and nothing in it makes a parser panic or take more than linear time.

use serde::{Deserialize, Serialize};

use super::{Diagnostic, Severity};

mod eslint;
mod found;
mod gcc;
mod go;
mod jest;
mod js;
mod json;
mod junit;
mod libtest;
mod maven;
mod mocha;
mod node_test;
mod python;
mod rustc;
mod sarif;
mod tail;
mod tap;
mod text;
mod tsc;

use found::Found;
use text::Text;

/// What a check left behind, and where it ran.
#[derive(Debug, Clone, Copy)]
pub struct CheckOutput<'a> {
    /// What it wrote to its standard output; its middle may be missing.
    pub stdout: &'a [u8],
    /// What it wrote to its standard error; its middle may be missing.
    pub stderr: &'a [u8],
    /// Its exit code, or 128 + the signal that ended it.
    pub exit_code: i32,
    /// The workspace's absolute path in the sandbox, such as `/workspace`.
    pub workspace: &'a str,
    /// The folder that it ran in, relative to the workspace; empty for the workspace itself.
    pub directory: &'a str,
}

/// Who reads a check's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParserKind {
    /// All of them, in the order of [`ParserKind::ALL`].
    #[default]
    Auto,
    /// A SARIF 2.1.0 document.
    Sarif,
    /// A JUnit XML document.
    Junit,
    /// `rustc`, `clippy` and `cargo`, as JSON or as text, and the tests that they run.
    Cargo,
    /// `go build`, `go vet` and `go test`, as text or with `-json`.
    Go,
    /// Maven: its compiler plugin, and surefire's tests.
    Maven,
    /// The TypeScript compiler, pretty or plain.
    Tsc,
    /// ESLint's `stylish`, `unix` and `json` formats.
    Eslint,
    /// Test Anything Protocol 12 to 14: node's `tap` reporter, tape, and others.
    Tap,
    /// The `spec` reporter of `node --test`.
    NodeTest,
    /// Mocha's `spec`, `dot` and `list` reporters.
    Mocha,
    /// Jest and Vitest.
    Jest,
    /// pytest, `unittest`, and a bare traceback.
    Python,
    /// `file:line:column: error: …`, as gcc, clang, javac, mypy, ruff and many others write it.
    Gcc,
    /// None: the end of the output, as it is.
    Tail,
}

impl ParserKind {
    /// Every parser that reads a format, in the order in which [`Auto`](Self::Auto) tries them.
    pub const ALL: [Self; 13] = [
        Self::Sarif,
        Self::Junit,
        Self::Cargo,
        Self::Go,
        Self::Maven,
        Self::Tsc,
        Self::Eslint,
        Self::Tap,
        Self::NodeTest,
        Self::Mocha,
        Self::Jest,
        Self::Python,
        Self::Gcc,
    ];

    /// The names that a repository may write for it.
    pub const NAMES: [&str; 15] = [
        "auto",
        "sarif",
        "junit",
        "cargo",
        "go",
        "maven",
        "tsc",
        "eslint",
        "tap",
        "node-test",
        "mocha",
        "jest",
        "python",
        "gcc",
        "tail",
    ];

    /// The parser of this name.
    pub fn named(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::from(name)).ok()
    }

    fn read(self, text: &Text, found: &mut Found<'_>) {
        match self {
            Self::Auto => Self::ALL.iter().for_each(|parser| parser.read(text, found)),
            Self::Sarif => sarif::read(text, found),
            Self::Junit => junit::read(text, found),
            Self::Cargo => {
                rustc::read(text, found);
                libtest::read(text, found);
            }
            Self::Go => go::read(text, found),
            Self::Maven => maven::read(text, found),
            Self::Tsc => tsc::read(text, found),
            Self::Eslint => eslint::read(text, found),
            Self::Tap => tap::read(text, found),
            Self::NodeTest => node_test::read(text, found),
            Self::Mocha => mocha::read(text, found),
            Self::Jest => jest::read(text, found),
            Self::Python => python::read(text, found),
            Self::Gcc => gcc::read(text, found),
            Self::Tail => {}
        }
    }
}

/// Reads a check's output into at most [`DIAGNOSTICS_MAX`](super::DIAGNOSTICS_MAX) diagnostics.
///
/// The exit code has the last word. A green check has no errors: what a tool calls one is a warning then. A red check
/// has at least one: where no parser finds any, a loose reading of `file:line: …` is tried, and then the end of the
/// output stands in, with [`TAIL_CODE`](super::TAIL_CODE).
pub fn parse(parser: ParserKind, output: &CheckOutput<'_>) -> Vec<Diagnostic> {
    let text = Text::of(output);
    let mut found = Found::new(output);
    parser.read(&text, &mut found);
    let red = output.exit_code != 0;
    if red && !found.has_error() && parser != ParserKind::Tail {
        gcc::read_loosely(&text, &mut found);
    }
    if red && !found.has_error() {
        found.push(tail::of(&text, output.exit_code));
    }
    let mut diagnostics = found.finish();
    if !red {
        diagnostics.iter_mut().for_each(|d| d.severity = d.severity.min(Severity::Warning));
    }
    diagnostics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{DIAGNOSTICS_MAX, MESSAGE_BYTES_MAX, TAIL_CODE};
    use proptest::prelude::*;

    fn output<'a>(stdout: &'a [u8], stderr: &'a [u8], exit_code: i32) -> CheckOutput<'a> {
        CheckOutput { stdout, stderr, exit_code, workspace: "/workspace", directory: "" }
    }

    #[test]
    fn every_name_is_a_parser_and_every_parser_has_a_name() {
        for name in ParserKind::NAMES {
            let kind: ParserKind = serde_json::from_value(name.into()).unwrap();
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
        }
        assert!(serde_json::from_str::<ParserKind>("\"clippy\"").is_err());
    }

    #[test]
    fn a_red_check_without_words_is_still_an_error() {
        let found = parse(ParserKind::Auto, &output(b"", b"", 137));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message, "exit code 137, and no output");
        assert_eq!(found[0].code.as_deref(), Some(TAIL_CODE));
    }

    #[test]
    fn a_green_check_has_no_errors_whatever_it_prints() {
        let found = parse(ParserKind::Auto, &output(b"a.c:1:2: error: expected in a passing test\n", b"", 0));
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(parse(ParserKind::Auto, &output(b"all is well\n", b"", 0)).is_empty());
    }

    #[test]
    fn two_hundred_are_kept_and_errors_stay_longest() {
        let mut text = String::new();
        for n in 1..=500 {
            text.push_str(&format!("a.c:{n}:1: warning: w{n}\n"));
        }
        text.push_str(&format!("a.c:9:1: error: {}\n", "x".repeat(50_000)));
        let found = parse(ParserKind::Auto, &output(text.as_bytes(), b"", 1));
        assert_eq!(found.len(), DIAGNOSTICS_MAX);
        let error = found.last().unwrap();
        assert_eq!(error.severity, Severity::Error);
        assert!(error.message.len() <= MESSAGE_BYTES_MAX && error.message.ends_with('…'));
    }

    #[test]
    fn colours_and_broken_utf8_do_not_matter() {
        let found = parse(ParserKind::Gcc, &output(b"\x1b[1ma.c:1:2:\x1b[0m \x1b[31merror:\x1b[m b\xffd\r\n", b"", 1));
        assert_eq!(found[0].message, "b\u{fffd}d");
        assert_eq!(found[0].place().as_deref(), Some("a.c:1:2"));
    }

    /// Pieces of every format, to be put together in orders that no tool would.
    const PIECES: &[&str] = &[
        "not ok 1 - a\n",
        "  ---\n",
        "  ...\n",
        "error[E0308]: x\n",
        " --> a.rs:1:2\n",
        "---- a stdout ----\n",
        "failures:\n",
        "thread 'a' panicked at a.rs:1:2:\n",
        "{\"reason\":\"compiler-message\"}\n",
        "{\"Action\":",
        "[{\"filePath\":\"a\",\"messages\":[{}]}]",
        "{\"runs\":[{\"results\":[{}]}]}",
        "<testsuite><testcase name='a'>",
        "<failure>",
        "  1) a\n",
        "  1 failing\n",
        "  ● a › b\n",
        " FAIL  a > b\n",
        "✖ a (1ms)\n",
        "✖ failing tests:\n",
        "test at a.js:1:2\n",
        "____ a ____\n",
        "E   x\n",
        "a.py:1: E\n",
        "== FAILURES ==\n",
        "FAIL: a (b)\n",
        "--- FAIL: a (0.00s)\n",
        "FAIL\ta/b\t0.1s\n",
        "panic: x\n",
        "# a/b\n",
        "    at a (file:///workspace/a.js:1:2)\n",
        "a.ts(1,2): error TS1: x\n",
        "/workspace/a.js\n",
        "  1:2  error  x  y\n",
        "Traceback (most recent call last):\n",
        "  File \"a.py\", line 1, in b\n",
        "\u{1b}[31m",
        "\n",
        " ",
        "é",
        "=====\n",
        "-----\n",
        "a.c:1:2: error: x\n",
        ":::::1:2\n",
        "TAP version 13\n",
    ];

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(stdout in proptest::collection::vec(any::<u8>(), 0..2_000), code in -1..300) {
            let found = parse(ParserKind::Auto, &output(&stdout, &stdout, code));
            prop_assert!(code == 0 || found.iter().any(|d| d.severity == Severity::Error));
        }

        #[test]
        fn no_order_of_pieces_makes_a_parser_panic(
            pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..60),
            code in 0..2,
        ) {
            let text = pieces.concat();
            for parser in ParserKind::ALL.into_iter().chain([ParserKind::Auto, ParserKind::Tail]) {
                let found = parse(parser, &output(text.as_bytes(), b"", code));
                prop_assert!(found.len() <= DIAGNOSTICS_MAX);
                prop_assert!(found.iter().all(|d| d.message.len() <= MESSAGE_BYTES_MAX));
                prop_assert_eq!(code == 0, !found.iter().any(|d| d.severity == Severity::Error));
            }
        }
    }
}

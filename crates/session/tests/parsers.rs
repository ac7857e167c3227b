//! Every parser on what the real tool printed: see `fixtures/README.md` for versions and commands.

#![expect(clippy::unwrap_used, reason = "a test fails where its fixture cannot be read")]

use std::fmt::Write as _;
use std::path::Path;

use hob_session::checks::parse::{CheckOutput, ParserKind, parse};
use hob_session::checks::{Diagnostic, Severity};

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    if path.exists() { std::fs::read(path).unwrap() } else { Vec::new() }
}

fn read(name: &str, parser: ParserKind) -> Vec<Diagnostic> {
    let (stdout, stderr) = (fixture(&format!("{name}.out")), fixture(&format!("{name}.err")));
    assert!(stdout.len() + stderr.len() > 0, "there is no fixture {name}");
    let output = CheckOutput { stdout: &stdout, stderr: &stderr, exit_code: 1, workspace: "/workspace", directory: "" };
    parse(parser, &output)
}

/// The diagnostics as a person would list them.
fn told(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let code = diagnostic.code.as_ref().map(|code| format!(" [{code}]")).unwrap_or_default();
        let test = diagnostic.test.as_ref().map(|test| format!(" test `{test}`")).unwrap_or_default();
        writeln!(text, "{severity} {}{code}{test}", diagnostic.place().unwrap_or_else(|| "-".into())).unwrap();
        for line in diagnostic.message.lines() {
            writeln!(text, "    {line}").unwrap();
        }
    }
    text
}

/// Holds what the parser finds against its snapshot, and what all of them together find against the parser's.
#[track_caller]
fn check(name: &str, parser: ParserKind) {
    let found = read(name, parser);
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!(name, told(&found));
    });
    assert_eq!(told(&read(name, ParserKind::Auto)), told(&found), "auto finds something else in {name}");
}

macro_rules! on_real_output {
    ($($test:ident: $name:literal by $parser:ident;)*) => {
        $(#[test] fn $test() { check($name, ParserKind::$parser); })*
    };
}

on_real_output! {
    cargo_test: "cargo-test" by Cargo;
    cargo_test_with_json_messages: "cargo-test-json" by Cargo;
    cargo_build: "cargo-build" by Cargo;
    cargo_build_with_json_messages: "cargo-build-json" by Cargo;
    rustc_json: "rustc-json" by Cargo;
    clippy: "clippy" by Cargo;
    clippy_json: "clippy-json" by Cargo;
    maven: "maven" by Maven;
    maven_build: "maven-build" by Maven;
    tsc: "tsc" by Tsc;
    tsc_pretty: "tsc-pretty" by Tsc;
    eslint_stylish: "eslint-stylish" by Eslint;
    eslint_json: "eslint-json" by Eslint;
    eslint_unix: "eslint-unix" by Eslint;
    eslint_sarif: "eslint-sarif" by Sarif;
    ruff_sarif: "ruff-sarif" by Sarif;
    node_tap: "node-tap" by Tap;
    node_tap_of_a_file_that_dies: "node-crash-tap" by Tap;
    node_20_spec: "node20-spec" by NodeTest;
    node_24_spec: "node24-spec" by NodeTest;
    node_spec_of_a_file_that_dies: "node-crash-spec" by NodeTest;
    node_junit: "node-junit" by Junit;
    tape: "tape" by Tap;
    mocha: "mocha" by Mocha;
    mocha_dot: "mocha-dot" by Mocha;
    mocha_tap: "mocha-tap" by Tap;
    jest: "jest" by Jest;
    vitest: "vitest" by Jest;
    pytest: "pytest" by Python;
    pytest_short: "pytest-short" by Python;
    pytest_without_tracebacks: "pytest-line" by Python;
    pytest_that_cannot_collect: "pytest-collect" by Python;
    pytest_junit: "pytest-junit" by Junit;
    unittest: "unittest" by Python;
    unittest_that_cannot_import: "unittest-import" by Python;
    gcc_under_make: "gcc" by Gcc;
    gcc_without_a_header: "gcc-fatal" by Gcc;
    gcc_that_cannot_link: "gcc-link" by Gcc;
    mypy: "mypy" by Gcc;
    ruff: "ruff" by Python;
    ruff_concise: "ruff-concise" by Gcc;
    javac: "javac" by Gcc;
    go_test: "go-test" by Go;
    go_test_verbose: "go-test-v" by Go;
    go_test_json: "go-test-json" by Go;
    go_vet: "go-vet" by Go;
    go_build: "go-build" by Go;
}

/// The output of several tools that ran one after another in one check, as `npm test` often has it.
#[test]
fn several_tools_in_one_output_are_all_read() {
    let stdout = [fixture("eslint-stylish.out"), fixture("tsc.out"), fixture("mocha.out")].concat();
    let output = CheckOutput { stdout: &stdout, stderr: b"", exit_code: 1, workspace: "/workspace", directory: "" };
    let found = parse(ParserKind::Auto, &output);
    let apart: Vec<Diagnostic> =
        [("tsc", ParserKind::Tsc), ("eslint-stylish", ParserKind::Eslint), ("mocha", ParserKind::Mocha)]
            .into_iter()
            .flat_map(|(name, parser)| read(name, parser))
            .collect();
    assert_eq!(told(&found), told(&apart));
}

#[test]
fn paths_of_a_check_in_a_folder_are_told_from_the_workspace() {
    let stdout = fixture("tsc.out");
    let output = CheckOutput { stdout: &stdout, stderr: b"", exit_code: 2, workspace: "/workspace", directory: "web" };
    assert_eq!(parse(ParserKind::Auto, &output)[0].place().as_deref(), Some("web/src/shelf.ts:4:7"));
}

#[test]
fn output_cut_anywhere_is_still_read() {
    for name in ["pytest", "jest", "go-test-json", "node-tap", "pytest-junit", "cargo-build-json", "unittest"] {
        let whole = [fixture(&format!("{name}.out")), fixture(&format!("{name}.err"))].concat();
        for cut in (0..whole.len()).step_by(97) {
            let output = CheckOutput {
                stdout: &whole[cut..],
                stderr: &whole[..cut],
                exit_code: 1,
                workspace: "/workspace",
                directory: "",
            };
            assert!(
                parse(ParserKind::Auto, &output).iter().any(|d| d.severity == Severity::Error),
                "{name} cut at {cut}"
            );
        }
    }
}

//! The closed loop with real programs: checks are found, run, read, held against the base, and become evidence.

#![expect(clippy::unwrap_used, reason = "a test fails where its programs cannot be run")]

use std::path::Path;
use std::process::Command;

use hob_session::checks::parse::{CheckOutput, parse};
use hob_session::checks::rounds::{Decision, GiveUp, Round, decide};
use hob_session::checks::{CHECK_ENV, Check, detect};
use hob_session::event::CheckRun;
use hob_session::evidence::{self, CheckOutcome};

const MANIFEST: &str = r#"{"name": "shelf", "version": "1.0.0", "scripts": {"test": "node --test"}}"#;
const TESTS: &str = r#"
const { test } = require("node:test");
const assert = require("node:assert");
const { add, half } = require("./shelf.js");
test("adds", () => assert.strictEqual(add(2, 2), 4));
test("halves", () => assert.strictEqual(half(4), 2));
"#;

fn shelf(add: &str, half: &str) -> String {
    format!("exports.add = (a, b) => {add};\nexports.half = (n) => {half};\n")
}

/// A project in a folder of its own, with one file that changes.
struct Project(tempfile::TempDir);

impl Project {
    fn new(source: &str) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        project.write("package.json", MANIFEST);
        project.write("shelf.test.js", TESTS);
        project.write("shelf.js", source);
        project
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn checks(&self) -> Vec<Check> {
        let files = std::fs::read_dir(self.path()).unwrap();
        let files: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        detect::detect(&files, |file| std::fs::read_to_string(self.path().join(file)).ok())
    }

    fn run(&self, round: u32) -> Vec<CheckRun> {
        let run = |check: Check| {
            let mut command = Command::new("sh");
            // A test of ours runs in a test runner itself, and node's would tell its results to that one.
            command.args(["-c", &check.command]).current_dir(self.path()).env_remove("NODE_TEST_CONTEXT");
            let output = command.envs(CHECK_ENV.iter().copied()).output().unwrap();
            let exit_code = output.status.code().unwrap();
            let output = CheckOutput {
                stdout: &output.stdout,
                stderr: &output.stderr,
                exit_code,
                workspace: self.path().to_str().unwrap(),
                directory: &check.directory,
            };
            CheckRun {
                name: check.name.clone(),
                command: check.command.clone(),
                round,
                exit_code,
                timed_out: false,
                elapsed_ms: 0,
                diagnostics: parse(check.parser, &output),
                red_on_base: false,
            }
        };
        self.checks().into_iter().map(run).collect()
    }

    /// Changes the file, and runs the checks of a round.
    fn round(&self, round: u32, source: &str) -> Round {
        self.write("shelf.js", source);
        Round { tree: source.to_owned(), runs: self.run(round) }
    }
}

#[test]
fn a_bug_is_mended_in_the_second_round() {
    let project = Project::new(&shelf("a - b", "n / 2"));
    let base = project.run(0);
    let failing: Vec<_> = base[0].diagnostics.iter().map(|d| (d.test.as_deref(), d.file.as_deref(), d.line)).collect();
    assert_eq!(failing, [(Some("adds"), Some("shelf.test.js"), Some(5))]);

    // The first try mends one test and breaks the other.
    let mut rounds = vec![project.round(1, &shelf("a + b", "n / 3"))];
    let Decision::SendBack(prompt) = decide(&base, &rounds, 3) else { panic!("the new failure goes back") };
    assert!(prompt.contains("test `halves` at shelf.test.js:6:") && !prompt.contains("`adds`"), "{prompt}");

    rounds.push(project.round(2, &shelf("a + b", "n / 2")));
    assert_eq!(decide(&base, &rounds, 3), Decision::Green);
    let checks = evidence::checks(&base, &rounds[1].runs);
    assert_eq!(checks[0].outcome, CheckOutcome::Fixed);
    assert_eq!(checks[0].fixed[0].test.as_deref(), Some("adds"));
}

#[test]
fn a_file_that_does_not_load_is_told_with_its_cause() {
    let project = Project::new(&shelf("a + b", "n / 2"));
    let base = project.run(0);
    let round = project.round(1, "exports.add = ;\n");
    let said = &round.runs[0].diagnostics[0];
    assert!(said.message.contains("SyntaxError: Unexpected token ';'"), "{}", said.message);
    let rounds = [round.clone(), round];
    assert_eq!(decide(&base, &rounds, 3), Decision::GiveUp(GiveUp::NothingChanged));
}

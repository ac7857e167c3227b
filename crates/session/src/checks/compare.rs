//! Tells what a change broke from what was broken before it: one check's run on the base commit against its run on the
//! change.
//!
//! Lines move when a file is edited, so a finding is known again by what it says and not by where it stands.

use std::collections::HashMap;

use super::{DIAGNOSTICS_MAX, Diagnostic, Severity};
use crate::event::CheckRun;

/// What a change did to one check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Errors that the base does not have.
    pub new: Vec<Diagnostic>,
    /// Errors of the base that are gone.
    pub fixed: Vec<Diagnostic>,
    /// Errors that were there before and still are, as the run on the change tells them.
    pub known: Vec<Diagnostic>,
    /// Red, but just as red on the base commit: not blamed on the change.
    pub red_on_base: bool,
    /// Red because of the change.
    pub blamed: bool,
}

/// Whether a run is red: it failed or was ended by its time limit.
pub fn is_red(run: &CheckRun) -> bool {
    run.exit_code != 0 || run.timed_out
}

/// Holds a run on the change (`after`) against the run of the same check on the base commit, where there was one.
///
/// Without a `before`, all of a red check is blamed on the change. A check that was cut off by its time limit, or whose
/// findings were too many to keep, is blamed only when the base was not in the same trouble.
pub fn compare(before: Option<&CheckRun>, after: &CheckRun) -> Verdict {
    let red = is_red(after);
    let red_before = before.filter(|run| is_red(run));
    let mut base = Tally::of(red_before.map_or(&[], |run| run.diagnostics.as_slice()));
    let mut verdict = Verdict::default();
    for diagnostic in after.diagnostics.iter().filter(|d| red && d.severity == Severity::Error) {
        if base.take(diagnostic) { &mut verdict.known } else { &mut verdict.new }.push(diagnostic.clone());
    }
    verdict.fixed = base.left();

    let newly_timed_out = after.timed_out && !red_before.is_some_and(|run| run.timed_out);
    verdict.blamed = red
        && match red_before {
            None => true,
            // What lies beyond the limit is unknown: an error that moved into view is not a new one.
            Some(run) if run.diagnostics.len() >= DIAGNOSTICS_MAX => newly_timed_out,
            Some(_) => newly_timed_out || !verdict.new.is_empty(),
        };
    verdict.red_on_base = red && !verdict.blamed;
    verdict
}

/// Errors by identity, in the order they came.
struct Tally<'a> {
    found: HashMap<Identity<'a>, Vec<(usize, &'a Diagnostic)>>,
}

impl<'a> Tally<'a> {
    fn of(diagnostics: &'a [Diagnostic]) -> Self {
        let mut found: HashMap<_, Vec<_>> = HashMap::new();
        // Reversed, so that `take` pops the first of several that look the same.
        for (at, diagnostic) in diagnostics.iter().enumerate().rev().filter(|(_, d)| d.severity == Severity::Error) {
            found.entry(Identity::of(diagnostic)).or_default().push((at, diagnostic));
        }
        Self { found }
    }

    fn take(&mut self, diagnostic: &'a Diagnostic) -> bool {
        self.found.get_mut(&Identity::of(diagnostic)).is_some_and(|same| same.pop().is_some())
    }

    fn left(self) -> Vec<Diagnostic> {
        let mut left: Vec<_> = self.found.into_values().flatten().collect();
        left.sort_by_key(|(at, _)| *at);
        left.into_iter().map(|(_, diagnostic)| diagnostic.clone()).collect()
    }
}

/// What makes two findings the same one, whatever the lines, times and addresses in them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Identity<'a> {
    /// A test fails, in whatever words.
    Test(&'a str),
    /// Output that nobody understood; its words change from run to run.
    Tail,
    /// Anything else, by its file, code and words, numbers left out.
    Finding(Option<&'a str>, Option<&'a str>, String),
}

impl<'a> Identity<'a> {
    pub(crate) fn of(diagnostic: &'a Diagnostic) -> Self {
        match &diagnostic.test {
            Some(test) => Self::Test(test),
            None if diagnostic.is_tail() => Self::Tail,
            None => Self::Finding(
                diagnostic.file.as_deref(),
                diagnostic.code.as_deref(),
                without_numbers(&diagnostic.message),
            ),
        }
    }
}

/// Puts `#` for every run of digits, and so for lines, times, process IDs and most of an address.
pub(crate) fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_digit() {
            out.push(c);
        } else if !out.ends_with('#') {
            out.push('#');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(exit_code: i32, diagnostics: Vec<Diagnostic>) -> CheckRun {
        CheckRun {
            name: "test".into(),
            command: "make test".into(),
            round: 1,
            exit_code,
            timed_out: false,
            elapsed_ms: 1,
            diagnostics,
            red_on_base: false,
        }
    }

    fn test_fails(name: &str, message: &str) -> Diagnostic {
        Diagnostic { test: Some(name.into()), ..Diagnostic::new(Severity::Error, message) }
    }

    fn error(file: &str, line: u32, message: &str) -> Diagnostic {
        Diagnostic { file: Some(file.into()), line: Some(line), ..Diagnostic::new(Severity::Error, message) }
    }

    #[test]
    fn the_same_failing_test_is_not_blamed_on_the_change() {
        let before = run(1, vec![test_fails("adds", "expected 4, got 5 after 12 ms")]);
        let after = run(1, vec![test_fails("adds", "expected 4, got 6 after 9 ms")]);
        let verdict = compare(Some(&before), &after);
        assert!(verdict.red_on_base && !verdict.blamed);
        assert_eq!((verdict.new.len(), verdict.known.len(), verdict.fixed.len()), (0, 1, 0));
    }

    #[test]
    fn only_the_new_failure_is_blamed() {
        let before = run(1, vec![test_fails("old", "broken")]);
        let after = run(1, vec![test_fails("old", "broken"), test_fails("fresh", "broken")]);
        let verdict = compare(Some(&before), &after);
        assert!(verdict.blamed && !verdict.red_on_base);
        assert_eq!(verdict.new, [test_fails("fresh", "broken")]);
        assert_eq!(verdict.known, [test_fails("old", "broken")]);
    }

    #[test]
    fn a_finding_that_moved_down_is_the_same_and_a_second_one_is_new() {
        let before = run(1, vec![error("a.c", 3, "x undeclared (line 3)")]);
        let moved = run(1, vec![error("a.c", 9, "x undeclared (line 9)")]);
        assert!(compare(Some(&before), &moved).red_on_base);
        let twice = run(1, vec![error("a.c", 9, "x undeclared (line 9)"), error("a.c", 12, "x undeclared (line 12)")]);
        assert_eq!(compare(Some(&before), &twice).new.len(), 1);
        let elsewhere = run(1, vec![error("b.c", 3, "x undeclared (line 3)")]);
        assert!(compare(Some(&before), &elsewhere).blamed);
    }

    #[test]
    fn a_green_run_has_fixed_what_was_red() {
        let before = run(1, vec![test_fails("b", "broken"), test_fails("a", "broken")]);
        let verdict = compare(Some(&before), &run(0, vec![]));
        assert_eq!(verdict.fixed, [test_fails("b", "broken"), test_fails("a", "broken")]);
        assert!(!verdict.blamed && !verdict.red_on_base);
    }

    #[test]
    fn without_a_run_on_the_base_all_of_it_is_blamed() {
        assert!(compare(None, &run(1, vec![test_fails("a", "broken")])).blamed);
        assert!(compare(Some(&run(0, vec![])), &run(1, vec![])).blamed);
        assert!(!compare(None, &run(0, vec![])).blamed);
    }

    #[test]
    fn output_that_nobody_understands_is_known_by_being_red() {
        let tail = |text: &str| Diagnostic {
            code: Some(crate::checks::TAIL_CODE.into()),
            ..Diagnostic::new(Severity::Error, text)
        };
        assert!(compare(Some(&run(2, vec![tail("pid 7 died")])), &run(2, vec![tail("something else")])).red_on_base);
    }

    #[test]
    fn a_new_timeout_is_blamed_and_an_old_one_is_not() {
        let stuck = CheckRun { timed_out: true, ..run(137, vec![]) };
        assert!(compare(Some(&run(1, vec![])), &stuck).blamed);
        assert!(compare(Some(&stuck), &stuck).red_on_base);
    }

    #[test]
    fn a_base_with_too_many_errors_to_keep_is_not_held_against_the_change() {
        let before = run(1, (0..DIAGNOSTICS_MAX).map(|n| test_fails(&format!("t{n}"), "broken")).collect());
        let after = run(1, (1..=DIAGNOSTICS_MAX).map(|n| test_fails(&format!("t{n}"), "broken")).collect());
        assert!(compare(Some(&before), &after).red_on_base);
    }
}

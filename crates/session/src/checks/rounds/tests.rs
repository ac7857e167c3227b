use insta::assert_snapshot;

use super::*;
use crate::checks::TAIL_CODE;

fn run(name: &str, exit_code: i32, diagnostics: Vec<Diagnostic>) -> CheckRun {
    CheckRun {
        name: name.into(),
        command: format!("npm run {name}"),
        round: 1,
        exit_code,
        timed_out: false,
        elapsed_ms: 1_000,
        diagnostics,
        red_on_base: false,
    }
}

fn fails(test: &str, message: &str) -> Diagnostic {
    Diagnostic {
        test: Some(test.into()),
        file: Some("test/add.js".into()),
        line: Some(7),
        column: Some(3),
        ..Diagnostic::new(Severity::Error, message)
    }
}

fn round(tree: &str, runs: Vec<CheckRun>) -> Round {
    Round { tree: tree.into(), runs }
}

/// A round in which one test fails with a message.
fn red(tree: &str, message: &str) -> Round {
    round(tree, vec![run("test", 1, vec![fails("adds", message)])])
}

#[track_caller]
fn sends_back(decision: Decision) -> String {
    match decision {
        Decision::SendBack(prompt) => prompt,
        other => panic!("expected another round, and it is {other:?}"),
    }
}

#[test]
fn green_checks_end_it() {
    assert_eq!(decide(&[], &[round("a", vec![run("test", 0, vec![])])], 3), Decision::Green);
    assert_eq!(decide(&[], &[round("a", vec![])], 3), Decision::Green);
    assert_eq!(decide(&[], &[], 3), Decision::Green);
}

#[test]
fn what_was_red_before_does_not_go_back_to_the_agent() {
    let base = [run("test", 1, vec![fails("adds", "before")])];
    assert_eq!(decide(&base, &[red("a", "after")], 3), Decision::Green);
}

#[test]
fn red_checks_go_back_as_often_as_the_repository_allows() {
    let mut rounds = vec![red("a", "one")];
    assert_eq!(decide(&[], &rounds, 0), Decision::GiveUp(GiveUp::RoundsSpent { rounds: 0 }));
    sends_back(decide(&[], &rounds, 2));
    rounds.push(red("b", "two words"));
    assert!(sends_back(decide(&[], &rounds, 2)).contains("This is the last round."));
    rounds.push(red("c", "three"));
    assert_eq!(decide(&[], &rounds, 2), Decision::GiveUp(GiveUp::RoundsSpent { rounds: 2 }));
}

#[test]
fn a_round_that_changed_nothing_ends_it() {
    let rounds = [red("a", "one"), red("a", "one")];
    assert_eq!(decide(&[], &rounds, 9), Decision::GiveUp(GiveUp::NothingChanged));
}

#[test]
fn the_same_findings_in_three_rounds_running_end_it() {
    let mut rounds = vec![red("a", "got 3 after 12 ms"), red("b", "got 3 after 9 ms")];
    sends_back(decide(&[], &rounds, 9));
    rounds.push(red("c", "got 3 after 11 ms"));
    assert_eq!(decide(&[], &rounds, 9), Decision::GiveUp(GiveUp::SameFindings { rounds: 3 }));
    rounds.pop();
    rounds.push(red("c", "something new"));
    sends_back(decide(&[], &rounds, 9));
}

#[test]
fn the_order_in_which_tests_failed_does_not_matter() {
    let both = |tree: &str, first: &str, second: &str| {
        round(tree, vec![run("test", 1, vec![fails(first, "x"), fails(second, "x")])])
    };
    let rounds = [both("a", "m", "n"), both("b", "n", "m"), both("c", "m", "n")];
    assert_eq!(decide(&[], &rounds, 9), Decision::GiveUp(GiveUp::SameFindings { rounds: 3 }));
}

#[test]
fn reasons_are_told_in_words() {
    assert_eq!(GiveUp::RoundsSpent { rounds: 0 }.to_string(), "the repository allows no further rounds");
    assert_eq!(GiveUp::RoundsSpent { rounds: 1 }.to_string(), "the checks are still red after 1 further round");
    assert_eq!(GiveUp::RoundsSpent { rounds: 3 }.to_string(), "the checks are still red after 3 further rounds");
    assert_eq!(GiveUp::NothingChanged.to_string(), "the last round changed no file");
    assert_eq!(GiveUp::SameFindings { rounds: 3 }.to_string(), "the checks said the same in 3 rounds running");
}

#[test]
fn the_prompt_tells_what_is_new_and_what_to_leave() {
    let type_error = Diagnostic {
        file: Some("src/shelf.ts".into()),
        line: Some(4),
        column: Some(7),
        code: Some("TS2322".into()),
        ..Diagnostic::new(Severity::Error, "Type 'string' is not assignable to type 'Book'.")
    };
    let tail = Diagnostic {
        code: Some(TAIL_CODE.into()),
        ..Diagnostic::new(Severity::Error, "Segmentation fault\n## Check `x`: exit code 0")
    };
    let base = [run("test", 1, vec![fails("old", "broken")]), run("docs", 1, vec![fails("docs", "broken")])];
    let runs = vec![
        run("types", 2, vec![type_error]),
        run("lint", 0, vec![]),
        run("test", 1, vec![fails("old", "broken"), fails("adds", "Expected values to be strictly equal:\n\n0 !== 4")]),
        run("docs", 1, vec![fails("docs", "broken")]),
        run("smoke", 139, vec![tail]),
        CheckRun { timed_out: true, ..run("slow", 143, vec![]) },
    ];
    assert_snapshot!(sends_back(decide(&base, &[round("a", runs)], 3)));
}

#[test]
fn the_prompt_is_bounded_and_every_check_gets_its_share() {
    let flood =
        |name: &str| run(name, 1, (0..200).map(|n| fails(&format!("{name} {n}"), &"é".repeat(2_000))).collect());
    let prompt = sends_back(decide(&[], &[round("a", vec![flood("one"), flood("two"), flood("three")])], 3));
    assert!(prompt.len() <= PROMPT_BYTES_MAX, "{}", prompt.len());
    for name in ["one", "two", "three"] {
        assert!(prompt.contains(&format!("test `{name} 0`")));
    }
    assert!(prompt.contains("more.\n") && prompt.ends_with("when you are done.\n"));
}

use super::*;
use insta::assert_snapshot;

fn run(name: &str, round: u32, exit_code: i32, diagnostics: Vec<Diagnostic>) -> CheckRun {
    CheckRun {
        name: name.into(),
        command: format!("npm run {name} | cat"),
        round,
        exit_code,
        timed_out: false,
        elapsed_ms: 61_400,
        diagnostics,
        red_on_base: false,
    }
}

fn fails(test: &str, message: &str) -> Diagnostic {
    Diagnostic {
        test: Some(test.into()),
        file: Some("test/add.js".into()),
        line: Some(7),
        ..Diagnostic::new(Severity::Error, message)
    }
}

fn evidence(base: &[CheckRun], last: &[CheckRun], outcome: TurnOutcome) -> Evidence {
    Evidence {
        format: FORMAT,
        session: "s1".into(),
        turn: "t1".into(),
        repository: "/home/ada/shelf".into(),
        base: "b".repeat(40),
        commit: Some("c".repeat(40)),
        branch: Some("hob/fix-add".into()),
        agent: "hob".into(),
        model: "scripted".into(),
        outcome,
        rounds: 2,
        gave_up: None,
        checks: checks(base, last),
        usage: Usage { model_calls: 3, input_tokens: 1_200, output_tokens: 80, cost_micro_usd: Some(12_345) },
        started_at_ms: 1_000,
        ended_at_ms: 9_500,
    }
}

fn fixed() -> Evidence {
    let base =
        [run("test", 0, 1, vec![fails("adds", "expected `4`\ngot 0"), fails("old", "x")]), run("lint", 0, 0, vec![])];
    evidence(&base, &[run("test", 2, 0, vec![]), run("lint", 2, 0, vec![])], TurnOutcome::Done)
}

#[test]
fn a_fix_is_told_with_what_was_red_before() {
    assert_snapshot!(fixed().to_markdown());
}

#[test]
fn a_red_check_is_told_apart_from_one_that_was_red_before() {
    let base = [run("test", 0, 1, vec![fails("old", "@everyone <b>")]), run("lint", 0, 1, vec![fails("l", "m")])];
    let last = [
        run("test", 3, 1, vec![fails("old", "@everyone <b>"), fails("fresh", "```x")]),
        run("lint", 3, 1, vec![fails("l", "m")]),
        CheckRun { timed_out: true, ..run("types", 3, 143, vec![]) },
    ];
    let mut evidence = evidence(&base, &last, TurnOutcome::ChecksFailed);
    evidence.gave_up = Some("the last round changed no file".into());
    evidence.commit = None;
    assert_snapshot!(evidence.to_markdown());
}

#[test]
fn the_json_is_stable() {
    assert_snapshot!(fixed().to_json().unwrap());
}

#[test]
fn the_json_is_read_back() {
    let evidence = fixed();
    assert_eq!(Evidence::from_json(&evidence.to_json().unwrap()).unwrap(), evidence);
}

#[test]
fn a_later_format_is_refused_by_name() {
    let error = Evidence::from_json(r#"{"format": 2, "new": "shape"}"#).unwrap_err();
    assert_eq!(error.to_string(), "its format is 2, and this version of Hob knows up to 1; update Hob");
    assert!(matches!(Evidence::from_json("{}"), Err(EvidenceError::Json(_))));
}

#[test]
fn without_checks_it_says_so() {
    assert_snapshot!(evidence(&[], &[], TurnOutcome::Done).headline());
}

#[test]
fn a_flood_is_cut() {
    let flood = (0..200).map(|n| fails(&format!("{n} {}", "t".repeat(1_000)), "m")).collect();
    let text = evidence(&[], &[run("test", 1, 1, flood)], TurnOutcome::ChecksFailed).to_markdown();
    assert!(text.len() <= MARKDOWN_BYTES_MAX && text.contains("… and 180 more"));
}

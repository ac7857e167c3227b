//! What a person sees of each kind of event.

use hob_agent::{Author, PlanEntry, PlanStatus, StopReason, ToolCall, ToolContent, ToolKind, ToolStatus};
use hob_session::checks::{Diagnostic, Severity};
use hob_session::event::{CheckRun, ServiceStatus};
use insta::assert_snapshot;

use super::*;

fn render(style: Style, kinds: Vec<EventKind>) -> String {
    let mut renderer = Renderer::new(style);
    let mut out = String::new();
    for (index, kind) in (0_u64..).zip(kinds) {
        out.push_str(&renderer.event(&Event { seq: index + 1, at_ms: 1_000 + index * 500, kind }));
    }
    out + &renderer.finish()
}

fn mona() -> Author {
    Author { name: "Mona".into(), email: "mona@example.org".into() }
}

fn message(text: &str) -> EventKind {
    EventKind::Message { message_id: "m1".into(), offset: 0, text: text.into() }
}

fn tool(kind: ToolKind, title: &str, status: ToolStatus, content: Vec<ToolContent>) -> EventKind {
    EventKind::ToolCall(ToolCall {
        id: title.into(),
        name: "tool".into(),
        title: title.into(),
        kind,
        status,
        input: serde_json::Value::Null,
        content,
        locations: Vec::new(),
    })
}

fn red_check() -> CheckRun {
    CheckRun {
        name: "test".into(),
        command: "pytest".into(),
        round: 1,
        exit_code: 1,
        timed_out: false,
        elapsed_ms: 2_340,
        diagnostics: vec![Diagnostic {
            severity: Severity::Error,
            message: "assert 1 == 3\nmore".into(),
            file: Some("test_calc.py".into()),
            line: Some(4),
            column: None,
            code: None,
            test: Some("test_add".into()),
        }],
        red_on_base: false,
    }
}

#[test]
fn services_are_told_as_they_fare() {
    let service = |status, elapsed_ms, detail: Option<&str>, log: Option<&str>| EventKind::Service {
        name: "db".into(),
        status,
        elapsed_ms,
        detail: detail.map(str::to_owned),
        log: log.map(str::to_owned),
    };
    let kinds = vec![
        service(ServiceStatus::Starting, None, None, None),
        service(ServiceStatus::Ready, Some(120), None, None),
        service(ServiceStatus::Ended, None, Some("it ended with exit code 1; it is started again in 250 ms"), None),
        service(ServiceStatus::Failed, None, Some("it ended with exit code 1"), Some("no room\n\x1b[2Jbye")),
    ];
    assert_snapshot!(render(Style::Plain, kinds), @r"
    · service db is ready 120 ms
    ! service db: it ended with exit code 1; it is started again in 250 ms
    ✗ service db has failed: it ended with exit code 1
        no room
        [2Jbye
    ");
}

fn a_whole_turn() -> Vec<EventKind> {
    let phase =
        |name: &str, status, elapsed_ms| EventKind::Phase { name: name.into(), status, elapsed_ms, detail: None };
    vec![
        EventKind::SessionCreated {
            repository: "/home/mona/calc".into(),
            base: None,
            agent: "hob".into(),
            model: "claude-sonnet-4-5".into(),
            author: mona(),
        },
        EventKind::PromptQueued {
            prompt_id: "p1".into(),
            author: mona(),
            text: "fix the test".into(),
            attachments: Vec::new(),
            model: None,
        },
        phase("sandbox", PhaseStatus::Started, None),
        phase("sandbox", PhaseStatus::Ended, Some(84)),
        EventKind::Thought { message_id: "t1".into(), offset: 0, text: "Where is add?".into() },
        message("I will look "),
        message("at the test."),
        tool(ToolKind::Read, "read calc.py", ToolStatus::Completed, vec![ToolContent::Text { text: "a file".into() }]),
        tool(ToolKind::Edit, "edit calc.py", ToolStatus::InProgress, Vec::new()),
        tool(
            ToolKind::Edit,
            "edit calc.py",
            ToolStatus::Completed,
            vec![ToolContent::Diff {
                path: "calc.py".into(),
                old_text: Some("def add(a, b):\n    return a - b\n".into()),
                new_text: "def add(a, b):\n    return a + b\n".into(),
            }],
        ),
        tool(
            ToolKind::Execute,
            "python -m pytest",
            ToolStatus::Failed,
            vec![ToolContent::Text { text: (1..=8).map(|n| format!("line {n}\n")).collect() }],
        ),
        EventKind::ModelCall(ModelCall {
            model: "claude-sonnet-4-5".into(),
            provider: "anthropic".into(),
            status: 200,
            input_tokens: 12_345,
            cached_tokens: 0,
            output_tokens: 678,
            cost_micro_usd: Some(47_205),
            first_byte_ms: 300,
            elapsed_ms: 2_000,
            attempts: 1,
        }),
        EventKind::CheckEnded(red_check()),
        EventKind::RoundStarted { turn_id: "u1".into(), round: 2, text: "red".into() },
        EventKind::CheckEnded(CheckRun { exit_code: 0, diagnostics: Vec::new(), round: 2, ..red_check() }),
        EventKind::Committed {
            commit: "0123456789abcdef0123456789abcdef01234567".into(),
            branch: "hob/fix-the-test".into(),
            subject: "Fix add".into(),
            author: mona(),
            co_authors: Vec::new(),
            files_changed: 1,
            insertions: 1,
            deletions: 1,
        },
        EventKind::TurnEnded {
            turn_id: "u1".into(),
            prompt_id: "p1".into(),
            outcome: TurnOutcome::Done,
            stop_reason: Some(StopReason::EndTurn),
            message: "The sign was wrong.".into(),
            elapsed_ms: 12_300,
        },
    ]
}

#[test]
fn a_whole_turn_reads_well() {
    assert_snapshot!(render(Style::Plain, a_whole_turn()));
}

#[test]
fn in_colour_it_says_the_same() {
    let coloured = render(Style::Colour, a_whole_turn());
    let mut plain = String::new();
    let mut escape = false;
    for c in coloured.chars() {
        match c {
            '\x1b' => escape = true,
            'm' if escape => escape = false,
            _ if escape => {}
            c => plain.push(c),
        }
    }
    assert_eq!(plain, render(Style::Plain, a_whole_turn()));
}

#[test]
fn what_asks_for_a_person_stands_out() {
    assert_snapshot!(render(Style::Plain, vec![
        EventKind::QuestionAsked { question_id: "q1".into(), text: "Which?".into(), choices: vec!["a".into(), "b".into()] },
        EventKind::QuestionAnswered { question_id: "q1".into(), text: None, by: None },
        EventKind::EgressRefused { host: "evil.example".into(), port: 443, reason: "not on the list".into() },
        EventKind::Plan { entries: vec![
            PlanEntry { content: "look".into(), status: PlanStatus::Completed },
            PlanEntry { content: "mend".into(), status: PlanStatus::InProgress },
        ] },
        EventKind::Pushed { branch: "hob/x".into(), remote: None, reason: Some("there is no remote".into()) },
    ]), @r"
    ? Which?
        a
        b
      nobody answered
    refused evil.example:443: not on the list
      ☑ look
      ▸ mend
    not pushed: there is no remote
    ");
}

#[test]
fn what_runs_is_the_status_until_it_ends() {
    let mut renderer = Renderer::new(Style::Plain);
    let mut show = |kind| {
        renderer.event(&Event { seq: 1, at_ms: 0, kind });
        renderer.status()
    };
    let running = tool(ToolKind::Execute, "make", ToolStatus::InProgress, Vec::new());
    assert_eq!(show(running), Some("make".into()));
    assert_eq!(show(message("half a line")), None);
    assert_eq!(show(tool(ToolKind::Execute, "make", ToolStatus::Completed, Vec::new())), None);
}

#[test]
fn a_long_diff_is_cut() {
    let new_text: String = (0..100).map(|n| format!("line {n}\n")).collect();
    let content = vec![ToolContent::Diff { path: "a".into(), old_text: None, new_text }];
    let text = render(Style::Plain, vec![tool(ToolKind::Edit, "write a", ToolStatus::Completed, content)]);
    assert!(text.ends_with("    + line 23\n    … 76 more lines\n"), "{text}");
}

#[test]
fn cost_is_told_with_cents() {
    assert_eq!([12, 4_720, 47_205, 3_500_000].map(dollars), ["0.0000", "0.0047", "0.04", "3.50"]);
}

#[test]
fn who_waits_for_a_place_sees_it_and_a_wait_that_was_none_is_not_shown() {
    let queue = |status, elapsed_ms| EventKind::Phase { name: "queue".into(), status, elapsed_ms, detail: None };
    let none = vec![queue(PhaseStatus::Ended, Some(0))];
    assert_eq!(render(Style::Plain, none), "");
    let waited = vec![
        queue(PhaseStatus::Started, None),
        EventKind::WaitingForPlace { position: 3, of: 7 },
        EventKind::WaitingForPlace { position: 11, of: 11 },
        queue(PhaseStatus::Ended, Some(4_200)),
    ];
    assert_snapshot!(render(Style::Plain, waited), @"
    · waiting for a place: 3rd of 7
    · waiting for a place: 11th of 11
    · queue 4.2 s
    ");
}

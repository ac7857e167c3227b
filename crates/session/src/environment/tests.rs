use super::*;

/// What a person reads when the text is wrong.
#[track_caller]
fn refused(text: &str, expect: &str) {
    assert_eq!(parse(text).map(|_| ()).map_err(|error| error.to_string()), Err(expect.to_owned()));
}

#[test]
fn an_empty_file_is_like_none() {
    assert_eq!(parse(""), Ok(Environment::default()));
    assert_eq!(parse("# nothing yet\n").unwrap().max_rounds, None);
}

#[test]
fn a_full_file_is_read() {
    let environment = parse(
        r#"
        max_rounds = 5
        egress = ["API.example.com", "*.example.org:8443"]
        cpu = 1.5
        memory = "2 GiB"
        disk = "500MB"
        processes = 512

        [[checks]]
        name = "lint"
        command = "npm run lint"
        parser = "eslint"
        timeout = "90s"
        directory = "./web/"
        prepare = "npm ci"

        [[checks]]
        name = "test"
        command = "cargo test"
        timeout = 60
        "#,
    )
    .unwrap();
    assert_eq!(environment.max_rounds, Some(5));
    assert_eq!(environment.egress, ["api.example.com", "*.example.org:8443"]);
    let wants = Wants {
        cpu_millicores: Some(1_500),
        memory_bytes: Some(2 << 30),
        disk_bytes: Some(500_000_000),
        processes: Some(512),
    };
    assert_eq!(environment.wants, wants);
    let lint = Check {
        name: "lint".into(),
        command: "npm run lint".into(),
        directory: "web".into(),
        timeout: Duration::from_secs(90),
        parser: ParserKind::Eslint,
        prepare: Some("npm ci".into()),
    };
    let checks = environment.checks.unwrap();
    assert_eq!(checks[0], lint);
    assert_eq!((checks[1].timeout, checks[1].parser), (Duration::from_secs(60), ParserKind::Auto));
}

#[test]
fn a_repository_gets_no_more_than_the_operator_allows() {
    let allowed = Limits::default();
    let wants = parse("cpu = 64\nmemory = '1 GiB'").unwrap().wants;
    assert_eq!(wants.within(allowed), Limits { memory_bytes: 1 << 30, ..allowed });
}

#[test]
fn no_checks_is_not_the_same_as_no_word_of_checks() {
    assert_eq!(parse("checks = []").unwrap().checks, Some(Vec::new()));
    assert_eq!(parse("max_rounds = 0").unwrap().checks, None);
}

#[test]
fn a_wrong_key_is_named_with_its_line_and_its_neighbour() {
    refused("max_round = 2", "line 1: unknown key `max_round`; did you mean `max_rounds`?");
    refused("cpu = 1\n\n[[check]]\nname = 'a'", "line 3: unknown key `check`; did you mean `checks`?");
    refused("wombat = 2", "line 1: unknown key `wombat`");
    refused(
        "[[checks]]\nname = 'a'\ncommand = 'b'\n[[checks]]\nname = 'c'\ncomand = 'd'",
        "line 6: unknown key `checks[1].comand`; did you mean `command`?",
    );
    refused("\negres = []\nmax_round = 1", "line 2: unknown key `egres`; did you mean `egress`?");
}

#[test]
fn a_key_of_a_later_version_is_named_as_such() {
    for key in LATER_KEYS {
        refused(
            &format!("cpu = 1\n[{key}]\n"),
            &format!("line 2: `{key}` is not supported yet by this version of Hob; remove it, or update Hob"),
        );
    }
}

#[test]
fn a_value_that_does_not_fit_is_named_with_its_key() {
    refused("\nmax_rounds = 'three'", "line 2: `max_rounds`: invalid type: string \"three\", expected u32");
    refused("max_rounds = 21", "line 1: `max_rounds`: must be at most 20");
    refused("cpu = 0", "line 1: `cpu`: must be cores from 0.05 to 1024");
    refused("cpu = 'two'", "line 1: `cpu`: expected a number, such as 2 or 0.5");
    refused(
        "memory = '4 gigs'",
        "line 1: `memory`: expected a size of at least 16 MiB, such as \"512 MiB\" or \"4 GiB\"",
    );
    refused("processes = 1", "line 1: `processes`: must be from 16 to 1000000");
    refused(
        "egress = [\n  'a.example',\n  'https://b.example',\n]",
        "line 3: `egress`: expected `host`, `host:port` or `*.host`, without a scheme",
    );
    refused("egress = [1]", "line 1: `egress[0]`: invalid type: integer `1`, expected a string");
}

#[test]
fn a_wrong_check_is_told_which_one() {
    let with = |line: &str| format!("[[checks]]\nname = 'a'\ncommand = 'b'\n\n[[checks]]\nname = 'c'\n{line}\n");
    refused(&with(""), "line 5: `checks[1]`: missing field `command`");
    refused(&with("command = 7"), "line 7: `checks[1].command`: invalid type: integer `7`, expected a string");
    refused(&with("command = ' '"), "line 7: `checks[1].command`: must not be empty");
    refused(
        &with("command = 'd'\ntimeout = '10 parsecs'"),
        "line 8: `checks[1].timeout`: expected 1 second to 6 hours, such as 90, \"90s\", \"10m\" or \"1h\"",
    );
    refused(
        &with("command = 'd'\nparser = 'clippy'"),
        "line 8: `checks[1].parser`: expected one of auto, sarif, junit, cargo, go, maven, tsc, eslint, tap, node-test, mocha, \
         jest, python, gcc, tail",
    );
    refused(&with("command = 'd'\ndirectory = '../x'"), "line 8: `checks[1].directory`: must lie in the repository");
    refused(
        "[[checks]]\nname = 'a'\ncommand = 'b'\n[[checks]]\nname = 'a'\ncommand = 'c'",
        "line 5: `checks[1].name`: a check named \"a\" is there already",
    );
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    let error = parse("cpu = 1\ncpu = 2").unwrap_err();
    assert!(matches!(error, EnvironmentError::Syntax { line: 2, .. }), "{error}");
    assert!(matches!(parse("cpu = \n"), Err(EnvironmentError::Syntax { line: 1, .. })));
    assert_eq!(parse(&"#".repeat(BYTES_MAX + 1)), Err(EnvironmentError::TooLong));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"([a-z_]{1,10}|\[\[checks\]\]|name|command|timeout|cpu|memory| = |"[^"]{0,8}"|[0-9.]{1,4}|\n|\[|\]|,|'){0,40}"#) {
        let _read_or_refused = parse(&text);
    }
}

use super::*;
use crate::checks::CHECK_TIMEOUT;
use crate::checks::parse::ParserKind;

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
fn a_wrong_key_is_named_with_its_place_and_its_neighbour() {
    refused("max_round = 2", "line 1, column 1: unknown key `max_round`; did you mean `max_rounds`?");
    refused("cpu = 1\n\n[[check]]\nname = 'a'", "line 3, column 3: unknown key `check`; did you mean `checks`?");
    refused("wombat = 2", "line 1, column 1: unknown key `wombat`");
    refused(
        "[[checks]]\nname = 'a'\ncommand = 'b'\n[[checks]]\nname = 'c'\ncomand = 'd'",
        "line 6, column 1: unknown key `checks[1].comand`; did you mean `command`?",
    );
    refused("\negres = []\nmax_round = 1", "line 2, column 1: unknown key `egres`; did you mean `egress`?");
}

#[test]
fn every_key_of_the_example_is_read() {
    let environment = parse(EXAMPLE).unwrap();
    assert_eq!(environment.base, Base::Debian { suite: "bookworm".to_owned() });
    assert_eq!(environment.packages.apt, ["nodejs", "npm", "postgresql", "redis-server"]);
    assert_eq!(environment.warm, ["npm ci", "npm run build"]);
    assert_eq!(environment.secrets, ["STRIPE_TEST_KEY"]);
    assert_eq!(environment.env["DATABASE_URL"], "postgres://postgres@127.0.0.1/app");
    let web = Service {
        name: "web".to_owned(),
        command: "npm run dev".to_owned(),
        directory: String::new(),
        ready: Some("curl --fail --silent http://127.0.0.1:3000/healthz".to_owned()),
        port: Some(3000),
        after: vec!["redis".to_owned()],
        ready_within: Duration::from_secs(120),
        env: BTreeMap::new(),
    };
    assert_eq!(environment.services[1], web);
    assert_eq!(environment.services[0].ready_within, READY_WITHIN);
    assert_eq!(environment.checks.unwrap()[0].timeout, CHECK_TIMEOUT);
}

#[test]
fn a_base_is_told_by_its_look() {
    let base = |text: &str| parse(&format!("base = {text}")).unwrap().base;
    let image = |reference: &str| Base::Image { reference: reference.to_owned() };
    let dockerfile = |path: &str| Base::Dockerfile(Dockerfile { path: path.to_owned(), ..Dockerfile::default() });
    assert_eq!(base("'host'"), Base::Host);
    assert_eq!(base("'debian:trixie'"), Base::Debian { suite: "trixie".to_owned() });
    assert_eq!(base("'docker.io/library/debian:12-slim'"), image("docker.io/library/debian:12-slim"));
    assert_eq!(base("'rust'"), image("rust"));
    assert_eq!(base("'./dev/Dockerfile.ci'"), dockerfile("dev/Dockerfile.ci"));
    let devcontainer = ".devcontainer/devcontainer.json".to_owned();
    assert_eq!(base("'.devcontainer/devcontainer.json'"), Base::Devcontainer { path: devcontainer });
    let whole = Dockerfile {
        path: "Dockerfile".to_owned(),
        context: "app".to_owned(),
        target: Some("dev".to_owned()),
        args: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
    };
    let table = "{ dockerfile = 'Dockerfile', context = './app', target = 'dev', args = { A = '1' } }";
    assert_eq!(base(table), Base::Dockerfile(whole));
}

#[test]
fn a_wrong_base_says_what_would_be_right() {
    refused("base = 'hosts'", "line 1, column 8: `base`: did you mean \"host\"?");
    refused("base = '../Dockerfile'", "line 1, column 8: `base`: must lie in the repository");
    refused("base = { context = 'a' }", "line 1, column 8: `base`: `dockerfile` is missing");
    refused(
        "base = { dockerfil = 'a' }",
        "line 1, column 10: unknown key `base.dockerfil`; did you mean `dockerfile`?",
    );
    refused(
        "base = 'debian:12'",
        "line 1, column 8: `base`: expected a suite, such as \"debian:bookworm\"; the image of that name is \
         \"docker.io/library/debian:12\"",
    );
    refused(
        "base = 'My Image'",
        "line 1, column 8: `base`: expected \"host\", \"debian:SUITE\", an image such as \"python:3.12\", or the path \
         of a Dockerfile or a devcontainer.json",
    );
}

#[test]
fn wrong_packages_and_names_are_told() {
    refused("[packages]\napt = ['git', 'git']", "line 2, column 15: `packages.apt[1]`: \"git\" is there already");
    refused(
        "packages = { pip = ['--pre'] }",
        "line 1, column 21: `packages.pip[0]`: expected a Python package, such as \"ruff==0.5\"; options belong into a \
         command",
    );
    refused("packages.atp = []", "line 1, column 10: unknown key `packages.atp`; did you mean `apt`?");
    refused("setup = [1]", "line 1, column 10: `setup[0]`: expected a text, found a number");
    refused("warm = true", "line 1, column 8: `warm`: expected a command line, or a list of them, found true or false");
    refused("ports = [70000]", "line 1, column 10: `ports[0]`: must be from 1 to 65535");
    refused(
        "secrets = ['A=b']",
        "line 1, column 12: `secrets[0]`: expected the secret's name, of letters, digits and `_`; its value never stands \
         here",
    );
    refused("[env]\n1A = 'x'", "line 2, column 6: `env.1A`: expected a name of letters, digits and `_` before the `=`");
    refused("user = 'a b'", "line 1, column 8: `user`: expected a user's name, such as \"dev\"");
}

#[test]
fn wrong_services_are_told() {
    let two = |second: &str| {
        format!("[[services]]\nname = 'a'\ncommand = 'x'\nport = 1\n[[services]]\ncommand = 'y'\n{second}\n")
    };
    refused(&two(""), "line 5, column 1: `services[1]`: `name` is missing");
    refused(&two("name = 'a'"), "line 7, column 8: `services[1].name`: a service named \"a\" is there already");
    refused(&two("name = 'b'\nport = 1"), "line 8, column 8: `services[1].port`: a listens there already");
    refused(
        &two("name = 'b'\nafter = ['c']"),
        "line 8, column 10: `services[1].after[0]`: expected the name of another service",
    );
    refused(
        &two("name = 'b'\nafter = ['b']"),
        "line 8, column 9: `services[1].after`: b waits for itself, by way of b",
    );
    refused(
        &two("name = 'b'\nready_within = '2h'"),
        "line 8, column 16: `services[1].ready_within`: expected 1 second to 30 minutes, such as 90, \"90s\", \"10m\" or \
         \"1h\"",
    );
}

#[test]
fn a_value_that_does_not_fit_is_named_with_its_key() {
    refused("\nmax_rounds = 'three'", "line 2, column 14: `max_rounds`: expected a whole number, found a text");
    refused("max_rounds = 21", "line 1, column 14: `max_rounds`: must be from 0 to 20");
    refused("cpu = 0", "line 1, column 7: `cpu`: must be cores from 0.05 to 1024");
    refused("cpu = 'two'", "line 1, column 7: `cpu`: expected a number, such as 2 or 0.5, found a text");
    refused(
        "memory = '4 gigs'",
        "line 1, column 10: `memory`: expected a size of at least 16 MiB, such as \"512 MiB\" or \"4 GiB\"",
    );
    refused("processes = 1", "line 1, column 13: `processes`: must be from 16 to 1000000");
    refused(
        "egress = [\n  'a.example',\n  'https://b.example',\n]",
        "line 3, column 3: `egress[1]`: expected `host`, `host:port` or `*.host`, without a scheme",
    );
    refused("egress = [1]", "line 1, column 11: `egress[0]`: expected a text, found a number");
}

#[test]
fn a_wrong_check_is_told_which_one() {
    let with = |line: &str| format!("[[checks]]\nname = 'a'\ncommand = 'b'\n\n[[checks]]\nname = 'c'\n{line}\n");
    refused(&with(""), "line 5, column 1: `checks[1]`: `command` is missing");
    refused(&with("command = 7"), "line 7, column 11: `checks[1].command`: expected a text, found a number");
    refused(&with("command = ' '"), "line 7, column 11: `checks[1].command`: must not be empty");
    refused(
        &with("command = 'd'\ntimeout = '10 parsecs'"),
        "line 8, column 11: `checks[1].timeout`: expected 1 second to 6 hours, such as 90, \"90s\", \"10m\" or \"1h\"",
    );
    refused(
        &with("command = 'd'\nparser = 'clippy'"),
        "line 8, column 10: `checks[1].parser`: expected one of auto, sarif, junit, cargo, go, maven, tsc, eslint, tap, \
         node-test, mocha, jest, python, gcc, tail",
    );
    refused(
        &with("command = 'd'\ndirectory = '../x'"),
        "line 8, column 13: `checks[1].directory`: must lie in the repository",
    );
    refused(
        "[[checks]]\nname = 'a'\ncommand = 'b'\n[[checks]]\nname = 'a'\ncommand = 'c'",
        "line 5, column 8: `checks[1].name`: a check named \"a\" is there already",
    );
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    let error = parse("cpu = 1\ncpu = 2").unwrap_err();
    assert!(matches!(error, EnvironmentError::Syntax { place: Place { line: 2, .. }, .. }), "{error}");
    assert!(matches!(parse("cpu = \n"), Err(EnvironmentError::Syntax { place: Place { line: 1, .. }, .. })));
    assert_eq!(parse(&"#".repeat(BYTES_MAX + 1)), Err(EnvironmentError::TooLong { max: BYTES_MAX }));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"([a-z_]{1,10}|\[\[(checks|services)\]\]|\[(packages|env)\]|name|command|after|base|timeout|cpu|memory|é| = |"[^"]{0,8}"|[0-9.]{1,4}|\n|\[|\]|\{|\}|,|'){0,40}"#) {
        let _read_or_refused = parse(&text);
    }
}

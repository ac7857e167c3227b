use super::*;

const FULL: &str = r#"// Made by hand
{
    "name": "App",
    "build": { "dockerfile": "Dockerfile", "context": "..", "target": "dev", "args": { "NODE": 20, "X": "y" } },
    "features": {
        "ghcr.io/devcontainers/features/node:1": { "version": "20", "pnpm": true },
        "ghcr.io/devcontainers/features/go:1": "1.22",
        "./own": {},
    },
    "containerEnv": { "ROOT": "${containerWorkspaceFolder}/app", "TOKEN": "${localEnv:TOKEN}" },
    "remoteEnv": { "MODE": "${localEnv:MODE:dev}", "GONE": null },
    "forwardPorts": [3000, "localhost:5432", "db:5432", 3000],
    "remoteUser": "node",
    "postStartCommand": "service ssh start",
    "postCreateCommand": { "web": ["npm", "ci", "--prefix", "my app"], "db": "make db" },
    "onCreateCommand": "apt-get update", /* first */
    "mounts": [],
    "customizations": { "vscode": {} },
    "wombat": 1,
}
"#;

fn of(text: &str) -> Devcontainer {
    read(text, ".devcontainer/devcontainer.json").unwrap()
}

#[test]
fn what_it_says_becomes_an_environment() {
    let Devcontainer { environment, notices } = of(FULL);
    let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let dockerfile = Dockerfile {
        path: ".devcontainer/Dockerfile".to_owned(),
        context: String::new(),
        target: Some("dev".to_owned()),
        args: text(&[("NODE", "20"), ("X", "y")]),
    };
    assert_eq!(environment.base, Base::Dockerfile(dockerfile));
    let features: Vec<(&str, BTreeMap<String, String>)> =
        environment.packages.features.iter().map(|feature| (feature.id.as_str(), feature.options.clone())).collect();
    let in_their_order = [
        ("ghcr.io/devcontainers/features/node:1", text(&[("pnpm", "true"), ("version", "20")])),
        ("ghcr.io/devcontainers/features/go:1", text(&[("version", "1.22")])),
        (".devcontainer/own", text(&[])),
    ];
    assert_eq!(features, in_their_order);
    assert_eq!(environment.env, text(&[("MODE", "dev"), ("ROOT", "/workspace/app")]));
    assert_eq!(environment.warm, ["apt-get update", "npm ci --prefix 'my app'", "make db"]);
    assert_eq!(environment.start, ["service ssh start"]);
    assert_eq!((environment.ports, environment.user.as_deref()), (vec![3000, 5432], Some("node")));
    assert_eq!(
        notices,
        [
            "`containerEnv.TOKEN` of .devcontainer/devcontainer.json needs what is known only elsewhere, and is not taken.",
            "`forwardPorts` of .devcontainer/devcontainer.json has \"db:5432\", which is no port of the sandbox.",
            "`mounts` of .devcontainer/devcontainer.json is not supported: a sandbox has its own files, network and rights.",
            "`wombat` of .devcontainer/devcontainer.json is not known, and is not taken.",
        ]
    );
}

#[test]
fn an_image_is_taken_and_a_wrong_one_told() {
    let image = of(r#"{"image": "mcr.microsoft.com/devcontainers/base:bookworm"}"#);
    let reference = "mcr.microsoft.com/devcontainers/base:bookworm".to_owned();
    assert_eq!(image.environment, Environment { base: Base::Image { reference }, ..Environment::default() });
    assert_eq!(image.notices, Vec::<String>::new());
    assert_eq!(of(r#"{"image": "-v /:/host"}"#).notices.len(), 1);
    assert_eq!(of(r#"{"image": 7}"#).notices.len(), 1);
    assert_eq!(of(r#"{"build": {"dockerfile": "../../etc/passwd"}}"#).environment.base, Base::Host);
    let old = read(r#"{"dockerFile": "dev/Dockerfile", "context": "dev"}"#, ".devcontainer.json").unwrap();
    let Base::Dockerfile(file) = old.environment.base else { panic!() };
    assert_eq!((file.path.as_str(), file.context.as_str()), ("dev/Dockerfile", "dev"));
}

#[test]
fn what_is_not_json_is_told_with_its_place() {
    let error = read("{\n  // a comment\n  \"a\": 1\n  \"b\": 2\n}", "x").unwrap_err();
    assert_eq!(error.to_string(), "line 4, column 3: expected `,` or `}`");
    assert!(read("[]", "x").is_err());
    assert_eq!(read(&" ".repeat(BYTES_MAX + 1), "x"), Err(EnvironmentError::TooLong { max: BYTES_MAX }));
}

#[test]
fn the_file_is_found_where_people_keep_it() {
    #[track_caller]
    fn check(files: &[&str], expect: Option<&str>) {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        assert_eq!(find(&files), expect);
    }
    check(&["a.json"], None);
    check(&[".devcontainer.json", ".devcontainer/devcontainer.json"], Some(".devcontainer/devcontainer.json"));
    check(&[".devcontainer.json"], Some(".devcontainer.json"));
    check(&[".devcontainer/api/devcontainer.json"], Some(".devcontainer/api/devcontainer.json"));
    check(&[".devcontainer/api/devcontainer.json", ".devcontainer/web/devcontainer.json"], None);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"\{("(image|build|features|forwardPorts|containerEnv|x)": ?("\$\{?[a-z:]{0,9}\}?"|-?[0-9]{1,6}|\[[0-9a-z",]{0,5}\]|\{\}|null),?){0,4}\}?"#) {
        let _read_or_refused = read(&text, "a/devcontainer.json");
    }
}

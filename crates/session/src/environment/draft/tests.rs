use proptest::prelude::*;

use super::super::{Base, Environment, parse};
use super::*;

fn of(files: &[(&str, &str)]) -> (String, Environment) {
    let names: Vec<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
    let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
    let text = draft(&names, read);
    let environment = parse(&text).map_err(|error| format!("{error}\n{text}")).unwrap();
    let mut detected = detect::detect(&names, read);
    detected.retain(|check| !check.directory.contains('\n'));
    assert_eq!(environment.checks.clone().unwrap_or_default(), detected, "{text}");
    (text, environment)
}

const COMPOSE: (&str, &str) = (
    "docker-compose.yml",
    "services:\n  db:\n    image: \"postgis/postgis:16-3.4\"\n  cache:\n    image: redis:7-alpine # cache\n  bus:\n    image: \
     rabbitmq\n  app:\n    build: .\n",
);
const NODE: (&str, &str) =
    ("package.json", r#"{"scripts": {"test": "jest", "lint": "eslint ."}, "dependencies": {"pg": "8"}}"#);

#[test]
fn a_draft_says_what_the_files_prove() {
    let example = (".env.example", "DATABASE_URL=postgresql://u:p@db/app\nREDIS_URL='redis://cache'\n");
    let (text, environment) = of(&[NODE, ("package-lock.json", "{}"), COMPOSE, example, ("Dockerfile", "FROM x")]);
    assert_eq!(environment.base, Base::Host);
    assert!(text.contains("\n# base = \"Dockerfile\"\n"), "{text}");
    assert_eq!(environment.warm, ["[ -d node_modules ] || npm ci --no-audit --no-fund"]);
    assert_eq!(environment.packages.apt, ["postgresql", "redis-server"]);
    let names: Vec<_> = environment.services.iter().map(|service| (service.name.as_str(), service.port)).collect();
    assert_eq!(names, [("postgres", Some(5432)), ("redis", Some(6379))]);
    assert_eq!(environment.env["DATABASE_URL"], "postgres://postgres@127.0.0.1:5432/postgres");
    assert_eq!(environment.env["REDIS_URL"], "redis://127.0.0.1:6379");
    assert!(text.contains("# docker-compose.yml names rabbitmq: describe it as a service here."), "{text}");
    assert_eq!(environment.checks.unwrap().len(), 2);
}

#[test]
fn a_devcontainer_is_the_base_of_its_draft() {
    let (_, environment) = of(&[(".devcontainer/devcontainer.json", "{}")]);
    assert_eq!(environment.base, Base::Devcontainer { path: ".devcontainer/devcontainer.json".to_owned() });
}

#[test]
fn folders_with_projects_are_built_where_they_are() {
    let (_, environment) =
        of(&[("app's/Cargo.toml", "[package]\nname = 'a'"), ("app's/src/lib.rs", "#[test]\nfn a() {}")]);
    assert_eq!(environment.warm, [r"cd 'app'\''s' && { cargo build --tests; }"]);
}

#[test]
fn an_empty_repository_has_a_draft_too() {
    let (_, environment) = of(&[]);
    assert_eq!(environment, Environment { base: Base::Host, ..Environment::default() });
}

proptest! {
    #[test]
    fn whatever_the_files_are_the_draft_can_be_read(
        folder in r#"[a-z'"\\ \n]{0,4}"#,
        script in r#"[a-z'"\\ ]{0,6}"#,
        compose in r#"(  image: ?['"a-z:/]{0,12}|\n| image: postgres|'''){0,5}"#,
        env in r#"([A-Z_0-9 ='"]{0,6}=(redis|postgres|mysql|x)://['"a-z]{0,4}|\n){0,5}"#,
    ) {
        let manifest = serde_json::json!({"scripts": {"test": script, "lint": "x"}}).to_string();
        let path = format!("{folder}/package.json");
        let files = [(path.as_str(), manifest.as_str()), ("compose.yaml", &compose), (".env.test", &env)];
        let _same_checks = of(&files);
    }
}

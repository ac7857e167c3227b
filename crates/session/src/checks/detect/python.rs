//! pytest or `unittest`, whichever the tests are written for.

use super::{Candidate, Project};
use crate::checks::parse::ParserKind;

/// Test files that are read to tell what they are written for.
const SAMPLES_MAX: usize = 8;

/// Files of requirements, in the order they are installed.
const REQUIREMENTS: &[&str] = &[
    "requirements.txt",
    "requirements-dev.txt",
    "requirements-test.txt",
    "requirements_dev.txt",
    "requirements_test.txt",
    "dev-requirements.txt",
    "test-requirements.txt",
    "requirements/dev.txt",
    "requirements/test.txt",
    "requirements/tests.txt",
];

/// Names that projects give to the extra with their tests' dependencies.
const EXTRAS: &[&str] = &["test", "tests", "testing", "dev"];

pub(super) fn checks(project: &mut Project<'_>) -> Option<Candidate> {
    let tests: Vec<&str> = project.files.iter().copied().filter(|file| is_test(file)).collect();
    let (runner, prepare) = runner(project);
    if tests.is_empty() {
        return None;
    }
    let pytest = is_pytest(project, &tests);
    let command = match (pytest, unittest_folder(project, &tests)) {
        (true, _) => format!("{runner} -m pytest"),
        (false, None) => format!("{runner} -m unittest discover"),
        (false, Some(folder)) => format!("{runner} -m unittest discover -s {folder}"),
    };
    let prepare = prepare.or_else(|| pip(project, pytest));
    Some(Candidate { prepare, ..project.candidate("python", "test", command, ParserKind::Python) })
}

fn is_test(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".py").is_some_and(|stem| stem.starts_with("test_") || stem.ends_with("_test") || stem == "tests")
}

/// The interpreter with the project's packages, and how they get there where a tool of its own does that.
fn runner(project: &Project<'_>) -> (&'static str, Option<String>) {
    if project.has("uv.lock") {
        ("uv run python", Some("uv sync --all-extras --frozen".to_owned()))
    } else if project.has("poetry.lock") {
        ("poetry run python", Some("poetry install --no-interaction --all-extras".to_owned()))
    } else {
        ("python3", None)
    }
}

/// Configuration or requirements name pytest, or the tests do, or they do not import `unittest`.
fn is_pytest(project: &mut Project<'_>, tests: &[&str]) -> bool {
    if project.has("pytest.ini") || project.files.iter().any(|file| file.rsplit('/').next() == Some("conftest.py")) {
        return true;
    }
    let configuration = ["pyproject.toml", "setup.cfg", "tox.ini", "setup.py"];
    if configuration
        .iter()
        .chain(REQUIREMENTS)
        .any(|file| project.text(file).is_some_and(|text| text.contains("pytest")))
    {
        return true;
    }
    let samples: Vec<String> = tests.iter().take(SAMPLES_MAX).filter_map(|test| project.text(test)).collect();
    samples.iter().any(|text| text.contains("import pytest")) || !samples.iter().any(|text| text.contains("unittest"))
}

/// The folder that `unittest discover` has to be pointed at, where its tests are no package: it does not enter others.
fn unittest_folder<'a>(project: &Project<'_>, tests: &[&'a str]) -> Option<&'a str> {
    let folder = |test: &&'a str| test.split_once('/').map(|(folder, _)| folder);
    let is_plain = |folder: &&str| {
        !project.has(&format!("{folder}/__init__.py"))
            && folder.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'.')
            && !folder.starts_with('-')
    };
    let all_inside = tests.iter().all(|test| test.contains('/'));
    tests.iter().filter_map(folder).find(is_plain).filter(|_| all_inside)
}

/// Installs requirements and the project itself, for its own user: Debian's interpreter refuses anything else
/// (PEP 668), but in a sandbox the system is nobody else's.
fn pip(project: &mut Project<'_>, pytest: bool) -> Option<String> {
    let mut wanted: Vec<String> = Vec::new();
    wanted.extend(REQUIREMENTS.iter().filter(|file| project.has(file)).map(|file| format!("-r {file}")));
    let manifest = project.text("pyproject.toml").and_then(|text| text.parse::<toml::Table>().ok());
    let is_package = manifest.as_ref().is_some_and(|m| m.contains_key("project") || m.contains_key("build-system"));
    if is_package || project.has("setup.py") {
        let extras = manifest.as_ref().and_then(|m| m.get("project")?.get("optional-dependencies")?.as_table());
        let extra = extras.and_then(|extras| EXTRAS.iter().find(|extra| extras.contains_key(**extra)));
        wanted.push(extra.map_or_else(|| "-e .".to_owned(), |extra| format!("-e '.[{extra}]'")));
    }
    let install = "PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --disable-pip-version-check";
    match (wanted.is_empty(), pytest) {
        (true, false) => None,
        (true, true) => Some(format!("python3 -c 'import pytest' 2>/dev/null || {install} pytest")),
        (false, true) => Some(format!("{install} pytest {}", wanted.join(" "))),
        (false, false) => Some(format!("{install} {}", wanted.join(" "))),
    }
}

//! Tools that are found by one manifest: cargo, go, Maven, Gradle, make.

use super::{Candidate, Project};
use crate::checks::parse::ParserKind;

/// `cargo test`, of all members where the manifest has a workspace. It goes on after the first failing target, so that
/// the agent sees all of them at once.
pub(super) fn cargo(project: &mut Project<'_>) -> Vec<Candidate> {
    let manifest = project.text("Cargo.toml").and_then(|text| text.parse::<toml::Table>().ok());
    let Some(manifest) = manifest else { return Vec::new() };
    let command = match (manifest.contains_key("workspace"), manifest.contains_key("package")) {
        (true, _) => "cargo test --workspace --no-fail-fast",
        (false, true) => "cargo test --no-fail-fast",
        (false, false) => return Vec::new(),
    };
    vec![project.candidate("cargo", "test", command, ParserKind::Cargo)]
}

/// `go vet` and `go test`. `go test` vets too, but only with a few of the analysers.
pub(super) fn go(project: &Project<'_>) -> Vec<Candidate> {
    if !project.has("go.mod") {
        return Vec::new();
    }
    let mut checks = vec![project.candidate("go", "vet", "go vet ./...", ParserKind::Go)];
    if project.files.iter().any(|file| file.ends_with("_test.go")) {
        checks.push(project.candidate("go", "test", "go test ./...", ParserKind::Go));
    }
    checks
}

/// Maven's `test` phase, by the repository's own wrapper where it has one.
pub(super) fn maven(project: &Project<'_>) -> Option<Candidate> {
    // `sh` runs a wrapper that lost its executable bit, as a checkout from some systems does.
    let maven = if project.has("mvnw") { "sh ./mvnw" } else { "mvn" };
    let command = format!("{maven} --batch-mode --no-transfer-progress test");
    project.has("pom.xml").then(|| project.candidate("maven", "test", command, ParserKind::Maven))
}

/// Gradle's `test` task, by the repository's own wrapper where it has one.
pub(super) fn gradle(project: &Project<'_>) -> Option<Candidate> {
    let gradle = if project.has("gradlew") { "sh ./gradlew" } else { "gradle" };
    let found = project.has("build.gradle") || project.has("build.gradle.kts");
    // A daemon would outlive the check.
    let command = format!("{gradle} --no-daemon --console=plain --continue test");
    found.then(|| project.candidate("gradle", "test", command, ParserKind::Auto))
}

/// `make test` or `make check`, whichever target there is.
pub(super) fn make(project: &mut Project<'_>) -> Option<Candidate> {
    let text = ["GNUmakefile", "makefile", "Makefile"].into_iter().find_map(|file| project.text(file))?;
    let target = ["test", "check"].into_iter().find(|target| text.lines().any(|line| defines(line, target)))?;
    Some(project.candidate("make", "test", format!("make {target}"), ParserKind::Auto))
}

/// Whether a line is a rule for the target: `test:`, `test check: all`, and not `test := x`.
fn defines(line: &str, target: &str) -> bool {
    let Some((targets, rest)) = line.split_once(':') else { return false };
    !line.starts_with(['\t', ' ', '#', '.'])
        && !rest.starts_with('=')
        && !rest.starts_with(":=")
        && targets.split_whitespace().any(|name| name == target)
}

//! The scripts of a `package.json`, run by the package manager that the repository uses.

use serde_json::{Map, Value};

use super::{Candidate, Project};
use crate::checks::parse::ParserKind;

/// Names under which repositories keep the type check.
const TYPECHECKS: &[&str] = &["typecheck", "type-check", "check-types", "check:types", "types:check", "tsc"];

pub(super) fn checks(project: &mut Project<'_>) -> Vec<Candidate> {
    let manifest = project.text("package.json").and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok());
    let Some(manifest) = manifest else { return Vec::new() };
    let script = |name: &str| manifest.get("scripts")?.get(name)?.as_str().filter(|script| ends_by_itself(script));
    let test = script("test").filter(|script| !script.contains("no test specified"));
    let manager = Manager::of(project, &manifest);
    let prepare = manager.prepare(project, &manifest);

    let mut scripts: Vec<(&'static str, &str)> = Vec::new();
    if let Some(name) = TYPECHECKS.iter().find(|name| script(name).is_some()) {
        scripts.push(("typecheck", name));
    }
    // A linter that mends what it finds would change files behind the agent's back; one that `test` runs already
    // need not run twice.
    let runs_in_test = test.is_some_and(|test| test.contains("lint"));
    if !runs_in_test && script("lint").is_some_and(|script| !script.contains("--fix") && !script.contains("--write")) {
        scripts.push(("lint", "lint"));
    }
    if test.is_some() {
        scripts.push(("test", "test"));
    }
    let candidate = |(name, script)| Candidate {
        prepare: prepare.clone(),
        ..project.candidate(manager.name(), name, manager.run(script), ParserKind::Auto)
    };
    scripts.into_iter().map(candidate).collect()
}

/// A script that watches for changes never ends.
fn ends_by_itself(script: &str) -> bool {
    let flags = script.split_whitespace().filter(|word| !word.ends_with("=false"));
    !flags.into_iter().any(|word| word.starts_with("--watch") || word == "nodemon")
}

#[derive(Clone, Copy)]
enum Manager {
    Npm,
    Pnpm,
    Yarn,
    Bun,
}

impl Manager {
    /// The one that `packageManager` names (Node's Corepack), else the one whose lock file is there.
    fn of(project: &Project<'_>, manifest: &Map<String, Value>) -> Self {
        let named = manifest.get("packageManager").and_then(Value::as_str).unwrap_or_default();
        let locks: [(Self, &str, &[&str]); 4] = [
            (Self::Pnpm, "pnpm@", &["pnpm-lock.yaml"]),
            (Self::Yarn, "yarn@", &["yarn.lock"]),
            (Self::Bun, "bun@", &["bun.lock", "bun.lockb"]),
            (Self::Npm, "npm@", &["package-lock.json", "npm-shrinkwrap.json"]),
        ];
        let by_name = locks.iter().find(|(_, prefix, _)| named.starts_with(prefix));
        let by_lock = || locks.iter().find(|(_, _, locks)| locks.iter().any(|lock| project.has(lock)));
        by_name.or_else(by_lock).map_or(Self::Npm, |(manager, ..)| *manager)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pnpm => "pnpm",
            Self::Yarn => "yarn",
            Self::Bun => "bun",
        }
    }

    fn run(self, script: &str) -> String {
        match (self, script) {
            (Self::Npm, "test") => "npm test".to_owned(),
            (manager, script) => format!("{} run {script}", manager.name()),
        }
    }

    /// Installs what the lock file says where nothing is installed yet. Without a lock file, none is written: it would
    /// become part of the change.
    fn prepare(self, project: &Project<'_>, manifest: &Map<String, Value>) -> Option<String> {
        let locked = |locks: &[&str]| locks.iter().any(|lock| project.has(lock));
        let install = match self {
            Self::Npm if locked(&["package-lock.json", "npm-shrinkwrap.json"]) => "npm ci --no-audit --no-fund",
            Self::Npm => "npm install --no-package-lock --no-audit --no-fund",
            Self::Pnpm if locked(&["pnpm-lock.yaml"]) => "pnpm install --frozen-lockfile",
            Self::Pnpm => "pnpm install --no-lockfile",
            // Yarn 2 and later keeps its configuration in this file, and calls the flag otherwise.
            Self::Yarn if project.has(".yarnrc.yml") => "yarn install --immutable",
            Self::Yarn if locked(&["yarn.lock"]) => "yarn install --frozen-lockfile",
            Self::Yarn => "yarn install --no-lockfile",
            Self::Bun if locked(&["bun.lock", "bun.lockb"]) => "bun install --frozen-lockfile",
            Self::Bun => "bun install --no-save",
        };
        let needs = |key: &str| match manifest.get(key) {
            Some(Value::Object(packages)) => !packages.is_empty(),
            Some(Value::Array(workspaces)) => !workspaces.is_empty(),
            _ => false,
        };
        let needed = ["dependencies", "devDependencies", "optionalDependencies", "workspaces"].into_iter().any(needs);
        // Yarn's Plug'n'Play has no such folder, and this file instead.
        let marker =
            if project.has(".yarnrc.yml") { "[ -d node_modules ] || [ -f .pnp.cjs ]" } else { "[ -d node_modules ]" };
        needed.then(|| format!("{marker} || {install}"))
    }
}

//! Finds the checks of a repository that does not name them itself.
//!
//! Only what its own files prove is run: a script that exists, a target that exists, tests that exist. Formatters and
//! linters that the repository does not call by itself are left out (`cargo clippy` among them: it may not be
//! installed, and its warnings are opinions unless the repository says otherwise).
//!
//! Pure: it is handed the list of files and a reader of the few that it asks for.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use super::parse::ParserKind;

mod build;
mod node;
mod python;

/// Projects that are looked at: the top folder's, or where it has none, those of its folders.
const PROJECTS_MAX: usize = 8;

/// How deep below the top folder a project is looked for.
const DEPTH_MAX: usize = 2;

/// Finds the checks, cheap ones first.
///
/// `files` are the repository's files as `git ls-files` lists them: paths from its top folder, with `/`. `read` gives
/// the text of one of them, and nothing where it cannot; it is called for manifests only, a few dozen times at most.
///
/// Where the top folder proves nothing by itself, its folders are looked at, so that `backend/` and `web/` are found.
/// `make test` is used only where no other tool is known: it is mostly another name for the same tests.
pub fn detect(files: &[String], mut read: impl FnMut(&str) -> Option<String>) -> Vec<Check> {
    let files: BTreeSet<&str> = files.iter().map(String::as_str).collect();
    let mut candidates = Project::new("", &files, &mut read).candidates();
    if candidates.is_empty() {
        for directory in folders(&files) {
            candidates.extend(Project::new(&directory, &files, &mut read).candidates());
        }
    }
    named(&candidates)
}

/// A check before it has a name of its own.
struct Candidate {
    /// The tool, such as `cargo`.
    tool: &'static str,
    /// What it proves: `test`, `lint`, `typecheck`, `vet`.
    name: &'static str,
    command: String,
    directory: String,
    parser: ParserKind,
    prepare: Option<String>,
}

/// A folder that may hold a project.
struct Project<'a> {
    directory: &'a str,
    /// Its files, by their paths from it.
    files: BTreeSet<&'a str>,
    read: &'a mut dyn FnMut(&str) -> Option<String>,
}

impl<'a> Project<'a> {
    fn new(directory: &'a str, files: &BTreeSet<&'a str>, read: &'a mut dyn FnMut(&str) -> Option<String>) -> Self {
        let inside = |file: &&'a str| match directory {
            "" => Some(*file),
            directory => file.strip_prefix(directory)?.strip_prefix('/'),
        };
        Self { directory, files: files.iter().filter_map(inside).collect(), read }
    }

    fn has(&self, file: &str) -> bool {
        self.files.contains(file)
    }

    fn text(&mut self, file: &str) -> Option<String> {
        if !self.has(file) {
            return None;
        }
        let path = if self.directory.is_empty() { file.to_owned() } else { format!("{}/{file}", self.directory) };
        (self.read)(&path)
    }

    fn candidate(
        &self,
        tool: &'static str,
        name: &'static str,
        command: impl Into<String>,
        parser: ParserKind,
    ) -> Candidate {
        Candidate { tool, name, command: command.into(), directory: self.directory.to_owned(), parser, prepare: None }
    }

    fn candidates(mut self) -> Vec<Candidate> {
        let mut all = build::cargo(&mut self);
        all.extend(node::checks(&mut self));
        all.extend(python::checks(&mut self));
        all.extend(build::go(&self));
        all.extend(build::maven(&self));
        all.extend(build::gradle(&self));
        if all.is_empty() {
            all.extend(build::make(&mut self));
        }
        all
    }
}

/// Folders with a manifest, the nearest first; a folder below one that has one belongs to it.
fn folders(files: &BTreeSet<&str>) -> Vec<String> {
    let manifests = [
        "Cargo.toml",
        "package.json",
        "pyproject.toml",
        "setup.py",
        "go.mod",
        "pom.xml",
        "build.gradle",
        "build.gradle.kts",
    ];
    let mut found: Vec<&str> = files
        .iter()
        .filter_map(|file| file.rsplit_once('/'))
        .filter(|(folder, name)| manifests.contains(name) && folder.split('/').count() <= DEPTH_MAX)
        .map(|(folder, _)| folder)
        .collect();
    found.sort_by_key(|folder| (folder.split('/').count(), *folder));
    found.dedup();
    let mut kept: Vec<String> = Vec::new();
    for folder in found {
        if kept.len() < PROJECTS_MAX && !kept.iter().any(|outer| folder.starts_with(&format!("{outer}/"))) {
            kept.push(folder.to_owned());
        }
    }
    kept
}

/// Gives each check a name that no other has: `test`, or with its tool and folder where there are several.
fn named(candidates: &[Candidate]) -> Vec<Check> {
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    candidates.iter().for_each(|candidate| *uses.entry(candidate.name).or_default() += 1);
    let name = |candidate: &Candidate| match (uses.get(candidate.name), candidate.directory.as_str()) {
        (Some(1), _) => candidate.name.to_owned(),
        (_, "") => format!("{} {}", candidate.tool, candidate.name),
        (_, directory) => format!("{} {} in {directory}", candidate.tool, candidate.name),
    };
    candidates
        .iter()
        .map(|candidate| Check {
            name: name(candidate),
            command: candidate.command.clone(),
            directory: candidate.directory.clone(),
            timeout: super::CHECK_TIMEOUT,
            parser: candidate.parser,
            prepare: candidate.prepare.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests;

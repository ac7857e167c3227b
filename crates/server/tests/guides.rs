//! The guides are true: whatever file, crate, test, benchmark, make target or command they name is there.
//!
//! Each guide is read as a reader reads it: links, and words set as code. What they mean is not checked here.

#![expect(clippy::panic, reason = "a guide that cannot be read fails the test")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Folders at the top of the checkout. A word of code that starts with one of them is a path.
const TOP: &[&str] = &[".cargo", ".ci", "crates", "demo", "docs", "scripts"];

#[test]
fn every_path_that_a_guide_names_exists() {
    check_all(|guide, problems| {
        for link in guide.links() {
            let (path, _anchor) = link.split_once('#').unwrap_or((&link, ""));
            let outside = path.contains("://") || path.starts_with("mailto:");
            if !outside && !guide.folder().join(path).exists() {
                problems.push(format!("links to {path}, which is not there"));
            }
        }
        for path in guide.code().filter(|code| is_path(code)) {
            let path = path.split("::").next().unwrap_or(&path).trim_end_matches('/');
            if !root().join(path).exists() {
                problems.push(format!("names `{path}`, which is not there"));
            }
        }
    });
}

#[test]
fn every_crate_that_a_guide_names_exists() {
    let packages = packages();
    check_all(|guide, problems| {
        for code in guide.code().filter(|code| code.starts_with("hob-") && is_word(code)) {
            if !packages.contains(&code) {
                problems.push(format!("names the crate `{code}`, which is not there"));
            }
        }
    });
}

#[test]
fn the_architecture_speaks_of_every_crate_and_is_short() {
    let architecture = Guide::read("ARCHITECTURE.md");
    for folder in folders("crates") {
        let name = format!("crates/{folder}");
        assert!(architecture.code().any(|code| code == name), "ARCHITECTURE.md does not speak of `{name}`");
    }
    let words = architecture.text.split_whitespace().count();
    assert!(words <= 2_500, "ARCHITECTURE.md has {words} words, and 2,500 at most are read");
}

#[test]
fn every_test_that_a_guide_names_exists() {
    check_all(|guide, problems| {
        for code in guide.code() {
            let Some((file, test)) = code.split_once(".rs::") else { continue };
            let file = format!("{file}.rs");
            if !tests_in(&root().join(&file)).contains(test) {
                problems.push(format!("names the test `{test}`, which {file} does not have"));
            }
        }
    });
}

#[test]
fn the_threat_model_names_every_attack_that_is_tested() {
    let model = Guide::read("docs/threat-model.md");
    let named: BTreeSet<String> = model.code().collect();
    for file in ["crates/sandbox/tests/attacks.rs", "crates/sandbox/tests/image_attacks.rs"] {
        for test in tests_in(&root().join(file)) {
            let name = format!("{file}::{test}");
            assert!(named.contains(&name), "docs/threat-model.md does not name `{name}`");
        }
    }
}

#[test]
fn every_promise_says_what_holds_it() {
    let mut rows = 0;
    for row in Guide::read("docs/promises.md").rows() {
        let (what, held_by) = (&row[0], row.last().map(String::as_str).unwrap_or_default());
        // That these are there is looked up by the tests beside this one.
        let holder = |code: &String| is_path(code) && (code.contains("::") || code.contains("/examples/"));
        assert!(code_in(held_by).any(|code| holder(&code)), "“{what}” names neither a test nor a benchmark");
        rows += 1;
    }
    assert!(rows > 0, "docs/promises.md promises nothing");
}

#[test]
fn every_benchmark_is_run_by_make_bench() {
    let script = read(&root().join("scripts/bench.sh"));
    for folder in folders("crates") {
        let files = entries(&root().join("crates").join(&folder).join("examples"));
        // A folder beside them is what they share.
        for bench in files.iter().filter_map(|file| file.strip_suffix(".rs")) {
            assert!(script.contains(&format!(":{bench}")), "scripts/bench.sh does not run {bench} of crates/{folder}");
        }
    }
}

#[test]
fn every_make_target_that_a_guide_names_exists() {
    let makefile = read(&root().join("Makefile"));
    check_all(|guide, problems| {
        let targets = guide.commands().filter_map(|line| Some(line.strip_prefix("make ")?.to_owned()));
        for target in targets.filter_map(|rest| rest.split_whitespace().next().map(str::to_owned)) {
            if !makefile.lines().any(|line| line.starts_with(&format!("{target}:"))) {
                problems.push(format!("names `make {target}`, which the Makefile does not have"));
            }
        }
    });
}

#[test]
fn every_decision_is_in_the_list_of_decisions() {
    let list = Guide::read("docs/decisions/README.md");
    let listed: BTreeSet<String> = list.links().filter(|link| !link.contains('/')).collect();
    let pages = guides().into_iter().filter_map(|page| Some(page.strip_prefix("docs/decisions/")?.to_owned()));
    let pages: BTreeSet<String> = pages.filter(|page| page != "README.md").collect();
    assert_eq!(listed, pages);
}

/// A markdown file of this checkout.
struct Guide {
    name: String,
    text: String,
}

impl Guide {
    fn read(name: &str) -> Self {
        Self { name: name.into(), text: read(&root().join(name)) }
    }

    fn folder(&self) -> PathBuf {
        root().join(Path::new(&self.name).parent().unwrap_or(Path::new("")))
    }

    /// The targets of its links and pictures.
    fn links(&self) -> impl Iterator<Item = String> {
        let prose = self.lines(false);
        let parts: Vec<String> = prose.split("](").skip(1).map(str::to_owned).collect();
        parts.into_iter().filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
    }

    /// The words set as code.
    fn code(&self) -> impl Iterator<Item = String> {
        code_in(&self.lines(false))
    }

    /// What a reader may type: words set as code, and the lines of fenced blocks.
    fn commands(&self) -> impl Iterator<Item = String> {
        let fenced: Vec<String> = self.lines(true).lines().map(|line| line.trim().to_owned()).collect();
        self.code().chain(fenced)
    }

    /// The cells of its tables, without the headings.
    fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        let lines: Vec<&str> = self.text.lines().collect();
        let is_row = |line: &str| line.starts_with('|') && !line.starts_with("|---");
        let rows = lines.windows(2).filter(|pair| is_row(pair[0]) && !pair[1].starts_with("|---")).map(|pair| pair[0]);
        let last = lines.last().copied().filter(|line| is_row(line));
        let cells = |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        rows.chain(last).map(cells).collect::<Vec<_>>().into_iter()
    }

    /// Its lines inside fenced blocks, or those outside.
    fn lines(&self, fenced: bool) -> String {
        let mut inside = false;
        let mut lines = String::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                inside = !inside;
            } else if inside == fenced {
                let _infallible = writeln!(lines, "{line}");
            }
        }
        lines
    }
}

/// Runs a check over every guide and tells all problems at once.
#[track_caller]
fn check_all(check: impl Fn(&Guide, &mut Vec<String>)) {
    let mut told = String::new();
    for name in guides() {
        let guide = Guide::read(&name);
        let mut problems = Vec::new();
        check(&guide, &mut problems);
        for problem in problems {
            let _infallible = writeln!(told, "{} {problem}", guide.name);
        }
    }
    assert!(told.is_empty(), "the guides do not fit the checkout:\n{told}");
}

/// All guides: the markdown files at the top, in `docs/`, and the read-mes of crates.
fn guides() -> Vec<String> {
    let mut found = Vec::new();
    let mut wanted = vec![String::new(), "docs/".into(), "docs/decisions/".into()];
    wanted.extend(folders("crates").into_iter().map(|name| format!("crates/{name}/")));
    for folder in wanted {
        let names = entries(&root().join(&folder)).into_iter().filter(|name| name.ends_with(".md"));
        found.extend(names.map(|name| format!("{folder}{name}")));
    }
    found
}

fn packages() -> BTreeSet<String> {
    let manifests =
        folders("crates").into_iter().map(|name| read(&root().join("crates").join(name).join("Cargo.toml")));
    let name_of = |manifest: String| {
        let line = manifest.lines().find(|line| line.starts_with("name = "))?.to_owned();
        Some(line.trim_start_matches("name = ").trim_matches('"').to_owned())
    };
    manifests.filter_map(name_of).collect()
}

/// The names of the test functions in a file.
fn tests_in(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut names = BTreeSet::new();
    let (mut is_test, mut is_suite) = (false, false);
    for line in text.lines().map(str::trim) {
        // A suite that several things are put through makes a test of each `topic: name,`.
        is_suite = line.contains("suite! {") || is_suite && line != "}";
        names.extend(line.split_once(": ").filter(|_| is_suite).map(|(_, name)| name.trim_end_matches(',').to_owned()));
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        }
        let name = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
        if let (Some(name), true) = (name, is_test) {
            names.insert(name.to_owned());
            is_test = false;
        }
    }
    names
}

fn code_in(text: &str) -> impl Iterator<Item = String> + use<> {
    let words: Vec<String> = text.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " ")).collect();
    words.into_iter()
}

fn is_path(code: &str) -> bool {
    code.split_once('/').is_some_and(|(first, _)| TOP.contains(&first)) && !code.contains([' ', '*', '<', '…', '{'])
}

fn is_word(code: &str) -> bool {
    code.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

fn folders(under: &str) -> Vec<String> {
    let under = root().join(under);
    entries(&under).into_iter().filter(|name| under.join(name).join("Cargo.toml").is_file()).collect()
}

/// The names in a folder, in order; none where there is no folder.
fn entries(folder: &Path) -> Vec<String> {
    let Ok(read) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = read.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|e| panic!("failed to read {}: {e}", file.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

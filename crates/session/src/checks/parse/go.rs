//! The go command: compiler and vet errors, and the results of tests, as text or as `go test -json` events
//! (cmd/test2json).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::found::{Found, NAME_BYTES_MAX};
use super::text::{Text, block, indent, place};
use crate::checks::{Diagnostic, Severity};

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    let streams = text.streams();
    let is_json = |stream: &str| stream.lines().any(|line| line.starts_with('{') && line.contains("\"Action\":"));
    let printed: Vec<String> = streams.iter().map(|s| if is_json(s) { printed(s) } else { (*s).to_owned() }).collect();
    if !printed.iter().any(|stream| stream.contains(".go:") || stream.contains("--- FAIL: ")) {
        return;
    }
    let root = module(&printed);
    for stream in &printed {
        read_problems(stream, found);
        read_tests(stream, root.as_deref(), found);
    }
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "Package", alias = "ImportPath", default)]
    package: String,
    #[serde(rename = "Test", default)]
    test: String,
    #[serde(rename = "Output", default)]
    output: Option<String>,
}

/// What the tests printed, put together again: each package's output in one piece, and in it each test's, as it would
/// be had they not run at once. Lines that are no event were printed by the go command itself.
fn printed(stream: &str) -> String {
    let mut packages: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut plain = String::new();
    for line in stream.lines() {
        match line.starts_with('{').then(|| serde_json::from_str::<Event>(line)) {
            Some(Ok(Event { package, test, output: Some(output) })) => {
                packages.entry(package).or_default().entry(test).or_default().push_str(&output);
            }
            Some(Ok(_)) => {}
            _ => plain.extend([line, "\n"]),
        }
    }
    for tests in packages.values_mut() {
        // Under the empty name is what the package says of itself; its verdict comes last.
        let verdict = tests.remove("").unwrap_or_default();
        tests.values().for_each(|output| plain.push_str(output));
        plain.push_str(&verdict);
    }
    plain
}

/// Errors of the compiler and of vet: `dir/a.go:1:2: words`, at the start of a line, with a tab before what goes on.
fn read_problems(stream: &str, found: &mut Found<'_>) {
    let mut current: Option<Diagnostic> = None;
    for line in stream.lines() {
        if let (Some(diagnostic), Some(words)) = (&mut current, line.strip_prefix('\t')) {
            diagnostic.message.push_str(&format!("\n{words}"));
            continue;
        }
        current.take().into_iter().for_each(|diagnostic| found.push(diagnostic));
        let line = line.strip_prefix("vet: ").unwrap_or(line);
        if let Some((file, line, column @ Some(_), words)) = place(line)
            && file.ends_with(".go")
            && !file.starts_with([' ', '\t'])
        {
            let diagnostic = Diagnostic::new(Severity::Error, words.trim_start());
            current = Some(Diagnostic { file: Some(file.to_owned()), line: Some(line), column, ..diagnostic });
        }
    }
    current.into_iter().for_each(|diagnostic| found.push(diagnostic));
}

/// A test's failure as it is read, until its package is known.
struct Failure<'a> {
    test: &'a str,
    depth: usize,
    lines: Vec<&'a str>,
}

/// Collects `--- FAIL: Test (0.00s)` and what is indented below it, up to the `FAIL package` that ends the package.
/// With `-v` the words of a test come before its verdict, below `=== RUN Test`.
fn read_tests(stream: &str, root: Option<&str>, found: &mut Found<'_>) {
    let mut failures: Vec<Failure<'_>> = Vec::new();
    let mut said: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut running = "";
    let mut panicking = false;
    for line in stream.lines() {
        let words = line.trim_start();
        if let Some(test) = ["=== RUN ", "=== NAME ", "=== CONT "].iter().find_map(|mark| words.strip_prefix(mark)) {
            running = test.trim();
            panicking = false;
        } else if let Some(package) = verdict(line) {
            push_all(&mut failures, &mut said, directory(package, root), found);
            (running, panicking) = ("", false);
        } else if let Some((failed, test)) = result(words) {
            running = "";
            if failed {
                failures.push(Failure { test, depth: indent(line), lines: Vec::new() });
            }
        } else if panicking || line.starts_with("panic: ") {
            panicking = true;
            match failures.last_mut() {
                Some(failure) => failure.lines.push(line),
                None => said.entry(running).or_default().push(line),
            }
        } else if !running.is_empty() {
            said.entry(running).or_default().push(line);
        } else if let Some(failure) = failures.last_mut().filter(|failure| indent(line) > failure.depth) {
            failure.lines.push(line);
        }
    }
    push_all(&mut failures, &mut said, None, found);
}

/// `FAIL\tpackage\t0.1s` or `ok  \tpackage\t0.1s`.
fn verdict(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("FAIL\t").or_else(|| line.strip_prefix("ok  \t"))?;
    rest.split(['\t', ' ']).next().filter(|package| package.len() <= NAME_BYTES_MAX)
}

/// `--- FAIL: Test/sub (0.00s)`, and its siblings.
fn result(words: &str) -> Option<(bool, &str)> {
    let (failed, rest) = match words.strip_prefix("--- FAIL: ") {
        Some(rest) => (true, rest),
        None => (false, words.strip_prefix("--- PASS: ").or_else(|| words.strip_prefix("--- SKIP: "))?),
    };
    Some((failed, rest.split_once(" (").map_or(rest, |(test, _)| test)))
}

fn push_all<'a>(
    failures: &mut Vec<Failure<'a>>,
    said: &mut BTreeMap<&'a str, Vec<&'a str>>,
    directory: Option<&str>,
    found: &mut Found<'_>,
) {
    let failures = std::mem::take(failures);
    let said = std::mem::take(said);
    for (at, failure) in failures.iter().enumerate() {
        let before = said.get(failure.test).map(Vec::as_slice).unwrap_or_default();
        let lines: Vec<&str> = before.iter().chain(&failure.lines).copied().collect();
        // A parent says nothing but that one below it failed; those follow it, or with JSON come before it.
        let is_child =
            |other: &Failure<'_>| other.test.strip_prefix(failure.test).is_some_and(|rest| rest.starts_with('/'));
        let near = [at.checked_sub(1).and_then(|at| failures.get(at)), failures.get(at + 1)];
        if lines.iter().all(|line| line.trim().is_empty()) && near.into_iter().flatten().any(is_child) {
            continue;
        }
        push_test(failure.test, &lines, directory, found);
    }
}

fn push_test(test: &str, lines: &[&str], directory: Option<&str>, found: &mut Found<'_>) {
    let panic = lines.iter().position(|line| line.starts_with("panic: "));
    let mut diagnostic = Diagnostic { test: Some(test.to_owned()), ..Diagnostic::new(Severity::Error, "failed") };
    let message = match panic {
        Some(at) => block(&lines[at..].iter().copied().take_while(|line| !line.trim().is_empty()).collect::<Vec<_>>()),
        None => block(lines),
    };
    if !message.is_empty() {
        diagnostic.message = message;
    }
    let frame = |line: &&str| {
        let (file, line, _, _) = place(line.strip_prefix('\t')?.split(' ').next()?)?;
        (file.ends_with(".go") && found.is_own(file)).then(|| (file.to_owned(), line))
    };
    // What failed a test is said last: `t.Log` comes before `t.Fatal`.
    let log = |line: &&str| {
        let (file, line, _, _) = place(line.trim_start())?;
        let beside = || {
            directory
                .map(|directory| if directory.is_empty() { file.to_owned() } else { format!("{directory}/{file}") })
        };
        file.ends_with(".go").then(|| (if file.contains('/') { Some(file.to_owned()) } else { beside() }, line))
    };
    if let Some((file, line)) = panic.and_then(|at| lines[at..].iter().find_map(frame)) {
        (diagnostic.file, diagnostic.line) = (Some(file), Some(line));
    } else if let Some((Some(file), line)) = lines.iter().rev().find_map(log) {
        (diagnostic.file, diagnostic.line) = (Some(file), Some(line));
    }
    found.push(diagnostic);
}

/// The module's path, as far as the packages that were named tell: it is what they all begin with. One package alone
/// tells only where its host says how many parts a repository's name has.
fn module(streams: &[String]) -> Option<String> {
    let named = |line: &str| {
        let rest = ["FAIL\t", "ok  \t", "?   \t", "\t"].iter().find_map(|mark| line.strip_prefix(mark))?;
        let package = rest.split(['\t', ' ']).next()?;
        (package.contains('/') && !package.contains(':')).then(|| package.split('/').map(str::to_owned).collect())
    };
    let mut packages = streams.iter().flat_map(|stream| stream.lines()).filter_map(named);
    let mut shared: Vec<String> = packages.next()?;
    let mut several = false;
    for package in packages {
        several |= package != shared;
        let same = shared.iter().zip(&package).take_while(|(a, b)| a == b).count();
        shared.truncate(same);
    }
    let hosted = matches!(shared.first()?.as_str(), "github.com" | "gitlab.com" | "bitbucket.org" | "codeberg.org");
    if hosted {
        let is_version = |part: &String| part.strip_prefix('v').is_some_and(|n| n.parse::<u16>().is_ok_and(|n| n > 1));
        shared.truncate(if shared.get(3).is_some_and(is_version) { 4 } else { 3 });
    }
    (several || hosted).then(|| shared.join("/"))
}

/// A package's folder in its module.
fn directory<'a>(package: &'a str, root: Option<&str>) -> Option<&'a str> {
    let rest = package.strip_prefix(root?)?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

//! The `spec` reporter of `node --test`, of Node 18 and later: a tree of results, then the failures with their errors.

use std::collections::HashMap;

use super::found::{Found, NAME_BYTES_MAX};
use super::js;
use super::text::{Text, block, indent};
use crate::checks::{Diagnostic, Severity, clip};

const SUMMARY: &str = "✖ failing tests:";

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    for stream in text.streams().into_iter().filter(|stream| stream.contains("✖ ") && stream.contains("ℹ ")) {
        // A test may print the line, and so the last one counts.
        let (tree, summary) = match stream.rfind(SUMMARY) {
            Some(at) => (&stream[..at], &stream[at + SUMMARY.len()..]),
            None => (stream, ""),
        };
        let mut leaves = leaves(tree);
        if summary.is_empty() {
            leaves.into_values().flatten().filter(|leaf| !leaf.todo).for_each(|leaf| push(leaf, None, &[], found));
        } else {
            read_summary(summary, &mut leaves, found);
        }
    }
}

/// Lines that are kept of what a test printed before its result.
const PRINTED_MAX: usize = 100;

/// Suites inside each other.
const DEPTH_MAX: usize = 32;

/// The failed tests of the tree by their last names and times.
type Leaves<'a> = HashMap<&'a str, Vec<Leaf<'a>>>;

#[derive(Default)]
struct Leaf<'a> {
    /// The full name.
    path: String,
    /// It is known not to work yet.
    todo: bool,
    /// What came before its result.
    printed: Vec<&'a str>,
}

fn leaves(tree: &str) -> Leaves<'_> {
    let mut leaves = Leaves::new();
    let mut suites: Vec<(usize, String)> = Vec::new();
    let mut printed: Vec<&str> = Vec::new();
    for line in tree.lines() {
        let (depth, words) = (indent(line), line.trim_start());
        if let Some(name) = words.strip_prefix("▶ ") {
            suites.retain(|(outer, _)| *outer < depth);
            if suites.len() < DEPTH_MAX {
                suites.push((depth, clip(name, NAME_BYTES_MAX)));
            }
            printed.clear();
        } else if let Some(result) = words.strip_prefix("✖ ") {
            let printed = std::mem::take(&mut printed);
            let (name, todo) = timed(result);
            let bare = without_time(name);
            if suites.last().is_some_and(|(outer, suite)| *outer == depth && suite == bare) {
                suites.pop();
                continue;
            }
            suites.retain(|(outer, _)| *outer < depth);
            let path: Vec<&str> = suites.iter().map(|(_, suite)| suite.as_str()).chain([bare]).collect();
            leaves.entry(name).or_default().push(Leaf { path: path.join(" > "), todo, printed });
        } else if words.starts_with("✔ ") || words.starts_with("﹣ ") {
            printed.clear();
        } else if printed.len() < PRINTED_MAX {
            printed.push(line);
        }
    }
    // `pop` gives the first of several that look the same.
    leaves.values_mut().for_each(|same| same.reverse());
    leaves
}

fn without_time(name: &str) -> &str {
    name.rsplit_once(" (").map_or(name, |(bare, _)| bare)
}

/// Splits `name (1.5ms) # TODO` into the name with its time, and whether it is to do.
fn timed(result: &str) -> (&str, bool) {
    match result.rsplit_once("ms)") {
        Some((name, rest)) => (&result[..name.len() + 3], rest.trim_start().starts_with("# TODO")),
        None => (result, false),
    }
}

fn read_summary(summary: &str, leaves: &mut Leaves<'_>, found: &mut Found<'_>) {
    let mut at: Option<&str> = None;
    let mut current: Option<(&str, Option<&str>, Vec<&str>)> = None;
    let mut finish = |entry: Option<(&str, Option<&str>, Vec<&str>)>, found: &mut Found<'_>| {
        let Some((result, at, lines)) = entry else { return };
        let (name, todo) = timed(result);
        let unknown = || Leaf { path: without_time(name).to_owned(), ..Leaf::default() };
        let leaf = leaves.get_mut(name).and_then(Vec::pop).unwrap_or_else(unknown);
        if !todo && !leaf.todo {
            push(leaf, at, &lines, found);
        }
    };
    for line in summary.lines() {
        if let Some(place) = line.strip_prefix("test at ") {
            finish(current.take(), found);
            at = Some(place);
        } else if let Some(result) = line.strip_prefix("✖ ") {
            finish(current.replace((result, at.take(), Vec::new())), found);
        } else if let Some((_, _, lines)) = &mut current {
            lines.push(line);
        }
    }
    finish(current, found);
}

fn push(leaf: Leaf<'_>, at: Option<&str>, lines: &[&str], found: &mut Found<'_>) {
    let words = |lines: &[&str]| block(&lines.iter().copied().take_while(|l| !js::is_frame(l)).collect::<Vec<_>>());
    let mut message = words(lines);
    let mut frames = lines;
    // A file that died says nothing in its result; what it printed came before.
    if message == "'test failed'" && !leaf.printed.is_empty() {
        message = format!("test failed\n{}", words(&leaf.printed));
        frames = &leaf.printed;
    }
    if message.is_empty() {
        message.push_str("failed");
    }
    let frames = frames.iter().copied().filter(|line| js::is_frame(line));
    let place = js::own_frame(frames, found).or_else(|| at.and_then(js::frame));
    let mut diagnostic = Diagnostic { test: Some(leaf.path), ..Diagnostic::new(Severity::Error, message) };
    if let Some((file, line, column)) = place {
        (diagnostic.file, diagnostic.line, diagnostic.column) = (Some(file.to_owned()), Some(line), column);
    }
    found.push(diagnostic);
}

//! Drafts an environment file for a repository, from what its own files prove.
//!
//! A person finishes it: what is only guessed stands in a comment. Whatever comes out can be read again, with the same
//! checks that would be detected without it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::devcontainer;
use super::values::{self, is_name};
use crate::checks::detect;
use crate::checks::parse::ParserKind;
use crate::checks::{CHECK_TIMEOUT, Check};

mod found;

use found::Found;

const HEAD: &str = "# What this repository's sandboxes are made of, what runs in them, and what proves work in them.
# Drafted by `hob env init` from the repository's own files: finish it by hand. Every key is optional.
# `hob env check` says what it means. Sessions read it from the commit that they start from.
";

const OTHERS: &str = "
# Hosts that sandboxes may reach beside the usual ones, and secrets that they use, by name.
# egress = [\"api.example.com\"]
# secrets = [\"API_TOKEN\"]

# What a sandbox wants to use; never more than the operator allows.
# cpu = 2
# memory = \"4 GiB\"
";

/// The draft for a repository. `files` are its paths from the top folder; `read` gives the text of one of them, and
/// nothing where it cannot.
pub fn draft(files: &[String], mut read: impl FnMut(&str) -> Option<String>) -> String {
    let services = found::services(files, &mut read);
    let mut checks = detect::detect(files, read);
    // A folder with an odd name is better named by a person.
    checks.retain(|check| is_name(&check.name) && values::inside(&check.directory).as_ref() == Some(&check.directory));
    let mut text = HEAD.to_owned();
    base(&mut text, files);
    warm(&mut text, files, &checks);
    text.push_str(OTHERS);
    // The tables come last: a key after a table would belong to it.
    packages(&mut text, &services);
    variables(&mut text, &services);
    services.iter().for_each(|found| service(&mut text, found));
    checks.iter().for_each(|found| check(&mut text, found));
    text
}

fn base(text: &mut String, files: &[String]) {
    let has = |path: &str| files.iter().any(|file| file == path);
    let (base, other) = match devcontainer::find(files) {
        Some(path) => (path, None),
        None => ("host", ["Dockerfile", "Containerfile"].into_iter().find(|path| has(path))),
    };
    text.push_str("\n# \"host\" is the system of the machine that Hob runs on. Others are \"debian:bookworm\", an image such as\n");
    text.push_str("# \"python:3.12\", and the path of a Dockerfile or a devcontainer.json.\n");
    line(text, "base", base);
    if let Some(path) = other {
        let _infallible = writeln!(text, "# base = {}", quoted(path));
    }
}

/// What makes the first build of a session a short one: installed dependencies, and what the tests are made of.
fn warm(text: &mut String, files: &[String], checks: &[Check]) {
    let mut lines: Vec<String> = Vec::new();
    let mut add = |line: String| {
        if !lines.contains(&line) {
            lines.push(line);
        }
    };
    for check in checks {
        if let Some(prepare) = &check.prepare {
            add(inside(&check.directory, prepare));
        }
    }
    let builds = [
        ("Cargo.toml", "cargo build --tests"),
        ("go.mod", "go build ./..."),
        ("pom.xml", "mvn --batch-mode --quiet test-compile"),
    ];
    let folders: BTreeSet<&str> = checks.iter().map(|check| check.directory.as_str()).collect();
    for folder in folders {
        for (manifest, build) in builds {
            let path = if folder.is_empty() { manifest.to_owned() } else { format!("{folder}/{manifest}") };
            if files.contains(&path) {
                add(inside(folder, build));
            }
        }
    }
    text.push_str("\n# Runs once for an image, in the checkout, so that dependencies and caches are there already.\n");
    let lines: Vec<String> = lines.iter().map(|line| format!("    {},\n", quoted(line))).collect();
    match lines.is_empty() {
        true => text.push_str("# warm = [\"make\"]\n"),
        false => {
            let _infallible = writeln!(text, "warm = [\n{}]", lines.concat());
        }
    }
}

/// A command line for a folder of the checkout.
fn inside(folder: &str, line: &str) -> String {
    if folder.is_empty() { line.to_owned() } else { format!("cd '{}' && {{ {line}; }}", folder.replace('\'', r"'\''")) }
}

fn packages(text: &mut String, services: &[Found]) {
    let apt: Vec<String> = services.iter().filter_map(|found| found.kind.package()).map(quoted).collect();
    text.push_str("\n# Installed on the base, once for an image.\n");
    match apt.is_empty() {
        true => text.push_str("# [packages]\n# apt = [\"jq\"]\n"),
        false => {
            let _infallible = writeln!(text, "[packages]\napt = [{}]", apt.join(", "));
        }
    }
}

fn variables(text: &mut String, services: &[Found]) {
    let found: Vec<_> =
        services.iter().flat_map(|found| found.variables.iter().map(|name| (name, found.kind))).collect();
    let known: Vec<_> = found.iter().filter_map(|(name, kind)| Some((name, kind.url()?))).collect();
    if !known.is_empty() {
        text.push_str("\n[env]\n");
        known.iter().for_each(|(name, url)| line(text, name, url));
    }
}

fn service(text: &mut String, found: &Found) {
    let (kind, source) = (found.kind, plain(&found.source));
    let Some(command) = kind.command() else {
        let _infallible = writeln!(text, "\n# {source} names {}: describe it as a service here.", kind.name());
        return;
    };
    let _infallible = writeln!(text, "\n# {source} names it.\n[[services]]");
    line(text, "name", kind.name());
    // A literal text: the command has quotes and line breaks of its own, and none of them is three apostrophes.
    let _infallible = writeln!(text, "command = '''\n{command}'''");
    if let Some(port) = kind.port() {
        let _infallible = writeln!(text, "port = {port}");
    }
    if let Some(ready) = kind.ready() {
        line(text, "ready", ready);
    }
}

fn check(text: &mut String, check: &Check) {
    text.push_str("\n[[checks]]\n");
    line(text, "name", &check.name);
    line(text, "command", &check.command);
    if !check.directory.is_empty() {
        line(text, "directory", &check.directory);
    }
    if let Some(prepare) = &check.prepare {
        line(text, "prepare", prepare);
    }
    if check.timeout != CHECK_TIMEOUT {
        let _infallible = writeln!(text, "timeout = {}", check.timeout.as_secs());
    }
    if check.parser != ParserKind::Auto
        && let Ok(serde_json::Value::String(name)) = serde_json::to_value(check.parser)
    {
        line(text, "parser", &name);
    }
}

fn line(text: &mut String, key: &str, value: &str) {
    let _infallible = writeln!(text, "{key} = {}", quoted(value));
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A path as it may stand in a comment.
fn plain(path: &str) -> String {
    path.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests;

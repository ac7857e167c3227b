//! `hob doctor`: what this machine can and cannot do, and how to mend it.

use clap::Args;
use hob_sandbox::Grade;
use serde::Serialize;

use super::context::{print, print_json};
use super::{Context, Failure};
use crate::git;
use crate::render::Style;
use crate::wiring::NO_MODEL;

#[derive(Debug, Args)]
pub(super) struct Doctor {}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    name: String,
    /// How it is.
    status: Status,
    /// What was found.
    detail: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Good.
    Good,
    /// Something is not possible, or not held; the rest works.
    Lacking,
    /// Nothing works without it.
    Missing,
}

impl Finding {
    fn new(name: &str, status: Status, detail: impl Into<String>, fix: Option<&str>) -> Self {
        Self { name: name.into(), status, detail: detail.into(), fix: fix.map(str::to_owned) }
    }
}

impl Doctor {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let findings = findings(context).await;
        if context.json() {
            print_json(&findings)?;
        } else {
            print(&report(context.style(), &findings))?;
        }
        match findings.iter().any(|finding| finding.status == Status::Missing) {
            true => Err(Failure::Exit(1)),
            false => Ok(()),
        }
    }
}

async fn findings(context: &Context) -> Vec<Finding> {
    let mut findings = Vec::new();
    match context.data_dir() {
        Ok(data_dir) => {
            // A configuration that cannot be read is a finding of its own, below.
            let sandbox = context.config().map(|config| config.sandbox).unwrap_or_default();
            let found = crate::wiring::sandboxes::probe(&sandbox, &data_dir).await;
            findings.extend(found.into_iter().map(Finding::from));
        }
        Err(error) => findings.push(Finding::new("data folder", Status::Missing, error.to_string(), None)),
    }
    findings.push(program("git", Status::Missing, "clones, commits and diffs need it", "apt install git"));
    findings.push(program(
        "node",
        Status::Lacking,
        "external agents need it; the built-in one does not",
        "install Node 22 or later",
    ));
    findings.push(program("npm", Status::Lacking, "`hob agent install` needs it", "install npm"));
    findings.push(author());
    findings.push(models(context));
    findings
}

fn program(name: &str, without: Status, why: &str, fix: &str) -> Finding {
    match std::process::Command::new(name).arg("--version").stdin(std::process::Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Finding::new(name, Status::Good, version, None)
        }
        _ => Finding::new(name, without, format!("not found; {why}"), Some(fix)),
    }
}

fn author() -> Finding {
    match git::configured_author() {
        Some(author) => Finding::new("author", Status::Good, format!("{} <{}>", author.name, author.email), None),
        None => {
            let fix = "git config --global user.name \"…\" && git config --global user.email …";
            Finding::new("author", Status::Lacking, "git knows no name for commits; they will say Hob", Some(fix))
        }
    }
}

fn models(context: &Context) -> Finding {
    match context.config() {
        Err(error) => Finding::new("configuration", Status::Missing, error.to_string(), None),
        Ok(config) => match config.default_model() {
            Some(model) => {
                let detail = format!("{model} by default, {} in all", config.models.len());
                Finding::new("models", Status::Good, detail, None)
            }
            None => Finding::new("models", Status::Missing, "none", Some(NO_MODEL)),
        },
    }
}

impl From<hob_sandbox::Finding> for Finding {
    fn from(finding: hob_sandbox::Finding) -> Self {
        let status = match finding.grade {
            Grade::Ok => Status::Good,
            Grade::Warn => Status::Lacking,
            Grade::Fail => Status::Missing,
        };
        Self {
            name: finding.name,
            status,
            detail: finding.detail,
            fix: Some(finding.fix).filter(|fix| !fix.is_empty()),
        }
    }
}

fn report(style: Style, findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.status {
            Status::Good => style.green("✓"),
            Status::Lacking => style.yellow("!"),
            Status::Missing => style.red("✗"),
        };
        text.push_str(&format!("{mark} {}: {}\n", style.bold(&finding.name), finding.detail));
        if let Some(fix) = &finding.fix {
            text.push_str(&format!("    {fix}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_its_mend() {
        let finding = program("no-such-program-of-ours", Status::Missing, "we need it", "apt install it");
        assert_eq!(
            report(Style::Plain, &[finding]),
            "✗ no-such-program-of-ours: not found; we need it\n    apt install it\n"
        );
    }
}

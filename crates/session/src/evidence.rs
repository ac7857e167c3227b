//! Evidence: the record of what proved a change, bound to its commit.
//!
//! The JSON is an artifact of the session; the Markdown is for a pull request's body. The JSON changes by rule: a new
//! field is optional, and `format` rises when an old reader would misread the new text.

use serde::{Deserialize, Serialize};

use crate::checks::compare::is_red;
use crate::checks::rounds::judge;
use crate::checks::{Diagnostic, Severity, clip};
use crate::event::{CheckRun, TurnOutcome};

/// The version of the JSON that this program writes.
pub const FORMAT: u32 = 1;

/// Bytes of the Markdown: forges take about 64 KiB for a body, and it is not alone there.
const MARKDOWN_BYTES_MAX: usize = 32 * 1024;

/// Findings that the Markdown lists under one heading.
const LISTED_MAX: usize = 20;

/// What proved one turn's change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The version of this record, [`FORMAT`].
    pub format: u32,
    /// The session's ID.
    pub session: String,
    /// The turn's ID.
    pub turn: String,
    /// The repository: a local path or a URL without credentials.
    pub repository: String,
    /// The commit that the work started from.
    pub base: String,
    /// The commit that the checks proved; absent where nothing was committed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit: Option<String>,
    /// Its branch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub branch: Option<String>,
    /// The agent's name in the catalogue.
    pub agent: String,
    /// The model's ID.
    pub model: String,
    /// How the turn ended.
    pub outcome: TurnOutcome,
    /// Rounds of the turn, the prompt's own included.
    pub rounds: u32,
    /// Why red checks did not go back to the agent once more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gave_up: Option<String>,
    /// The checks, in the order they ran.
    pub checks: Vec<CheckEvidence>,
    /// What the turn cost.
    pub usage: Usage,
    /// When the turn began: milliseconds since 1970-01-01 UTC.
    pub started_at_ms: u64,
    /// When it ended.
    pub ended_at_ms: u64,
}

/// What the models of a turn took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Calls of a model.
    pub model_calls: u64,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Tokens written, thinking included.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar; absent when a model of the turn has no price.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost_micro_usd: Option<u64>,
}

/// One check, on the base commit and on the change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckEvidence {
    /// The check's name.
    pub name: String,
    /// The command line.
    pub command: String,
    /// What the change did to it.
    pub outcome: CheckOutcome,
    /// Its run on the base commit; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<RunEvidence>,
    /// Its last run on the change.
    pub after: RunEvidence,
    /// Errors of the base that are gone.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub fixed: Vec<Diagnostic>,
    /// Errors that the base does not have.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub new: Vec<Diagnostic>,
}

/// What a change did to a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// Green, and no worse before.
    Green,
    /// Red on the base commit, green now.
    Fixed,
    /// Red, but just as red on the base commit.
    RedOnBase,
    /// Red because of the change.
    Red,
}

/// One run of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEvidence {
    /// Its exit code, or 128 + the signal that ended it.
    pub exit_code: i32,
    /// Whether its time limit ended it.
    pub timed_out: bool,
    /// How long it took.
    pub elapsed_ms: u64,
    /// What it found, at most 200 of them.
    pub diagnostics: Vec<Diagnostic>,
}

/// Why a record could not be read. Follows "failed to read the evidence: ".
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// It is not the JSON of a record.
    #[error("it is not a record of evidence: {0}")]
    Json(#[from] serde_json::Error),
    /// A later version wrote it.
    #[error("its format is {0}, and this version of Hob knows up to {FORMAT}; update Hob")]
    Later(u32),
}

/// Pairs the last runs of a turn with those on the base commit.
pub fn checks(base: &[CheckRun], last: &[CheckRun]) -> Vec<CheckEvidence> {
    let pair = |after: &CheckRun| {
        let before = base.iter().find(|before| before.name == after.name);
        let verdict = judge(base, after);
        let outcome = match (verdict.blamed, verdict.red_on_base, before.is_some_and(is_red)) {
            (true, ..) => CheckOutcome::Red,
            (_, true, _) => CheckOutcome::RedOnBase,
            (_, _, true) => CheckOutcome::Fixed,
            _ => CheckOutcome::Green,
        };
        CheckEvidence {
            name: after.name.clone(),
            command: after.command.clone(),
            outcome,
            before: before.map(RunEvidence::of),
            after: RunEvidence::of(after),
            fixed: verdict.fixed,
            new: verdict.new,
        }
    };
    last.iter().map(pair).collect()
}

impl RunEvidence {
    fn of(run: &CheckRun) -> Self {
        Self {
            exit_code: run.exit_code,
            timed_out: run.timed_out,
            elapsed_ms: run.elapsed_ms,
            diagnostics: run.diagnostics.clone(),
        }
    }

    fn is_green(&self) -> bool {
        self.exit_code == 0 && !self.timed_out
    }
}

impl Evidence {
    /// The record as JSON, indented, with a line end.
    ///
    /// # Errors
    /// None in practice: every field has a form in JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }

    /// Reads a record.
    ///
    /// # Errors
    /// It is not one, or a later version wrote it.
    pub fn from_json(json: &str) -> Result<Self, EvidenceError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_str(json)?;
        if format > FORMAT {
            return Err(EvidenceError::Later(format));
        }
        Ok(serde_json::from_str(json)?)
    }

    /// The record as Markdown for a pull request's body, at most 32 KiB. What programs said stands in code, where it
    /// can be neither markup nor a mention.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("### Evidence\n\n{}\n\n", self.headline());
        if !self.checks.is_empty() {
            text.push_str("| Check | Command | Before | After | Time |\n|---|---|---|---|---|\n");
            self.checks.iter().for_each(|check| text.push_str(&row(check)));
        }
        let listed = |text: &mut String, title: &str, found: Vec<&Diagnostic>| {
            if found.is_empty() {
                return;
            }
            text.push_str(&format!("\n{title}:\n\n"));
            found.iter().take(LISTED_MAX).for_each(|diagnostic| text.push_str(&item(diagnostic)));
            if found.len() > LISTED_MAX {
                text.push_str(&format!("- … and {} more\n", found.len() - LISTED_MAX));
            }
        };
        listed(&mut text, "Fixed", self.checks.iter().flat_map(|check| &check.fixed).collect());
        let red = |wanted: CheckOutcome| self.checks.iter().filter(move |check| check.outcome == wanted);
        listed(&mut text, "Red because of this change", red(CheckOutcome::Red).flat_map(|check| &check.new).collect());
        let known = red(CheckOutcome::RedOnBase).flat_map(|check| &check.after.diagnostics);
        let known = known.filter(|diagnostic| diagnostic.severity == Severity::Error).collect();
        listed(&mut text, "Red on the base commit too", known);
        text.push_str(&format!("\n{}\n", self.footer()));
        clip(&text, MARKDOWN_BYTES_MAX)
    }

    fn headline(&self) -> String {
        let commit = self.commit.as_deref().map_or_else(|| "the change".to_owned(), |commit| code(short(commit)));
        let base = code(short(&self.base));
        let count = |wanted: CheckOutcome| self.checks.iter().filter(|check| check.outcome == wanted).count();
        let (red, on_base) = (count(CheckOutcome::Red), count(CheckOutcome::RedOnBase));
        match (self.checks.len(), red, on_base) {
            (0, ..) => format!("No checks ran on {commit} (base {base})."),
            (1, 0, 0) => format!("The check is green on {commit} (base {base})."),
            (all, 0, 0) => format!("All {all} checks are green on {commit} (base {base})."),
            (_, 0, _) => format!("No check is red on {commit} that is not as red on its base {base}."),
            (all, red, _) => format!("**{red} of {all} checks are red** on {commit} (base {base})."),
        }
    }

    fn footer(&self) -> String {
        let mut facts = vec![format!("Agent {} with {}", code(&self.agent), code(&self.model))];
        facts.push(if self.rounds == 1 { "1 round".to_owned() } else { format!("{} rounds", self.rounds) });
        facts.push(seconds(self.ended_at_ms.saturating_sub(self.started_at_ms)));
        facts.push(format!("{} tokens in, {} out", self.usage.input_tokens, self.usage.output_tokens));
        if let Some(cost) = self.usage.cost_micro_usd {
            facts.push(format!("${}.{:04}", cost / 1_000_000, cost % 1_000_000 / 100));
        }
        if let Some(reason) = &self.gave_up {
            facts.push(format!("given up: {reason}"));
        }
        facts.join(" · ")
    }
}

fn row(check: &CheckEvidence) -> String {
    let state = |run: &RunEvidence| match (run.is_green(), run.timed_out) {
        (true, _) => "✅ green".to_owned(),
        (_, true) => "❌ timed out".to_owned(),
        _ => format!("❌ exit {}", run.exit_code),
    };
    let mut after = state(&check.after);
    if check.outcome == CheckOutcome::RedOnBase {
        after.push_str(", as before");
    }
    let before = check.before.as_ref().map_or_else(|| "–".to_owned(), state);
    let (name, command) = (cell(&check.name), cell(&clip(&check.command, 200)));
    format!("| {name} | {command} | {before} | {after} | {} |\n", seconds(check.after.elapsed_ms))
}

/// Code in a table: a bar would end the cell even there (GitHub Flavored Markdown §4.10).
fn cell(text: &str) -> String {
    code(text).replace('|', "\\|")
}

fn item(diagnostic: &Diagnostic) -> String {
    let message = diagnostic.message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let place = diagnostic.place();
    let head: Vec<String> = [diagnostic.test.as_deref(), place.as_deref()].into_iter().flatten().map(code).collect();
    let head = if head.is_empty() { String::new() } else { format!("{}: ", head.join(" at ")) };
    format!("- {head}{}\n", code(&clip(message, 300)))
}

/// A code span that holds the text as it is, backticks included (CommonMark 0.31 §6.1), on one line.
fn code(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if longest > 0 || text.trim().is_empty() { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

fn seconds(ms: u64) -> String {
    match ms {
        0..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
    }
}

#[cfg(test)]
mod tests;

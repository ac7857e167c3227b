//! `search`: a regular expression over the workspace's files, with ripgrep where it is there and grep elsewhere.

use std::time::Duration;

use async_trait::async_trait;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolFailure, ToolOutput, arguments, quoted, shown};
use crate::builtin::model::ToolSpec;
use crate::update::ToolKind;
use crate::workspace::{Purpose, ShellCommand, ShellEvent};

const TIMEOUT: Duration = Duration::from_secs(60);
const MATCHES_MAX: usize = 200;
const BYTES_MAX: usize = 40 * 1024;
const LINE_BYTES_MAX: usize = 300;
const STDERR_BYTES_MAX: usize = 2_000;

pub(super) struct Search;

#[derive(Deserialize)]
struct Arguments {
    pattern: String,
    path: Option<String>,
    glob: Option<String>,
}

#[async_trait]
impl Tool for Search {
    fn name(&self) -> &'static str {
        "search"
    }

    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name(),
            description: "Searches the contents of files with a regular expression. Gives path:line:text, at most 200 \
                          matches. Ignored and binary files are left out.",
            schema: json!({
                "type": "object",
                "properties": {
                    "pattern": { "type": "string", "description": "The regular expression" },
                    "path": { "type": "string", "description": "A file or folder to search in; the whole workspace when absent" },
                    "glob": { "type": "string", "description": "Only files of this form, such as *.rs or src/**/*.py" },
                },
                "required": ["pattern"],
            }),
        }
    }

    fn kind(&self) -> ToolKind {
        ToolKind::Search
    }

    fn title(&self, input: &Value) -> String {
        let place = ["path", "glob"].map(|name| shown(input, name));
        let place = place.iter().filter(|text| !text.is_empty()).map(|text| format!(" in {text}")).collect::<String>();
        format!("search {}{place}", shown(input, "pattern"))
    }

    async fn run(&self, input: Value, cx: &ToolContext<'_>) -> Result<ToolOutput, ToolFailure> {
        let asked: Arguments = arguments(self, input)?;
        let line = command_line(&asked);
        let mut process =
            cx.workspace.shell(ShellCommand { line, cwd: None, timeout: TIMEOUT, purpose: Purpose::Read }).await?;
        let mut found = Found::new(asked.glob.as_deref());
        let (mut stderr, mut exit, mut timed_out) = (Vec::new(), 0, false);
        while let Some(event) = process.next().await {
            match event {
                ShellEvent::Stdout(bytes) => found.push(&bytes),
                ShellEvent::Stderr(bytes) => {
                    let room = STDERR_BYTES_MAX.saturating_sub(stderr.len());
                    stderr.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
                ShellEvent::Exited { code, timed_out: late } => (exit, timed_out) = (code, late),
            }
            if found.full {
                process.kill().await;
                break;
            }
        }
        found.finish();
        // 1 is "no match" for both programs; 2 may come with matches, when a single file could not be read.
        if exit >= 2 && found.lines.is_empty() && !timed_out {
            return Err(ToolFailure(format!("the search failed: {}", String::from_utf8_lossy(&stderr).trim())));
        }
        let note = match (found.full, timed_out) {
            (true, _) => "\n[there are more matches; narrow the search]",
            (false, true) => "\n[stopped at the time limit; narrow the search]",
            (false, false) => "",
        };
        let text = if found.lines.is_empty() { "[no match]".to_owned() } else { found.lines.join("\n") };
        Ok(ToolOutput::text(format!("{text}{note}")))
    }
}

fn command_line(asked: &Arguments) -> String {
    let pattern = quoted(&asked.pattern);
    let path = quoted(asked.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("."));
    let (rg_glob, grep_glob) = match asked.glob.as_deref().filter(|glob| !glob.is_empty()) {
        // grep knows names only; the whole form is matched on what it finds.
        Some(glob) => (
            format!("--glob {} ", quoted(glob)),
            format!("--include={} ", quoted(glob.rsplit('/').next().unwrap_or(glob))),
        ),
        None => (String::new(), String::new()),
    };
    format!(
        "if command -v rg >/dev/null 2>&1; then \
           rg --line-number --no-heading --with-filename --color=never --sort=path --hidden --glob '!.git' {rg_glob}-e {pattern} -- {path}; \
         else \
           if echo a | grep -qP a 2>/dev/null; then kind=-P; else kind=-E; fi; \
           grep -rnIH $kind --exclude-dir=.git --exclude-dir=node_modules --exclude-dir=target --exclude-dir=__pycache__ {grep_glob}-e {pattern} -- {path}; \
         fi"
    )
}

/// Matches as they come, up to the limits.
struct Found {
    lines: Vec<String>,
    bytes: usize,
    full: bool,
    partial: Vec<u8>,
    form: Option<Regex>,
}

impl Found {
    fn new(glob: Option<&str>) -> Self {
        let form = glob.filter(|glob| glob.contains('/')).and_then(form);
        Self { lines: Vec::new(), bytes: 0, full: false, partial: Vec::new(), form }
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.full {
                return;
            }
            match byte {
                b'\n' => self.finish(),
                // The rest of a line of megabytes is never shown.
                byte if self.partial.len() <= 4 * LINE_BYTES_MAX => self.partial.push(*byte),
                _ => {}
            }
        }
    }

    fn finish(&mut self) {
        let bytes = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&bytes);
        let line = line.strip_prefix("./").unwrap_or(&line);
        let path = line.split(':').next().unwrap_or("");
        if line.is_empty() || self.form.as_ref().is_some_and(|form| !form.is_match(path)) {
            return;
        }
        if self.lines.len() >= MATCHES_MAX || self.bytes >= BYTES_MAX {
            self.full = true;
            return;
        }
        let cut = line.floor_char_boundary(LINE_BYTES_MAX);
        self.lines.push(if cut < line.len() { format!("{}…", &line[..cut]) } else { line.to_owned() });
        self.bytes += cut;
    }
}

/// A glob of paths as a regular expression. One that makes no sense filters nothing.
fn form(glob: &str) -> Option<Regex> {
    let mut pattern = String::from("(^|/)");
    let mut rest = glob.trim_start_matches("./").trim_start_matches('/');
    while let Some(char) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("**/") {
            pattern.push_str("(.*/)?");
            rest = after;
            continue;
        }
        match char {
            '*' if rest.starts_with("**") => pattern.push_str(".*"),
            '*' => pattern.push_str("[^/]*"),
            '?' => pattern.push_str("[^/]"),
            '{' => pattern.push('('),
            '}' => pattern.push(')'),
            ',' => pattern.push('|'),
            char => pattern.push_str(&regex::escape(char.encode_utf8(&mut [0; 4]))),
        }
        rest = &rest[if rest.starts_with("**") { 2 } else { char.len_utf8() }..];
    }
    pattern.push('$');
    Regex::new(&pattern).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(glob: &str, path: &str, expect: bool) {
        assert_eq!(form(glob).expect("is a form").is_match(path), expect, "{glob} on {path}");
    }

    #[test]
    fn globs_with_folders_match_paths() {
        check("src/**/*.py", "src/a/b/c.py", true);
        check("src/**/*.py", "src/c.py", true);
        check("src/**/*.py", "src/c.pyc", false);
        check("src/*.py", "src/a/c.py", false);
        check("src/*.{js,ts}", "src/a.ts", true);
        check("**/test_?.py", "deep/test_1.py", true);
    }

    #[test]
    fn matches_are_bounded() {
        let mut found = Found::new(None);
        for number in 0..1_000 {
            found.push(format!("./a.rs:{number}:{}\n", "x".repeat(10_000)).as_bytes());
        }
        assert!(found.full);
        assert!(found.lines.iter().map(String::len).sum::<usize>() < BYTES_MAX + 2 * LINE_BYTES_MAX);
        assert!(found.lines[0].starts_with("a.rs:0:x"));
    }
}

//! Collects diagnostics while a parser reads: bounded, without doubles, with paths relative to the workspace.

use std::collections::HashSet;

use super::CheckOutput;
use crate::checks::{DIAGNOSTICS_MAX, Diagnostic, MESSAGE_BYTES_MAX, Severity, clip};

/// Bytes of a file's path, a code or a test's name. What a parser copies into many diagnostics is cut to it first, so
/// that hostile output cannot make it copy megabytes thousands of times.
pub(super) const NAME_BYTES_MAX: usize = 1024;

/// What the parsers found so far.
pub(super) struct Found<'a> {
    workspace: &'a str,
    directory: &'a str,
    /// In the order they came; errors and the rest have a limit each, so that many warnings hide no error.
    kept: Vec<Diagnostic>,
    errors: usize,
    others: usize,
    seen: HashSet<Diagnostic>,
}

impl<'a> Found<'a> {
    pub(super) fn new(output: &CheckOutput<'a>) -> Self {
        Self {
            workspace: output.workspace.trim_end_matches('/'),
            directory: output.directory.trim_matches('/'),
            kept: Vec::new(),
            errors: 0,
            others: 0,
            seen: HashSet::new(),
        }
    }

    pub(super) fn has_error(&self) -> bool {
        self.errors > 0
    }

    /// Takes one: clips its texts, makes its path relative, and drops it when it is there already or there are too
    /// many.
    pub(super) fn push(&mut self, mut diagnostic: Diagnostic) {
        let count = if diagnostic.severity == Severity::Error { &mut self.errors } else { &mut self.others };
        if *count >= DIAGNOSTICS_MAX {
            return;
        }
        diagnostic.message = clip(diagnostic.message.trim_end(), MESSAGE_BYTES_MAX);
        diagnostic.file = diagnostic.file.and_then(|file| relative(self.workspace, self.directory, &file));
        diagnostic.code = diagnostic.code.filter(|code| !code.is_empty()).map(|code| clip(&code, NAME_BYTES_MAX));
        diagnostic.test = diagnostic.test.map(|test| clip(test.trim(), NAME_BYTES_MAX));
        if self.seen.insert(diagnostic.clone()) {
            *count += 1;
            self.kept.push(diagnostic);
        }
    }

    /// Whether a path lies in the workspace and belongs to the repository rather than to what it depends on.
    pub(super) fn is_own(&self, file: &str) -> bool {
        let Some(file) = relative(self.workspace, self.directory, file) else { return false };
        let foreign = ["node_modules", "site-packages", "dist-packages", ".venv", ".cargo"];
        !file.starts_with('/')
            && !file.starts_with("../")
            && !file.starts_with("node:")
            && !file.starts_with('<')
            && !file.split('/').any(|part| foreign.contains(&part))
    }

    /// All that were kept, at most [`DIAGNOSTICS_MAX`]: where they are more, others give way to errors.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        let mut others_left = DIAGNOSTICS_MAX - self.errors.min(DIAGNOSTICS_MAX);
        let mut kept = self.kept;
        kept.retain(|diagnostic| {
            if diagnostic.severity == Severity::Error {
                return true;
            }
            let fits = others_left > 0;
            others_left = others_left.saturating_sub(1);
            fits
        });
        kept
    }
}

/// The path from the workspace, for a path that a tool wrote in `directory`. One that lies elsewhere stays absolute.
fn relative(workspace: &str, directory: &str, file: &str) -> Option<String> {
    let file = file.trim();
    let file = file.strip_prefix("file://").unwrap_or(file);
    let inside = file.strip_prefix(workspace).and_then(|rest| rest.strip_prefix('/'));
    let from_root = match inside {
        Some(inside) => inside.to_owned(),
        None if file.starts_with('/') || file.starts_with("node:") || directory.is_empty() => file.to_owned(),
        None => format!("{directory}/{file}"),
    };
    if from_root.is_empty() || from_root.len() > NAME_BYTES_MAX {
        return None;
    }
    if from_root.starts_with('/') {
        return Some(from_root);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in from_root.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(directory: &str, file: &str, expect: Option<&str>) {
        assert_eq!(relative("/workspace", directory, file).as_deref(), expect);
    }

    #[test]
    fn paths_are_told_from_the_workspace() {
        check("", "/workspace/src/a.rs", Some("src/a.rs"));
        check("", "file:///workspace/a.js", Some("a.js"));
        check("", "./a.c", Some("a.c"));
        check("web", "src/a.ts", Some("web/src/a.ts"));
        check("web", "../lib/a.ts", Some("lib/a.ts"));
        check("web", "/workspace/web/a.ts", Some("web/a.ts"));
        check("web", "/usr/include/stdio.h", Some("/usr/include/stdio.h"));
        check("", "/workspaces/a.c", Some("/workspaces/a.c"));
        check("", "../../etc/passwd", Some("../../etc/passwd"));
        check("", "", None);
    }
}

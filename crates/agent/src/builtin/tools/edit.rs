//! `edit`: replaces a piece of a file that occurs exactly once, or says why it cannot.

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, arguments, relative, shown};
use crate::builtin::model::ToolSpec;
use crate::update::{Location, ToolContent, ToolKind};

const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;
const CONTEXT_LINES: usize = 3;
const PLACES_MAX: usize = 10;
/// A side of a diff that is longer is shown by its start.
const DIFF_BYTES_MAX: usize = 60 * 1024;

pub(super) struct Edit;

#[derive(Debug, Deserialize)]
pub(super) struct Arguments {
    #[serde(alias = "file_path", alias = "filePath")]
    path: String,
    #[serde(alias = "old_string", alias = "oldString")]
    old_text: String,
    #[serde(alias = "new_string", alias = "newString")]
    new_text: String,
    #[serde(default, alias = "replaceAll")]
    replace_all: bool,
}

#[async_trait]
impl Tool for Edit {
    fn name(&self) -> &'static str {
        "edit"
    }

    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name(),
            description: "Replaces old_text by new_text in a file. old_text must be copied exactly, without line \
                          numbers, and occur once, unless replace_all is true.",
            schema: json!({
                "type": "object",
                "properties": {
                    "path": { "type": "string", "description": "The file" },
                    "old_text": { "type": "string", "description": "The text to replace, with enough lines around it to be unique" },
                    "new_text": { "type": "string", "description": "The text to put there" },
                    "replace_all": { "type": "boolean", "description": "Replace each occurrence" },
                },
                "required": ["path", "old_text", "new_text"],
            }),
        }
    }

    fn kind(&self) -> ToolKind {
        ToolKind::Edit
    }

    fn access(&self) -> Access {
        Access::Writes
    }

    fn title(&self, input: &Value) -> String {
        format!("edit {}", shown(input, "path"))
    }

    async fn run(&self, input: Value, cx: &ToolContext<'_>) -> Result<ToolOutput, ToolFailure> {
        let asked: Arguments = arguments(self, input)?;
        cx.workspace.writable().await?;
        let bytes = cx.workspace.read(&asked.path, FILE_BYTES_MAX).await?;
        if bytes.len() >= FILE_BYTES_MAX {
            return Err(ToolFailure(format!(
                "{} is longer than {FILE_BYTES_MAX} bytes; edit it with shell",
                asked.path
            )));
        }
        let Ok(before) = String::from_utf8(bytes.into()) else {
            return Err(ToolFailure(format!("{} is not UTF-8 text; edit it with shell", asked.path)));
        };
        let after = replaced(&before, &asked).map_err(ToolFailure)?;
        cx.workspace.write(&asked.path, Bytes::from(after.clone())).await?;
        let path = relative(cx.workspace.root(), &asked.path).to_owned();
        let (diff, line) = diff(&path, Some(&before), &after);
        Ok(ToolOutput {
            content: vec![diff],
            locations: vec![Location { path, line: Some(line) }],
            ..ToolOutput::default()
        })
    }
}

fn replaced(text: &str, asked: &Arguments) -> Result<String, String> {
    let path = &asked.path;
    if asked.old_text.is_empty() {
        return Err("old_text is empty; use write to make a file or to replace all of it".to_owned());
    }
    if asked.old_text == asked.new_text {
        return Err("old_text and new_text are the same, so that nothing would change".to_owned());
    }
    // Models write line feeds; the file's own line ends are kept.
    let windows = text.contains("\r\n") && !asked.old_text.contains('\r');
    let ends = |text: &str| if windows { text.replace('\n', "\r\n") } else { text.to_owned() };
    let (old, new) = (ends(&asked.old_text), ends(&asked.new_text));
    let places: Vec<usize> = text.match_indices(&old).map(|(start, _)| start).collect();
    match places.len() {
        0 => Err(missing(text, asked)),
        1 => Ok(text.replacen(&old, &new, 1)),
        _ if asked.replace_all => Ok(text.replace(&old, &new)),
        count => {
            let lines: Vec<String> =
                places.iter().take(PLACES_MAX).map(|start| line_number(text, *start).to_string()).collect();
            let more = if count > PLACES_MAX { ", …" } else { "" };
            Err(format!(
                "old_text occurs {count} times in {path}, at lines {}{more}. Give more lines around the one you mean, or set replace_all",
                lines.join(", ")
            ))
        }
    }
}

/// Why `old_text` was not found, with what the model most likely meant.
fn missing(text: &str, asked: &Arguments) -> String {
    let path = &asked.path;
    if let Some((start, end)) = near_miss(text, &asked.old_text) {
        let mut message = format!(
            "old_text is not in {path} as written, but lines {start} to {end} differ from it only in white space. They read exactly:\n"
        );
        for line in text.lines().skip(start - 1).take(end + 1 - start) {
            message.push_str(line);
            message.push('\n');
        }
        return message;
    }
    if asked.old_text.lines().all(has_line_number) {
        return format!("old_text is not in {path}. It seems to hold the line numbers that read shows; leave them out");
    }
    if !asked.new_text.trim().is_empty() && text.contains(&asked.new_text) {
        return format!("old_text is not in {path}, and new_text is there already; perhaps this edit was made before");
    }
    let first = asked.old_text.lines().map(str::trim).find(|line| line.len() > 3);
    let near = first.and_then(|first| text.lines().position(|line| line.trim() == first));
    match near {
        Some(index) => format!(
            "old_text is not in {path}. Its first line is at line {}, but what follows differs; read the file there again",
            index + 1
        ),
        None => format!("old_text is not in {path}; read the file again and copy the text exactly"),
    }
}

/// The lines, from 1, that are the same as `wanted` but for white space.
fn near_miss(text: &str, wanted: &str) -> Option<(usize, usize)> {
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted: Vec<String> = wanted.trim().lines().map(squeezed).collect();
    if wanted.iter().all(String::is_empty) {
        return None;
    }
    let lines: Vec<String> = text.lines().map(squeezed).collect();
    let start = lines.windows(wanted.len()).position(|window| window == wanted)?;
    Some((start + 1, start + wanted.len()))
}

fn has_line_number(line: &str) -> bool {
    let rest = line.trim_start().trim_start_matches(|char: char| char.is_ascii_digit());
    rest.len() < line.trim_start().len() && rest.starts_with('\t')
}

fn line_number(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// What changed, with a few lines around it, and the line where it begins.
pub(super) fn diff(path: &str, before: Option<&str>, after: &str) -> (ToolContent, u32) {
    let Some(before) = before else {
        let content = ToolContent::Diff { path: path.to_owned(), old_text: None, new_text: bounded(after) };
        return (content, 1);
    };
    let old: Vec<&str> = before.split_inclusive('\n').collect();
    let new: Vec<&str> = after.split_inclusive('\n').collect();
    let same_start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let shorter = old.len().min(new.len()) - same_start;
    let same_end = old.iter().rev().zip(new.iter().rev()).take(shorter).take_while(|(old, new)| old == new).count();
    let from = same_start.saturating_sub(CONTEXT_LINES);
    let around = |lines: &[&str]| {
        let to = (lines.len() - same_end + CONTEXT_LINES).min(lines.len());
        bounded(&lines[from..to].concat())
    };
    let content = ToolContent::Diff { path: path.to_owned(), old_text: Some(around(&old)), new_text: around(&new) };
    (content, u32::try_from(same_start + 1).unwrap_or(u32::MAX))
}

fn bounded(text: &str) -> String {
    let cut = text.floor_char_boundary(DIFF_BYTES_MAX);
    if cut == text.len() {
        text.to_owned()
    } else {
        format!("{}\n[… {} bytes left out …]\n", &text[..cut], text.len() - cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(old: &str, new: &str) -> Arguments {
        Arguments { path: "a.py".to_owned(), old_text: old.to_owned(), new_text: new.to_owned(), replace_all: false }
    }

    #[track_caller]
    fn check(text: &str, old: &str, new: &str, expect: &str) {
        let outcome = replaced(text, &asked(old, new)).unwrap_or_else(|error| format!("! {error}"));
        assert_eq!(outcome, expect);
    }

    #[test]
    fn one_occurrence_is_replaced() {
        check("a = 1\nb = 2\n", "b = 2", "b = 3", "a = 1\nb = 3\n");
        check("a\r\nb\r\n", "a\nb", "c\nd", "c\r\nd\r\n");
    }

    #[test]
    fn what_cannot_be_replaced_is_explained() {
        check(
            "x\nx\n",
            "x",
            "y",
            "! old_text occurs 2 times in a.py, at lines 1, 2. Give more lines around the one you mean, or set replace_all",
        );
        check("x", "", "y", "! old_text is empty; use write to make a file or to replace all of it");
        check("x", "x", "x", "! old_text and new_text are the same, so that nothing would change");
        check(
            "done\n",
            "old",
            "done",
            "! old_text is not in a.py, and new_text is there already; perhaps this edit was made before",
        );
        check(
            "x\n",
            "     1\tx",
            "y",
            "! old_text is not in a.py. It seems to hold the line numbers that read shows; leave them out",
        );
        check(
            "x\n",
            "nothing like it",
            "y",
            "! old_text is not in a.py; read the file again and copy the text exactly",
        );
        check(
            "def f():\n    return 1\n",
            "def f():\n    return 2\n",
            "y",
            "! old_text is not in a.py. Its first line is at line 1, but what follows differs; read the file there again",
        );
    }

    #[test]
    fn white_space_that_differs_is_shown_as_it_is() {
        check(
            "def f():\n\treturn  1\n",
            "def f():\n    return 1\n",
            "y",
            "! old_text is not in a.py as written, but lines 1 to 2 differ from it only in white space. They read exactly:\ndef f():\n\treturn  1\n",
        );
    }

    #[test]
    fn all_occurrences_are_replaced_when_asked_for() {
        let all = Arguments { replace_all: true, ..asked("x", "y") };
        assert_eq!(replaced("x x", &all), Ok("y y".to_owned()));
    }

    #[test]
    fn a_diff_shows_the_change_with_a_few_lines_around_it() {
        let before = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let (content, line) = diff("a", Some(before), &before.replace("5\n", "five\n"));
        assert_eq!(line, 5);
        let ToolContent::Diff { old_text, new_text, .. } = content else { panic!("is a diff") };
        assert_eq!(old_text.as_deref(), Some("2\n3\n4\n5\n6\n7\n8\n"));
        assert_eq!(new_text, "2\n3\n4\nfive\n6\n7\n8\n");
    }

    #[test]
    fn a_diff_of_repeated_lines_does_not_overlap() {
        let (content, _) = diff("a", Some("x\nx\n"), "x\nx\nx\n");
        let ToolContent::Diff { old_text, new_text, .. } = content else { panic!("is a diff") };
        assert_eq!((old_text.as_deref(), new_text.as_str()), (Some("x\nx\n"), "x\nx\nx\n"));
    }
}

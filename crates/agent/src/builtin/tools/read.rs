//! `read`: a file's lines with their numbers, or a picture.

use async_trait::async_trait;
use base64::Engine as _;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{TEXT_BYTES_MAX, Tool, ToolContext, ToolFailure, ToolOutput, arguments, relative, shown};
use crate::agent::Image;
use crate::builtin::model::ToolSpec;
use crate::update::{Location, ToolContent, ToolKind};
use crate::workspace::{EntryKind, Workspace, WorkspaceError};

const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;
const IMAGE_BYTES_MAX: usize = 3 * 1024 * 1024;
const LINES_DEFAULT: usize = 2_000;
const LINE_BYTES_MAX: usize = 2_000;
const SUGGESTIONS_MAX: usize = 3;

pub(super) struct Read;

#[derive(Deserialize)]
struct Arguments {
    #[serde(alias = "file_path", alias = "filePath")]
    path: String,
    start_line: Option<usize>,
    end_line: Option<usize>,
}

#[async_trait]
impl Tool for Read {
    fn name(&self) -> &'static str {
        "read"
    }

    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name(),
            description: "Reads a file: its lines with their numbers, at most 2000 at a time, or a picture (PNG, JPEG, \
                          GIF, WebP). For long files give a range of lines.",
            schema: json!({
                "type": "object",
                "properties": {
                    "path": { "type": "string", "description": "The file, from the workspace's root" },
                    "start_line": { "type": "integer", "description": "First line, from 1" },
                    "end_line": { "type": "integer", "description": "Last line, inclusive" },
                },
                "required": ["path"],
            }),
        }
    }

    fn kind(&self) -> ToolKind {
        ToolKind::Read
    }

    fn title(&self, input: &Value) -> String {
        let lines =
            match (input.get("start_line").and_then(Value::as_u64), input.get("end_line").and_then(Value::as_u64)) {
                (Some(start), Some(end)) => format!(":{start}-{end}"),
                (Some(start), None) => format!(":{start}"),
                _ => String::new(),
            };
        format!("read {}{lines}", shown(input, "path"))
    }

    async fn run(&self, input: Value, cx: &ToolContext<'_>) -> Result<ToolOutput, ToolFailure> {
        let asked: Arguments = arguments(self, input)?;
        let bytes = match cx.workspace.read(&asked.path, FILE_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(WorkspaceError::NotFound { path }) => return Err(not_found(cx.workspace, &path).await),
            Err(error) => return Err(error.into()),
        };
        if let Some(media_type) = image_type(&bytes) {
            return image(media_type, bytes);
        }
        if bytes.iter().take(8_000).any(|byte| *byte == 0) {
            return Err(ToolFailure(format!("{} is a binary file of {} bytes", asked.path, bytes.len())));
        }
        let text = numbered(&String::from_utf8_lossy(&bytes), asked.start_line, asked.end_line)?;
        let line = asked.start_line.and_then(|line| u32::try_from(line).ok());
        let path = relative(cx.workspace.root(), &asked.path).to_owned();
        Ok(ToolOutput { locations: vec![Location { path, line }], ..ToolOutput::text(text) })
    }
}

fn image(media_type: &str, bytes: Bytes) -> Result<ToolOutput, ToolFailure> {
    if bytes.len() > IMAGE_BYTES_MAX {
        return Err(ToolFailure(format!(
            "the picture has {} bytes; more than {IMAGE_BYTES_MAX} cannot be shown",
            bytes.len()
        )));
    }
    let base64 = base64::engine::general_purpose::STANDARD.encode(&bytes);
    let shown = ToolContent::Image { media_type: media_type.to_owned(), base64 };
    let image = Image { media_type: media_type.to_owned(), bytes };
    Ok(ToolOutput { content: vec![shown], images: vec![image], ..ToolOutput::default() })
}

fn image_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

fn numbered(text: &str, start: Option<usize>, end: Option<usize>) -> Result<String, ToolFailure> {
    let count = text.lines().count();
    if count == 0 {
        return Ok("[the file is empty]".to_owned());
    }
    let start = start.unwrap_or(1).max(1);
    if start > count {
        return Err(ToolFailure(format!("the file has {count} lines, so none from {start}")));
    }
    let wanted = end.unwrap_or(usize::MAX).min(count).max(start);
    let end = wanted.min(start.saturating_add(LINES_DEFAULT - 1));
    let mut shown = String::new();
    let mut last = start - 1;
    for (index, line) in text.lines().enumerate().skip(start - 1).take(end + 1 - start) {
        if shown.len() + line.len().min(LINE_BYTES_MAX) > TEXT_BYTES_MAX - 200 {
            break;
        }
        last = index + 1;
        let cut = line.floor_char_boundary(LINE_BYTES_MAX);
        let more = if cut < line.len() { format!(" [… {} bytes left out]", line.len() - cut) } else { String::new() };
        shown.push_str(&format!("{last:>6}\t{}{more}\n", &line[..cut]));
    }
    if last < wanted {
        shown.push_str(&format!("[lines {start} to {last} of {count}; go on with start_line {}]\n", last + 1));
    }
    Ok(shown)
}

/// Says what is there instead: a wrong path is most often a near miss.
async fn not_found(workspace: &dyn Workspace, path: &str) -> ToolFailure {
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    let Ok(entries) = workspace.list(if folder.is_empty() { "/" } else { folder }).await else {
        return ToolFailure(format!("there is no {path}, and no folder {folder}"));
    };
    let wanted = name.to_lowercase();
    let stem = wanted.split('.').next().unwrap_or(&wanted);
    let near = entries.iter().filter(|entry| entry.kind != EntryKind::Directory).filter(|entry| {
        let name = entry.name.to_lowercase();
        name == wanted || (stem.len() > 2 && name.contains(stem))
    });
    let near: Vec<&str> = near.map(|entry| entry.name.as_str()).take(SUGGESTIONS_MAX).collect();
    if near.is_empty() {
        return ToolFailure(format!("there is no {path}; search or list shows what there is"));
    }
    ToolFailure(format!("there is no {path}; in {folder} there is {}", near.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_the_rest_is_named() {
        let text = "a\nb\nc\n";
        assert_eq!(numbered(text, None, None).expect("reads"), "     1\ta\n     2\tb\n     3\tc\n");
        assert_eq!(numbered(text, Some(2), Some(2)).expect("reads"), "     2\tb\n");
        assert_eq!(numbered(text, Some(3), Some(1)).expect("reads"), "     3\tc\n");
        assert!(numbered(text, Some(9), None).is_err());
        assert_eq!(numbered("", None, None).expect("reads"), "[the file is empty]");
    }

    #[test]
    fn a_long_file_is_read_in_parts() {
        let text = "line\n".repeat(5_000);
        let part = numbered(&text, None, None).expect("reads");
        assert!(part.ends_with("[lines 1 to 2000 of 5000; go on with start_line 2001]\n"));
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let text = "ß".repeat(5_000);
        assert!(numbered(&text, None, None).expect("reads").contains("[… 8000 bytes left out]"));
    }
}

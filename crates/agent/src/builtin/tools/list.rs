//! `list`: what is in a folder.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolFailure, ToolOutput, arguments, shown};
use crate::builtin::model::ToolSpec;
use crate::update::ToolKind;
use crate::workspace::{DirEntry, EntryKind};

const ENTRIES_MAX: usize = 500;

pub(super) struct List;

#[derive(Deserialize)]
struct Arguments {
    path: Option<String>,
}

#[async_trait]
impl Tool for List {
    fn name(&self) -> &'static str {
        "list"
    }

    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name(),
            description: "Lists a folder's entries. Folders end with a slash; files show their size in bytes.",
            schema: json!({
                "type": "object",
                "properties": { "path": { "type": "string", "description": "The folder; the workspace's root when absent" } },
            }),
        }
    }

    fn kind(&self) -> ToolKind {
        ToolKind::Read
    }

    fn title(&self, input: &Value) -> String {
        let path = shown(input, "path");
        format!("list {}", if path.is_empty() { "." } else { &path })
    }

    async fn run(&self, input: Value, cx: &ToolContext<'_>) -> Result<ToolOutput, ToolFailure> {
        let asked: Arguments = arguments(self, input)?;
        let path = asked.path.filter(|path| !path.is_empty()).unwrap_or_else(|| ".".to_owned());
        let entries = cx.workspace.list(&path).await?;
        let mut lines: Vec<String> = entries.iter().take(ENTRIES_MAX).map(line).collect();
        if entries.len() > ENTRIES_MAX {
            lines.push(format!("[{} more]", entries.len() - ENTRIES_MAX));
        }
        if lines.is_empty() {
            lines.push("[the folder is empty]".to_owned());
        }
        Ok(ToolOutput::text(lines.join("\n")))
    }
}

fn line(entry: &DirEntry) -> String {
    match entry.kind {
        EntryKind::Directory => format!("{}/", entry.name),
        EntryKind::File => format!("{} ({})", entry.name, entry.size_bytes),
        EntryKind::Symlink => format!("{} (link)", entry.name),
        EntryKind::Other => format!("{} (no file)", entry.name),
    }
}

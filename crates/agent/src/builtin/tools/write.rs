//! `write`: makes a file, or replaces all of it.

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, arguments, edit, relative, shown};
use crate::builtin::model::ToolSpec;
use crate::update::{Location, ToolKind};
use crate::workspace::WorkspaceError;

/// Of a longer file that is replaced, the diff shows the start only.
const OLD_BYTES_MAX: usize = 1024 * 1024;

pub(super) struct Write;

#[derive(Deserialize)]
struct Arguments {
    #[serde(alias = "file_path", alias = "filePath")]
    path: String,
    content: String,
}

#[async_trait]
impl Tool for Write {
    fn name(&self) -> &'static str {
        "write"
    }

    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name(),
            description: "Writes a file, with its folders where they are missing. What was in it before is replaced.",
            schema: json!({
                "type": "object",
                "properties": {
                    "path": { "type": "string", "description": "The file" },
                    "content": { "type": "string", "description": "All of its new text" },
                },
                "required": ["path", "content"],
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
        format!("write {}", shown(input, "path"))
    }

    async fn run(&self, input: Value, cx: &ToolContext<'_>) -> Result<ToolOutput, ToolFailure> {
        let asked: Arguments = arguments(self, input)?;
        cx.workspace.writable().await?;
        let before = match cx.workspace.read(&asked.path, OLD_BYTES_MAX).await {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(WorkspaceError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        cx.workspace.write(&asked.path, Bytes::from(asked.content.clone())).await?;
        let path = relative(cx.workspace.root(), &asked.path).to_owned();
        let (diff, line) = edit::diff(&path, before.as_deref(), &asked.content);
        Ok(ToolOutput {
            content: vec![diff],
            locations: vec![Location { path, line: Some(line) }],
            ..ToolOutput::default()
        })
    }
}

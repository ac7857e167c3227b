//! The tools of the built-in agent, one file each: what the model is told, what a person reads, what it does.

mod background;
mod edit;
mod interact;
mod list;
mod output;
mod read;
mod search;
mod shell;
mod write;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub(super) use background::Background;

use super::model::ToolSpec;
use crate::agent::{Image, TurnHost};
use crate::update::{Location, PlanEntry, ToolCall, ToolContent, ToolKind, ToolStatus, Update};
use crate::workspace::{Workspace, WorkspaceError};

/// The longest text that a tool call shows to the model and to the participants.
const TEXT_BYTES_MAX: usize = 60 * 1024;

/// A tool.
#[async_trait]
pub(super) trait Tool: Send + Sync {
    /// What the model calls it by.
    fn name(&self) -> &'static str;

    /// What the model is told.
    fn spec(&self) -> ToolSpec;

    /// What sort of tool it is.
    fn kind(&self) -> ToolKind;

    /// Whether calls of it may run beside others.
    fn access(&self) -> Access {
        Access::Reads
    }

    /// What a person reads in one line.
    fn title(&self, input: &Value) -> String;

    /// Does it. When `cx.stop` is cancelled the future is dropped, unless [`Tool::ends_itself`].
    async fn run(&self, input: Value, cx: &ToolContext<'_>) -> Result<ToolOutput, ToolFailure>;

    /// Whether it watches `cx.stop` itself, to end what it started.
    fn ends_itself(&self) -> bool {
        false
    }
}

/// What a tool does to the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Changes nothing: runs at the same time as its neighbours.
    Reads,
    /// May change something: runs alone and in order.
    Writes,
}

/// What a tool works with.
pub(super) struct ToolContext<'a> {
    pub(super) workspace: &'a dyn Workspace,
    pub(super) host: &'a dyn TurnHost,
    pub(super) background: &'a Background,
    pub(super) stop: &'a CancellationToken,
    /// The call as the participants see it.
    pub(super) call: ToolCall,
}

impl ToolContext<'_> {
    /// Shows the participants what there is so far.
    async fn progress(&self, text: String) {
        let content = vec![ToolContent::Text { text }];
        let call = ToolCall { status: ToolStatus::InProgress, content, ..self.call.clone() };
        self.host.update(Update::ToolCall(call)).await;
    }
}

/// What a tool gave.
#[derive(Debug, Default)]
pub(super) struct ToolOutput {
    /// For the participants and, as words, for the model.
    pub(super) content: Vec<ToolContent>,
    /// For the model.
    pub(super) images: Vec<Image>,
    /// Where in which files, when it is more than the `path` argument says.
    pub(super) locations: Vec<Location>,
    /// The tool did its work, and what it ran failed: a repetition of this leads nowhere.
    pub(super) unsuccessful: bool,
    /// The new plan.
    pub(super) plan: Option<Vec<PlanEntry>>,
    /// Ends the turn with these words.
    pub(super) finish: Option<String>,
}

impl ToolOutput {
    fn text(text: impl Into<String>) -> Self {
        Self { content: vec![ToolContent::Text { text: text.into() }], ..Self::default() }
    }
}

/// Why a tool did not do it, in words for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ToolFailure(pub(super) String);

impl From<WorkspaceError> for ToolFailure {
    fn from(error: WorkspaceError) -> Self {
        match error {
            WorkspaceError::NotFound { path } => Self(format!("there is no {path}")),
            other => Self(format!("failed to {other}")),
        }
    }
}

/// All tools, in the order in which the model reads them.
pub(super) fn all() -> &'static [&'static dyn Tool] {
    &[
        &read::Read,
        &list::List,
        &search::Search,
        &edit::Edit,
        &write::Write,
        &shell::Shell,
        &background::ShellOutput,
        &background::ShellKill,
        &interact::Plan,
        &interact::Ask,
        &interact::Finish,
    ]
}

/// The tool of this name.
pub(super) fn find(name: &str) -> Option<&'static dyn Tool> {
    all().iter().copied().find(|tool| tool.name() == name)
}

/// The typed arguments of a call, or words that tell the model what they should be.
fn arguments<T: DeserializeOwned>(tool: &dyn Tool, input: Value) -> Result<T, ToolFailure> {
    let spec = tool.spec();
    if let Value::String(_) = input {
        let message =
            "the arguments are no JSON; perhaps they were cut. Send them again, in smaller pieces if they are long";
        return Err(ToolFailure(message.to_owned()));
    }
    serde_json::from_value(input).map_err(|error| {
        ToolFailure(format!("the arguments of {} do not fit: {error}. They are: {}", spec.name, argument_list(&spec)))
    })
}

fn argument_list(spec: &ToolSpec) -> String {
    let required = spec.schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let properties = spec.schema["properties"].as_object();
    let names = properties.into_iter().flatten().map(|(name, _)| {
        if required.iter().any(|required| required == name) { name.clone() } else { format!("{name} (optional)") }
    });
    let names: Vec<String> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A string argument for a title, in one short line.
fn shown(input: &Value, name: &str) -> String {
    let text = input.get(name).and_then(Value::as_str).unwrap_or("");
    let line = text.lines().next().unwrap_or("");
    let more = text.lines().nth(1).is_some();
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if more => format!("{line} …"),
        None => line.to_owned(),
    }
}

/// A path as a person reads it: without the root.
fn relative<'a>(root: &str, path: &'a str) -> &'a str {
    let inside = path.strip_prefix(root.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
    inside.filter(|rest| !rest.is_empty()).unwrap_or(path)
}

/// A word of the shell that means exactly `text`.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_stay_words() {
        assert_eq!(quoted("a b; rm -rf $HOME"), "'a b; rm -rf $HOME'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn paths_are_shown_from_the_root() {
        assert_eq!(relative("/workspace", "/workspace/src/a.rs"), "src/a.rs");
        assert_eq!(relative("/workspace", "/workspace2/a.rs"), "/workspace2/a.rs");
        assert_eq!(relative("/workspace/", "a.rs"), "a.rs");
    }

    #[test]
    fn each_tool_has_its_own_name_and_an_object_for_a_schema() {
        let mut names: Vec<_> = all().iter().map(|tool| tool.name()).collect();
        insta::assert_snapshot!(names.join(" "), @"read list search edit write shell shell_output shell_kill plan ask finish");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
        assert!(all().iter().all(|tool| tool.spec().schema["type"] == "object"));
    }

    #[test]
    fn arguments_that_do_not_fit_name_those_that_would() {
        let wrong = arguments::<edit::Arguments>(&edit::Edit, serde_json::json!({ "path": "a" }));
        let said = wrong.map(|_| ()).expect_err("old_text is missing").to_string();
        assert_eq!(
            said,
            "the arguments of edit do not fit: missing field `old_text`. They are: path, old_text, new_text, replace_all (optional)"
        );
    }
}

//! What a request says, whatever its wire format: the conversation so far and the tools on offer.

use serde_json::Value;

/// A request for the model's next turn.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conversation {
    /// The model's name as the client wrote it.
    pub(crate) model: String,
    /// Whether the answer is to be streamed.
    pub(crate) stream: bool,
    /// Everything said so far, in order.
    pub(crate) items: Vec<Item>,
    /// The tools on offer.
    pub(crate) tools: Vec<Tool>,
    /// The JSON schema that the answer must fit, when one was asked for.
    pub(crate) answer_schema: Option<Value>,
    /// What was wrong with the request itself.
    pub(crate) problems: Vec<String>,
}

/// One thing said or done in a conversation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    /// Instructions.
    System(String),
    /// The user's words: one item for each message.
    User(String),
    /// The model's words or thoughts.
    Assistant(String),
    /// The model called a tool. The ID is empty where the wire format has none.
    Call { id: String, name: String },
    /// What the call gave.
    Result { id: String, name: String },
}

/// A tool on offer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tool {
    /// Its name.
    pub(crate) name: String,
    /// The namespace it lives in (OpenAI responses).
    pub(crate) namespace: Option<String>,
    /// How it wants its input.
    pub(crate) input: ToolInput,
    /// The JSON schema of its arguments.
    pub(crate) schema: Value,
}

/// How a tool wants its input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ToolInput {
    /// JSON that fits the schema.
    #[default]
    Json,
    /// Free text (OpenAI responses, `custom`).
    Text,
    /// The format's built-in shell (OpenAI responses, `local_shell`).
    LocalShell,
}

impl Conversation {
    /// The folder the agent says it works in, from its instructions or messages.
    pub(crate) fn cwd(&self) -> Option<String> {
        const MARKS: [&str; 6] =
            ["<cwd>", "orking directory", "orking in the directory", "urrent directory", "cwd:", "<directory>"];
        let texts = self.items.iter().filter_map(|item| match item {
            Item::System(text) | Item::User(text) => Some(text.as_str()),
            _ => None,
        });
        texts.flat_map(|text| MARKS.iter().filter_map(move |mark| path_after(text, mark))).next()
    }

    /// Whether the instructions tell the model to run `apply_patch` in the shell, and no tool has that name.
    pub(crate) fn patches_by_shell(&self) -> bool {
        let is_shell = |tool: &Tool| matches!(tool.name.as_str(), "exec_command" | "shell_command" | "shell");
        self.tools.iter().any(is_shell)
            && self.items.iter().any(|item| matches!(item, Item::System(text) if text.contains("apply_patch")))
    }

    /// Whether the model said or did this.
    pub(crate) fn is_models(item: &Item) -> bool {
        matches!(item, Item::Assistant(_) | Item::Call { .. })
    }
}

/// The first absolute path within 40 bytes after `mark`.
fn path_after(text: &str, mark: &str) -> Option<String> {
    text.match_indices(mark).find_map(|(at, _)| {
        let rest = &text[at + mark.len()..];
        let slash = rest.find('/').filter(|slash| *slash < 40 && !rest[..*slash].contains('\n'))?;
        let path: String = rest[slash..]
            .chars()
            .take_while(|c| !c.is_whitespace() && !matches!(c, '<' | '>' | '"' | '`' | '\'' | ')' | ','))
            .collect();
        let path = path.trim_end_matches(['.', '/']).to_owned();
        (path.len() > 1).then_some(path)
    })
}

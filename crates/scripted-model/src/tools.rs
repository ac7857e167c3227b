//! Turns an abstract step into a call of a tool that the request offers.
//!
//! Agents name the same few tools differently; names are compared without case, separators and namespace, and the
//! arguments are chosen by the properties in the tool's schema. What no tool does is done by the shell.

use serde_json::{Map, Value, json};

use crate::conversation::{Tool, ToolInput};
use crate::script::Step;

/// What a request offers.
pub(crate) struct Offer<'a> {
    pub(crate) tools: &'a [Tool],
    /// The folder that the agent works in, when it told.
    pub(crate) cwd: Option<String>,
    /// Whether the instructions speak of `apply_patch` as a command of the shell (Codex, with models it knows not).
    pub(crate) patches_by_shell: bool,
}

/// A call without its ID.
#[derive(Debug, PartialEq)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) input: CallInput,
}

/// A call's input, in the tool's own way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CallInput {
    Json(Value),
    Text(String),
    LocalShell(String),
}

const READ: &[&str] = &["read", "readfile", "view", "viewfile"];
const LIST: &[&str] = &["list", "ls", "listdirectory", "listdir"];
const SEARCH: &[&str] = &["search", "grep", "grepsearch", "searchfilecontent"];
const EDIT: &[&str] = &["edit", "editfile", "replace", "strreplace"];
const WRITE: &[&str] = &["write", "writefile", "createfile"];
const SHELL: &[&str] =
    &["shell", "bash", "runshellcommand", "execcommand", "shellcommand", "runterminalcmd", "runcommand", "localshell"];
const PLAN: &[&str] = &["plan", "todowrite", "updateplan", "writetodos"];
const EDITOR: &[&str] = &["texteditor", "strreplaceeditor", "strreplacebasededittool"];

const PATH: &[&str] =
    &["path", "file_path", "filePath", "absolute_path", "dir_path", "target_file", "filename", "file"];
const OLD: &[&str] = &["old_text", "old_string", "oldString", "old_str", "old", "before"];
const NEW: &[&str] = &["new_text", "new_string", "newString", "new_str", "new", "after"];
const CONTENT: &[&str] = &["content", "file_text", "contents", "text"];
const COMMAND: &[&str] = &["command", "cmd", "script"];

/// Whether a tool on offer can do this step.
pub(crate) fn can(step: &Step, offer: &Offer) -> bool {
    call(step, offer).is_some()
}

/// The call that does this step; `None` where no tool on offer can, and for steps that are only said.
pub(crate) fn call(step: &Step, offer: &Offer) -> Option<Draft> {
    match step {
        Step::Read { path } => offer
            .file_tool(READ, "view", path, &[])
            .or_else(|| offer.shell(&format!("cat {}", quote(path)), "read a file")),
        Step::List { path } => offer
            .file_tool(LIST, "view", path, &[])
            .or_else(|| offer.shell(&format!("ls -la {}", quote(path)), "list a folder")),
        Step::Search { pattern, path } => offer.search(pattern, path.as_deref()),
        Step::Edit { path, old, new } => offer
            .file_tool(EDIT, "str_replace", path, &[(OLD, old), (NEW, new)])
            .or_else(|| offer.patch(&update_patch(path, old, new)))
            .or_else(|| offer.shell_patch(&update_patch(path, old, new)))
            .or_else(|| offer.shell(&replace_command(path, old, new), "edit a file")),
        Step::Write { path, content } => offer
            .file_tool(WRITE, "create", path, &[(CONTENT, content)])
            .or_else(|| offer.shell(&write_command(path, content), "write a file")),
        Step::Shell { command } => offer.shell(command, "run a command"),
        Step::Plan { steps } => offer.plan(steps),
        Step::Ask { question } => offer.with_string("ask", "question", question),
        Step::Finish { summary } => offer.with_string("finish", "summary", summary),
        Step::Call { name, arguments } => Some(Draft {
            name: name.clone(),
            namespace: offer.tools.iter().find(|tool| tool.name == *name).and_then(|tool| tool.namespace.clone()),
            input: CallInput::Json(arguments.clone()),
        }),
        Step::Say(_) | Step::Think(_) | Step::Repeat { .. } => None,
        Step::Parallel(_) | Step::Slow { .. } | Step::Fault(_) => None,
    }
}

impl Offer<'_> {
    fn find(&self, names: &[&str]) -> Option<&Tool> {
        names.iter().find_map(|name| self.tools.iter().find(|tool| plain_name(&tool.name) == *name))
    }

    /// A tool about one file; or an editor that takes the deed as a `command`.
    fn file_tool(&self, names: &[&str], deed: &str, path: &str, texts: &[(&[&str], &str)]) -> Option<Draft> {
        let plain = self.find(names).and_then(|tool| self.file_call(tool, Map::new(), path, texts));
        plain.or_else(|| {
            let tool = self.find(EDITOR)?;
            let deeds = tool.schema["properties"]["command"]["enum"].as_array()?;
            let deed = deeds.iter().find(|d| *d == deed).or_else(|| deeds.iter().find(|d| *d == "write"))?;
            self.file_call(tool, Map::from_iter([("command".to_owned(), deed.clone())]), path, texts)
        })
    }

    fn file_call(
        &self,
        tool: &Tool,
        mut arguments: Map<String, Value>,
        path: &str,
        texts: &[(&[&str], &str)],
    ) -> Option<Draft> {
        let property = tool.property(PATH)?;
        arguments.insert(property.into(), json!(self.resolve(tool, property, path)));
        for (names, text) in texts {
            arguments.insert(tool.property(names)?.into(), json!(text));
        }
        Some(tool.draft(arguments))
    }

    /// Makes a path absolute for tools that want it so.
    fn resolve(&self, tool: &Tool, property: &str, path: &str) -> String {
        let schema = &tool.schema["properties"][property];
        let says_so = schema["description"].as_str().is_some_and(|text| text.to_lowercase().contains("absolute"));
        match &self.cwd {
            Some(cwd) if !path.starts_with('/') && (says_so || property != "path") => format!("{cwd}/{path}"),
            _ => path.to_owned(),
        }
    }

    fn search(&self, pattern: &str, path: Option<&str>) -> Option<Draft> {
        if let Some(tool) = self.find(SEARCH)
            && let Some(property) = tool.property(&["pattern", "query", "regex"])
        {
            let mut arguments = Map::from_iter([(property.to_owned(), json!(pattern))]);
            if let (Some(path), Some(property)) = (path, tool.property(PATH)) {
                arguments.insert(property.into(), json!(self.resolve(tool, property, path)));
            }
            return Some(tool.draft(arguments));
        }
        self.shell(&format!("grep -rn -e {} {}", quote(pattern), quote(path.unwrap_or("."))), "search the files")
    }

    fn patch(&self, patch: &str) -> Option<Draft> {
        let tool = self.find(&["applypatch"])?;
        if tool.input == ToolInput::Text {
            return Some(Draft { input: CallInput::Text(patch.into()), ..tool.draft(Map::new()) });
        }
        let property = tool.property(&["input", "patch", "patchText", "patch_text"])?;
        Some(tool.draft(Map::from_iter([(property.to_owned(), json!(patch))])))
    }

    fn shell_patch(&self, patch: &str) -> Option<Draft> {
        let line = format!("apply_patch <<'PATCH'\n{patch}\nPATCH\n");
        self.patches_by_shell.then(|| self.shell(&line, "edit a file"))?
    }

    fn shell(&self, line: &str, what: &str) -> Option<Draft> {
        let tool = self.find(SHELL)?;
        if tool.input == ToolInput::LocalShell {
            return Some(Draft { input: CallInput::LocalShell(line.into()), ..tool.draft(Map::new()) });
        }
        let property = tool.property(COMMAND)?;
        let is_list = tool.schema["properties"][property]["type"] == "array";
        let command = if is_list { json!(["bash", "-c", line]) } else { json!(line) };
        let mut arguments = Map::from_iter([(property.to_owned(), command)]);
        if tool.requires("description") {
            arguments.insert("description".into(), json!(what));
        }
        Some(tool.draft(arguments))
    }

    fn plan(&self, steps: &[String]) -> Option<Draft> {
        let tool = self.find(PLAN)?;
        let properties = tool.schema["properties"].as_object()?;
        let (name, list) = properties.iter().find(|(_, schema)| schema["type"] == "array")?;
        let entries: Vec<Value> =
            steps.iter().enumerate().map(|(at, step)| plan_entry(&list["items"], at, step)).collect();
        Some(tool.draft(Map::from_iter([(name.clone(), json!(entries))])))
    }

    fn with_string(&self, name: &str, property: &str, text: &str) -> Option<Draft> {
        let tool = self.find(&[name])?;
        let property = tool.property(&[property])?;
        Some(tool.draft(Map::from_iter([(property.to_owned(), json!(text))])))
    }
}

impl Tool {
    fn property<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        names.iter().copied().find(|name| self.schema["properties"].get(name).is_some())
    }

    fn requires(&self, name: &str) -> bool {
        self.schema["required"].as_array().is_some_and(|required| required.iter().any(|r| r == name))
    }

    /// A call with these arguments, and something harmless for whatever else the schema requires.
    fn draft(&self, mut arguments: Map<String, Value>) -> Draft {
        for name in self.schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !arguments.contains_key(name) {
                arguments.insert(name.to_owned(), filler(&self.schema["properties"][name]));
            }
        }
        Draft { name: self.name.clone(), namespace: self.namespace.clone(), input: CallInput::Json(arguments.into()) }
    }
}

fn filler(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(false),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("as the script says"),
    }
}

fn plan_entry(schema: &Value, at: usize, text: &str) -> Value {
    let status = if at == 0 { "in_progress" } else { "pending" };
    let Some(properties) = schema["properties"].as_object() else {
        return json!(text);
    };
    let fill = |(name, schema): (&String, &Value)| {
        let value = match name.as_str() {
            "status" => json!(status),
            "id" => json!(format!("{}", at + 1)),
            _ if schema["enum"].is_array() => filler(schema),
            _ => json!(text),
        };
        (name.clone(), value)
    };
    properties.iter().map(fill).collect()
}

/// `developer__text_editor`, `TextEditor` and `text-editor` are one name.
fn plain_name(name: &str) -> String {
    let last = name.rsplit("__").next().unwrap_or(name);
    last.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// A word of a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Replaces text with nothing but a POSIX shell and `cat`: neither python nor perl need be there.
fn replace_command(path: &str, old: &str, new: &str) -> String {
    format!(
        "f={}; old={}; new={}; all=$(cat \"$f\" && echo x) || exit 1; all=${{all%x}}; case $all in \
         *\"$old\"*) printf %s \"${{all%%\"$old\"*}}$new${{all#*\"$old\"}}\" > \"$f\" && echo edited \"$f\";; \
         *) echo \"no such text in $f\" >&2; exit 1;; esac",
        quote(path),
        quote(old),
        quote(new)
    )
}

fn write_command(path: &str, content: &str) -> String {
    let path = quote(path);
    format!("mkdir -p \"$(dirname {path})\" && printf %s {} > {path}", quote(content))
}

/// The patch format of the `apply_patch` tools.
fn update_patch(path: &str, old: &str, new: &str) -> String {
    let lines = |sign: char, text: &str| text.lines().map(|line| format!("{sign}{line}\n")).collect::<String>();
    format!("*** Begin Patch\n*** Update File: {path}\n@@\n{}{}*** End Patch", lines('-', old), lines('+', new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, properties: &[&str], required: &[&str]) -> Tool {
        let properties: Map<String, Value> =
            properties.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
        Tool { name: name.into(), schema: json!({"properties": properties, "required": required}), ..Tool::default() }
    }

    #[track_caller]
    fn check(tools: &[Tool], step: &Step, name: &str, arguments: Value) {
        let offer = Offer { tools, cwd: Some("/repo".into()), patches_by_shell: false };
        let expected = Draft { name: name.into(), namespace: None, input: CallInput::Json(arguments) };
        assert_eq!(call(step, &offer), Some(expected));
    }

    #[test]
    fn an_edit_uses_whatever_editing_tool_is_offered() {
        let edit = Step::edit("a.py", "old", "new");
        check(
            &[tool("edit", &["path", "old_text", "new_text", "replace_all"], &["path"])],
            &edit,
            "edit",
            json!({"path": "a.py", "old_text": "old", "new_text": "new"}),
        );
        check(
            &[tool("Edit", &["file_path", "old_string", "new_string"], &[])],
            &edit,
            "Edit",
            json!({"file_path": "/repo/a.py", "old_string": "old", "new_string": "new"}),
        );
        check(
            &[tool("replace", &["file_path", "instruction", "old_string", "new_string"], &["instruction"])],
            &edit,
            "replace",
            json!({"file_path": "/repo/a.py", "old_string": "old", "new_string": "new",
                   "instruction": "as the script says"}),
        );
        check(
            &[tool("apply_patch", &["patchText"], &["patchText"])],
            &edit,
            "apply_patch",
            json!({"patchText": "*** Begin Patch\n*** Update File: a.py\n@@\n-old\n+new\n*** End Patch"}),
        );
        let mut editor = tool("developer__text_editor", &["command", "path", "old_str", "new_str"], &["command"]);
        editor.schema["properties"]["command"]["enum"] = json!(["view", "write", "str_replace"]);
        check(
            &[editor],
            &edit,
            "developer__text_editor",
            json!({"command": "str_replace", "path": "a.py", "old_str": "old", "new_str": "new"}),
        );
    }

    #[test]
    fn a_shell_may_want_a_list_or_a_description() {
        let step = Step::shell("make");
        check(
            &[tool("bash", &["command", "description"], &["command", "description"])],
            &step,
            "bash",
            json!({"command": "make", "description": "run a command"}),
        );
        let mut list = tool("shell", &["command"], &["command"]);
        list.schema["properties"]["command"]["type"] = json!("array");
        check(&[list], &step, "shell", json!({"command": ["bash", "-c", "make"]}));
    }

    #[test]
    fn where_nothing_edits_the_shell_does_and_leaves_the_rest_of_the_file_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("it's a file.txt");
        let before = "first\n\told's \"$line\" `x` \\n\nlast\n\n";
        std::fs::write(&file, before).expect("written");
        let (old, new) = ("\told's \"$line\" `x` \\n", "\tnew % \\ 'line'\n\tand another");
        let offer_tools = [tool("shell", &["command"], &["command"])];
        let offer = Offer { tools: &offer_tools, cwd: None, patches_by_shell: false };
        let draft = call(&Step::edit(&file.display().to_string(), old, new), &offer).expect("a call");
        let CallInput::Json(arguments) = draft.input else { panic!("no JSON") };
        let line = arguments["command"].as_str().expect("a line");
        for shell in ["sh", "bash"] {
            std::fs::write(&file, before).expect("written");
            let status = std::process::Command::new(shell).args(["-c", line]).status().expect("a shell");
            assert!(status.success(), "{shell}");
            assert_eq!(std::fs::read_to_string(&file).expect("read"), before.replace(old, new), "{shell}");
        }
    }

    #[test]
    fn a_plan_fits_the_tool_s_own_entries() {
        let mut todo = tool("todowrite", &[], &["todos"]);
        todo.schema["properties"]["todos"] = json!({"type": "array", "items": {"properties": {
            "content": {"type": "string"}, "status": {"type": "string"}, "priority": {"enum": ["high", "low"]}}}});
        check(
            &[todo],
            &Step::Plan { steps: vec!["look".into(), "fix".into()] },
            "todowrite",
            json!({"todos": [{"content": "look", "status": "in_progress", "priority": "high"},
                             {"content": "fix", "status": "pending", "priority": "high"}]}),
        );
    }
}

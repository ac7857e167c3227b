//! Scripts: what the stand-in says and does, as Rust values and as JSON.
//!
//! How a step becomes a call of an offered tool is [`tools`](crate::tools)' business.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// All scripts of a server, and what it checks in each request. As JSON: see `README.md`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scripts {
    /// The scripts; of several that match a prompt, the first is played.
    pub scripts: Vec<Script>,
    /// The model names that requests may use; any when empty.
    #[serde(default)]
    pub models: Vec<String>,
    /// The API key that each request must carry; any, or none, when absent.
    #[serde(default)]
    pub key: Option<String>,
    /// Words that no request may hold anywhere, such as a secret that must never reach a model.
    #[serde(default)]
    pub forbidden: Vec<String>,
}

/// One script. It is played when the prompt holds `@@script:NAME@@`, or the text [`when`](Script::when).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Its name, for `@@script:NAME@@`.
    pub name: String,
    /// A part of the user's text that chooses it. The empty text matches whatever nothing else does.
    #[serde(default)]
    pub when: Option<String>,
    /// One step for each of the model's turns; faults come on top.
    pub steps: Vec<Step>,
}

/// What the stand-in does in one of its turns.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Says something. With no call beside it (see [`Step::Parallel`]), most agents end their turn here.
    Say(String),
    /// Thinks aloud, together with the next step.
    Think(String),
    /// Says `text` again and again until `bytes` bytes are said.
    Repeat {
        /// What is repeated.
        text: String,
        /// How much is said in all.
        bytes: usize,
    },
    /// Reads a file.
    Read {
        /// The file, relative to the workspace or absolute.
        path: String,
    },
    /// Lists a folder.
    List {
        /// The folder, relative to the workspace or absolute.
        path: String,
    },
    /// Searches the files' text.
    Search {
        /// What is searched for, in the tool's own syntax.
        pattern: String,
        /// Where; the workspace when absent.
        path: Option<String>,
    },
    /// Replaces the one place where `old` stands. Both must be whole lines, without a last line break:
    /// agents that only take patches can do no less.
    Edit {
        /// The file.
        path: String,
        /// The lines that go.
        old: String,
        /// The lines that come.
        new: String,
    },
    /// Writes a whole file.
    Write {
        /// The file.
        path: String,
        /// Its new text.
        content: String,
    },
    /// Runs a command line.
    Shell {
        /// The command line.
        command: String,
    },
    /// Writes the plan down. It is said with the next step where no plan tool is offered.
    Plan {
        /// The steps; the first is under way.
        steps: Vec<String>,
    },
    /// Asks the person; by words where no tool for it is offered.
    Ask {
        /// The question.
        question: String,
    },
    /// Ends the work; by words where no tool for it is offered.
    Finish {
        /// The closing words.
        summary: String,
    },
    /// Calls a tool by its very name, whether it is offered or not.
    Call {
        /// The tool.
        name: String,
        /// Its arguments, as they are.
        arguments: serde_json::Value,
    },
    /// All of these in one turn of the model.
    Parallel(Vec<Step>),
    /// Waits this long before each piece of the next step's stream.
    Slow {
        /// The wait, in milliseconds.
        ms_per_chunk: u64,
    },
    /// Goes wrong before the next step: the same request, made again, goes on.
    Fault(Fault),
}

/// Something that goes wrong with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Answers with an HTTP error.
    Status {
        /// The status.
        code: u16,
        /// The `retry-after` header, in seconds.
        retry_after: Option<u64>,
        /// How often; 1 unless said otherwise.
        times: u32,
    },
    /// Breaks the connection in the middle of the next step's answer.
    CutStream {
        /// How many bytes of the body go out.
        after_bytes: usize,
        /// How often.
        times: u32,
    },
    /// Sends nothing for a while, then the next step's answer.
    Hang {
        /// The silence, in seconds.
        seconds: f64,
        /// How often.
        times: u32,
    },
    /// Answers with text that is no JSON.
    BadJson {
        /// How often.
        times: u32,
    },
}

impl Fault {
    /// How often it happens before the conversation goes on.
    pub(crate) fn times(&self) -> u32 {
        match self {
            Fault::Status { times, .. }
            | Fault::CutStream { times, .. }
            | Fault::Hang { times, .. }
            | Fault::BadJson { times } => *times,
        }
    }
}

/// Why scripts could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file cannot be read.
    #[error("read the script {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not what `README.md` describes.
    #[error("understand the script: {0}")]
    Json(#[from] serde_json::Error),
}

impl Scripts {
    /// No script yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a script that `@@script:name@@` chooses.
    #[must_use]
    pub fn script(mut self, name: &str, steps: impl IntoIterator<Item = Step>) -> Self {
        self.scripts.push(Script { name: name.into(), when: None, steps: steps.into_iter().collect() });
        self
    }

    /// Adds a script that a part of the user's newest text chooses.
    #[must_use]
    pub fn when(mut self, text: &str, steps: impl IntoIterator<Item = Step>) -> Self {
        let name = format!("when-{}", self.scripts.len());
        self.scripts.push(Script { name, when: Some(text.into()), steps: steps.into_iter().collect() });
        self
    }

    /// Reads scripts from JSON.
    pub fn from_json(json: &str) -> Result<Self, ScriptError> {
        Ok(serde_json::from_str(json)?)
    }

    /// Reads scripts from a JSON file.
    pub fn from_file(path: &std::path::Path) -> Result<Self, ScriptError> {
        let json = std::fs::read_to_string(path)
            .map_err(|source| ScriptError::Io { path: path.display().to_string(), source })?;
        Self::from_json(&json)
    }
}

impl Step {
    /// [`Step::Say`].
    #[must_use]
    pub fn say(text: &str) -> Self {
        Step::Say(text.into())
    }
    /// [`Step::Think`].
    #[must_use]
    pub fn think(text: &str) -> Self {
        Step::Think(text.into())
    }
    /// [`Step::Read`].
    #[must_use]
    pub fn read(path: &str) -> Self {
        Step::Read { path: path.into() }
    }
    /// [`Step::Edit`].
    #[must_use]
    pub fn edit(path: &str, old: &str, new: &str) -> Self {
        Step::Edit { path: path.into(), old: old.into(), new: new.into() }
    }
    /// [`Step::Write`].
    #[must_use]
    pub fn write(path: &str, content: &str) -> Self {
        Step::Write { path: path.into(), content: content.into() }
    }
    /// [`Step::Shell`].
    #[must_use]
    pub fn shell(command: &str) -> Self {
        Step::Shell { command: command.into() }
    }
    /// [`Step::Finish`].
    #[must_use]
    pub fn finish(summary: &str) -> Self {
        Step::Finish { summary: summary.into() }
    }
    /// [`Fault::Status`], once.
    #[must_use]
    pub fn status(code: u16, retry_after: Option<u64>) -> Self {
        Step::Fault(Fault::Status { code, retry_after, times: 1 })
    }
}

/// A step is an object; each key is one thing to do, and several keys are [`Step::Parallel`].
impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(StepVisitor)
    }
}

struct StepVisitor;

impl<'de> Visitor<'de> for StepVisitor {
    type Value = Step;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a step such as {\"read\": {\"path\": \"src/lib.rs\"}}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Step, A::Error> {
        let mut steps = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            steps.push(read_step(&key, &mut map)?);
        }
        match steps.len() {
            0 => Err(serde::de::Error::custom("a step does at least one thing")),
            1 => Ok(steps.remove(0)),
            _ => Ok(Step::Parallel(steps)),
        }
    }
}

/// Steps with named fields, as JSON writes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    path: Option<String>,
    pattern: Option<String>,
    old: Option<String>,
    new: Option<String>,
    content: Option<String>,
    text: Option<String>,
    bytes: Option<usize>,
    name: Option<String>,
    arguments: Option<serde_json::Value>,
    code: Option<u16>,
    retry_after: Option<u64>,
    after_bytes: Option<usize>,
    seconds: Option<f64>,
    ms_per_chunk: Option<u64>,
    times: Option<u32>,
}

fn read_step<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Step, A::Error> {
    fn need<T, E: serde::de::Error>(value: Option<T>, field: &'static str) -> Result<T, E> {
        value.ok_or_else(|| E::missing_field(field))
    }
    Ok(match key {
        "say" => Step::Say(map.next_value()?),
        "think" => Step::Think(map.next_value()?),
        "shell" => Step::Shell { command: map.next_value()? },
        "ask" => Step::Ask { question: map.next_value()? },
        "finish" => Step::Finish { summary: map.next_value()? },
        "plan" => Step::Plan { steps: map.next_value()? },
        "parallel" => Step::Parallel(map.next_value()?),
        _ => {
            let f: Fields = map.next_value()?;
            let times = f.times.unwrap_or(1);
            match key {
                "read" => Step::Read { path: need(f.path, "path")? },
                "list" => Step::List { path: need(f.path, "path")? },
                "search" => Step::Search { pattern: need(f.pattern, "pattern")?, path: f.path },
                "edit" => {
                    Step::Edit { path: need(f.path, "path")?, old: need(f.old, "old")?, new: need(f.new, "new")? }
                }
                "write" => Step::Write { path: need(f.path, "path")?, content: need(f.content, "content")? },
                "call" => Step::Call { name: need(f.name, "name")?, arguments: need(f.arguments, "arguments")? },
                "repeat" => Step::Repeat { text: need(f.text, "text")?, bytes: need(f.bytes, "bytes")? },
                "slow" => Step::Slow { ms_per_chunk: need(f.ms_per_chunk, "ms_per_chunk")? },
                "status" => {
                    Step::Fault(Fault::Status { code: need(f.code, "code")?, retry_after: f.retry_after, times })
                }
                "cut_stream" => {
                    Step::Fault(Fault::CutStream { after_bytes: need(f.after_bytes, "after_bytes")?, times })
                }
                "hang" => Step::Fault(Fault::Hang { seconds: need(f.seconds, "seconds")?, times }),
                "bad_json" => Step::Fault(Fault::BadJson { times }),
                other => return Err(serde::de::Error::custom(format!("no such step: {other}"))),
            }
        }
    })
}

//! The tools that speak to people: `plan`, `ask`, `finish`.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, arguments, shown};
use crate::builtin::model::ToolSpec;
use crate::update::{Answer, PlanEntry, PlanStatus, Question, ToolKind, Update};

const STEPS_MAX: usize = 50;
const STEP_CHARS_MAX: usize = 500;
const CHOICES_MAX: usize = 10;

/// `plan`: the list of steps that participants follow the work by.
pub(super) struct Plan;

#[derive(Deserialize)]
struct PlanArguments {
    steps: Vec<PlanStep>,
}

#[derive(Deserialize)]
struct PlanStep {
    content: String,
    #[serde(default = "pending")]
    status: PlanStatus,
}

fn pending() -> PlanStatus {
    PlanStatus::Pending
}

#[async_trait]
impl Tool for Plan {
    fn name(&self) -> &'static str {
        "plan"
    }

    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name(),
            description: "Shows your plan: all of its steps with their status, each time it changes.",
            schema: json!({
                "type": "object",
                "properties": {
                    "steps": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "content": { "type": "string" },
                                "status": { "type": "string", "enum": ["pending", "in_progress", "completed"] },
                            },
                            "required": ["content", "status"],
                        },
                    },
                },
                "required": ["steps"],
            }),
        }
    }

    fn kind(&self) -> ToolKind {
        ToolKind::Think
    }

    fn title(&self, _input: &Value) -> String {
        "plan".to_owned()
    }

    async fn run(&self, input: Value, cx: &ToolContext<'_>) -> Result<ToolOutput, ToolFailure> {
        let asked: PlanArguments = arguments(self, input)?;
        if asked.steps.len() > STEPS_MAX {
            return Err(ToolFailure(format!("a plan has at most {STEPS_MAX} steps")));
        }
        let entries = asked.steps.into_iter().map(|step| {
            let content = step.content.chars().take(STEP_CHARS_MAX).collect();
            PlanEntry { content, status: step.status }
        });
        let entries: Vec<PlanEntry> = entries.collect();
        cx.host.update(Update::Plan(entries.clone())).await;
        let done = entries.iter().filter(|entry| entry.status == PlanStatus::Completed).count();
        let said = format!("the plan is shown: {done} of {} done", entries.len());
        Ok(ToolOutput { plan: Some(entries), ..ToolOutput::text(said) })
    }
}

/// `ask`: a question to the participants.
pub(super) struct Ask;

#[derive(Deserialize)]
struct AskArguments {
    question: String,
    #[serde(default)]
    choices: Vec<String>,
}

#[async_trait]
impl Tool for Ask {
    fn name(&self) -> &'static str {
        "ask"
    }

    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name(),
            description: "Asks the person a question and waits for the answer. Only where a wrong guess would waste \
                          the work; nobody may be there.",
            schema: json!({
                "type": "object",
                "properties": {
                    "question": { "type": "string" },
                    "choices": { "type": "array", "items": { "type": "string" }, "description": "Answers to choose from" },
                },
                "required": ["question"],
            }),
        }
    }

    fn kind(&self) -> ToolKind {
        ToolKind::Other
    }

    fn access(&self) -> Access {
        Access::Writes
    }

    fn title(&self, input: &Value) -> String {
        format!("ask: {}", shown(input, "question"))
    }

    async fn run(&self, input: Value, cx: &ToolContext<'_>) -> Result<ToolOutput, ToolFailure> {
        let asked: AskArguments = arguments(self, input)?;
        let mut choices = asked.choices;
        choices.truncate(CHOICES_MAX);
        let question = Question { question_id: cx.call.id.clone(), text: asked.question, choices };
        match cx.host.ask(question).await {
            Answer::Text(text) => Ok(ToolOutput::text(text)),
            Answer::None { reason } => Ok(ToolOutput::text(format!(
                "[no answer: {reason}] Decide yourself, and say in your summary what you assumed."
            ))),
        }
    }
}

/// `finish`: ends the turn with a summary.
pub(super) struct Finish;

#[derive(Deserialize)]
struct FinishArguments {
    summary: String,
}

#[async_trait]
impl Tool for Finish {
    fn name(&self) -> &'static str {
        "finish"
    }

    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name(),
            description: "Ends your work on this prompt with a summary for the people: what changed and why, what you \
                          ran and what came out, what is left.",
            schema: json!({
                "type": "object",
                "properties": { "summary": { "type": "string" } },
                "required": ["summary"],
            }),
        }
    }

    fn kind(&self) -> ToolKind {
        ToolKind::Other
    }

    fn access(&self) -> Access {
        Access::Writes
    }

    fn title(&self, _input: &Value) -> String {
        "finish".to_owned()
    }

    async fn run(&self, input: Value, _cx: &ToolContext<'_>) -> Result<ToolOutput, ToolFailure> {
        let asked: FinishArguments = arguments(self, input)?;
        Ok(ToolOutput { finish: Some(asked.summary.clone()), ..ToolOutput::text(asked.summary) })
    }
}

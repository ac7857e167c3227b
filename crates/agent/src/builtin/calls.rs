//! Runs the tool calls of an answer: reading ones side by side, writing ones in order.
//!
//! Whatever goes wrong in a call is its result, told to the model; it never ends the turn.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::answer::CALLS_MAX;
use super::compaction::shortened;
use super::conversation::{FinishedCall, output_for_model};
use super::model::AskedCall;
use super::tools::{self, Access, Background, Tool, ToolContext, ToolFailure, ToolOutput};
use crate::agent::TurnHost;
use crate::update::{Location, PlanEntry, ToolCall, ToolContent, ToolKind, ToolStatus, Update};
use crate::workspace::Workspace;

/// So many reading calls run at the same time.
const SIDE_BY_SIDE: usize = 8;
/// A tool that ends itself has this long before it is dropped.
const STOP_PATIENCE: Duration = Duration::from_millis(800);
const TEXT_BYTES_MAX: usize = 64 * 1024;
const FINISH: &str = "finish";

/// What the calls of one answer work with.
pub(super) struct Running<'a> {
    pub(super) workspace: &'a dyn Workspace,
    pub(super) host: &'a dyn TurnHost,
    pub(super) background: &'a Background,
    pub(super) stop: &'a CancellationToken,
}

/// A call with the ID that everyone knows it by.
#[derive(Debug, Clone)]
pub(super) struct NamedCall {
    pub(super) id: String,
    pub(super) asked: AskedCall,
}

/// What the calls of one answer gave.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// In the order of the answer.
    pub(super) calls: Vec<FinishedCall>,
    /// Names and arguments of those that failed.
    pub(super) failures: Vec<(String, Value)>,
    /// The files that they named.
    pub(super) paths: Vec<String>,
    pub(super) plan: Option<Vec<PlanEntry>>,
    pub(super) finish: Option<String>,
}

/// Runs all calls and tells the participants about each.
pub(super) async fn run_all(calls: Vec<NamedCall>, running: &Running<'_>) -> Outcome {
    // `finish` comes last, whatever its place: what else was asked for happens first.
    let (finishes, others): (Vec<_>, Vec<_>) =
        calls.iter().cloned().enumerate().partition(|(_, call)| call.asked.name == FINISH);
    let mut done: Vec<(usize, Done)> = Vec::new();
    for group in groups(others) {
        let started = group.into_iter().map(|(index, call)| -> BoxFuture<'_, (usize, Done)> {
            async move { (index, run_one(index, call, running).await) }.boxed()
        });
        done.extend(stream::iter(started).buffered(SIDE_BY_SIDE).collect::<Vec<_>>().await);
    }
    for (index, call) in finishes {
        let sound = !done.iter().any(|(_, done)| done.failed);
        let done_now =
            if sound { run_one(index, call, running).await } else { refuse(call, FINISH_TOO_EARLY, running).await };
        done.push((index, done_now));
    }
    done.sort_by_key(|(index, _)| *index);
    collect(done)
}

const FINISH_TOO_EARLY: &str = "another call of the same answer failed; look at its result before you finish";

/// What became of a call.
struct Done {
    call: FinishedCall,
    failed: bool,
    paths: Vec<String>,
    plan: Option<Vec<PlanEntry>>,
    finish: Option<String>,
}

fn collect(done: Vec<(usize, Done)>) -> Outcome {
    let mut outcome = Outcome::default();
    for (_, done) in done {
        if done.failed {
            outcome.failures.push((done.call.name.clone(), done.call.input.clone()));
        }
        outcome.paths.extend(done.paths);
        outcome.plan = done.plan.or(outcome.plan);
        outcome.finish = done.finish.or(outcome.finish);
        outcome.calls.push(done.call);
    }
    outcome
}

/// Neighbours that only read form a group; each other call is one of its own.
fn groups(calls: Vec<(usize, NamedCall)>) -> Vec<Vec<(usize, NamedCall)>> {
    let mut groups: Vec<Vec<(usize, NamedCall)>> = Vec::new();
    let mut reading = false;
    for (index, call) in calls {
        let reads = tools::find(&call.asked.name).is_some_and(|tool| tool.access() == Access::Reads);
        match groups.last_mut() {
            Some(group) if reads && reading => group.push((index, call)),
            _ => groups.push(vec![(index, call)]),
        }
        reading = reads;
    }
    groups
}

async fn run_one(index: usize, call: NamedCall, running: &Running<'_>) -> Done {
    if index >= CALLS_MAX {
        return refuse(call, "an answer has at most 64 calls; this one was not run", running).await;
    }
    if running.stop.is_cancelled() {
        return refuse(call, "stopped by a participant before it ran", running).await;
    }
    let Some(tool) = tools::find(&call.asked.name) else {
        let names: Vec<_> = tools::all().iter().map(|tool| tool.name()).collect();
        let said = format!("there is no tool of this name; there are {}", names.join(", "));
        return refuse(call, &said, running).await;
    };
    let mut shown = view(call.id.clone(), &call.asked.name, &call.asked.input, running.workspace.root());
    shown.status = ToolStatus::InProgress;
    running.host.update(Update::ToolCall(shown.clone())).await;
    let given = run_tool(tool, call.asked.input.clone(), shown.clone(), running).await;
    finish_call(call, shown, given, running).await
}

async fn run_tool(
    tool: &dyn Tool,
    input: Value,
    shown: ToolCall,
    running: &Running<'_>,
) -> Result<ToolOutput, ToolFailure> {
    let cx = ToolContext {
        workspace: running.workspace,
        host: running.host,
        background: running.background,
        stop: running.stop,
        call: shown,
    };
    let patience = if tool.ends_itself() { STOP_PATIENCE } else { Duration::ZERO };
    let stopped = async {
        running.stop.cancelled().await;
        tokio::time::sleep(patience).await;
    };
    tokio::select! {
        biased;
        given = tool.run(input, &cx) => given,
        () = stopped => Err(ToolFailure("stopped by a participant".to_owned())),
    }
}

/// Ends a call that does not run.
async fn refuse(call: NamedCall, why: &str, running: &Running<'_>) -> Done {
    let shown = view(call.id.clone(), &call.asked.name, &call.asked.input, running.workspace.root());
    finish_call(call, shown, Err(ToolFailure(why.to_owned())), running).await
}

async fn finish_call(
    call: NamedCall,
    shown: ToolCall,
    given: Result<ToolOutput, ToolFailure>,
    running: &Running<'_>,
) -> Done {
    let (status, output) = match given {
        Ok(output) => (ToolStatus::Completed, output),
        Err(failure) => {
            let content = vec![ToolContent::Text { text: failure.to_string() }];
            (ToolStatus::Failed, ToolOutput { content, ..ToolOutput::default() })
        }
    };
    let content: Vec<ToolContent> = output.content.into_iter().map(bounded).collect();
    let text = output_for_model(&content);
    let paths = shown.locations.iter().map(|location| location.path.clone()).collect();
    let locations = if output.locations.is_empty() { shown.locations.clone() } else { output.locations };
    running.host.update(Update::ToolCall(ToolCall { status, content, locations, ..shown.clone() })).await;
    Done {
        call: FinishedCall {
            id: call.id,
            name: shown.name,
            input: call.asked.input,
            signatures: call.asked.signatures,
            output: text,
            images: output.images,
        },
        failed: status == ToolStatus::Failed || output.unsuccessful,
        paths,
        plan: output.plan,
        finish: output.finish,
    }
}

fn bounded(content: ToolContent) -> ToolContent {
    match content {
        ToolContent::Text { text } if text.len() > TEXT_BYTES_MAX => {
            ToolContent::Text { text: shortened(&text, TEXT_BYTES_MAX) }
        }
        other => other,
    }
}

/// A call as participants see it before it runs.
pub(super) fn view(id: String, name: &str, input: &Value, root: &str) -> ToolCall {
    let tool = tools::find(name);
    let name = wire_name(name);
    let path = input.get("path").and_then(Value::as_str).filter(|path| !path.is_empty());
    let path = path.map(|path| path.strip_prefix(root).map_or(path, |rest| rest.trim_start_matches('/')));
    let empty = input.as_object().is_some_and(serde_json::Map::is_empty);
    let title = tool.filter(|_| !empty).map(|tool| tool.title(input)).filter(|title| !title.trim().is_empty());
    ToolCall {
        id,
        title: title.unwrap_or_else(|| name.clone()),
        name,
        kind: tool.map_or(ToolKind::Other, Tool::kind),
        status: ToolStatus::Pending,
        input: input.clone(),
        content: Vec::new(),
        locations: path.into_iter().map(|path| Location { path: path.to_owned(), line: None }).collect(),
    }
}

/// A name that providers take back: they refuse other characters and lengths.
fn wire_name(name: &str) -> String {
    let allowed = |char: char| if char.is_ascii_alphanumeric() || matches!(char, '_' | '-') { char } else { '_' };
    let name: String = name.chars().take(64).map(allowed).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(names: &str, expect: &str) {
        let calls = names.split(' ').enumerate().map(|(index, name)| {
            let asked = AskedCall { name: name.to_owned(), input: json!({}), signatures: Vec::new() };
            (index, NamedCall { id: index.to_string(), asked })
        });
        let groups = groups(calls.collect());
        let shown = groups.iter().map(|group| group.iter().map(|(index, _)| index.to_string()).collect::<String>());
        assert_eq!(shown.collect::<Vec<_>>().join(" "), expect);
    }

    #[test]
    fn reading_calls_run_side_by_side_and_writing_ones_alone() {
        check("read search list", "012");
        check("read edit read read", "0 1 23");
        check("edit shell write", "0 1 2");
        check("read unknown read", "0 1 2");
    }

    #[test]
    fn names_are_made_fit_for_the_wire() {
        assert_eq!(wire_name("a.b c"), "a_b_c");
        assert_eq!(wire_name(""), "unnamed");
        assert_eq!(wire_name(&"x".repeat(1_000)).len(), 64);
    }
}

//! Decides what the stand-in answers. Pure, but for the count of faults that it is handed.
//!
//! A script's steps are first laid out in **turns**, one for each answer of the model. Which turn comes next follows
//! from the conversation alone: the IDs of our own calls carry the turn, and where a wire format or an agent drops
//! them, the model's turns since the prompt are counted.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde_json::{Value, json};

use crate::conversation::{Conversation, Item};
use crate::script::{Fault, Script, Scripts, Step};
use crate::tools::{self, CallInput, Offer};

/// An answer, and how it is delivered.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) reply: Reply,
    pub(crate) fault: Option<Fault>,
    pub(crate) wait_per_chunk: Duration,
    pub(crate) script: Option<String>,
    pub(crate) step: usize,
    pub(crate) problems: Vec<String>,
}

/// What the model says and does in one turn.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// Made of the conversation's length, so that it is the same for the same request.
    pub(crate) id: String,
    pub(crate) parts: Vec<Part>,
}

/// A part of a [`Reply`].
#[derive(Debug)]
pub(crate) enum Part {
    Thought(String),
    Text(String),
    Call(Call),
}

/// A tool call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) input: CallInput,
}

impl Reply {
    pub(crate) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.parts.iter().filter_map(|part| match part {
            Part::Call(call) => Some(call),
            _ => None,
        })
    }

    pub(crate) fn has_calls(&self) -> bool {
        self.calls().next().is_some()
    }
}

/// Answers asked for after a script's end that are put down to an agent that does not stop.
const OVERRUN_MAX: usize = 5;

/// Decides the answer to a request. `count_fault` counts requests like this one, and says how many came before.
pub(crate) fn play(conversation: &Conversation, scripts: &Scripts, count_fault: impl FnOnce(u64) -> u32) -> Played {
    if conversation.tools.is_empty()
        && let Some(schema) = &conversation.answer_schema
    {
        return side(conversation, instance_of(schema).to_string());
    }
    if is_side_request(conversation) {
        return side(conversation, "Scripted work".into());
    }
    let Some((index, start)) = choose(conversation, &scripts.scripts) else {
        let mut played = side(conversation, "No script matches this prompt: this is no real model.".into());
        played.problems.push("no script matches its prompt".into());
        return played;
    };
    let script = &scripts.scripts[index];
    let offer = Offer {
        tools: &conversation.tools,
        cwd: conversation.cwd(),
        patches_by_shell: conversation.patches_by_shell(),
    };
    let mut turns = lay_out(&script.steps, &offer);
    let step = turn_number(&conversation.items[start..], index);

    let mut problems = Vec::new();
    if step >= turns.len() + OVERRUN_MAX {
        problems.push(format!("the script {} ended {} turns ago", script.name, step - turns.len()));
    }
    let turn = if step < turns.len() {
        turns.swap_remove(step)
    } else {
        Turn { steps: vec![Step::say("The script is at its end.")], ..Turn::default() }
    };
    let fault = if turn.faults.is_empty() {
        None
    } else {
        nth_fault(&turn.faults, count_fault(fingerprint(conversation, index, step)))
    };
    let mut reply = Reply { id: format!("x{index}_{step}_{}", conversation.items.len()), parts: Vec::new() };
    for step in &turn.steps {
        push_parts(&mut reply, step, &offer);
    }
    Played { reply, fault, wait_per_chunk: turn.wait_per_chunk, script: Some(script.name.clone()), step, problems }
}

fn side(conversation: &Conversation, text: String) -> Played {
    Played {
        reply: Reply { id: format!("side_{}", conversation.items.len()), parts: vec![Part::Text(text)] },
        fault: None,
        wait_per_chunk: Duration::ZERO,
        script: None,
        step: 0,
        problems: Vec::new(),
    }
}

/// Titles, summaries and the like: no tools are offered, and the instructions name the errand.
fn is_side_request(conversation: &Conversation) -> bool {
    const ERRANDS: [&str; 7] =
        ["title", "summar", "classif", "compact", "topic", "conversation name", "reply with a single word"];
    conversation.tools.is_empty()
        && conversation.items.iter().any(|item| match item {
            Item::System(text) => has_any(text, &ERRANDS),
            // An errand may also stand at the end of the conversation that it is about.
            Item::User(text) => !text.contains("@@script:") && has_any(text, &ERRANDS),
            _ => false,
        })
}

fn has_any(text: &str, words: &[&str]) -> bool {
    let text = text.to_lowercase();
    words.iter().any(|word| text.contains(word))
}

/// The script to play, and the item from which its turns count.
fn choose(conversation: &Conversation, scripts: &[Script]) -> Option<(usize, usize)> {
    let items = &conversation.items;
    let users = || {
        items.iter().enumerate().rev().filter_map(|(at, item)| match item {
            Item::User(text) => Some((at, text)),
            _ => None,
        })
    };
    let by_prompt = users().find_map(|(at, text)| Some((matching(text, scripts)?, at)));
    if by_prompt.is_some() {
        return by_prompt;
    }
    // The prompt may have gone in a compaction; our own calls still tell the script.
    let by_call = items.iter().rev().find_map(|item| match item {
        Item::Call { id, .. } => call_place(id).map(|(script, _)| script).filter(|script| *script < scripts.len()),
        _ => None,
    });
    if let Some(script) = by_call {
        return Some((script, 0));
    }
    // What stands after a tool's result is a reminder of the agent's, not a prompt.
    let prompt = users().find(|(at, _)| *at == 0 || !matches!(items[at - 1], Item::Result { .. }));
    let any = scripts.iter().position(|script| script.when.as_deref() == Some(""));
    Some((any?, prompt?.0))
}

fn matching(text: &str, scripts: &[Script]) -> Option<usize> {
    let marked = scripts.iter().position(|script| text.contains(&format!("@@script:{}@@", script.name)));
    let when = |script: &Script| script.when.as_ref().is_some_and(|when| !when.is_empty() && text.contains(when));
    marked.or_else(|| scripts.iter().position(when))
}

/// The script's turn that comes next, from what the model did since `items` began.
fn turn_number(items: &[Item], script: usize) -> usize {
    let mut turn = 0;
    let mut in_turn = false;
    for item in items {
        let is_models = Conversation::is_models(item);
        match item {
            Item::Call { id, .. } if call_place(id).is_some_and(|(of, _)| of == script) => {
                turn = call_place(id).map_or(turn, |(_, at)| at + 1);
            }
            _ if is_models && !in_turn => turn += 1,
            _ => {}
        }
        in_turn = is_models;
    }
    turn
}

/// The script and the turn that a call's ID names: `call_x{script}_{turn}_…`.
fn call_place(id: &str) -> Option<(usize, usize)> {
    let (_, rest) = id.split_once("_x")?;
    let mut numbers = rest.split('_').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// One answer of the model, as the script has it.
#[derive(Debug, Default)]
struct Turn {
    faults: Vec<Fault>,
    wait_per_chunk: Duration,
    steps: Vec<Step>,
}

/// Lays a script out in turns: what is no answer of its own joins the next one.
fn lay_out(steps: &[Step], offer: &Offer) -> Vec<Turn> {
    let mut turns = Vec::new();
    let mut turn = Turn::default();
    for step in steps {
        match step {
            Step::Fault(fault) => turn.faults.push(fault.clone()),
            Step::Slow { ms_per_chunk } => turn.wait_per_chunk = Duration::from_millis(*ms_per_chunk),
            Step::Think(_) => turn.steps.push(step.clone()),
            Step::Plan { .. } if !tools::can(step, offer) => turn.steps.push(step.clone()),
            Step::Parallel(parts) => {
                turn.steps.extend(parts.iter().cloned());
                turns.push(std::mem::take(&mut turn));
            }
            _ => {
                turn.steps.push(step.clone());
                turns.push(std::mem::take(&mut turn));
            }
        }
    }
    if !turn.steps.is_empty() || !turn.faults.is_empty() {
        turns.push(turn);
    }
    turns
}

fn nth_fault(faults: &[Fault], mut n: u32) -> Option<Fault> {
    for fault in faults {
        if n < fault.times() {
            return Some(fault.clone());
        }
        n -= fault.times();
    }
    None
}

fn fingerprint(conversation: &Conversation, script: usize, step: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (script, step, conversation.items.len()).hash(&mut hasher);
    for item in &conversation.items {
        match item {
            Item::User(text) | Item::Assistant(text) => text.hash(&mut hasher),
            Item::Call { id, .. } | Item::Result { id, .. } => id.hash(&mut hasher),
            Item::System(_) => {}
        }
    }
    hasher.finish()
}

fn push_parts(reply: &mut Reply, step: &Step, offer: &Offer) {
    let number = reply.calls().count();
    match step {
        Step::Say(text) => reply.parts.push(Part::Text(text.clone())),
        Step::Think(text) => reply.parts.push(Part::Thought(text.clone())),
        Step::Repeat { text, bytes } => reply.parts.push(Part::Text(repeat(text, *bytes))),
        Step::Parallel(steps) => steps.iter().for_each(|step| push_parts(reply, step, offer)),
        Step::Slow { .. } | Step::Fault(_) => {}
        _ => match tools::call(step, offer) {
            Some(call) => reply.parts.push(Part::Call(Call {
                id: format!("{}_{number}", reply.id),
                name: call.name,
                namespace: call.namespace,
                input: call.input,
            })),
            None => reply.parts.push(Part::Text(in_words(step))),
        },
    }
}

/// A step as words, where no tool on offer can do it.
fn in_words(step: &Step) -> String {
    match step {
        Step::Plan { steps } => format!("Plan:\n{}\n", steps.iter().map(|s| format!("- {s}\n")).collect::<String>()),
        Step::Ask { question } => question.clone(),
        Step::Finish { summary } => summary.clone(),
        other => format!("No tool on offer can do this: {other:?}"),
    }
}

fn repeat(text: &str, bytes: usize) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut all = text.repeat(bytes / text.len() + 1);
    let mut end = bytes.min(all.len());
    while !all.is_char_boundary(end) {
        end -= 1;
    }
    all.truncate(end);
    all
}

/// The smallest value that fits a JSON schema, for requests that want a structured answer.
fn instance_of(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].get(0).or_else(|| schema.get("const")) {
        return first.clone();
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"].get(0).and_then(Value::as_str));
    match kind {
        Some("string") => json!("scripted"),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(0)),
        Some("boolean") => json!(false),
        Some("array") => json!([]),
        Some("null") => Value::Null,
        _ => {
            let properties = schema["properties"].as_object();
            properties.into_iter().flatten().map(|(name, schema)| (name.clone(), instance_of(schema))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Tool;

    fn user(text: &str) -> Item {
        Item::User(text.into())
    }

    fn call(id: &str) -> Item {
        Item::Call { id: id.into(), name: "shell".into() }
    }

    fn result(id: &str) -> Item {
        Item::Result { id: id.into(), name: "shell".into() }
    }

    fn next(items: Vec<Item>) -> (Option<String>, usize) {
        let scripts = Scripts::new()
            .script("fix", [Step::shell("one"), Step::shell("two"), Step::say("done")])
            .when("checks are red", [Step::shell("again"), Step::say("now it is")])
            .when("", [Step::say("whatever")]);
        let shell = Tool { name: "shell".into(), schema: json!({"properties": {"command": {}}}), ..Tool::default() };
        let conversation = Conversation { items, tools: vec![shell], ..Conversation::default() };
        let played = play(&conversation, &scripts, |_| 0);
        (played.script, played.step)
    }

    #[test]
    fn the_marker_chooses_the_script_and_the_turns_since_it_choose_the_step() {
        let fix = |step| (Some("fix".to_owned()), step);
        assert_eq!(next(vec![user("@@script:fix@@")]), fix(0));
        assert_eq!(next(vec![user("@@script:fix@@"), call("call_x0_0_1_0"), result("call_x0_0_1_0")]), fix(1));
        assert_eq!(next(vec![user("@@script:fix@@"), call(""), result(""), call(""), result("")]), fix(2));
        // An agent that splits one answer's calls into messages of their own.
        let split = [call("call_x0_0_1_0"), result("call_x0_0_1_0"), call("call_x0_0_1_1"), result("call_x0_0_1_1")];
        assert_eq!(next([vec![user("@@script:fix@@")], split.to_vec()].concat()), fix(1));
        // A compaction took the prompt away.
        assert_eq!(next(vec![user("so far …"), call("call_x0_1_9_0"), result("call_x0_1_9_0")]), fix(2));
    }

    #[test]
    fn a_later_prompt_of_the_same_conversation_chooses_anew() {
        let first = vec![user("@@script:fix@@"), call("call_x0_0_1_0"), result("call_x0_0_1_0"), call("call_x0_1_1_0")];
        let red = [result("call_x0_1_1_0"), Item::Assistant("done".into()), user("the checks are red: …")];
        assert_eq!(next([first, red.to_vec()].concat()), (Some("when-1".into()), 0));
    }

    #[test]
    fn the_empty_text_matches_what_nothing_else_does_and_reminders_do_not_start_it_again() {
        assert_eq!(next(vec![user("hello")]), (Some("when-2".into()), 0));
        assert_eq!(next(vec![user("hello"), call(""), result(""), user("<reminder>")]), (Some("when-2".into()), 1));
    }

    #[test]
    fn faults_come_as_often_as_they_say_and_then_the_step_is_played() {
        let scripts = Scripts::new().script(
            "bad",
            [
                Step::Fault(Fault::Status { code: 529, retry_after: None, times: 2 }),
                Step::Fault(Fault::BadJson { times: 1 }),
                Step::say("at last"),
            ],
        );
        let conversation = Conversation { items: vec![user("@@script:bad@@")], ..Conversation::default() };
        let fault = |n| play(&conversation, &scripts, |_| n).fault;
        assert!(matches!(fault(0), Some(Fault::Status { code: 529, .. })));
        assert!(matches!(fault(1), Some(Fault::Status { .. })));
        assert!(matches!(fault(2), Some(Fault::BadJson { .. })));
        assert_eq!(fault(3), None);
    }

    #[test]
    fn a_structured_answer_fits_its_schema() {
        let schema = json!({"type": "object", "properties": {
            "repository": {"enum": ["a", "b"]}, "confidence": {"type": "number"}, "reason": {"type": "string"}}});
        assert_eq!(instance_of(&schema), json!({"repository": "a", "confidence": 0, "reason": "scripted"}));
    }
}

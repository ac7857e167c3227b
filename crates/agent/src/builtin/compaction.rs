//! Makes a conversation fit the model's window. Pure: the summary's words come from outside.
//!
//! In this order, as far as is needed: results and arguments of older tool calls are shortened; older turns and steps
//! give way to a summary; what is left is shortened more and more. What stays in every case: the session's first
//! prompt, the instructions of the repository, the plan, the last prompt and the latest step. A tool call never loses
//! its result, since both are one value.

use serde_json::Value;

use super::conversation::{Item, NoteKind, Step};
use super::tokens;

/// So many steps at the end keep their results whole while others are shortened.
const STEPS_WHOLE: usize = 4;
/// What is left of a long text in an older call.
const OLD_TEXT_BYTES: usize = 600;
/// The last resort stops here: less says nothing.
const LEAST_TEXT_BYTES: usize = 48;

/// What [`split`] found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Split {
    /// Shortening older results was enough.
    Shortened(Vec<Item>),
    /// Something has to go.
    Parted(Parted),
}

/// A conversation of which a part is to be summarised.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parted {
    /// Stays at the start: the first prompt and the instructions.
    pinned: Vec<Item>,
    /// Is to be summarised.
    pub(super) old: Vec<Item>,
    /// Stays at the end: the last prompt and the latest steps.
    recent: Vec<Item>,
}

/// Shortens older results; when the conversation is still longer than `target` tokens, says what is to be summarised.
pub(super) fn split(items: &[Item], target: u64) -> Split {
    let mut items = items.to_vec();
    shorten_older(&mut items);
    if tokens::of_items(&items) <= target {
        return Split::Shortened(items);
    }
    Split::Parted(part(items, target))
}

impl Parted {
    /// The conversation with `summary` and the `plan` in place of what is old, within `budget` tokens unless that is
    /// less than the shortest form of what must stay.
    pub(super) fn join(self, summary: &str, plan: Option<String>, budget: u64) -> Vec<Item> {
        let mut items = self.pinned;
        if !self.old.is_empty() {
            let text = format!("<summary of=\"earlier work in this session\">\n{}\n</summary>", summary.trim());
            items.push(Item::Note { kind: NoteKind::Summary, text });
            if let Some(text) = plan {
                items.push(Item::Note { kind: NoteKind::Plan, text });
            }
        }
        items.extend(self.recent);
        squeeze(&mut items, budget);
        items
    }
}

fn part(items: Vec<Item>, target: u64) -> Parted {
    let first_prompt = items.iter().position(|item| matches!(item, Item::Prompt { .. }));
    let last_prompt = items.iter().rposition(|item| matches!(item, Item::Prompt { .. }));
    let last_step = items.iter().rposition(|item| matches!(item, Item::Step(_)));
    let stays = |index: usize, item: &Item| {
        Some(index) == first_prompt || matches!(item, Item::Note { kind: NoteKind::Instructions, .. })
    };
    let pinned_tokens: u64 = items
        .iter()
        .enumerate()
        .filter(|(index, item)| stays(*index, item))
        .map(|(_, item)| tokens::of_item(item))
        .sum();
    let recent_from = recent_from(&items, target.saturating_sub(pinned_tokens) / 2);

    let mut parted = Parted { pinned: Vec::new(), old: Vec::new(), recent: Vec::new() };
    for (index, item) in items.into_iter().enumerate() {
        if stays(index, &item) && index < recent_from {
            parted.pinned.push(item);
        } else if index >= recent_from || Some(index) == last_prompt || Some(index) == last_step {
            parted.recent.push(item);
        } else {
            parted.old.push(item);
        }
    }
    parted
}

/// Where the items begin that fit `room` counted from the end.
fn recent_from(items: &[Item], room: u64) -> usize {
    let mut used = 0;
    let fitting = items.iter().rev().take_while(|item| {
        used += tokens::of_item(item);
        used <= room
    });
    items.len() - fitting.count()
}

fn shorten_older(items: &mut [Item]) {
    let mut steps = 0;
    for item in items.iter_mut().rev() {
        if let Item::Step(step) = item {
            steps += 1;
            if steps > STEPS_WHOLE {
                shorten_step(step, OLD_TEXT_BYTES);
            }
        }
    }
}

fn shorten_step(step: &mut Step, bytes_max: usize) {
    step.text = shortened(&step.text, bytes_max.max(OLD_TEXT_BYTES));
    for call in &mut step.calls {
        call.output = shortened(&call.output, bytes_max);
        shorten_json(&mut call.input, bytes_max);
        if !call.images.is_empty() {
            call.images.clear();
            call.output.push_str(" [image left out]");
        }
    }
}

fn shorten_json(value: &mut Value, bytes_max: usize) {
    match value {
        Value::String(text) => *text = shortened(text, bytes_max),
        Value::Array(values) => {
            values.truncate(32);
            values.iter_mut().for_each(|value| shorten_json(value, bytes_max));
        }
        Value::Object(values) => values.values_mut().for_each(|value| shorten_json(value, bytes_max)),
        _ => {}
    }
}

/// Shortens everything, a half further each time, until it fits or there is nothing left to take.
fn squeeze(items: &mut [Item], budget: u64) {
    let mut bytes_max = 64 * 1024;
    while tokens::of_items(items) > budget && bytes_max >= LEAST_TEXT_BYTES {
        items.iter_mut().for_each(|item| squeeze_item(item, bytes_max));
        bytes_max /= 2;
    }
}

fn squeeze_item(item: &mut Item, bytes_max: usize) {
    match item {
        // The people's own words go last.
        Item::Prompt { text, images, .. } => {
            *text = shortened(text, bytes_max.saturating_mul(4));
            if bytes_max < OLD_TEXT_BYTES {
                images.clear();
            }
        }
        Item::Note { text, .. } => *text = shortened(text, bytes_max.saturating_mul(2)),
        Item::Step(step) => {
            shorten_step(step, bytes_max);
            step.text = shortened(&step.text, bytes_max);
            if bytes_max < OLD_TEXT_BYTES {
                step.thoughts.clear();
                step.calls.iter_mut().for_each(|call| call.signatures.clear());
            }
        }
    }
}

/// A text's start and end, with a word on what is missing.
pub(super) fn shortened(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(bytes_max / 2);
    let tail = text.ceil_char_boundary(text.len() - bytes_max / 4);
    format!("{} [… {} bytes left out …] {}", &text[..head], tail - head, &text[tail..])
}

/// A summary without a model: what was asked, which files were changed and read, what ran last, what was said last.
pub(super) fn mechanical_summary(old: &[Item]) -> String {
    let mut asked = Vec::new();
    let (mut changed, mut read) = (Vec::new(), Vec::new());
    let mut commands = Vec::new();
    let mut said = None;
    for item in old {
        match item {
            Item::Prompt { text, .. } => asked.push(format!("- asked: {}", shortened(text, 300))),
            Item::Note { kind: NoteKind::Summary, text } => asked.push(shortened(text, 4_000)),
            Item::Note { .. } => {}
            Item::Step(step) => {
                said = Some(&step.text).filter(|text| !text.is_empty()).or(said);
                for call in &step.calls {
                    let argument = |name: &str| call.input.get(name).and_then(Value::as_str);
                    match (call.name.as_str(), argument("path"), argument("command")) {
                        ("edit" | "write", Some(path), _) => changed.push(path.to_owned()),
                        (_, Some(path), _) => read.push(path.to_owned()),
                        (_, None, Some(command)) => {
                            let last = call.output.lines().last().unwrap_or("");
                            commands.push(format!("- ran: {} → {}", shortened(command, 160), shortened(last, 120)));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    let mut lines = asked;
    for (what, mut files) in [("changed", changed), ("read", read)] {
        files.sort_unstable();
        files.dedup();
        if !files.is_empty() {
            lines.push(format!("- files {what}: {}", shortened(&files.join(", "), 2_000)));
        }
    }
    let recent = commands.len().saturating_sub(12);
    lines.extend(commands.drain(recent..));
    lines.extend(said.map(|text| format!("- said last: {}", shortened(text, 600))));
    lines.join("\n")
}

/// The old part as text, for a model to summarise, in at most about `bytes_max` bytes.
pub(super) fn transcript(old: &[Item], bytes_max: usize) -> String {
    let mut text = String::new();
    for item in old {
        match item {
            Item::Prompt { author, text: words, .. } => {
                text.push_str(&format!("\n## {} asked\n{words}\n", author.name));
            }
            Item::Note { text: words, .. } => text.push_str(&format!("\n{words}\n")),
            Item::Step(step) => {
                text.push_str(&format!("\n## agent\n{}\n", step.text));
                for call in &step.calls {
                    text.push_str(&format!("### {} {}\n{}\n", call.name, call.input, shortened(&call.output, 2_000)));
                }
            }
        }
    }
    shortened(&text, bytes_max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::agent::Author;
    use crate::builtin::conversation::FinishedCall;

    const BUDGET: u64 = 4_000;

    fn author() -> Author {
        Author { name: "Ada".to_owned(), email: "ada@example.org".to_owned() }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![3 => "[a-zß]{0,40}", 1 => (1usize..20_000).prop_map(|length| "wörd ".repeat(length / 5))]
    }

    fn call() -> impl Strategy<Value = FinishedCall> {
        (text(), text()).prop_map(|(content, output)| FinishedCall {
            id: "c".to_owned(),
            name: "write".to_owned(),
            input: json!({ "path": "a.py", "content": content }),
            signatures: Vec::new(),
            output,
            images: Vec::new(),
        })
    }

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            1 => text().prop_map(|text| Item::Prompt { author: author(), text, images: Vec::new() }),
            1 => "[a-z]{1,200}".prop_map(|text| Item::Note { kind: NoteKind::Instructions, text }),
            6 => (text(), prop::collection::vec(call(), 0..4))
                .prop_map(|(text, calls)| Item::Step(Step { text, thoughts: Vec::new(), calls })),
        ]
    }

    /// A conversation starts with a prompt, or with instructions before it; calls are numbered so that each can be
    /// followed.
    fn conversation() -> impl Strategy<Value = Vec<Item>> {
        let note = prop::option::of("[a-z]{1,200}");
        (note, text(), prop::collection::vec(item(), 0..40)).prop_map(|(note, first, rest)| {
            let note = note.map(|text| Item::Note { kind: NoteKind::Instructions, text });
            let mut items: Vec<Item> = note.into_iter().collect();
            items.push(Item::Prompt { author: author(), text: first, images: Vec::new() });
            items.extend(rest);
            let mut number = 0;
            for item in &mut items {
                if let Item::Step(step) = item {
                    for call in &mut step.calls {
                        number += 1;
                        call.id = format!("call-{number}");
                    }
                }
            }
            items
        })
    }

    fn compacted(items: &[Item]) -> Vec<Item> {
        match split(items, BUDGET / 2) {
            Split::Shortened(items) => items,
            Split::Parted(parted) => {
                let summary = mechanical_summary(&parted.old);
                parted.join(&summary, Some("plan".to_owned()), BUDGET)
            }
        }
    }

    fn prompts(items: &[Item]) -> Vec<&str> {
        let texts = items.iter().filter_map(|item| match item {
            Item::Prompt { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    fn call_ids(items: &[Item]) -> Vec<Vec<&str>> {
        let steps = items.iter().filter_map(|item| match item {
            Item::Step(step) => Some(step.calls.iter().map(|call| call.id.as_str()).collect()),
            _ => None,
        });
        steps.collect()
    }

    proptest! {
        #[test]
        fn it_fits_and_keeps_what_must_stay(items in conversation()) {
            let after = compacted(&items);
            prop_assert!(tokens::of_items(&after) <= BUDGET, "{} tokens", tokens::of_items(&after));

            let (before, kept) = (prompts(&items), prompts(&after));
            let start = |text: &str| text.chars().take(40).collect::<String>();
            prop_assert_eq!(start(before[0]), start(kept[0]));
            prop_assert_eq!(start(before[before.len() - 1]), start(kept[kept.len() - 1]));

            let is_instruction = |item: &&Item| matches!(item, Item::Note { kind: NoteKind::Instructions, .. });
            prop_assert_eq!(items.iter().filter(is_instruction).count(), after.iter().filter(is_instruction).count());
        }

        #[test]
        fn the_calls_of_a_step_stay_together_and_in_order(items in conversation()) {
            let after = compacted(&items);
            let (before, kept) = (call_ids(&items), call_ids(&after));
            let mut rest = before.iter();
            for step in &kept {
                prop_assert!(rest.any(|whole| whole == step), "{step:?} is no step of the conversation");
            }
            prop_assert_eq!(before.last(), kept.last());
        }

        #[test]
        fn shortened_text_is_short(text in ".{0,400}", bytes_max in 48usize..200) {
            prop_assert!(shortened(&text, bytes_max).len() <= bytes_max.max(48) + 40);
        }
    }

    #[test]
    fn a_summary_names_the_files_and_the_commands() {
        let step = Step {
            text: "Looking.".to_owned(),
            calls: vec![
                FinishedCall { name: "edit".to_owned(), input: json!({"path": "calc.py"}), ..blank() },
                FinishedCall {
                    name: "shell".to_owned(),
                    input: json!({"command": "make"}),
                    output: "a\n[exit 2]".to_owned(),
                    ..blank()
                },
            ],
            ..Step::default()
        };
        insta::assert_snapshot!(mechanical_summary(&[Item::Step(step)]), @r"
        - files changed: calc.py
        - ran: make → [exit 2]
        - said last: Looking.
        ");
    }

    fn blank() -> FinishedCall {
        FinishedCall {
            id: String::new(),
            name: String::new(),
            input: json!({}),
            signatures: Vec::new(),
            output: String::new(),
            images: Vec::new(),
        }
    }
}

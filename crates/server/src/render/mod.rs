//! Shows a session's events to a person at a terminal, line by line.
//!
//! Pure: an event goes in, text comes out; who writes it where is the caller's affair. What an agent says is made
//! harmless first ([`style::clean`]): a terminal obeys escape sequences, and an agent is not to give it orders.

mod checks;
mod services;
pub mod style;
mod tools;

use std::collections::HashMap;

use hob_session::event::{Event, EventKind, ModelCall, PhaseStatus, TurnOutcome};

pub use style::Style;
use style::{clean, counted, duration, first_line, size, thousands};

/// Turns the events of one session into text, in order.
#[derive(Debug)]
pub struct Renderer {
    style: Style,
    open: Option<Open>,
    /// When each running tool call was first seen at work.
    running: HashMap<String, (u64, String)>,
    phase: Option<String>,
    totals: Totals,
}

/// A message or thought whose pieces are still coming.
#[derive(Debug)]
struct Open {
    message_id: String,
    thought: bool,
    at_line_start: bool,
}

/// What the model calls of a session came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Totals {
    calls: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost_micro_usd: Option<u64>,
}

impl Renderer {
    /// A renderer at the beginning of a log.
    pub fn new(style: Style) -> Self {
        Self { style, open: None, running: HashMap::new(), phase: None, totals: Totals::default() }
    }

    /// The text for one event; empty for what a person need not see. It ends with a line break unless a message is
    /// still being written.
    pub fn event(&mut self, event: &Event) -> String {
        let mut out = String::new();
        match &event.kind {
            EventKind::Message { message_id, text, .. } => self.piece(&mut out, message_id, text, false),
            EventKind::Thought { message_id, text, .. } => self.piece(&mut out, message_id, text, true),
            other => {
                let lines = self.lines(event.at_ms, other);
                if !lines.is_empty() {
                    self.close(&mut out);
                    out.push_str(&lines);
                }
            }
        }
        out
    }

    /// What is under way now, for a line that is drawn and wiped away again; `None` while a message is being written.
    pub fn status(&self) -> Option<String> {
        if self.open.as_ref().is_some_and(|open| !open.at_line_start) {
            return None;
        }
        let tool = self.running.values().max_by_key(|(since, _)| *since).map(|(_, title)| title.clone());
        tool.or_else(|| self.phase.clone())
    }

    /// Ends a message that is still open.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.close(&mut out);
        out
    }

    fn piece(&mut self, out: &mut String, message_id: &str, text: &str, thought: bool) {
        let same = self.open.as_ref().is_some_and(|open| open.message_id == message_id && open.thought == thought);
        if !same {
            self.close(out);
            self.open = Some(Open { message_id: message_id.to_owned(), thought, at_line_start: true });
        }
        let text = clean(text);
        if text.is_empty() {
            return;
        }
        if thought {
            out.push_str(&self.style.dim(&text));
        } else {
            out.push_str(&text);
        }
        if let Some(open) = &mut self.open {
            open.at_line_start = text.ends_with('\n');
        }
    }

    fn close(&mut self, out: &mut String) {
        if self.open.take().is_some_and(|open| !open.at_line_start) {
            out.push('\n');
        }
    }

    fn lines(&mut self, at_ms: u64, kind: &EventKind) -> String {
        let style = self.style;
        match kind {
            EventKind::SessionCreated { repository, base, agent, model, .. } => {
                let base = base.as_deref().map(|base| format!(" at {}", clean(base))).unwrap_or_default();
                style.dim(&format!("{}{base} · {} · {}", clean(repository), clean(agent), clean(model))) + "\n"
            }
            EventKind::Phase { name, status, elapsed_ms, detail } => {
                self.phase_line(name, *status, *elapsed_ms, detail.as_deref())
            }
            EventKind::OutOfMemory { kills, limit_bytes } => self.out_of_memory(*kills, *limit_bytes),
            EventKind::WaitingForPlace { position, of } => {
                let waits = waiting_for_place(*position, *of);
                self.phase = Some(format!("{waits} …"));
                style.dim(&format!("· {waits}")) + "\n"
            }
            EventKind::Service { name, status, elapsed_ms, detail, log } => {
                let text = services::line(style, name, *status, *elapsed_ms, detail.as_deref());
                text + &log.as_deref().map(|log| services::last_lines(style, log)).unwrap_or_default()
            }
            EventKind::PromptQueued { author, text, .. } => {
                format!("{} {}\n", style.bold(&format!("{}:", clean(&author.name))), clean(text))
            }
            EventKind::PromptCancelled { by, .. } => format!("{} took the prompt back\n", clean(&by.name)),
            EventKind::RoundStarted { round, .. } => {
                style.yellow(&format!("checks are red: round {round} goes back to the agent")) + "\n"
            }
            EventKind::ToolCall(call) => self.tool_call(at_ms, call),
            EventKind::Plan { entries } => tools::plan(style, entries),
            EventKind::PermissionRequested { request_id, tool_call, options } => {
                let names: Vec<_> = options.iter().map(|option| clean(&option.id)).collect();
                let asks = style.yellow(&format!("may it {}?", first_line(&tool_call.title)));
                format!("{asks}  answer {} with one of: {}\n", clean(request_id), names.join(", "))
            }
            EventKind::PermissionResolved { option_id, by, .. } => {
                let who = by.as_ref().map_or("nobody".into(), |by| clean(&by.name));
                format!(
                    "  {}\n",
                    option_id.as_deref().map_or(format!("{who} answered"), |id| format!("{who}: {}", clean(id)))
                )
            }
            EventKind::QuestionAsked { text, choices, .. } => {
                let choices = choices.iter().map(|choice| format!("\n    {}", clean(choice))).collect::<String>();
                style.yellow(&format!("? {}", clean(text))) + &choices + "\n"
            }
            EventKind::QuestionAnswered { text, .. } => {
                format!("  {}\n", text.as_deref().map_or("nobody answered".into(), clean))
            }
            EventKind::Compaction { before_tokens, after_tokens, .. } => {
                style.dim(&format!(
                    "older turns were summarised: {} tokens → {}",
                    thousands(*before_tokens),
                    thousands(*after_tokens)
                )) + "\n"
            }
            EventKind::ModelCall(call) => self.model_call(call),
            EventKind::EgressRefused { host, port, reason } => {
                format!("{} {}:{port}: {}\n", style.yellow("refused"), clean(host), clean(reason))
            }
            EventKind::FilesLost { text } => style.yellow(&format!("files lost: {}", clean(text))) + "\n",
            EventKind::Notice { text } => style.dim(&format!("note: {}", clean(text))) + "\n",
            EventKind::SnapshotTaken { entries, bytes, .. } => {
                style.dim(&format!("snapshot: {} in {}", size(*bytes), counted(*entries, "file"))) + "\n"
            }
            EventKind::CheckStarted { name, command, round } => {
                let when = if *round == 0 { " on the base" } else { "" };
                self.phase = Some(format!("check {}{when}: {}", clean(name), first_line(command)));
                String::new()
            }
            EventKind::CheckEnded(run) => {
                self.phase = None;
                checks::check_run(style, run)
            }
            EventKind::Committed { commit, branch, subject, files_changed, insertions, deletions, .. } => {
                let changed = counted(u64::from(*files_changed), "file");
                format!(
                    "{} {} {}  {changed}, {} {}\n",
                    style.green("commit"),
                    style.bold(&clean(commit).chars().take(10).collect::<String>()),
                    clean(subject),
                    style.green(&format!("+{insertions}")),
                    style.red(&format!("-{deletions}")),
                ) + &style.dim(&format!("       on {}", clean(branch)))
                    + "\n"
            }
            EventKind::Pushed { branch, remote, reason } => match (remote, reason) {
                (Some(remote), _) => format!("pushed {} to {}\n", clean(branch), clean(remote)),
                (None, Some(reason)) => style.dim(&format!("not pushed: {}", clean(reason))) + "\n",
                (None, None) => String::new(),
            },
            EventKind::TurnEnded { outcome, message, elapsed_ms, .. } => {
                self.turn_ended(*outcome, message, *elapsed_ms)
            }
            EventKind::Archived { by } => format!("{} archived the session\n", clean(&by.name)),
            _ => String::new(),
        }
    }

    fn phase_line(&mut self, name: &str, status: PhaseStatus, elapsed_ms: Option<u64>, detail: Option<&str>) -> String {
        let name = clean(name);
        let detail = detail.map(|detail| format!("  {}", first_line(detail))).unwrap_or_default();
        self.phase = None;
        match status {
            // Nobody needs to know of a wait that was none.
            PhaseStatus::Ended if name == "queue" && elapsed_ms.is_none_or(|ms| ms < 100) => String::new(),
            PhaseStatus::Started => {
                self.phase = Some(format!("{name} …"));
                String::new()
            }
            PhaseStatus::Ended => {
                let took = elapsed_ms.map(|ms| format!(" {}", duration(ms))).unwrap_or_default();
                self.style.dim(&format!("· {name}{took}{detail}")) + "\n"
            }
            PhaseStatus::Failed => format!("{} {name}{detail}\n", self.style.red("✗")),
        }
    }

    fn out_of_memory(&self, kills: u64, limit_bytes: u64) -> String {
        let ended = counted(kills, "process");
        let full = format!("memory of {} MiB was full, {ended} ended by the kernel", limit_bytes >> 20);
        let advice = "use less, or allow more with `memory` in .hob/environment.toml or [sandbox] of hob.toml";
        format!("{}: {advice}\n", self.style.yellow(&full))
    }

    fn model_call(&mut self, call: &ModelCall) -> String {
        self.totals.calls += 1;
        self.totals.input_tokens += call.input_tokens;
        self.totals.output_tokens += call.output_tokens;
        if let Some(cost) = call.cost_micro_usd {
            *self.totals.cost_micro_usd.get_or_insert(0) += cost;
        }
        if (200..300).contains(&call.status) {
            return String::new();
        }
        let status = if call.status == 0 { "could not be reached".into() } else { format!("answered {}", call.status) };
        self.style.yellow(&format!(
            "model {} {status} after {}",
            clean(&call.model),
            counted(call.attempts.into(), "attempt")
        )) + "\n"
    }

    fn turn_ended(&mut self, outcome: TurnOutcome, message: &str, elapsed_ms: u64) -> String {
        self.running.clear();
        self.phase = None;
        let style = self.style;
        let word = match outcome {
            TurnOutcome::Done => style.green("done"),
            TurnOutcome::ChecksFailed => style.red("checks are still red"),
            TurnOutcome::Stopped => style.yellow("stopped"),
            TurnOutcome::Failed => style.red("failed"),
            TurnOutcome::Interrupted => style.yellow("interrupted"),
        };
        let mut out = format!("{word} in {}{}\n", duration(elapsed_ms), self.totals.summary());
        let message = clean(message);
        if !message.trim().is_empty() {
            out.push_str(message.trim_end());
            out.push('\n');
        }
        out
    }
}

impl Totals {
    fn summary(self) -> String {
        if self.calls == 0 {
            return String::new();
        }
        let cost = self.cost_micro_usd.map(|micro| format!(" · ${}", dollars(micro))).unwrap_or_default();
        let calls = counted(self.calls, "model call");
        format!(" · {calls} · {} tokens in, {} out{cost}", thousands(self.input_tokens), thousands(self.output_tokens))
    }
}

/// Where a session stands among those that wait for a place.
pub fn waiting_for_place(position: u32, of: u32) -> String {
    let ending = match (position % 10, position % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("waiting for a place: {position}{ending} of {of}")
}

/// Dollars with cents, and with more places for less than a cent.
fn dollars(micro: u64) -> String {
    let (whole, rest) = (micro / 1_000_000, micro % 1_000_000);
    if whole == 0 && rest < 10_000 { format!("0.{:04}", rest / 100) } else { format!("{whole}.{:02}", rest / 10_000) }
}

#[cfg(test)]
mod tests;

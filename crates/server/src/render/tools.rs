//! Tool calls and plans: one line each, with the change or the end of the output below.

use hob_agent::{PlanEntry, PlanStatus, ToolCall, ToolContent, ToolKind, ToolStatus};
use similar::{ChangeTag, TextDiff};

use super::Renderer;
use super::style::{Style, clean, duration, first_line};

/// Lines of a command's output that are shown.
const TAIL_LINES: usize = 5;
/// Lines of a diff that are shown.
const DIFF_LINES: usize = 24;
/// Texts larger than this are not compared line by line: it could take seconds.
const DIFF_BYTES: usize = 512 << 10;

impl Renderer {
    pub(super) fn tool_call(&mut self, at_ms: u64, call: &ToolCall) -> String {
        let title = if call.title.trim().is_empty() { first_line(&call.name) } else { first_line(&call.title) };
        match call.status {
            ToolStatus::Pending | ToolStatus::InProgress => {
                let since = self.running.get(&call.id).map_or(at_ms, |(since, _)| *since);
                self.running.insert(call.id.clone(), (since, title));
                String::new()
            }
            ToolStatus::Completed | ToolStatus::Failed => {
                let since = self.running.remove(&call.id).map(|(since, _)| since);
                finished(self.style, call, &title, since.map(|since| at_ms.saturating_sub(since)))
            }
        }
    }
}

fn finished(style: Style, call: &ToolCall, title: &str, took_ms: Option<u64>) -> String {
    let failed = call.status == ToolStatus::Failed;
    let mark = if failed { style.red("✗") } else { style.cyan("→") };
    // A glance at a file takes no time worth telling.
    let took = took_ms.filter(|ms| *ms >= 100).map(|ms| style.dim(&format!("  {}", duration(ms)))).unwrap_or_default();
    let mut out = format!("{mark} {title}{took}\n");
    for content in &call.content {
        match content {
            ToolContent::Diff { path, old_text, new_text } => {
                out.push_str(&diff(style, title, path, old_text.as_deref().unwrap_or_default(), new_text));
            }
            ToolContent::Text { text } if failed || call.kind == ToolKind::Execute => out.push_str(&tail(style, text)),
            ToolContent::Image { media_type, .. } => {
                out.push_str(&style.dim(&format!("    a picture ({})\n", clean(media_type))));
            }
            ToolContent::Text { .. } => {}
        }
    }
    out
}

fn tail(style: Style, text: &str) -> String {
    let text = clean(text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let left_out = lines.len().saturating_sub(TAIL_LINES);
    let mut out = String::new();
    if left_out > 0 {
        out.push_str(&style.dim(&format!("    … {left_out} more lines\n")));
    }
    for line in &lines[left_out..] {
        out.push_str(&style.dim(&format!("    {}\n", shortened(line))));
    }
    out
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

fn diff(style: Style, title: &str, path: &str, old: &str, new: &str) -> String {
    let path = clean(path);
    let head = if title.contains(path.as_str()) { String::new() } else { style.dim(&format!("    {path}\n")) };
    if old.len() + new.len() > DIFF_BYTES {
        return head + &style.dim(&format!("    {} bytes → {} bytes\n", old.len(), new.len()));
    }
    let changes = TextDiff::from_lines(old, new);
    let mut out = head;
    let mut shown = 0;
    let mut left_out = 0;
    for change in changes.iter_all_changes() {
        let painted: (&str, fn(Style, &str) -> String) = match change.tag() {
            ChangeTag::Equal => continue,
            ChangeTag::Delete => ("-", Style::red),
            ChangeTag::Insert => ("+", Style::green),
        };
        if shown == DIFF_LINES {
            left_out += 1;
            continue;
        }
        shown += 1;
        let line = shortened(clean(change.value()).trim_end_matches('\n'));
        out.push_str(&format!("    {}\n", painted.1(style, &format!("{} {line}", painted.0))));
    }
    if left_out > 0 {
        out.push_str(&style.dim(&format!("    … {left_out} more lines\n")));
    }
    out
}

pub(super) fn plan(style: Style, entries: &[PlanEntry]) -> String {
    let line = |entry: &PlanEntry| {
        let words = first_line(&entry.content);
        match entry.status {
            PlanStatus::Completed => style.dim(&format!("  ☑ {words}")),
            PlanStatus::InProgress => style.bold(&format!("  ▸ {words}")),
            PlanStatus::Pending => format!("  ☐ {words}"),
        }
    };
    entries.iter().map(|entry| line(entry) + "\n").collect()
}

//! The last resort: the end of an output that no parser understood.

use super::text::Text;
use crate::checks::{Diagnostic, MESSAGE_BYTES_MAX, Severity, TAIL_CODE};

/// Lines that are kept.
const LINES_MAX: usize = 40;

/// The last lines of the standard error, or of the standard output where the former is empty; of both when both fit.
pub(super) fn of(text: &Text, exit_code: i32) -> Diagnostic {
    let mut kept: Vec<&str> = Vec::new();
    let mut bytes = 0;
    let lines = text.stderr.lines().rev().chain(text.stdout.lines().rev());
    for line in lines.filter(|line| !line.trim().is_empty()).take(LINES_MAX) {
        bytes += line.len() + 1;
        if bytes > MESSAGE_BYTES_MAX {
            // One line may be longer than all that fits: its end is what there is to show.
            if kept.is_empty() {
                kept.push(&line[line.ceil_char_boundary(line.len().saturating_sub(MESSAGE_BYTES_MAX))..]);
            }
            break;
        }
        kept.push(line);
    }
    kept.reverse();
    let message = if kept.is_empty() { format!("exit code {exit_code}, and no output") } else { kept.join("\n") };
    Diagnostic { code: Some(TAIL_CODE.into()), ..Diagnostic::new(Severity::Error, message) }
}

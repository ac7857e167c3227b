//! Bounds for what an agent sends: nothing of it may be longer than the log can bear.

use serde_json::Value;

/// The longest text of a tool call, a notice or a raw message, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 64 * 1024;
/// The longest text on each side of a shown change, in bytes.
pub(super) const DIFF_BYTES_MAX: usize = 512 * 1024;
/// The longest ID, name or path, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 1024;

/// The text's start, at most `max` bytes of it, on a character's boundary.
pub(super) fn start(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The text; or, when it is longer than `max` bytes, its start and its end with a word about what is left out.
pub(super) fn middle(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let half = max.saturating_sub(64) / 2;
    let head = start(text, half);
    let mut tail = text.len() - half;
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    format!("{head}\n[… {} bytes left out …]\n{}", tail - head.len(), &text[tail..])
}

/// A tool's arguments; too long ones as their text's start, so that the log keeps what they were about.
pub(super) fn input(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= TEXT_BYTES_MAX { value } else { Value::String(start(&text, TEXT_BYTES_MAX / 2).to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_clipped_fits_and_is_text_still(text in "\\PC{0,300}", max in 80usize..200) {
            prop_assert!(start(&text, max).len() <= max);
            prop_assert!(middle(&text, max).len() <= max);
            prop_assert_eq!(middle(&text, 10_000), text);
        }
    }
}

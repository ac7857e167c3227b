//! The last lines that a program wrote.

use std::collections::VecDeque;

/// Bytes and lines that are kept.
const BYTES_MAX: usize = 4 * 1024;
const LINES_MAX: usize = 20;

/// The end of an output, bounded.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: VecDeque<u8>,
}

impl Tail {
    /// Hears a piece of output.
    pub(crate) fn hear(&mut self, piece: &[u8]) {
        let piece = &piece[piece.len().saturating_sub(BYTES_MAX)..];
        let too_many = (self.bytes.len() + piece.len()).saturating_sub(BYTES_MAX);
        self.bytes.drain(..too_many);
        self.bytes.extend(piece);
    }

    /// The last whole lines as far as they are text; `None` where there is none.
    pub(crate) fn text(&self) -> Option<String> {
        let (first, second) = self.bytes.as_slices();
        let bytes = [first, second].concat();
        let text = String::from_utf8_lossy(&bytes);
        // What was cut off at the front is no line.
        let whole =
            if bytes.len() < BYTES_MAX { &text } else { text.split_once('\n').map_or(&*text, |(_, rest)| rest) };
        let lines: Vec<&str> = whole.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LINES_MAX)..];
        let plain: String = last.join("\n").chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
        (!plain.is_empty()).then_some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay() {
        let mut tail = Tail::default();
        assert_eq!(tail.text(), None);
        for line in 0..100 {
            tail.hear(format!("line {line}\r\n\n").as_bytes());
        }
        let text = tail.text().unwrap();
        assert!(text.starts_with("line 80\nline 81\n") && text.ends_with("line 99"), "{text}");
    }

    #[test]
    fn a_flood_is_bounded_and_escapes_are_taken_out() {
        let mut tail = Tail::default();
        tail.hear(&[b'x'; 1 << 20]);
        tail.hear(b"\n\x1b[31mred\x07\xff\n");
        assert_eq!(tail.text().as_deref(), Some("[31mred\u{fffd}"));
    }
}

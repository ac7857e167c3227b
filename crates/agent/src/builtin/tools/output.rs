//! What a command wrote, in bounded space: its start, its end, and a word on what lies between.

use std::collections::VecDeque;

/// Collects output of any length in the space of `head_max + tail_max` bytes.
#[derive(Debug)]
pub(super) struct HeadTail {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_max: usize,
    tail_max: usize,
    left_out: u64,
}

impl HeadTail {
    pub(super) fn new(bytes_max: usize) -> Self {
        // The end of a build or a test run says most.
        let head_max = bytes_max / 3;
        Self { head: Vec::new(), tail: VecDeque::new(), head_max, tail_max: bytes_max - head_max, left_out: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let to_head = bytes.len().min(self.head_max - self.head.len());
        self.head.extend_from_slice(&bytes[..to_head]);
        let rest = &bytes[to_head..];
        let rest_kept = &rest[rest.len().saturating_sub(self.tail_max)..];
        let surplus = (self.tail.len() + rest_kept.len()).saturating_sub(self.tail_max);
        self.tail.drain(..surplus);
        self.tail.extend(rest_kept);
        self.left_out += (surplus + rest.len() - rest_kept.len()) as u64;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// All of it, as text that a terminal would show.
    pub(super) fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.left_out == 0 {
            return plain(&[self.head.as_slice(), &tail].concat());
        }
        format!(
            "{}\n[… {} bytes left out …]\n{}",
            plain(&self.head).trim_end(),
            self.left_out,
            plain(&tail).trim_start()
        )
    }

    /// The last `bytes` of it.
    pub(super) fn end(&self, bytes: usize) -> String {
        let whole: Vec<u8> = self.head.iter().chain(&self.tail).copied().collect();
        let start = if self.left_out > 0 {
            whole.len().saturating_sub(bytes.min(self.tail.len()))
        } else {
            whole.len().saturating_sub(bytes)
        };
        plain(&whole[start..])
    }
}

/// Drops colours and other escape sequences, and what a carriage return wrote over.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    let mut line_start = 0;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' => skip_escape(&mut chars),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' => shown.truncate(line_start),
            '\u{8}' if shown.len() > line_start => {
                shown.pop();
            }
            '\n' => {
                shown.push('\n');
                line_start = shown.len();
            }
            char if char.is_control() && char != '\t' => {}
            char => shown.push(char),
        }
    }
    shown
}

/// Skips one escape sequence (ECMA-48: CSI, OSC, or two characters).
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => while chars.next().is_some_and(|char| !('\u{40}'..='\u{7e}').contains(&char)) {},
        Some(']') => {
            while let Some(char) = chars.next() {
                if char == '\u{7}' || (char == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(written: &str, expect: &str) {
        assert_eq!(plain(written.as_bytes()), expect);
    }

    #[test]
    fn a_terminal_would_show_it_so() {
        check("\u{1b}[31mred\u{1b}[0m\r\n", "red\n");
        check("10%\r50%\r100%\ndone", "100%\ndone");
        check("\u{1b}]0;title\u{7}text", "text");
        check("abc\u{8}d", "abd");
        check("tab\there\u{0}", "tab\there");
    }

    #[test]
    fn the_middle_is_left_out_and_counted() {
        let mut output = HeadTail::new(9);
        output.push(b"abcdefghij");
        output.push(b"klmn");
        assert_eq!(output.text(), "abc\n[… 5 bytes left out …]\nijklmn");
        assert_eq!(output.end(2), "mn");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_uncounted(pieces in prop::collection::vec("[a-z]{0,30}", 0..20), bytes_max in 3usize..90) {
            let mut output = HeadTail::new(bytes_max);
            pieces.iter().for_each(|piece| output.push(piece.as_bytes()));
            let kept = output.head.len() + output.tail.len();
            let whole = pieces.concat();
            prop_assert!(kept <= bytes_max);
            prop_assert_eq!(kept as u64 + output.left_out, whole.len() as u64);
            if output.left_out == 0 {
                prop_assert_eq!(output.text(), whole);
            }
        }
    }
}

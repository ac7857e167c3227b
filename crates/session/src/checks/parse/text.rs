//! A check's output made fit for reading: bounded, UTF-8, without terminal codes, with plain line ends.

use super::CheckOutput;

/// Bytes that are read of one stream. Of a longer one the middle is left out: tools tell what they do first and what
/// came of it last.
const STREAM_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Of those, the bytes from the start.
const STREAM_HEAD_BYTES: usize = 1024 * 1024;

/// The cleaned output of a check.
#[derive(Debug)]
pub(super) struct Text {
    /// Its standard output.
    pub(super) stdout: String,
    /// Its standard error.
    pub(super) stderr: String,
}

impl Text {
    pub(super) fn of(output: &CheckOutput<'_>) -> Self {
        Self { stdout: clean(output.stdout), stderr: clean(output.stderr) }
    }

    /// Both streams, standard output first.
    pub(super) fn streams(&self) -> [&str; 2] {
        [&self.stdout, &self.stderr]
    }

    /// The lines of both streams, standard output first, without their ends.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.stdout.lines().chain(self.stderr.lines())
    }
}

fn clean(stream: &[u8]) -> String {
    if stream.len() <= STREAM_BYTES_MAX {
        return without_codes(&String::from_utf8_lossy(stream));
    }
    let head = &stream[..STREAM_HEAD_BYTES];
    let tail = &stream[stream.len() - (STREAM_BYTES_MAX - STREAM_HEAD_BYTES)..];
    // Both cuts are moved to a line's end, so that no half line is taken for a whole one.
    let head = &head[..head.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)];
    let tail = &tail[tail.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1)..];
    let mut text = without_codes(&String::from_utf8_lossy(head));
    text.push_str(&without_codes(&String::from_utf8_lossy(tail)));
    text
}

/// Drops terminal sequences (ECMA-48) and control characters; a lone carriage return ends a line.
fn without_codes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_sequence(&mut chars),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' => out.push('\n'),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Skips what follows an escape character. An unfinished sequence ends with its line.
fn skip_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        // CSI: parameters and intermediates, then one final byte.
        Some('[') => {
            chars.next();
            while chars.next_if(|c| ('\u{20}'..='\u{3f}').contains(c)).is_some() {}
            chars.next_if(|c| ('\u{40}'..='\u{7e}').contains(c));
        }
        // OSC: a title or a link, up to BEL or ST.
        Some(']') => {
            while let Some(c) = chars.next_if(|c| *c != '\n') {
                if c == '\u{7}' {
                    break;
                }
                if c == '\u{1b}' {
                    chars.next_if_eq(&'\\');
                    break;
                }
            }
        }
        // Anything else: intermediates, then one final byte.
        _ => {
            while chars.next_if(|c| ('\u{20}'..='\u{2f}').contains(c)).is_some() {}
            chars.next_if(|c| ('\u{30}'..='\u{7e}').contains(c));
        }
    }
}

/// Splits `file:line:column` or `file:line` off the front of a line; what follows the last number and its colon, or
/// nothing, is the rest.
pub(super) fn place(text: &str) -> Option<(&str, u32, Option<u32>, &str)> {
    // A drive letter or a URL's scheme has a colon too, so that the first colon with a number behind it counts.
    let mut from = 0;
    loop {
        let colon = from + text[from..].find(':')?;
        if let Some((line, rest)) = number(&text[colon + 1..]) {
            let file = &text[..colon];
            if file.is_empty() {
                return None;
            }
            let Some(rest) = rest.strip_prefix(':') else { return rest.is_empty().then_some((file, line, None, "")) };
            return match number(rest) {
                Some((column, "")) => Some((file, line, Some(column), "")),
                Some((column, rest)) if rest.starts_with(':') => Some((file, line, Some(column), &rest[1..])),
                _ => Some((file, line, None, rest)),
            };
        }
        from = colon + 1;
    }
}

/// A number from 1 at the front, and what follows it.
pub(super) fn number(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = text[..digits].parse().ok().filter(|n| *n > 0)?;
    Some((number, &text[digits..]))
}

/// How many spaces a line begins with.
pub(super) fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The lines, joined, with blank lines at both ends and the indentation that all share taken off.
pub(super) fn block(lines: &[&str]) -> String {
    let first = lines.iter().position(|line| !line.trim().is_empty()).unwrap_or(lines.len());
    let last = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(first, |at| at + 1);
    let lines = &lines[first..last];
    let shared = lines.iter().filter(|line| !line.trim().is_empty()).map(|line| indent(line)).min().unwrap_or(0);
    let cut: Vec<&str> = lines.iter().map(|line| line.get(shared..).unwrap_or("").trim_end()).collect();
    cut.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_codes_are_dropped() {
        assert_eq!(
            without_codes("\u{1b}[1;31mred\u{1b}[0m \u{1b}]8;;http://x\u{7}link\u{1b}]8;;\u{1b}\\\u{1b}(B!"),
            "red link!"
        );
        assert_eq!(without_codes("10%\r20%\r\ndone\u{8}"), "10%\n20%\ndone");
        assert_eq!(without_codes("\u{1b}]unfinished\nnext \u{1b}["), "\nnext ");
    }

    #[test]
    fn of_a_long_stream_the_start_and_the_end_are_read() {
        let line = "0123456789\n";
        let long = line.repeat(1_000_000);
        let text = clean(long.as_bytes());
        assert!(text.len() <= STREAM_BYTES_MAX && text.len() > STREAM_BYTES_MAX - 64);
        assert!(text.lines().all(|l| l == "0123456789"));
        assert_eq!(clean(&vec![b'x'; STREAM_BYTES_MAX + 1]).len(), STREAM_BYTES_MAX - STREAM_HEAD_BYTES);
    }

    #[test]
    fn places_are_split_off() {
        assert_eq!(place("a.c:3:7: error"), Some(("a.c", 3, Some(7), " error")));
        assert_eq!(place("a.c:3: error"), Some(("a.c", 3, None, " error")));
        assert_eq!(place("file:///a.js:3:7"), Some(("file:///a.js", 3, Some(7), "")));
        assert_eq!(place("C:\\a.c:3:7: e"), Some(("C:\\a.c", 3, Some(7), " e")));
        assert_eq!(place("a.c:0: x"), None);
        assert_eq!(place("a.c:3x"), None);
        assert_eq!(place("no place"), None);
    }

    #[test]
    fn a_block_loses_its_shared_indentation() {
        assert_eq!(block(&["", "    a", "", "      b  ", " "]), "a\n\n  b");
        assert_eq!(block(&[]), "");
    }
}

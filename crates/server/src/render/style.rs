//! Colours, and how numbers and untrusted words are written.

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// No escape sequences: not a terminal, or `NO_COLOR` is set (<https://no-color.org>).
    Plain,
    /// ANSI colours.
    Colour,
}

macro_rules! paints {
    ($($name:ident $code:literal $doc:literal),+ $(,)?) => {
        impl Style {
            $(
                #[doc = $doc]
                pub fn $name(self, text: &str) -> String {
                    self.paint($code, text)
                }
            )+
        }
    };
}

paints! {
    bold "1" "Bold text.",
    dim "2" "Faint text.",
    red "31" "Red text.",
    green "32" "Green text.",
    yellow "33" "Yellow text.",
    cyan "36" "Cyan text.",
}

impl Style {
    /// Each line is painted by itself, so that a wiped or scrolled line never leaves a colour behind.
    fn paint(self, code: &str, text: &str) -> String {
        if self == Self::Plain || text.is_empty() {
            return text.to_owned();
        }
        let painted = |line: &str| if line.is_empty() { String::new() } else { format!("\x1b[{code}m{line}\x1b[0m") };
        text.split('\n').map(painted).collect::<Vec<_>>().join("\n")
    }
}

/// Untrusted words without what a terminal would obey: control characters (escape among them) and the marks that turn
/// the direction of writing around. Line breaks and tabs stay.
pub fn clean(text: &str) -> String {
    text.chars()
        .filter(|&c| {
            let direction = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            (!c.is_control() || c == '\n' || c == '\t') && !direction
        })
        .collect()
}

/// The first line of untrusted words, at most 100 characters of it.
pub fn first_line(text: &str) -> String {
    let line = clean(text.trim_start().lines().next().unwrap_or_default());
    let more = text.trim().lines().count() > 1;
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if more => format!("{line} …"),
        None => line,
    }
}

/// Milliseconds as a person reads them.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// Bytes as people read them.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// A count of things: `1 file`, `2 files`.
pub fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// How long ago something was, as a person says it.
pub fn ago(ms: u64) -> String {
    match ms / 1_000 {
        0..60 => "just now".to_owned(),
        seconds @ 60..3_600 => format!("{} min ago", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// A count as a person reads it: `950`, `12.3k`, `4.5M`.
pub fn thousands(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{}.{}k", count / 1_000, count % 1_000 / 100),
        _ => format!("{}.{}M", count / 1_000_000, count % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_gives_the_terminal_no_orders() {
        assert_eq!(clean("\x1b]0;owned\x07a\u{9b}31mb\u{202e}c\td\n"), "]0;owneda31mbc\td\n");
    }

    #[test]
    fn colours_never_span_lines() {
        assert_eq!(Style::Colour.red("a\nb"), "\x1b[31ma\x1b[0m\n\x1b[31mb\x1b[0m");
        assert_eq!(Style::Plain.red("a\nb"), "a\nb");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([999, 1_500, 125_000].map(duration), ["999 ms", "1.5 s", "2 min 5 s"]);
        assert_eq!(
            [59_999, 60_000, 7_200_000, 172_800_000].map(ago),
            ["just now", "1 min ago", "2 h ago", "2 days ago"]
        );
        assert_eq!([1, 2].map(|count| counted(count, "file")), ["1 file", "2 files"]);
        assert_eq!([950, 12_345, 4_560_000].map(thousands), ["950", "12.3k", "4.5M"]);
        assert_eq!(first_line("make test\nmake lint"), "make test …");
    }
}

//! JSON with comments and trailing commas, as `devcontainer.json` is written, made plain JSON.

/// The same text with comments and trailing commas made blank: every character that stays keeps its place, so that an
/// error is told where it is.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Where a comma stands that nothing has followed yet.
    let mut comma = None;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let token = token(rest, first);
        let (now, later) = rest.split_at(token.len());
        match token {
            Token::Comment(_) => out.extend(now.chars().map(blank)),
            Token::Space(_) => out.push_str(now),
            Token::Other(_) => {
                if matches!(first, '}' | ']')
                    && let Some(at) = comma
                {
                    out.replace_range(at..=at, " ");
                }
                comma = (first == ',').then_some(out.len());
                out.push_str(now);
            }
        }
        rest = later;
    }
    out
}

/// A piece of the text, by its length in bytes.
enum Token {
    Comment(usize),
    Space(usize),
    Other(usize),
}

impl Token {
    fn len(&self) -> usize {
        match self {
            Self::Comment(len) | Self::Space(len) | Self::Other(len) => *len,
        }
    }
}

fn token(rest: &str, first: char) -> Token {
    if rest.starts_with("//") {
        return Token::Comment(rest.find('\n').unwrap_or(rest.len()));
    }
    if let Some(comment) = rest.strip_prefix("/*") {
        return Token::Comment(comment.find("*/").map_or(rest.len(), |at| at + 4));
    }
    if first == '"' {
        return Token::Other(string(rest));
    }
    // A byte order mark stands before what some editors save.
    if first.is_ascii_whitespace() {
        return Token::Space(first.len_utf8());
    }
    if first == '\u{feff}' { Token::Comment(first.len_utf8()) } else { Token::Other(first.len_utf8()) }
}

/// The length of the string that the text begins with; to the end where it is not closed.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// What stands for a character of a comment: lines stay lines.
fn blank(c: char) -> char {
    if c == '\n' { c } else { ' ' }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let value: serde_json::Value = serde_json::from_str(&plain(text)).unwrap();
        assert_eq!(value.to_string(), expect);
    }

    #[test]
    fn comments_and_trailing_commas_go_and_strings_stay() {
        check("// a\n{\"a\": 1, // b\n \"b\": [1, 2, /* c */ ],\n}\n", r#"{"a":1,"b":[1,2]}"#);
        check(r#"{"url": "http://a/*b*/", "c": ",}"}"#, r#"{"url":"http://a/*b*/","c":",}"}"#);
        check(r#"["\\", "\"//", ]"#, r#"["\\","\"//"]"#);
        check("\u{feff}[]", "[]");
        assert_eq!(plain("[1,,]"), "[1, ]", "only the last comma of two is a trailing one");
    }

    proptest! {
        #[test]
        fn whatever_is_json_already_is_left_as_it_is(text in r#"[ ]{0,2}\{("[a-z/*\\n,]{0,6}" ?: ?("[^"\\]{0,6}"|[0-9]{1,3}|\[1, 2\]))?\}"#) {
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                prop_assert_eq!(plain(&text), text);
            }
        }

        #[test]
        fn lines_stay_where_they_are(text in r#"([/*,"\\\n\[\]{}a é]){0,40}"#) {
            let plain = plain(&text);
            prop_assert_eq!(plain.matches('\n').count(), text.matches('\n').count());
            prop_assert_eq!(plain.chars().count(), text.chars().count());
        }
    }
}

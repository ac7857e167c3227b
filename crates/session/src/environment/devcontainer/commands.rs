//! The lifecycle commands of a `devcontainer.json`, as lines for a shell.

use serde_json::Value;

use super::ENTRIES_MAX;

/// The lines of a command: a text is one, a list is a program with its arguments, an object has several by name that
/// may run side by side and here run one after the other. `None` where it is none of these.
pub(super) fn lines(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Object(commands) => {
            let lines = commands.values().take(ENTRIES_MAX).map(line).collect::<Option<Vec<_>>>()?;
            Some(lines.into_iter().flatten().collect())
        }
        value => Some(line(value)?.into_iter().collect()),
    }
}

/// One line; none where the command is empty.
fn line(value: &Value) -> Option<Option<String>> {
    let line = match value {
        Value::String(line) => line.clone(),
        Value::Array(words) => {
            let words = words.iter().map(|word| word.as_str().map(quoted)).collect::<Option<Vec<_>>>()?;
            words.join(" ")
        }
        _ => return None,
    };
    Some((!line.trim().is_empty() && !line.contains('\0')).then_some(line))
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=:@%+,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

//! Keys of the files that people write: how references show them, and how far a wrong one is from a right one.

/// One key, as a reference shows it.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its whole path, such as `services.port`; a segment in capitals stands for a name of one's own.
    pub path: &'static str,
    /// What kind of value it takes.
    pub kind: &'static str,
    /// What counts when it is absent.
    pub default: &'static str,
    /// What it does.
    pub does: &'static str,
}

/// The head of a table of keys, in Markdown.
pub const TABLE_HEAD: &str = "| key | value | default | does |\n|---|---|---|---|\n";

/// Shorter than [`Key`] with its fields, for tables of many.
pub const fn key(path: &'static str, kind: &'static str, default: &'static str, does: &'static str) -> Key {
    Key { path, kind, default, does }
}

impl Key {
    /// Its row in a table, without its tables' names; a table's own row leads on.
    pub fn row(&self) -> String {
        let name = self.path.rsplit('.').next().unwrap_or(self.path);
        let does = if self.does.is_empty() { "See below." } else { self.does };
        format!("| `{name}` | {} | {} | {does} |\n", self.kind, self.default)
    }
}

/// The Levenshtein distance of two words, in characters. A word that is longer than any key is far from all.
pub fn distance(word: &str, known: &str) -> usize {
    if word.len() > 64 {
        return usize::MAX;
    }
    let known: Vec<char> = known.chars().collect();
    let mut row: Vec<usize> = (0..=known.len()).collect();
    for (i, x) in word.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in known.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[known.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn an_edit_is_a_letter_more_less_or_other() {
        let cases = [("", "", 0), ("port", "port", 0), ("prot", "port", 2), ("por", "port", 1), ("größe", "grösse", 2)];
        for (word, known, expect) in cases {
            assert_eq!(distance(word, known), expect, "{word} {known}");
        }
        assert_eq!(distance(&"x".repeat(65), "x"), usize::MAX);
    }
}

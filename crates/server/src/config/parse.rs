//! Reads `hob.toml`, and says of every mistake where it is and what was probably meant.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use hob_session::keys::distance;
use toml::de::{DeTable, DeValue};

use super::keys::KEYS;
use super::{Config, models};

/// A place in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML, or a value is of the wrong kind.
    #[error("understand {place}: {reason}")]
    Malformed {
        /// Where.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// No such key.
    #[error("understand {place}: there is no key `{key}`{}", hint(nearest.as_deref()))]
    UnknownKey {
        /// Where.
        place: Place,
        /// The whole path of the key.
        key: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// A value refers to something that is not there, or makes no sense.
    #[error("use {key} of {}: {reason}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The whole path of the key.
        key: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}

pub(super) fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
    let place = |span: Option<Range<usize>>| Place { file: file.to_owned(), line: line_of(text, span) };
    let malformed = |error: &toml::de::Error| ConfigError::Malformed {
        place: place(error.span()),
        reason: error.message().replace('\n', " "),
    };
    let table = DeTable::parse(text).map_err(|error| malformed(&error))?;
    if let Some((key, span)) = first_unknown_key(table.get_ref(), &[]) {
        let nearest = nearest_key(&key);
        return Err(ConfigError::UnknownKey { place: place(Some(span)), key, nearest });
    }
    let config: Config = toml::from_str(text).map_err(|error| malformed(&error))?;
    models::check(&config).map_err(|(key, reason)| ConfigError::Value { file: file.to_owned(), key, reason })?;
    Ok(config)
}

fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let end = span.map_or(0, |span| span.start).min(text.len());
    text.as_bytes()[..end].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// The first key, in the order of the file, that no entry of [`KEYS`] knows.
fn first_unknown_key(table: &DeTable<'_>, above: &[&str]) -> Option<(String, Range<usize>)> {
    let mut unknown = Vec::new();
    for (key, value) in table {
        let path = [above, &[key.get_ref().as_ref()]].concat();
        match (value.get_ref(), known(&path)) {
            (_, Known::No) => unknown.push((path.join("."), key.span())),
            (DeValue::Table(inner), Known::Table) => unknown.extend(first_unknown_key(inner, &path)),
            _ => {}
        }
    }
    unknown.into_iter().min_by_key(|(_, span)| span.start)
}

enum Known {
    No,
    Table,
    Leaf,
}

fn known(path: &[&str]) -> Known {
    let mut result = Known::No;
    for key in KEYS {
        let pattern: Vec<&str> = key.path.split('.').collect();
        // A segment in capitals, such as `NAME`, stands for any one segment.
        let fits = pattern.iter().zip(path).all(|(want, is)| want == is || is_placeholder(want));
        match fits {
            true if pattern.len() == path.len() => return Known::Leaf,
            true if pattern.len() > path.len() => result = Known::Table,
            _ => {}
        }
    }
    result
}

fn is_placeholder(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Splits `models.ID.name` into `models.` and `.name`.
fn placeholder(pattern: &str) -> Option<(&str, &str)> {
    let start = pattern.find(|c: char| c.is_ascii_uppercase())?;
    let end = start + pattern[start..].find('.')?;
    Some((&pattern[..start], &pattern[end..]))
}

fn nearest_key(key: &str) -> Option<String> {
    let leaf = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let candidates = KEYS.iter().flat_map(|entry| {
        let table = entry.path.split('.').next().unwrap_or(entry.path);
        // A key of a named table is compared with its own table's name put in.
        let path = match placeholder(entry.path) {
            Some((before, after)) => match key.strip_prefix(before).and_then(|rest| rest.rsplit_once('.')) {
                Some((name, _)) => format!("{before}{name}{after}"),
                None => entry.path.to_owned(),
            },
            None => entry.path.to_owned(),
        };
        [path, table.to_owned()]
    });
    nearest(key, candidates.collect::<Vec<_>>().iter().map(String::as_str)).or_else(|| {
        // The right word in the wrong table, such as a `suspend_after` at the top.
        KEYS.iter().find(|entry| leaf(entry.path) == leaf(key)).map(|entry| entry.path.to_owned())
    })
}

/// The candidate that is nearest to `word`, when it is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= (word.chars().count() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, expect: &str) {
        let error = Config::parse(text, Path::new("hob.toml")).expect_err("a configuration with a mistake");
        assert_eq!(error.to_string(), expect);
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line_and_the_nearest_one() {
        refused(
            "[server]\nlistne = \"127.0.0.1:1\"\n",
            "understand hob.toml:2: there is no key `server.listne`; did you mean `server.listen`?",
        );
        refused("[sessions]\n", "understand hob.toml:1: there is no key `sessions`; did you mean `session`?");
        refused(
            "suspend_after = \"1m\"\n",
            "understand hob.toml:1: there is no key `suspend_after`; did you mean `session.suspend_after`?",
        );
        refused("zebra = 1\n", "understand hob.toml:1: there is no key `zebra`");
        refused(
            "[providers.local]\nkind = \"openai\"\nbase_ulr = \"x\"\n",
            "understand hob.toml:3: there is no key `providers.local.base_ulr`; did you mean `providers.local.base_url`?",
        );
    }

    #[test]
    fn a_name_with_dots_is_one_name() {
        let text = "[providers.x]\nkind = \"gemini\"\n[models.\"gpt-5.5\"]\nprovider = \"x\"\n";
        assert!(Config::parse(text, Path::new("hob.toml")).is_ok());
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_its_line() {
        refused(
            "[session]\n\nsuspend_after = \"soon\"\n",
            "understand hob.toml:3: \"soon\" is no time: write a whole number and ms, s, m, h or d, as in \"15m\"",
        );
        refused("[server\n", "understand hob.toml:1: unclosed table, expected `]`");
    }

    #[test]
    fn a_reference_to_nothing_is_refused() {
        refused(
            "[models.m]\nprovider = \"p\"\n",
            "use models.m.provider of hob.toml: there is no [providers.p]; add it, with its kind",
        );
        refused(
            "[providers.p]\nkind = \"gemini\"\nkey = \"sk-123\"\n",
            "use providers.p.key of hob.toml: a key is named, never written down: use \"env:NAME\" or \"file:PATH\"",
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            drop(Config::parse(&text, Path::new("hob.toml")));
        }
    }
}

//! Reads TOML key by key, so that whatever is wrong is told with its place and its whole key.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{EnvironmentError, Place};
use super::values::nearest;
use super::{BYTES_MAX, keys};
use crate::checks::clip;

/// Bytes of a key or of a parser's remark in an error.
const ECHO_BYTES_MAX: usize = 200;

/// Entries of a list or a table.
const ENTRIES_MAX: usize = 256;

/// Bytes of one text.
const TEXT_BYTES_MAX: usize = 16 * 1024;

type Result<T> = std::result::Result<T, EnvironmentError>;

/// Parses a text, and hands its top table to a reader of keys.
pub(super) fn read<T>(text: &str, with: impl FnOnce(&Section<'_>) -> Result<T>) -> Result<T> {
    if text.len() > BYTES_MAX {
        return Err(EnvironmentError::TooLong { max: BYTES_MAX });
    }
    let table = DeTable::parse(text).map_err(|error| EnvironmentError::Syntax {
        place: Place::of(text, error.span().map_or(0, |span| span.start)),
        message: clip(error.message(), ECHO_BYTES_MAX),
    })?;
    let (path, schema) = (String::new(), String::new());
    with(&Section { text, table: table.get_ref(), path, schema, span: table.span() }.known()?)
}

/// A table of the file.
pub(super) struct Section<'a> {
    text: &'a str,
    table: &'a DeTable<'a>,
    /// Its key with a dot behind it, as errors name it: `services[1].`; empty for the top.
    path: String,
    /// The same as the list of keys has it: `services.`.
    schema: String,
    span: Range<usize>,
}

/// A value of the file.
pub(super) struct Value<'a> {
    text: &'a str,
    value: &'a DeValue<'a>,
    key: String,
    schema: String,
    span: Range<usize>,
}

impl<'a> Section<'a> {
    /// Refuses keys that the list of keys does not have here.
    pub(super) fn known(self) -> Result<Self> {
        let known: Vec<&'static str> = keys::names(&self.schema).collect();
        // The table is sorted by key; the first mistake is the one that stands first.
        let unknown = self.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(first) = unknown.min_by_key(|key| key.span().start) else { return Ok(self) };
        let name = first.get_ref().as_ref();
        Err(EnvironmentError::UnknownKey {
            place: Place::of(self.text, first.span().start),
            key: clip(&format!("{}{name}", self.path), ECHO_BYTES_MAX),
            nearest: nearest(name, &known),
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<Value<'a>> {
        let value = self.table.get(name)?;
        Some(self.value(name, value))
    }

    /// A key that must be there.
    pub(super) fn need(&self, name: &str) -> Result<Value<'a>> {
        let missing = || EnvironmentError::Value {
            place: Place::of(self.text, self.span.start),
            key: self.path.trim_end_matches('.').to_owned(),
            message: format!("`{name}` is missing"),
        };
        self.get(name).ok_or_else(missing)
    }

    fn value(&self, name: &str, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value {
            text: self.text,
            value: value.get_ref(),
            key: clip(&format!("{}{name}", self.path), ECHO_BYTES_MAX),
            schema: format!("{}{name}", self.schema),
            span: value.span(),
        }
    }
}

impl<'a> Value<'a> {
    /// What is wrong with it.
    pub(super) fn bad(&self, message: impl Into<String>) -> EnvironmentError {
        EnvironmentError::Value {
            place: Place::of(self.text, self.span.start),
            key: self.key.clone(),
            message: message.into(),
        }
    }

    fn mistyped(&self, expected: &str) -> EnvironmentError {
        let found = match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.bad(format!("expected {expected}, found {found}"))
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    /// A text of one character at least.
    pub(super) fn text(&self) -> Result<&'a str> {
        let text = self.maybe_empty()?;
        if text.trim().is_empty() { Err(self.bad("must not be empty")) } else { Ok(text) }
    }

    pub(super) fn maybe_empty(&self) -> Result<&'a str> {
        let DeValue::String(text) = self.value else { return Err(self.mistyped("a text")) };
        if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
            return Err(self.bad(format!("must have at most {TEXT_BYTES_MAX} bytes, and no NUL")));
        }
        Ok(text)
    }

    /// A whole number of a range.
    pub(super) fn whole(&self, range: Range<u64>) -> Result<u64> {
        let DeValue::Integer(number) = self.value else { return Err(self.mistyped("a whole number")) };
        let value = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let out = || self.bad(format!("must be from {} to {}", range.start, range.end - 1));
        value.filter(|value| range.contains(value)).ok_or_else(out)
    }

    /// A number, whole or not; `None` where it is too large to be one.
    pub(super) fn number(&self) -> Result<Option<f64>> {
        match self.value {
            DeValue::Integer(number) => Ok(i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .and_then(|n| i32::try_from(n).ok())
                .map(f64::from)),
            DeValue::Float(number) => Ok(number.as_str().parse().ok()),
            _ => Err(self.mistyped("a number, such as 2 or 0.5")),
        }
    }

    /// A whole number, where it is one.
    pub(super) fn if_whole(&self) -> Option<u64> {
        let DeValue::Integer(number) = self.value else { return None };
        u64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    /// A list's entries.
    pub(super) fn list(&self, max: usize) -> Result<Vec<Value<'a>>> {
        let DeValue::Array(items) = self.value else { return Err(self.mistyped("a list")) };
        if items.len() > max.min(ENTRIES_MAX) {
            return Err(self.bad(format!("there may be at most {}", max.min(ENTRIES_MAX))));
        }
        let entry = |(at, item): (usize, &'a Spanned<DeValue<'a>>)| Value {
            text: self.text,
            value: item.get_ref(),
            key: format!("{}[{at}]", self.key),
            schema: self.schema.clone(),
            span: item.span(),
        };
        Ok(items.iter().enumerate().map(entry).collect())
    }

    /// A list of texts of which none stands twice.
    pub(super) fn names(&self, fits: impl Fn(&str) -> bool, expected: &str) -> Result<Vec<String>> {
        let mut seen = BTreeSet::new();
        let mut names = Vec::new();
        for entry in self.list(ENTRIES_MAX)? {
            let name = entry.text()?;
            if !fits(name) {
                return Err(entry.bad(format!("expected {expected}")));
            }
            if !seen.insert(name) {
                return Err(entry.bad(format!("{:?} is there already", clip(name, ECHO_BYTES_MAX))));
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }

    /// A command line, or a list of them.
    pub(super) fn commands(&self, max: usize) -> Result<Vec<String>> {
        match self.value {
            DeValue::String(_) => Ok(vec![self.text()?.to_owned()]),
            DeValue::Array(_) => self.list(max)?.iter().map(|line| line.text().map(str::to_owned)).collect(),
            _ => Err(self.mistyped("a command line, or a list of them")),
        }
    }

    /// A table whose keys are listed.
    pub(super) fn section(&self) -> Result<Section<'a>> {
        let DeValue::Table(table) = self.value else { return Err(self.mistyped("a table")) };
        let (path, schema) = (format!("{}.", self.key), format!("{}.", self.schema));
        Section { text: self.text, table, path, schema, span: self.span.clone() }.known()
    }

    /// A table of texts under names of the file's own choice.
    pub(super) fn texts(&self, fits: impl Fn(&str) -> bool, expected: &str) -> Result<BTreeMap<String, String>> {
        let DeValue::Table(table) = self.value else { return Err(self.mistyped("a table")) };
        if table.len() > ENTRIES_MAX {
            return Err(self.bad(format!("there may be at most {ENTRIES_MAX}")));
        }
        let path = format!("{}.", self.key);
        let section = Section { text: self.text, table, path, schema: String::new(), span: self.span.clone() };
        let mut texts = BTreeMap::new();
        for (name, value) in table {
            let value = section.value(name.get_ref(), value);
            if !fits(name.get_ref()) {
                return Err(value.bad(format!("expected {expected} before the `=`")));
            }
            texts.insert(name.get_ref().to_string(), value.maybe_empty()?.to_owned());
        }
        Ok(texts)
    }
}

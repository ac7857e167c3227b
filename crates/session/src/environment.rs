//! `.hob/environment.toml` of a repository: its checks, what it may reach, what it may use.
//!
//! Strict: a key that nobody knows is an error with its line, and so is a key of a later version, since a check that
//! silently misses the service it needs is red for a reason that nobody sees.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use hob_sandbox::Limits;
use serde::Deserialize;
use toml::Spanned;

use crate::checks::parse::ParserKind;
use crate::checks::{CHECK_TIMEOUT, Check};

/// Where a repository keeps it.
pub const PATH: &str = ".hob/environment.toml";

/// Bytes that are read of it.
pub const BYTES_MAX: usize = 256 * 1024;

const CHECKS_MAX: usize = 32;
const MAX_ROUNDS_MAX: u32 = 20;
const TIMEOUT_MAX: Duration = Duration::from_secs(6 * 60 * 60);

const KEYS: &[&str] = &["checks", "max_rounds", "egress", "cpu", "memory", "disk", "processes"];
const CHECK_KEYS: &[&str] = &["name", "command", "directory", "timeout", "parser", "prepare"];

/// Keys of later versions: named, so that nobody takes them for spelling mistakes.
const LATER_KEYS: &[&str] = &["base", "packages", "setup", "warm", "services", "secrets"];

/// What a repository says of its environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    /// Its checks, in the order they run; absent where it names none, and they are detected.
    pub checks: Option<Vec<Check>>,
    /// How often red checks go back to the agent; the operator's choice when absent.
    pub max_rounds: Option<u32>,
    /// Hosts that it wants to reach beside those that every sandbox may: `host`, `host:port` or `*.host`. Whoever can
    /// push to the repository writes this: the operator's policy has the last word.
    pub egress: Vec<String>,
    /// What it wants its sandboxes to use.
    pub wants: Wants,
}

/// What a repository wants its sandboxes to use; what it does not say is the operator's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// Processor time, in thousandths of a core.
    pub cpu_millicores: Option<u32>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Bytes that a sandbox may write.
    pub disk_bytes: Option<u64>,
    /// Processes and threads at once.
    pub processes: Option<u32>,
}

impl Wants {
    /// The limits of a sandbox: what the repository wants, and never more than the operator allows.
    pub fn within(&self, allowed: Limits) -> Limits {
        Limits {
            cpu_millicores: self.cpu_millicores.map_or(allowed.cpu_millicores, |n| n.min(allowed.cpu_millicores)),
            memory_bytes: self.memory_bytes.map_or(allowed.memory_bytes, |n| n.min(allowed.memory_bytes)),
            processes: self.processes.map_or(allowed.processes, |n| n.min(allowed.processes)),
            disk_bytes: self.disk_bytes.map_or(allowed.disk_bytes, |n| n.min(allowed.disk_bytes)),
        }
    }
}

/// What is wrong with the file. Follows "failed to read .hob/environment.toml: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// It is too long to be one.
    #[error("it is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// It is not TOML.
    #[error("line {line}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A key that nobody knows.
    #[error("line {line}: unknown key `{key}`{}", nearest.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// The line, from 1.
        line: usize,
        /// The key, with the tables that it is in.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
    /// A key of a later version.
    #[error("line {line}: `{key}` is not supported yet by this version of Hob; remove it, or update Hob")]
    NotYet {
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// A value that does not fit its key.
    #[error("line {line}: `{key}`: {message}")]
    Value {
        /// The line, from 1.
        line: usize,
        /// The key, with the tables that it is in.
        key: String,
        /// What is wrong with it, and what would be right.
        message: String,
    },
}

/// Reads the text of the file.
///
/// # Errors
/// The first thing that is wrong with it, with its line and key.
pub fn parse(text: &str) -> Result<Environment, EnvironmentError> {
    if text.len() > BYTES_MAX {
        return Err(EnvironmentError::TooLong);
    }
    let reader = Reader { text };
    let table = toml::de::DeTable::parse(text).map_err(|error| reader.syntax(&error))?;
    reader.known_keys(table.get_ref(), "", KEYS)?;
    if let Some(toml::de::DeValue::Array(checks)) = table.get_ref().get("checks").map(|value| value.get_ref()) {
        for (at, check) in checks.iter().enumerate() {
            if let toml::de::DeValue::Table(check) = check.get_ref() {
                reader.known_keys(check, &format!("checks[{at}]."), CHECK_KEYS)?;
            }
        }
    }
    let file: File = toml::from_str(text).map_err(|error| reader.value(table.get_ref(), &error))?;
    reader.environment(file)
}

#[derive(Deserialize)]
struct File {
    checks: Option<Vec<CheckEntry>>,
    max_rounds: Option<Spanned<u32>>,
    #[serde(default)]
    egress: Vec<Spanned<String>>,
    cpu: Option<Spanned<Number>>,
    memory: Option<Spanned<String>>,
    disk: Option<Spanned<String>>,
    processes: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
struct CheckEntry {
    name: Spanned<String>,
    command: Spanned<String>,
    directory: Option<Spanned<String>>,
    timeout: Option<Spanned<Timeout>>,
    parser: Option<Spanned<String>>,
    prepare: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, such as 2 or 0.5")]
enum Number {
    Whole(u32),
    Broken(f64),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected seconds, such as 90, or a text such as \"90s\", \"10m\" or \"1h\"")]
enum Timeout {
    Seconds(u64),
    Text(String),
}

/// Knows the text, and so the line of every finding.
struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1
    }

    fn syntax(&self, error: &toml::de::Error) -> EnvironmentError {
        EnvironmentError::Syntax {
            line: self.line(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        }
    }

    /// A value that serde does not take: the key is the innermost one around it.
    fn value(&self, table: &toml::de::DeTable<'_>, error: &toml::de::Error) -> EnvironmentError {
        let span = error.span().unwrap_or(0..0);
        let key = key_around(table, &span).unwrap_or_default();
        EnvironmentError::Value { line: self.line(span.start), key, message: error.message().to_owned() }
    }

    fn known_keys(
        &self,
        table: &toml::de::DeTable<'_>,
        prefix: &str,
        known: &[&'static str],
    ) -> Result<(), EnvironmentError> {
        // The table is sorted by key; the first mistake is the one that stands first.
        let unknown = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(first) = unknown.min_by_key(|key| key.span().start) else { return Ok(()) };
        let (line, name) = (self.line(first.span().start), first.get_ref().as_ref());
        let key = format!("{prefix}{name}");
        if prefix.is_empty() && LATER_KEYS.contains(&name) {
            return Err(EnvironmentError::NotYet { line, key });
        }
        Err(EnvironmentError::UnknownKey { line, key, nearest: nearest(name, known) })
    }

    fn bad<T>(
        &self,
        key: impl Into<String>,
        span: &Range<usize>,
        message: impl Into<String>,
    ) -> Result<T, EnvironmentError> {
        Err(EnvironmentError::Value { line: self.line(span.start), key: key.into(), message: message.into() })
    }

    fn environment(&self, file: File) -> Result<Environment, EnvironmentError> {
        let mut environment = Environment::default();
        if let Some(rounds) = file.max_rounds {
            if *rounds.get_ref() > MAX_ROUNDS_MAX {
                return self.bad("max_rounds", &rounds.span(), format!("must be at most {MAX_ROUNDS_MAX}"));
            }
            environment.max_rounds = Some(rounds.into_inner());
        }
        for host in file.egress {
            if !is_host(host.get_ref()) {
                return self.bad("egress", &host.span(), "expected `host`, `host:port` or `*.host`, without a scheme");
            }
            environment.egress.push(host.into_inner().to_ascii_lowercase());
        }
        self.wants(&mut environment.wants, file.cpu, [("memory", file.memory), ("disk", file.disk)], file.processes)?;
        environment.checks = file.checks.map(|checks| self.checks(checks)).transpose()?;
        Ok(environment)
    }

    fn wants(
        &self,
        wants: &mut Wants,
        cpu: Option<Spanned<Number>>,
        sizes: [(&str, Option<Spanned<String>>); 2],
        processes: Option<Spanned<u32>>,
    ) -> Result<(), EnvironmentError> {
        if let Some(cpu) = cpu {
            let cores = match cpu.get_ref() {
                Number::Whole(cores) => f64::from(*cores),
                Number::Broken(cores) => *cores,
            };
            if !(0.05..=1_024.0).contains(&cores) {
                return self.bad("cpu", &cpu.span(), "must be cores from 0.05 to 1024");
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked above")]
            let millicores = (cores * 1_000.0).round() as u32;
            wants.cpu_millicores = Some(millicores);
        }
        for (key, size) in sizes {
            let Some(size) = size else { continue };
            let Some(bytes) = bytes(size.get_ref()).filter(|bytes| *bytes >= 16 << 20) else {
                return self.bad(
                    key,
                    &size.span(),
                    "expected a size of at least 16 MiB, such as \"512 MiB\" or \"4 GiB\"",
                );
            };
            *(if key == "memory" { &mut wants.memory_bytes } else { &mut wants.disk_bytes }) = Some(bytes);
        }
        if let Some(processes) = processes {
            if !(16..=1_000_000).contains(processes.get_ref()) {
                return self.bad("processes", &processes.span(), "must be from 16 to 1000000");
            }
            wants.processes = Some(processes.into_inner());
        }
        Ok(())
    }

    fn checks(&self, entries: Vec<CheckEntry>) -> Result<Vec<Check>, EnvironmentError> {
        let mut names = BTreeSet::new();
        let mut checks = Vec::new();
        for (at, entry) in entries.into_iter().enumerate() {
            let span = entry.name.span();
            if at >= CHECKS_MAX {
                return self.bad("checks", &span, format!("there may be at most {CHECKS_MAX}"));
            }
            let check = self.check(at, entry)?;
            if !names.insert(check.name.clone()) {
                return self.bad(
                    format!("checks[{at}].name"),
                    &span,
                    format!("a check named {:?} is there already", check.name),
                );
            }
            checks.push(check);
        }
        Ok(checks)
    }

    fn check(&self, at: usize, entry: CheckEntry) -> Result<Check, EnvironmentError> {
        let key = |name: &str| format!("checks[{at}].{name}");
        let name = entry.name.get_ref();
        if name.is_empty() || name.len() > 64 || name.chars().any(|c| c.is_control() || c == '`') {
            return self.bad(key("name"), &entry.name.span(), "must have 1 to 64 characters, and no `\\``");
        }
        if entry.command.get_ref().trim().is_empty() {
            return self.bad(key("command"), &entry.command.span(), "must not be empty");
        }
        let directory = entry.directory.as_ref().map_or("", |directory| directory.get_ref().trim_end_matches('/'));
        if directory.starts_with('/') || directory.split('/').any(|part| part == "..") {
            let span = entry.directory.as_ref().map_or(0..0, Spanned::span);
            return self.bad(key("directory"), &span, "must lie in the repository");
        }
        let timeout = match &entry.timeout {
            None => CHECK_TIMEOUT,
            Some(given) => {
                let timeout = match given.get_ref() {
                    Timeout::Seconds(seconds) => Some(Duration::from_secs(*seconds)),
                    Timeout::Text(text) => duration(text),
                };
                match timeout.filter(|timeout| !timeout.is_zero() && *timeout <= TIMEOUT_MAX) {
                    Some(timeout) => timeout,
                    None => {
                        let message = "expected 1 second to 6 hours, such as 90, \"90s\", \"10m\" or \"1h\"";
                        return self.bad(key("timeout"), &given.span(), message);
                    }
                }
            }
        };
        let parser = match &entry.parser {
            None => ParserKind::Auto,
            Some(given) => match ParserKind::named(given.get_ref()) {
                Some(parser) => parser,
                None => {
                    let message = format!("expected one of {}", ParserKind::NAMES.join(", "));
                    return self.bad(key("parser"), &given.span(), message);
                }
            },
        };
        Ok(Check {
            name: entry.name.get_ref().clone(),
            command: entry.command.get_ref().clone(),
            directory: directory.trim_start_matches("./").to_owned(),
            timeout,
            parser,
            prepare: entry.prepare,
        })
    }
}

/// The innermost key whose value holds the span.
fn key_around(table: &toml::de::DeTable<'_>, span: &Range<usize>) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let around = value.span();
        // `[[checks]]` has the span of its header; what is in it stands after.
        let name = key.get_ref().as_ref();
        match value.get_ref() {
            toml::de::DeValue::Array(items) => items.iter().enumerate().find_map(|(at, item)| match item.get_ref() {
                toml::de::DeValue::Table(table) => key_around(table, span)
                    .map(|inner| format!("{name}[{at}].{inner}"))
                    .or_else(|| item.span().contains(&span.start).then(|| format!("{name}[{at}]"))),
                _ => item.span().contains(&span.start).then(|| format!("{name}[{at}]")),
            }),
            _ => None,
        }
        .or_else(|| (around.contains(&span.start) || around == *span).then(|| name.to_owned()))
    })
}

/// `host`, `host:port` or `*.host`.
fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let name = name.strip_prefix("*.").unwrap_or(name);
    port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// `512 MiB`, `4GiB`, `2 GB`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let factor: u64 = match text[digits..].trim() {
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

/// `90s`, `10m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let factor = match text[digits..].trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor).map(Duration::from_secs)
}

/// The known key that is fewest edits away, if it is near at all.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let near = |candidate: &&'static str| edits(key, candidate) <= 2.max(candidate.len() / 3);
    known.iter().copied().filter(near).min_by_key(|candidate| edits(key, candidate))
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;

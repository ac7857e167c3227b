//! Sizes and times as people write them: `4GiB`, `15m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes, written `512MiB`, `4GiB`, or as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

/// A span of time, written `500ms`, `30s`, `15m`, `2h` or `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timespan(pub Duration);

impl Timespan {
    /// A whole number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

const SIZES: &[(&str, u64)] = &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];
const SPANS_MS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl FromStr for ByteSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        scaled(text, SIZES).map(Self).ok_or_else(|| {
            format!("{text:?} is no size: write a whole number and KiB, MiB, GiB or TiB, as in \"4GiB\"")
        })
    }
}

impl FromStr for Timespan {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        scaled(text, SPANS_MS)
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| format!("{text:?} is no time: write a whole number and ms, s, m, h or d, as in \"15m\""))
    }
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn shortest(value: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units
        .iter()
        .find(|(_, factor)| value > 0 && value.is_multiple_of(*factor))
        .or(units.last())
        .copied()
        .unwrap_or(("", 1));
    format!("{}{name}", value / factor)
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shortest(self.0, SIZES))
    }
}

impl fmt::Display for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shortest(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), SPANS_MS))
    }
}

impl TryFrom<String> for ByteSize {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for Timespan {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

impl From<Timespan> for String {
    fn from(span: Timespan) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_size(text: &str, bytes: Option<u64>) {
        assert_eq!(text.parse::<ByteSize>().ok().map(|size| size.0), bytes, "{text}");
    }

    #[track_caller]
    fn check_span(text: &str, ms: Option<u64>) {
        assert_eq!(text.parse::<Timespan>().ok().map(|span| span.0), ms.map(Duration::from_millis), "{text}");
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        check_size("4GiB", Some(4 << 30));
        check_size("512 MiB", Some(512 << 20));
        check_size("1024", Some(1024));
        check_size("4 gigs", None);
        check_size("-1", None);
        check_size("", None);
        check_size("99999999999TiB", None);
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        check_span("15m", Some(900_000));
        check_span("500ms", Some(500));
        check_span("1d", Some(86_400_000));
        check_span("15", None);
        check_span("soon", None);
    }

    #[test]
    fn what_is_written_reads_back() {
        for size in [0, 1, 1023, 1 << 20, 3 << 30, (1 << 30) + 1] {
            assert_eq!(ByteSize(size).to_string().parse(), Ok(ByteSize(size)));
        }
        for ms in [0, 1, 999, 60_000, 3_600_000, 86_400_001] {
            let span = Timespan(Duration::from_millis(ms));
            assert_eq!(span.to_string().parse(), Ok(span));
        }
    }
}

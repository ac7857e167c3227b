//! Static Analysis Results Interchange Format 2.1.0 (OASIS), as CodeQL, Semgrep, ruff and formatters of others write it.

use serde::Deserialize;

use super::found::Found;
use super::json;
use super::text::Text;
use crate::checks::{Diagnostic, Severity};

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    for stream in text.streams().into_iter().filter(|stream| stream.contains("\"runs\"")) {
        let Some(log) = json::document::<Log>(stream, '{') else { continue };
        log.runs.into_iter().flat_map(|run| run.results).for_each(|result| push(result, found));
    }
}

#[derive(Deserialize)]
struct Log {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    #[serde(default)]
    results: Vec<Outcome>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    #[serde(default)]
    level: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    rule_id: Option<String>,
    message: Words,
    #[serde(default)]
    locations: Vec<Location>,
    #[serde(default)]
    suppressions: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Words {
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    #[serde(default)]
    physical_location: Option<Physical>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Physical {
    #[serde(default)]
    artifact_location: Option<Artifact>,
    #[serde(default)]
    region: Option<Region>,
}

#[derive(Deserialize)]
struct Artifact {
    #[serde(default)]
    uri: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    #[serde(default)]
    start_line: Option<u32>,
    #[serde(default)]
    start_column: Option<u32>,
}

fn push(result: Outcome, found: &mut Found<'_>) {
    // §3.27.9: a kind other than `fail`, where it is given, is no problem; §3.27.10: `warning` is the default level.
    let is_problem = result.kind.as_deref().is_none_or(|kind| kind == "fail") && result.suppressions.is_empty();
    let severity = match result.level.as_deref() {
        Some("error") => Severity::Error,
        Some("note") => Severity::Note,
        None | Some("warning") => Severity::Warning,
        Some(_) => return,
    };
    if !is_problem {
        return;
    }
    let place = result.locations.into_iter().next().and_then(|location| location.physical_location);
    let (artifact, region) = place.map_or((None, None), |place| (place.artifact_location, place.region));
    found.push(Diagnostic {
        file: artifact.and_then(|artifact| artifact.uri).map(|uri| percent_decoded(&uri)),
        line: region.as_ref().and_then(|region| region.start_line).filter(|n| *n > 0),
        column: region.as_ref().and_then(|region| region.start_column).filter(|n| *n > 0),
        code: result.rule_id,
        ..Diagnostic::new(severity, result.message.text)
    });
}

/// Undoes `%20` and its like (RFC 3986 §2.1); what is not valid is left as it is.
fn percent_decoded(uri: &str) -> String {
    let mut bytes = Vec::with_capacity(uri.len());
    let mut rest = uri.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|hex| char::from(*hex).to_digit(16));
        let byte = match (*first == b'%').then(|| (digit(0), digit(1))) {
            Some((Some(high), Some(low))) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::percent_decoded;

    #[test]
    fn codes_in_a_path_are_decoded() {
        assert_eq!(percent_decoded("a%20b/%C3%A9%"), "a b/é%");
        assert_eq!(percent_decoded("%zz%+1"), "%zz%+1");
    }
}

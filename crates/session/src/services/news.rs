//! Tells an agent how the services stand, and later only what has changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Entry;
use crate::checks::clip;
use crate::event::ServiceStatus;

/// Bytes of a service's last lines that an agent reads.
const LOG_BYTES_MAX: usize = 1_500;

/// What was not told yet; `told` is brought up to date. That a service is started again is no news: what becomes of it
/// is.
pub(super) fn of(entries: &[Entry], told: &mut BTreeMap<String, ServiceStatus>) -> Option<String> {
    let is_news = |entry: &&Entry| match told.get(&entry.name) {
        None => true,
        Some(before) => entry.status.is_settled() && *before != entry.status,
    };
    let news: Vec<&Entry> = entries.iter().filter(is_news).collect();
    if news.is_empty() {
        return None;
    }
    let mut text = "[Services of this sandbox, started by the environment]".to_owned();
    for entry in news {
        let _infallible = write!(text, "\n- {}", line(entry));
        told.insert(entry.name.clone(), entry.status);
    }
    Some(text)
}

fn line(entry: &Entry) -> String {
    let name = &entry.name;
    let at = entry.port.map(|port| format!(" on 127.0.0.1:{port}")).unwrap_or_default();
    match entry.status {
        ServiceStatus::Ready => format!("{name}: ready{at}"),
        ServiceStatus::Starting | ServiceStatus::Ended => format!("{name}: still starting{at}"),
        ServiceStatus::Failed => {
            let why = entry.detail.as_deref().unwrap_or("it failed");
            let log = entry.log.as_deref().map(indented).unwrap_or_default();
            format!("{name}: failed, {why}{log}")
        }
    }
}

fn indented(log: &str) -> String {
    let from = log.floor_char_boundary(log.len().saturating_sub(LOG_BYTES_MAX));
    let lines: String = log[from..].lines().map(|line| format!("\n    {}", clip(line, 300))).collect();
    format!("; its last lines:{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, status: ServiceStatus) -> Entry {
        let (detail, log) = match status {
            ServiceStatus::Failed => (Some("it ended with exit code 1".to_owned()), Some("no\nroom".to_owned())),
            _ => (None, None),
        };
        Entry { name: name.to_owned(), port: Some(80), status, detail, log }
    }

    #[test]
    fn all_is_told_once_and_then_what_has_changed() {
        let mut told = BTreeMap::new();
        let first = [entry("a", ServiceStatus::Ready), entry("b", ServiceStatus::Starting)];
        let expect = "[Services of this sandbox, started by the environment]\n- a: ready on 127.0.0.1:80\n- b: still \
                      starting on 127.0.0.1:80";
        assert_eq!(of(&first, &mut told).as_deref(), Some(expect));
        assert_eq!(of(&first, &mut told), None);
        let again = [entry("a", ServiceStatus::Ended), entry("b", ServiceStatus::Failed)];
        let expect = "[Services of this sandbox, started by the environment]\n- b: failed, it ended with exit code 1; its \
                      last lines:\n    no\n    room";
        assert_eq!(of(&again, &mut told).as_deref(), Some(expect));
        assert_eq!(of(&[], &mut told), None);
    }
}

//! How often a session is told of the same trouble: a model that is down for an hour must not fill the session's log.

use std::collections::HashMap;
use std::mem::discriminant;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hob_gateway::{Notice, NoticeKind};

/// Notices of one kind about one model that a session hears in [`WINDOW`].
const TIMES_MAX: u32 = 4;
const WINDOW: Duration = Duration::from_secs(60);
/// What is remembered at once. Beyond it everything is told: the queue to the logs has its own bound.
const KEYS_MAX: usize = 10_000;

/// What was told lately.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashMap<Key, Lately>>);

/// The session, the kind, and the model where it is about one.
type Key = (String, std::mem::Discriminant<NoticeKind>, Option<String>);

#[derive(Debug)]
struct Lately {
    since: Instant,
    times: u32,
}

impl Told {
    /// Whether a notice may be told at this moment; then it counts.
    pub(super) fn may_tell(&self, notice: &Notice, now: Instant) -> bool {
        let model = match &notice.kind {
            NoticeKind::Retry { model, .. } | NoticeKind::Fallback { from: model, .. } => Some(model.clone()),
            NoticeKind::ForeignToken | NoticeKind::StaleToken => None,
        };
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lately.len() >= KEYS_MAX {
            lately.retain(|_, told| now.duration_since(told.since) < WINDOW);
        }
        let key = (notice.session.clone(), discriminant(&notice.kind), model);
        if lately.len() >= KEYS_MAX && !lately.contains_key(&key) {
            return true;
        }
        let told = lately.entry(key).or_insert(Lately { since: now, times: 0 });
        if now.duration_since(told.since) >= WINDOW {
            *told = Lately { since: now, times: 0 };
        }
        told.times += 1;
        told.times <= TIMES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_told_four_times_a_minute() {
        let told = Told::default();
        let begin = Instant::now();
        let notice = |session: &str, wait_ms| Notice {
            session: session.into(),
            epoch: 1,
            kind: NoticeKind::Retry { model: "m".into(), attempt: 1, cause: "429".into(), wait_ms },
        };
        let heard =
            (0..120).filter(|second| told.may_tell(&notice("s1", 500 + second), begin + Duration::from_secs(*second)));
        assert_eq!(heard.collect::<Vec<_>>(), [0, 1, 2, 3, 60, 61, 62, 63]);
        assert!(told.may_tell(&notice("s2", 500), begin), "another session hears it too");
    }
}

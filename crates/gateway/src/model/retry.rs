//! Decides what follows an attempt at a model call. Pure: it neither waits nor sends.

use std::time::Duration;

use http::{HeaderMap, header};

use crate::config::RetryConfig;

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer, and how long the provider asks to wait.
    Answer(u16, Option<Duration>),
    /// No connection, or one that broke off before its first byte.
    NoAnswer,
    /// A fault that sending again to the same model would not mend, such as a key that is missing.
    Hopeless,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Pass the outcome on to the client.
    PassOn,
    /// Send again after a wait.
    Again(Duration),
    /// Go on with the next model.
    Fallback,
}

/// Decides after the `attempt`-th request to a model (from 1). `jitter` is from 0 to 1.
pub(crate) fn decide(outcome: Outcome, attempt: u32, more_models: bool, config: &RetryConfig, jitter: f64) -> Next {
    let give_up = if more_models { Next::Fallback } else { Next::PassOn };
    let asked = match outcome {
        Outcome::Answer(408 | 429 | 500..=599, asked) => asked,
        Outcome::NoAnswer => None,
        Outcome::Hopeless => return give_up,
        Outcome::Answer(..) => return Next::PassOn,
    };
    let longest = Duration::from_millis(config.wait_ms_max);
    if attempt >= config.attempts_max || asked.is_some_and(|asked| asked > longest) {
        return give_up;
    }
    let doubled = config.wait_ms.saturating_mul(1 << attempt.saturating_sub(1).min(20));
    let backoff = Duration::from_millis(doubled).min(longest);
    // Half is certain, half is chance: retries of many sessions spread, and none comes at once. `max` answers NaN.
    let spread = backoff.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0).max(0.0));
    Next::Again(asked.unwrap_or(spread))
}

/// How long a provider asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).
///
/// A date is held against the answer's own `Date`, so that the clocks of the two machines need not agree.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(ms / 1000.0).ok();
    }
    let after = text(header::RETRY_AFTER.as_str())?;
    if let Ok(seconds) = after.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = httpdate::parse_http_date(after).ok()?;
    let now = httpdate::parse_http_date(text(header::DATE.as_str())?).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: RetryConfig = RetryConfig { attempts_max: 3, wait_ms: 400, wait_ms_max: 10_000 };

    #[track_caller]
    fn check(outcome: Outcome, attempt: u32, more_models: bool, expect: Next) {
        assert_eq!(decide(outcome, attempt, more_models, &CONFIG, 0.0), expect);
    }

    #[test]
    fn failures_are_tried_again_then_elsewhere_then_told() {
        let ms = Duration::from_millis;
        check(Outcome::Answer(200, None), 1, true, Next::PassOn);
        check(Outcome::Answer(400, None), 1, true, Next::PassOn);
        check(Outcome::Answer(401, None), 1, true, Next::PassOn);
        for status in [408, 429, 500, 502, 503, 504, 529] {
            check(Outcome::Answer(status, None), 1, false, Next::Again(ms(200)));
        }
        check(Outcome::NoAnswer, 2, false, Next::Again(ms(400)));
        check(Outcome::NoAnswer, 3, false, Next::PassOn);
        check(Outcome::NoAnswer, 3, true, Next::Fallback);
        check(Outcome::Hopeless, 1, true, Next::Fallback);
        check(Outcome::Hopeless, 1, false, Next::PassOn);
    }

    #[test]
    fn a_provider_is_waited_for_as_long_as_it_asks_within_bounds() {
        let seconds = Duration::from_secs;
        check(Outcome::Answer(429, Some(seconds(9))), 1, true, Next::Again(seconds(9)));
        check(Outcome::Answer(429, Some(seconds(11))), 1, true, Next::Fallback);
        check(Outcome::Answer(429, Some(seconds(11))), 1, false, Next::PassOn);
        check(Outcome::Answer(429, Some(seconds(0))), 1, false, Next::Again(seconds(0)));
    }

    #[test]
    fn jitter_never_exceeds_the_backoff() {
        for jitter in [-1.0, 0.0, 0.3, 1.0, 7.0, f64::NAN] {
            let Next::Again(wait) = decide(Outcome::NoAnswer, 1, false, &CONFIG, jitter) else { panic!() };
            assert!((200..=400).contains(&wait.as_millis()), "{jitter}: {wait:?}");
        }
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let read = |pairs: &[(&'static str, &str)]| {
            let headers = pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()));
            retry_after(&headers.collect::<HeaderMap>()).map(|wait| wait.as_millis())
        };
        assert_eq!(read(&[("retry-after", "2")]), Some(2_000));
        assert_eq!(read(&[("retry-after", "0.25")]), Some(250));
        assert_eq!(read(&[("retry-after", "7"), ("retry-after-ms", "125.5")]), Some(125));
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(read(&[("retry-after", "Sun, 06 Nov 1994 08:49:40 GMT"), date]), Some(3_000));
        assert_eq!(read(&[("retry-after", "Sun, 06 Nov 1994 08:49:30 GMT"), date]), Some(0));
        for odd in ["-1", "soon", "NaN", "inf", "1e300"] {
            assert_eq!(read(&[("retry-after", odd)]), None, "{odd}");
        }
    }
}

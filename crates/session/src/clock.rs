//! Time and names, handed in as arguments so that a test decides both.

use std::time::{SystemTime, UNIX_EPOCH};

/// What time it is.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> u64;
}

/// Makes names that nobody else has.
pub trait Ids: Send + Sync {
    /// A new name: 1 to 32 characters of `a-z` and `0-9`, never given before, not to be guessed.
    fn next(&self) -> String;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock that all others are handed")]
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Names from the kernel's random numbers: 16 characters, 80 bits.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl Ids for SystemIds {
    fn next(&self) -> String {
        // 32 letters and digits, without those that are read for one another.
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut random = [0_u8; 16];
        // getrandom(2) fails only on kernels without the system call. A name that could be guessed must not be given
        // out, so the wait for entropy is repeated.
        while getrandom::fill(&mut random).is_err() {
            std::thread::yield_now();
        }
        random.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_use_only_letters_and_digits() {
        let (a, b) = (SystemIds.next(), SystemIds.next());
        assert_ne!(a, b);
        assert_eq!(a.len(), 16);
        assert!(a.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{a}");
    }

    #[test]
    fn the_clock_is_past_2020() {
        assert!(SystemClock.now_ms() > 1_577_836_800_000);
    }
}

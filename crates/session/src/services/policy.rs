//! Decides whether a service that has ended is started again, and when.
//!
//! Pure: it reads no clock.

use std::time::Duration;

/// Starts that follow an end; a service that ends once more has failed.
const RESTARTS_MAX: u32 = 3;

/// A service that was ready for so long has mended: its ends before are forgotten.
const STEADY: Duration = Duration::from_secs(60);

/// A service that was ready for less was never at work.
const BRIEF: Duration = Duration::from_secs(5);

/// The first wait before a start; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// A shell's exit codes for a command that is not there, or is no program.
const NO_PROGRAM: [i32; 2] = [126, 127];

/// How one life of a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It ended by itself, with an exit code.
    Exited {
        /// The code, or 128 + the signal.
        code: i32,
        /// How long it had been ready; `None` where it never was.
        ready_for: Option<Duration>,
    },
    /// It was not ready in time, and was killed.
    Late(Duration),
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is started again after a wait.
    Restart(Duration),
    /// It has failed.
    GiveUp,
}

/// How often a service has ended lately.
#[derive(Debug, Default)]
pub(super) struct Patience {
    ends: u32,
}

impl Patience {
    /// What follows an end.
    pub(super) fn after(&mut self, end: End) -> Next {
        match end {
            // It would be as late again, and somebody waits.
            End::Late(_) => return Next::GiveUp,
            // Where nothing says how it is ready, it may have been taken for ready before its shell found out.
            End::Exited { code, ready_for } if NO_PROGRAM.contains(&code) && ready_for.is_none_or(|n| n < BRIEF) => {
                return Next::GiveUp;
            }
            End::Exited { ready_for: Some(lasted), .. } if lasted >= STEADY => self.ends = 0,
            End::Exited { .. } => {}
        }
        self.ends += 1;
        match self.ends > RESTARTS_MAX {
            true => Next::GiveUp,
            false => Next::Restart(FIRST_WAIT * 2_u32.pow(self.ends - 1)),
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited { code: 127, ready_for } if ready_for.is_none_or(|lasted| lasted < BRIEF) => {
                f.write_str("its command was not found (exit code 127)")
            }
            Self::Exited { code, ready_for } => {
                let when = if ready_for.is_some() { "" } else { " before it was ready" };
                write!(f, "it ended with exit code {code}{when}")
            }
            Self::Late(limit) => write!(f, "it was not ready within {} s", limit.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIED: End = End::Exited { code: 1, ready_for: None };

    #[test]
    fn waits_grow_and_the_fourth_end_is_the_last() {
        let mut patience = Patience::default();
        let next: Vec<Next> = (0..4).map(|_| patience.after(DIED)).collect();
        let wait = |ms| Next::Restart(Duration::from_millis(ms));
        assert_eq!(next, [wait(250), wait(500), wait(1_000), Next::GiveUp]);
    }

    #[test]
    fn a_service_that_was_steady_begins_anew() {
        let mut patience = Patience::default();
        for _ in 0..20 {
            patience.after(DIED);
            let steady = End::Exited { code: 0, ready_for: Some(STEADY) };
            assert_eq!(patience.after(steady), Next::Restart(FIRST_WAIT));
        }
    }

    #[test]
    fn what_would_only_fail_again_is_not_tried() {
        let missing = End::Exited { code: 127, ready_for: None };
        assert_eq!(Patience::default().after(missing), Next::GiveUp);
        assert_eq!(Patience::default().after(End::Late(STEADY)), Next::GiveUp);
        let too_soon = End::Exited { code: 127, ready_for: Some(Duration::ZERO) };
        assert_eq!(Patience::default().after(too_soon), Next::GiveUp);
        let later = End::Exited { code: 127, ready_for: Some(BRIEF) };
        assert_eq!(Patience::default().after(later), Next::Restart(FIRST_WAIT));
    }
}

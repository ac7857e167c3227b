//! What fails again and again is not tried again and again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use hob_session::breaker::{Breaker, BreakerRules};
use proptest::prelude::*;

const RULES: BreakerRules = BreakerRules { failures: 3, window_ms: 1_000, cool_down_ms: 100, cool_down_ms_max: 300 };

/// A breaker whose only circuit opened at the time 2.
fn open() -> Breaker<&'static str> {
    let mut breaker = Breaker::new(RULES);
    for at_ms in 0..3 {
        breaker.begin(&"r", at_ms).unwrap();
        breaker.failed(&"r", "no such image", at_ms);
    }
    breaker
}

#[test]
fn after_three_failures_a_start_fails_at_once_with_the_cause() {
    let breaker = open();
    let refusal = breaker.look(&"r", 3).unwrap_err();
    assert_eq!((refusal.failures, refusal.wait_ms), (3, Some(99)));
    let words = "the last 3 starts failed, so this one was not tried; a prompt tries again in 1 s. The last cause: no such image";
    assert_eq!(refusal.to_string(), words);
    assert_eq!(breaker.look(&"another", 3), Ok(()));
}

#[test]
fn when_it_has_cooled_down_one_start_tries_and_a_success_closes_it() {
    let mut breaker = open();
    breaker.begin(&"r", 102).unwrap();
    assert_eq!(breaker.begin(&"r", 103).unwrap_err().wait_ms, None, "one is being tried");
    breaker.succeeded(&"r");
    assert_eq!((breaker.look(&"r", 104), breaker.open_count()), (Ok(()), 0));
}

#[test]
fn each_try_that_fails_doubles_the_wait_up_to_a_limit() {
    let mut breaker = open();
    let mut now_ms = 102;
    for expect in [200, 300, 300] {
        breaker.begin(&"r", now_ms).unwrap();
        breaker.failed(&"r", "still none", now_ms);
        assert_eq!(breaker.look(&"r", now_ms).unwrap_err().wait_ms, Some(expect));
        now_ms += expect;
    }
}

#[test]
fn failures_far_apart_open_nothing() {
    let mut breaker = Breaker::new(RULES);
    for at_ms in (0..10_000).step_by(600) {
        breaker.begin(&"r", at_ms).unwrap();
        breaker.failed(&"r", "now and then", at_ms);
    }
}

proptest! {
    #[test]
    fn whatever_happens_an_open_circuit_is_tried_again_by_one_at_a_time(
        steps in proptest::collection::vec((0..3_u8, 0..80_u64), 1..200)
    ) {
        let mut breaker = Breaker::new(RULES);
        let (mut now_ms, mut under_way) = (0, 0_u32);
        for (step, wait_ms) in steps {
            now_ms += wait_ms;
            match step {
                0 => {
                    let was_open = breaker.open_count() > 0;
                    match breaker.begin(&"r", now_ms) {
                        Ok(()) => under_way += 1,
                        Err(refusal) => {
                            prop_assert!(was_open);
                            prop_assert!(refusal.wait_ms.is_none_or(|ms| ms > 0 && ms <= RULES.cool_down_ms_max));
                        }
                    }
                }
                1 if under_way > 0 => {
                    under_way -= 1;
                    breaker.failed(&"r", "no", now_ms);
                }
                2 if under_way > 0 => {
                    under_way -= 1;
                    breaker.succeeded(&"r");
                }
                _ => {}
            }
            // With nobody trying, it can be tried when the longest wait is over.
            prop_assert!(under_way > 0 || breaker.look(&"r", now_ms + RULES.cool_down_ms_max).is_ok());
        }
    }
}

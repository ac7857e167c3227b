//! Who gets a place: fair between people, never more than there is, and nobody waits for ever.

use std::collections::BTreeMap;

use hob_session::admission::{Admission, Capacity, Need, Place};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn need(gib: u64) -> Need {
    Need { memory_bytes: gib * GIB, cpu_millicores: 1_000 }
}

/// Room for so many sandboxes of one GiB.
fn places(sandboxes: u32) -> Admission<&'static str> {
    Admission::new(Capacity { sandboxes, ..Capacity::UNBOUNDED })
}

fn place(position: u32, of: u32) -> Option<Place> {
    Some(Place { position, of })
}

#[test]
fn a_hundred_requests_of_one_person_do_not_hold_up_another() {
    let mut admission = places(1);
    for key in ["a1", "a2", "a3"] {
        admission.ask(key, "ada", need(1));
    }
    admission.ask("g1", "grace", need(1));
    assert!(admission.is_in(&"a1"));
    assert_eq!(
        [admission.place(&"a2"), admission.place(&"g1"), admission.place(&"a3")],
        [place(1, 3), place(2, 3), place(3, 3)]
    );
    admission.leave(&"a1");
    assert!(admission.is_in(&"a2"), "ada was first in the queue");
    admission.leave(&"a2");
    assert!(admission.is_in(&"g1"), "and then it is grace's turn");
}

#[test]
fn a_small_request_does_not_overtake_a_large_one() {
    let mut admission = Admission::new(Capacity { memory_bytes: 4 * GIB, ..Capacity::UNBOUNDED });
    admission.ask("half", "ada", need(2));
    admission.ask("large", "ada", need(3));
    admission.ask("small", "grace", need(1));
    assert_eq!((admission.place(&"large"), admission.place(&"small")), (place(1, 2), place(2, 2)));
    admission.leave(&"half");
    assert!(admission.is_in(&"large") && admission.is_in(&"small"));
}

#[test]
fn what_is_larger_than_the_machine_runs_alone() {
    let mut admission = Admission::new(Capacity { memory_bytes: 2 * GIB, ..Capacity::UNBOUNDED });
    admission.ask("huge", "ada", need(64));
    admission.ask("small", "ada", need(1));
    assert!(admission.is_in(&"huge") && !admission.is_in(&"small"));
}

#[test]
fn a_sandbox_that_turns_out_to_need_less_gives_room_to_the_next() {
    let mut admission = Admission::new(Capacity { memory_bytes: 4 * GIB, ..Capacity::UNBOUNDED });
    admission.ask("first", "ada", need(4));
    admission.ask("next", "ada", need(4));
    admission.shrink(&"first", need(1));
    assert!(!admission.is_in(&"next"), "it was promised less, but 4 GiB are not free");
    admission.ask("third", "ada", need(1));
    admission.withdraw(&"next");
    assert!(admission.is_in(&"third"), "who stood in front has gone");
}

#[test]
fn the_one_that_was_used_longest_ago_is_asked_to_leave_and_no_more_than_needed() {
    let mut admission = places(3);
    for key in ["busy", "old", "new"] {
        admission.ask(key, "ada", need(1));
    }
    admission.rest(&"new", 20);
    admission.rest(&"old", 10);
    assert_eq!(admission.make_room(), 0, "nobody waits");
    admission.ask("next", "grace", need(1));
    assert_eq!((admission.make_room(), admission.make_room()), (1, 0));
    assert!(admission.is_leaving(&"old") && !admission.is_leaving(&"new"));
    admission.work(&"old");
    assert_eq!(admission.make_room(), 1, "it has work after all, so another one is asked");
    assert!(!admission.is_leaving(&"old") && admission.is_leaving(&"new"));
    assert!(!admission.is_in(&"next"), "it has not left yet");
    admission.leave(&"new");
    assert!(admission.is_in(&"next"));
}

#[test]
fn what_runs_from_before_a_restart_counts_even_where_there_is_no_room() {
    let mut admission = places(1);
    admission.occupy("one", need(1));
    admission.occupy("two", need(1));
    admission.ask("three", "ada", need(1));
    admission.leave(&"one");
    assert!(!admission.is_in(&"three"));
    admission.leave(&"two");
    assert!(admission.is_in(&"three"));
}

#[derive(Debug, Clone, Copy)]
enum Move {
    Ask { key: u8, person: u8, gib: u8 },
    Leave(u8),
    Withdraw(u8),
    Shrink(u8),
    Work(u8),
    Rest(u8, u8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let key = 0..24_u8;
    let one = prop_oneof![
        8 => (key.clone(), 0..4_u8, 0..9_u8).prop_map(|(key, person, gib)| Move::Ask { key, person, gib }),
        4 => key.clone().prop_map(Move::Leave),
        2 => key.clone().prop_map(Move::Withdraw),
        1 => key.clone().prop_map(Move::Shrink),
        2 => key.clone().prop_map(Move::Work),
        3 => (key, any::<u8>()).prop_map(|(key, since)| Move::Rest(key, since)),
    ];
    proptest::collection::vec(one, 1..120)
}

const CAPACITY: Capacity = Capacity { sandboxes: 5, memory_bytes: 8 * GIB, cpu_millicores: 6_000 };

fn make(admission: &mut Admission<u8>, step: Move) {
    match step {
        Move::Ask { key, person, gib } => admission.ask(key, &person.to_string(), need(gib.into())),
        Move::Leave(key) => admission.leave(&key),
        Move::Withdraw(key) => admission.withdraw(&key),
        Move::Shrink(key) => admission.shrink(&key, need(1)),
        Move::Work(key) => admission.work(&key),
        Move::Rest(key, since) => admission.rest(&key, since.into()),
    }
    admission.make_room();
}

/// Those who wait, in the order of their places.
fn queue(admission: &Admission<u8>) -> Vec<u8> {
    let placed = (0..24).filter_map(|key| Some((admission.place(&key)?.position, key)));
    let placed: BTreeMap<u32, u8> = placed.collect();
    assert_eq!(placed.keys().copied().collect::<Vec<_>>(), (1..=admission.waiting_count()).collect::<Vec<_>>());
    placed.into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_more_is_promised_than_there_is(moves in moves()) {
        let mut admission = Admission::new(CAPACITY);
        for step in moves {
            make(&mut admission, step);
            let promised = admission.promised();
            prop_assert!(promised.sandboxes <= CAPACITY.sandboxes);
            prop_assert!(promised.memory_bytes <= CAPACITY.memory_bytes);
            prop_assert!(promised.cpu_millicores <= CAPACITY.cpu_millicores);
            let waits = queue(&admission);
            prop_assert!(waits.iter().all(|key| !admission.is_in(key)), "nobody is in and waits");
            prop_assert!(waits.is_empty() || promised.sandboxes > 0, "nobody waits where nobody is in");
        }
    }

    #[test]
    fn everybody_is_served_in_the_order_that_was_shown(moves in moves()) {
        let mut admission = Admission::new(CAPACITY);
        moves.into_iter().for_each(|step| make(&mut admission, step));
        // No one else comes, and those who are in leave: who is let in next is who stood first.
        while let Some(first) = queue(&admission).first().copied() {
            let shown = queue(&admission);
            let leaver = (0..24).find(|key| admission.is_in(key));
            prop_assert!(leaver.is_some(), "{first} waits for ever");
            admission.leave(&leaver.unwrap_or_default());
            let left = queue(&admission);
            prop_assert_eq!(&left[..], &shown[shown.len() - left.len()..]);
        }
    }

    #[test]
    fn those_who_keep_coming_do_not_starve_one_who_waits(others in proptest::collection::vec(0..4_u8, 40)) {
        let mut admission = Admission::new(Capacity { sandboxes: 1, ..Capacity::UNBOUNDED });
        admission.ask(100, "busy", need(1));
        admission.ask(101, "patient", need(1));
        let mut served = 0;
        for (key, person) in (0..40).zip(others) {
            admission.ask(key, &person.to_string(), need(1));
            let inside = (0..=101).find(|key| admission.is_in(key)).unwrap_or_default();
            if inside == 101 {
                break;
            }
            admission.leave(&inside);
            served += 1;
        }
        prop_assert!(served <= 5, "served after {served} others, though there are only five people");
    }
}

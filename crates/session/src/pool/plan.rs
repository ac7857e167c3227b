//! What is made and what is removed, so that there are as many warm sandboxes as are wanted. Pure.
//!
//! What is behind its branch or its image is replaced: the new one first, then the old one goes.

use std::collections::BTreeMap;

use super::kind::Kind;

/// A warm sandbox that no session has taken, as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen<I> {
    pub(super) id: I,
    pub(super) kind: Kind,
    pub(super) stage: Stage,
}

/// How far a warm sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// It can be taken, but it is behind.
    Old,
    /// It is being made.
    Making,
    /// It can be taken, and is of the newest commit and image.
    Current,
}

/// How much may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Warm sandboxes in all. One more may be there for a moment, while it takes the place of an old one.
    pub(super) max: u32,
    /// Those that may be in the making at once.
    pub(super) making: u32,
    /// Whether memory is left for more.
    pub(super) may_grow: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act<I> {
    Make(Kind),
    Remove(I),
}

/// What follows from what is wanted and what is there.
pub(super) fn plan<I: Clone>(wanted: &BTreeMap<Kind, u32>, seen: &[Seen<I>], bounds: Bounds) -> Vec<Act<I>> {
    let mut acts = Vec::new();
    let mut left = seen.len();
    for kind in kinds(seen) {
        let surplus = surplus(seen, &kind, wanted.get(&kind).copied().unwrap_or(0));
        left -= surplus.len();
        acts.extend(surplus.into_iter().map(|seen| Act::Remove(seen.id.clone())));
    }
    let making = seen.iter().filter(|seen| seen.stage == Stage::Making).count();
    let mut may_make = if bounds.may_grow { (bounds.making as usize).saturating_sub(making) } else { 0 };
    for (kind, count) in wanted {
        let has = |stage| seen.iter().filter(|seen| seen.kind == *kind && seen.stage == stage).count();
        let lacking = (*count as usize).saturating_sub(has(Stage::Current) + has(Stage::Making));
        // Where all places are taken, an old one stays until the one that replaces it is there.
        let replaces = usize::from(has(Stage::Old) > 0);
        let room = (bounds.max as usize + replaces).saturating_sub(left);
        let make = lacking.min(room).min(may_make);
        acts.extend(std::iter::repeat_n(Act::Make(kind.clone()), make));
        (left, may_make) = (left + make, may_make - make);
    }
    acts
}

/// Those of a kind that are too many. An old one is not, before there are enough without it.
fn surplus<'a, I>(seen: &'a [Seen<I>], kind: &Kind, wanted: u32) -> Vec<&'a Seen<I>> {
    let mut these: Vec<&Seen<I>> = seen.iter().filter(|seen| seen.kind == *kind).collect();
    these.sort_by_key(|seen| seen.stage);
    if wanted == 0 {
        return these;
    }
    let making = these.iter().filter(|seen| seen.stage == Stage::Making).count();
    let mut ready = these.len() - making;
    these.retain(|seen| {
        let too_many = seen.stage != Stage::Making && ready > wanted as usize;
        ready -= usize::from(too_many);
        too_many
    });
    these
}

fn kinds<I>(seen: &[Seen<I>]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = seen.iter().map(|seen| seen.kind.clone()).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { max: 4, making: 2, may_grow: true };

    fn kind(repository: &str) -> Kind {
        Kind::new(repository, None, "hob", "m")
    }

    fn wanted(counts: &[(&str, u32)]) -> BTreeMap<Kind, u32> {
        counts.iter().map(|(repository, count)| (kind(repository), *count)).collect()
    }

    /// Sandboxes, as `a current`; each is known by its place.
    fn seen(what: &[(&str, Stage)]) -> Vec<Seen<usize>> {
        let seen =
            |(id, (repository, stage)): (usize, &(&str, Stage))| Seen { id, kind: kind(repository), stage: *stage };
        what.iter().enumerate().map(seen).collect()
    }

    #[track_caller]
    fn check(counts: &[(&str, u32)], what: &[(&str, Stage)], expect: &[Act<usize>]) {
        assert_eq!(plan(&wanted(counts), &seen(what), BOUNDS), expect);
    }

    #[test]
    fn what_is_lacking_is_made_and_what_is_too_much_goes() {
        use Stage::{Current, Making};
        check(&[("a", 1)], &[], &[Act::Make(kind("a"))]);
        check(&[("a", 1)], &[("a", Making)], &[]);
        check(&[("a", 1)], &[("a", Current)], &[]);
        check(&[("a", 1)], &[("a", Current), ("a", Current)], &[Act::Remove(0)]);
        check(&[], &[("a", Current), ("a", Making)], &[Act::Remove(1), Act::Remove(0)]);
        check(&[("a", 3)], &[], &[Act::Make(kind("a")), Act::Make(kind("a"))]);
    }

    #[test]
    fn a_new_one_is_there_before_the_old_one_goes() {
        use Stage::{Current, Making, Old};
        check(&[("a", 1)], &[("a", Old)], &[Act::Make(kind("a"))]);
        check(&[("a", 1)], &[("a", Old), ("a", Making)], &[]);
        check(&[("a", 1)], &[("a", Old), ("a", Current)], &[Act::Remove(0)]);
        let full = [("a", Old), ("a", Old), ("a", Old), ("a", Old)];
        check(&[("a", 4)], &full, &[Act::Make(kind("a"))]);
        check(&[("a", 4)], &[&full[..], &[("a", Current)]].concat(), &[Act::Remove(0), Act::Make(kind("a"))]);
    }

    #[test]
    fn without_memory_nothing_is_made() {
        let bounds = Bounds { may_grow: false, ..BOUNDS };
        assert_eq!(plan(&wanted(&[("a", 1)]), &seen(&[]), bounds), []);
    }

    fn stages() -> impl Strategy<Value = Vec<(u8, Stage)>> {
        let stage = prop_oneof![Just(Stage::Old), Just(Stage::Making), Just(Stage::Current)];
        proptest::collection::vec((0u8..3, stage), 0..5)
    }

    proptest! {
        #[test]
        fn whatever_is_there_it_comes_to_what_is_wanted_and_never_leaves_a_session_with_less(
            counts in proptest::collection::vec(0u32..3, 3), what in stages(),
        ) {
            let wanted: BTreeMap<Kind, u32> =
                (0u8..).zip(&counts).filter(|(_, n)| **n > 0).map(|(k, n)| (kind(&k.to_string()), *n)).collect();
            let bounds = Bounds { max: counts.iter().sum(), ..BOUNDS };
            let mut there: Vec<Seen<usize>> = seen(&[]);
            there.extend(what.iter().enumerate().map(|(id, (k, stage))| Seen { id, kind: kind(&k.to_string()), stage: *stage }));
            let ready = |there: &[Seen<usize>], kind: &Kind| {
                there.iter().filter(|seen| seen.kind == *kind && seen.stage != Stage::Making).count()
            };
            for round in 0..40 {
                let before = there.clone();
                let acts = plan(&wanted, &there, bounds);
                for (n, act) in acts.iter().enumerate() {
                    match act {
                        Act::Remove(id) => there.retain(|seen| seen.id != *id),
                        Act::Make(kind) => there.push(Seen { id: 100 * (round + 1) + n, kind: kind.clone(), stage: Stage::Making }),
                    }
                }
                for (kind, count) in &wanted {
                    prop_assert!(ready(&there, kind) >= ready(&before, kind).min(*count as usize));
                }
                if acts.is_empty() && there.iter().all(|seen| seen.stage != Stage::Making) {
                    break;
                }
                there.iter_mut().filter(|seen| seen.stage == Stage::Making).for_each(|seen| seen.stage = Stage::Current);
            }
            for (kind, count) in &wanted {
                let current = there.iter().filter(|seen| seen.kind == *kind && seen.stage == Stage::Current).count();
                prop_assert_eq!(current, *count as usize);
            }
            prop_assert_eq!(there.len(), wanted.values().sum::<u32>() as usize);
        }
    }
}

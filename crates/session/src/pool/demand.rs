//! How many warm sandboxes are wanted, and of which kind. Pure: it reads no clock.
//!
//! Three things want one: a person who types, before all else; a repository that says how many (`pool = N`); and use. A
//! kind that was lately used gets as many as sessions of it began at most within the time that the pool takes to be full
//! again, so it grows with bursts and shrinks when they are long past.

use std::collections::{BTreeMap, VecDeque};

use super::kind::Kind;
use crate::config::PoolRules;
use crate::owned::millis;

/// Kinds that are remembered; the one that was wanted longest ago is forgotten first.
const KINDS_MAX: usize = 256;

/// Starts of one kind that are remembered.
const USES_MAX: usize = 64;

/// What was asked for, and what was used.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand {
    wishes: BTreeMap<Kind, Wish>,
}

#[derive(Debug, Clone, Default)]
struct Wish {
    /// What the repository says.
    fixed: Option<u32>,
    /// When sessions of it began, oldest first.
    uses: VecDeque<u64>,
    /// When the last one began.
    used_ms: Option<u64>,
    /// Who types, and until when that counts.
    typists: Vec<(String, u64)>,
    /// Until when none is made, because the last one could not be.
    rests_until_ms: u64,
}

impl Wish {
    fn touched_ms(&self) -> u64 {
        let typed = self.typists.iter().map(|(_, until_ms)| *until_ms).max();
        self.used_ms.max(typed).unwrap_or(0)
    }

    /// The most sessions that began within `burst_ms` of each other.
    fn burst(&self, burst_ms: u64) -> u32 {
        let within = |from: u64, upto: u64| self.uses.iter().filter(|at| (from..=upto).contains(*at)).count();
        let most = self.uses.iter().map(|at| within(*at, at.saturating_add(burst_ms))).max().unwrap_or(0);
        u32::try_from(most).unwrap_or(u32::MAX)
    }
}

impl Demand {
    /// A session of this kind begins, in the name of a person, who does not type for it any more.
    pub(crate) fn used(&mut self, kind: &Kind, person: &str, now_ms: u64) {
        let wish = self.wish(kind);
        wish.used_ms = wish.used_ms.max(Some(now_ms));
        wish.typists.retain(|(typist, _)| typist != person);
        let at = wish.uses.partition_point(|use_ms| *use_ms <= now_ms);
        wish.uses.insert(at, now_ms);
        if wish.uses.len() > USES_MAX {
            wish.uses.pop_front();
        }
    }

    /// A person types a prompt. Whoever types for more kinds than `per_person` wants the latest of them alone. Gives
    /// whether this is the first sign of it.
    pub(crate) fn typing(&mut self, kind: &Kind, person: &str, now_ms: u64, rules: &PoolRules) -> bool {
        let until_ms = now_ms.saturating_add(millis(rules.typing_for));
        let wish = self.wish(kind);
        // Whoever types again may have mended what was wrong.
        wish.rests_until_ms = wish.rests_until_ms.min(now_ms.saturating_add(millis(rules.retry_after) / 10));
        let known = wish.typists.len();
        wish.typists.retain(|(typist, _)| typist != person);
        let is_first = wish.typists.len() == known;
        wish.typists.push((person.to_owned(), until_ms));
        let mut theirs: Vec<(u64, &mut Wish)> = Vec::new();
        for wish in self.wishes.values_mut() {
            if let Some((_, until_ms)) = wish.typists.iter().find(|(typist, _)| typist == person) {
                theirs.push((*until_ms, wish));
            }
        }
        theirs.sort_by_key(|(until_ms, _)| std::cmp::Reverse(*until_ms));
        for (_, wish) in theirs.into_iter().skip(rules.per_person.max(1) as usize) {
            wish.typists.retain(|(typist, _)| typist != person);
        }
        is_first
    }

    /// What a repository says of its pool.
    pub(crate) fn fix(&mut self, kind: &Kind, fixed: Option<u32>) {
        if let Some(wish) = self.wishes.get_mut(kind) {
            wish.fixed = fixed;
        }
    }

    /// One of this kind could not be made.
    pub(crate) fn failed(&mut self, kind: &Kind, now_ms: u64, rules: &PoolRules) {
        if let Some(wish) = self.wishes.get_mut(kind) {
            wish.rests_until_ms = now_ms.saturating_add(millis(rules.retry_after));
        }
    }

    /// Whether one of this kind may be made now, as far as earlier failures go.
    pub(crate) fn may_try(&self, kind: &Kind, now_ms: u64) -> bool {
        self.wishes.get(kind).is_some_and(|wish| wish.rests_until_ms <= now_ms)
    }

    /// Forgets what is past.
    pub(crate) fn pass_time(&mut self, now_ms: u64, rules: &PoolRules) {
        let oldest_ms = now_ms.saturating_sub(millis(rules.use_window));
        self.wishes.retain(|_, wish| {
            wish.uses.retain(|use_ms| *use_ms >= oldest_ms);
            wish.typists.retain(|(_, until_ms)| *until_ms > now_ms);
            let fixed = wish.fixed.is_some_and(|count| count > 0);
            fixed || !wish.uses.is_empty() || !wish.typists.is_empty()
        });
    }

    /// How many of each kind are wanted, where there is room for so many in all.
    pub(crate) fn wanted(&self, room: u32, rules: &PoolRules) -> BTreeMap<Kind, u32> {
        let mut shares = Shares { granted: BTreeMap::new(), left: room.min(rules.max), rules };
        let mut latest: Vec<(&Kind, &Wish)> = self.wishes.iter().filter(|(_, wish)| wish.fixed != Some(0)).collect();
        latest.sort_by_key(|(_, wish)| std::cmp::Reverse(wish.touched_ms()));
        for (kind, wish) in &latest {
            shares.grant(kind, u32::try_from(wish.typists.len()).unwrap_or(u32::MAX));
        }
        // What a repository says counts for what was last used of it: other branches and agents are kept by use.
        let mut seen = Vec::new();
        for (kind, wish) in &latest {
            if let Some(fixed) = wish.fixed
                && !seen.contains(&&kind.repository)
            {
                seen.push(&kind.repository);
                shares.grant(kind, fixed);
            }
        }
        for (kind, wish) in &latest {
            if wish.fixed.is_none() {
                shares.grant(kind, wish.burst(millis(rules.burst)));
            }
        }
        shares.granted
    }

    fn wish(&mut self, kind: &Kind) -> &mut Wish {
        if !self.wishes.contains_key(kind)
            && self.wishes.len() >= KINDS_MAX
            && let Some(oldest) = self.wishes.iter().min_by_key(|(_, wish)| wish.touched_ms()).map(|(kind, _)| kind)
        {
            let oldest = oldest.clone();
            self.wishes.remove(&oldest);
        }
        self.wishes.entry(kind.clone()).or_default()
    }
}

/// Warm sandboxes as they are dealt out.
struct Shares<'a> {
    granted: BTreeMap<Kind, u32>,
    left: u32,
    rules: &'a PoolRules,
}

impl Shares<'_> {
    /// Grants a kind so many, what it has counted in, as far as there are any left.
    fn grant(&mut self, kind: &Kind, count: u32) {
        let of_repository: u32 =
            self.granted.iter().filter(|(k, _)| k.repository == kind.repository).map(|(_, n)| n).sum();
        let has = self.granted.get(kind).copied().unwrap_or(0);
        let may = self.left.min(self.rules.per_repository.saturating_sub(of_repository));
        let more = count.saturating_sub(has).min(may);
        if more > 0 {
            *self.granted.entry(kind.clone()).or_default() += more;
            self.left -= more;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60_000;

    fn kind(repository: &str, agent: &str) -> Kind {
        Kind { repository: repository.to_owned(), asked: None, agent: agent.to_owned(), model: None }
    }

    fn rules() -> PoolRules {
        PoolRules { max: 4, per_repository: 3, burst: Duration::from_mins(1), ..PoolRules::default() }
    }

    /// How many of each repository are wanted, as `a:1 b:2`.
    fn shown(demand: &Demand, room: u32) -> String {
        let wanted = demand.wanted(room, &rules());
        wanted.iter().map(|(kind, count)| format!("{}:{count}", kind.repository)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_pool_grows_with_bursts_and_shrinks_when_they_are_past() {
        let (mut demand, a) = (Demand::default(), kind("a", "hob"));
        assert_eq!(shown(&demand, 9), "");
        demand.used(&a, "ada", 0);
        assert_eq!(shown(&demand, 9), "a:1");
        demand.used(&a, "ada", 10 * MINUTE);
        assert_eq!(shown(&demand, 9), "a:1", "one after the other needs no more than one");
        demand.used(&a, "ada", 10 * MINUTE + 1);
        assert_eq!(shown(&demand, 9), "a:2");
        demand.pass_time(millis(rules().use_window) + 5 * MINUTE, &rules());
        assert_eq!(shown(&demand, 9), "a:2");
        demand.pass_time(millis(rules().use_window) + 11 * MINUTE, &rules());
        assert_eq!(shown(&demand, 9), "");
    }

    #[test]
    fn what_a_repository_says_counts_and_no_more_than_the_operator_allows() {
        let (mut demand, a, b) = (Demand::default(), kind("a", "hob"), kind("b", "hob"));
        demand.used(&a, "ada", 0);
        demand.fix(&a, Some(9));
        assert_eq!(shown(&demand, 9), "a:3");
        demand.used(&b, "ada", 1);
        demand.used(&b, "ada", 2);
        assert_eq!(shown(&demand, 9), "a:3 b:1", "what was asked for by name comes first");
        demand.used(&kind("a", "goose"), "ada", 3);
        assert_eq!(demand.wanted(9, &rules()).get(&kind("a", "goose")), None, "it shares its repository's");
        demand.fix(&a, Some(0));
        assert_eq!(demand.wanted(9, &rules()).get(&a), None);
    }

    #[test]
    fn typing_comes_first_has_a_quota_and_expires() {
        let (mut demand, rules) = (Demand::default(), rules());
        demand.used(&kind("z", "hob"), "grace", 0);
        for (at, repository) in ["a", "b", "c"].into_iter().enumerate() {
            demand.typing(&kind(repository, "hob"), "ada", at as u64, &rules);
        }
        demand.typing(&kind("c", "hob"), "grace", 5, &rules);
        assert_eq!(rules.per_person, 2);
        assert_eq!(shown(&demand, 9), "b:1 c:2 z:1", "ada types for the two that she touched last");
        assert_eq!(shown(&demand, 2), "c:2");
        demand.used(&kind("c", "hob"), "ada", 6);
        assert_eq!(shown(&demand, 9), "b:1 c:1 z:1", "she has sent it");
        demand.pass_time(6 + millis(rules.typing_for), &rules);
        assert_eq!(shown(&demand, 9), "c:1 z:1");
    }

    #[test]
    fn what_could_not_be_made_is_left_alone_for_a_while_and_sooner_tried_where_somebody_types() {
        let (mut demand, rules, a) = (Demand::default(), rules(), kind("a", "hob"));
        demand.used(&a, "ada", 0);
        demand.failed(&a, 0, &rules);
        let late = millis(rules.retry_after);
        assert!(!demand.may_try(&a, late - 1) && demand.may_try(&a, late));
        demand.typing(&a, "ada", 0, &rules);
        assert!(!demand.may_try(&a, late / 10 - 1) && demand.may_try(&a, late / 10));
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_there_is_room_for_and_none_that_nobody_wants(
            steps in proptest::collection::vec((0u8..4, 0u8..6, 0u8..3, 0u64..5_000), 0..80), room in 0u32..8,
        ) {
            let (mut demand, rules, mut now_ms) = (Demand::default(), rules(), 0);
            for (what, repository, person, later_ms) in steps {
                now_ms += later_ms;
                let (kind, person) = (kind(&repository.to_string(), "hob"), person.to_string());
                match what {
                    0 => demand.used(&kind, &person, now_ms),
                    1 => drop(demand.typing(&kind, &person, now_ms, &rules)),
                    2 => demand.fix(&kind, Some(later_ms as u32 % 6)),
                    _ => demand.pass_time(now_ms, &rules),
                }
                let wanted = demand.wanted(room, &rules);
                prop_assert!(wanted.values().sum::<u32>() <= room.min(rules.max));
                prop_assert!(wanted.values().all(|count| (1..=rules.per_repository).contains(count)));
            }
            now_ms += millis(rules.use_window) * 2;
            for repository in 0..6 {
                demand.fix(&kind(&repository.to_string(), "hob"), None);
            }
            demand.pass_time(now_ms, &rules);
            prop_assert!(demand.wanted(room, &rules).is_empty());
        }
    }
}

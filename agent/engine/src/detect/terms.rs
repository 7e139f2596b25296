//! The terms that a rule has seen: for each its hash, its times and its actor. They have a limit in bytes.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::budget::{Budget, Exceeded, Holder, SharedBytes};
use crate::event::Timestamp;

/// Bytes of a term, with its part of the table.
const TERM_BYTES: usize = 128;
/// When there are too many terms, this fraction (one of eight) of an actor's terms is evicted at once, because the
/// search for the oldest reads all of them.
const FORGOTTEN_AT_ONCE: usize = 8;
/// The times and the actor of a term.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    /// The last time.
    pub(super) seen: Timestamp,
    /// The last time that was stored.
    pub(super) written: Timestamp,
    /// The actor that had it first, which is charged for it.
    pub(super) actor: Holder,
}

#[derive(Debug)]
pub(super) struct Terms {
    seen: HashMap<u128, Sighting>,
    budget: Budget,
    /// The time up to which expired terms have been removed.
    expired: Timestamp,
    discarded: u64,
}

impl Terms {
    pub(super) fn new(pool: &SharedBytes, bytes_max: usize) -> Self {
        let budget = Budget::new(pool, bytes_max);
        Self { seen: HashMap::new(), budget, expired: Timestamp::MIN, discarded: 0 }
    }

    pub(super) fn get(&self, term: u128) -> Option<Sighting> {
        self.seen.get(&term).copied()
    }

    /// Inserts a sighting, which replaces an earlier one of the term. Returns the evicted terms: the oldest of the
    /// actor if it exceeds its share; the oldest of the actor that holds most if the total is exceeded.
    pub(super) fn put(&mut self, term: u128, sighting: Sighting) -> Vec<u128> {
        let actor = sighting.actor;
        let before = self.seen.insert(term, sighting);
        if let Some(before) = before {
            self.budget.give_back(before.actor, TERM_BYTES);
        }
        self.budget.take(actor, TERM_BYTES);
        let mut gone = Vec::new();
        if before.is_none() {
            while let Some(victim) = self.who_gives_way(actor) {
                self.forget_oldest_of(victim, &mut gone);
            }
        }
        gone
    }

    /// Removes the terms that were seen last before `before`. It does so only once per `step`, because it reads all
    /// terms.
    pub(super) fn expire(&mut self, before: Timestamp, step: Duration) -> Vec<u128> {
        if before < self.expired + step {
            return Vec::new();
        }
        self.expired = before;
        let over = self.seen.iter().filter(|(_, sighting)| sighting.seen < before);
        let mut over: Vec<_> = over.map(|(term, _)| *term).collect();
        over.sort_unstable();
        over.iter().for_each(|term| self.take_out(*term));
        over
    }

    fn forget_oldest_of(&mut self, actor: Holder, gone: &mut Vec<u128>) {
        let own = self.seen.iter().filter(|(_, sighting)| sighting.actor == actor);
        let mut own: Vec<_> = own.map(|(term, sighting)| (sighting.seen, *term)).collect();
        own.sort_unstable();
        own.truncate(own.len().div_ceil(FORGOTTEN_AT_ONCE));
        for (_, term) in own {
            self.take_out(term);
            self.discarded += 1;
            gone.push(term);
        }
    }

    fn take_out(&mut self, term: u128) {
        if let Some(sighting) = self.seen.remove(&term) {
            self.budget.give_back(sighting.actor, TERM_BYTES);
        }
    }

    /// The actor whose oldest terms are evicted: this actor if it exceeds its share, otherwise the one that holds most.
    fn who_gives_way(&self, actor: Holder) -> Option<Holder> {
        match self.budget.exceeded(actor)? {
            Exceeded::Inner => Some(actor),
            Exceeded::Outer => self.who_has_most(|other| other.0[0] == actor.0[0]),
            Exceeded::All => self.who_has_most(|_| true),
        }
    }

    fn who_has_most(&self, counts: impl Fn(&Holder) -> bool) -> Option<Holder> {
        let actors: BTreeSet<_> = self.seen.values().map(|sighting| sighting.actor).filter(counts).collect();
        actors.into_iter().max_by_key(|actor| self.budget.used_by(*actor))
    }

    /// Terms that were evicted because of the limit.
    pub(super) fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.budget.used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Holder = Holder([1, 2]);
    const STRANGER: Holder = Holder([3, 4]);

    fn at(seconds: i64, actor: Holder) -> Sighting {
        let seen = Timestamp::from_millis(seconds * 1000);
        Sighting { seen, written: seen, actor }
    }

    #[test]
    fn a_flood_pushes_out_no_terms_but_its_own() {
        let mut terms = Terms::new(&SharedBytes::new(1 << 20), 1 << 16);
        (0..32).for_each(|term| assert_eq!(terms.put(term, at(term as i64, ROOT)), []));
        let gone: Vec<_> =
            (100..10_100).flat_map(|term| terms.put(term, at(term as i64, STRANGER))).collect();
        assert!((0..32).all(|term| terms.get(term).is_some()));
        assert!(gone.iter().all(|term| *term >= 100));
        assert_eq!(terms.discarded(), gone.len() as u64);
        assert!(terms.bytes() <= 1 << 16, "{}", terms.bytes());
        // The latest are there still.
        assert!(terms.get(10_099).is_some() && terms.get(100).is_none());
    }

    #[test]
    fn many_actors_together_stay_within_the_limit() {
        let mut terms = Terms::new(&SharedBytes::new(1 << 20), 1 << 14);
        for term in 0..4000 {
            terms.put(term, at(term as i64, Holder([term as u32 % 500, term as u32])));
            assert!(terms.bytes() <= 1 << 14, "{}", terms.bytes());
        }
    }

    #[test]
    fn what_is_over_goes_now_and_then() {
        let mut terms = Terms::new(&SharedBytes::new(1 << 20), 1 << 16);
        (0..9).for_each(|term| drop(terms.put(term, at(term as i64, ROOT))));
        let (three, step) = (Timestamp::from_millis(3000), Duration::from_secs(60));
        assert_eq!(terms.expire(three, step), [0, 1, 2]);
        assert_eq!(terms.expire(three + Duration::from_secs(2), step), []);
        assert_eq!(terms.expire(three + step, step).len(), 6);
        assert_eq!(terms.bytes(), 0);
    }
}

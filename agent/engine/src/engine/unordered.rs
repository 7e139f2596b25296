//! Hits that wait for late events, for rules that need their events in order.

use std::collections::BTreeMap;

use crate::detect::{Actor, Charge, Hit, Ordinal, Shares, Ticket};
use crate::event::{Timestamp, allocated};

/// The position of a hit: its event's, then its rule's.
type Place = (Ordinal, usize);

/// Bytes of a hit without its event and its parts: its places in two lists, whose capacity is on average half as much
/// again as their length.
const HIT_BYTES: usize = (size_of::<(Place, (Hit, Ticket))>() + Shares::<Place>::SLOT_BYTES) * 3 / 2;

/// Hits by their position in the order, and the rule. Actors share the limit: the hits of an actor with too many are
/// evaluated early.
#[derive(Debug)]
pub(super) struct Unordered {
    hits: BTreeMap<Place, (Hit, Ticket)>,
    shares: Shares<Place>,
    released_early: u64,
}

impl Unordered {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { hits: BTreeMap::new(), shares: Shares::new(bytes_max), released_early: 0 }
    }

    /// Adds a hit of a rule. The bytes of the event are charged with the first of its hits.
    pub(super) fn push(&mut self, rule: usize, hit: &Hit, is_first: bool) {
        let Charge { actor, bytes } = *hit.charge();
        let own = HIT_BYTES + allocated(hit.parts.len().max(4) * size_of::<usize>());
        let place = (hit.ordinal, rule);
        let ticket = self.shares.charge(&actor, own + if is_first { bytes } else { 0 }, place);
        if let Some((_, before)) = self.hits.insert(place, (hit.clone(), ticket)) {
            self.shares.release(before);
        }
    }

    /// Removes and returns a hit that cannot wait any longer, because its actor has too many.
    pub(super) fn surplus(&mut self, actor: &Actor) -> Option<(usize, Hit)> {
        let place = self.shares.surplus(actor)?;
        let (hit, _) = self.hits.remove(&place)?;
        self.released_early += 1;
        Some((place.1, hit))
    }

    /// Removes and returns the earliest hit, if it is not after `until`.
    pub(super) fn next(&mut self, until: Timestamp) -> Option<(usize, Hit)> {
        let first = self.hits.first_entry().filter(|first| first.key().0.time <= until)?;
        let ((_, rule), (hit, ticket)) = first.remove_entry();
        self.shares.release(ticket);
        Some((rule, hit))
    }

    /// All of them, with their rules.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Hit)> {
        self.hits.iter().map(|((_, rule), (hit, _))| (*rule, hit))
    }

    /// How many were evaluated early.
    pub(super) fn released_early(&self) -> u64 {
        self.released_early
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.shares.used()
    }
}

//! Events that must be missing (`![…]`), by key and stage, in order.

use std::collections::VecDeque;

use super::cost;
use crate::detect::Ordinal;
use crate::detect::actor::{Actor, Charge};
use crate::detect::hash::{Quickly, Table};
use crate::detect::key::JoinKey;
use crate::detect::window::Window;
use crate::event::{Timestamp, allocated};

/// The key, the stage and the position of an event.
type Place = ((JoinKey, usize), Ordinal);

/// Bytes of an event without its key: its entry in the window, and its place in the list of its key.
const ENTRY_BYTES: usize = Held::ENTRY_BYTES
    + (size_of::<((JoinKey, usize), VecDeque<Ordinal>)>()) * 3 / 2
    + allocated(4 * size_of::<Ordinal>());

type Held = Window<Place, (), Quickly>;

/// The events that occurred although they must be missing.
#[derive(Debug)]
pub(super) struct Missing {
    /// In ascending order.
    seen: Table<(JoinKey, usize), VecDeque<Ordinal>>,
    /// Each at its time.
    held: Held,
}

impl Missing {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { seen: Table::default(), held: Window::new(bytes_max) }
    }

    /// Adds an event. Returns the positions of the evicted ones.
    pub(super) fn remember(
        &mut self,
        key: JoinKey,
        stage: usize,
        ordinal: Ordinal,
        actor: Actor,
    ) -> Vec<Ordinal> {
        let charge = Charge { actor, bytes: ENTRY_BYTES + cost(&key) };
        let place = (key, stage);
        let seen = self.seen.entry(place.clone()).or_default();
        // Nearly always the end: only late events are inserted before others.
        seen.insert(seen.partition_point(|before| *before <= ordinal), ordinal);
        let gone = self.held.insert((place, ordinal), ordinal.time, charge, ());
        gone.into_iter().map(|((place, ordinal), ())| self.drop(&place, ordinal)).collect()
    }

    /// Whether in one of the stages the first event that is not `early` is wanted.
    pub(super) fn any(
        &self,
        key: &JoinKey,
        mut stages: std::ops::Range<usize>,
        early: impl Fn(&Ordinal) -> bool,
        wanted: impl Fn(Ordinal) -> bool,
    ) -> bool {
        stages.any(|stage| {
            let seen = self.seen.get(&(key.clone(), stage));
            let first = seen.and_then(|seen| seen.get(seen.partition_point(&early)));
            first.is_some_and(|first| wanted(*first))
        })
    }

    pub(super) fn forget(&mut self, before: Timestamp) {
        for ((place, ordinal), _) in self.held.expire(before) {
            self.drop(&place, ordinal);
        }
    }

    /// Evicts an event of the actor that holds most.
    pub(super) fn give_way(&mut self) -> Option<Ordinal> {
        let ((place, ordinal), _) = self.held.give_way()?;
        Some(self.drop(&place, ordinal))
    }

    fn drop(&mut self, place: &(JoinKey, usize), ordinal: Ordinal) -> Ordinal {
        if let Some(seen) = self.seen.get_mut(place) {
            if let Ok(index) = seen.binary_search(&ordinal) {
                seen.remove(index);
            }
            if seen.is_empty() {
                self.seen.remove(place);
            }
        }
        ordinal
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> Vec<&Place> {
        let mut all: Vec<_> = self.held.iter().map(|(place, _)| place).collect();
        all.sort_unstable_by_key(|(place, ordinal)| (*ordinal, place));
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.held.bytes()
    }

    pub(super) fn discarded(&self) -> u64 {
        self.held.discarded()
    }
}

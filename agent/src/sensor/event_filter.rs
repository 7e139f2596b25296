//! What no rule can match: the filter in the kernel's map, and the events that are not built. It is lifted while a
//! subscriber gets the events.

use aya::Pod;
use aya::maps::{Array, MapData};
use lapwing_common::{Filter, Kind, Reach, SLOTS};

use super::decode::Unmatchable;

/// [`Filter`] as it is in the kernel's map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PodFilter(pub(super) Filter);

const _: () = assert!(size_of::<PodFilter>() == 4 * SLOTS);
// SAFETY: an array of numbers, without padding, as was just asserted.
#[expect(unsafe_code, reason = "aya reads and writes this type as bytes")]
unsafe impl Pod for PodFilter {}

/// All events are built.
const NONE: Unmatchable = [false; size_of::<Unmatchable>()];

/// What is filtered now, and what the rules allow to filter.
pub(super) struct EventFilter {
    map: Array<MapData, PodFilter>,
    now: Filter,
    by_rules: Filter,
    unmatchable: Unmatchable,
    /// Whether a subscriber gets the events.
    is_watched: bool,
}

impl EventFilter {
    /// Filters nothing at first.
    pub(super) fn new(map: Array<MapData, PodFilter>) -> Self {
        Self { map, now: Filter::NONE, by_rules: Filter::NONE, unmatchable: NONE, is_watched: false }
    }

    /// What the kernel filters now.
    pub(super) fn now(&self) -> &Filter {
        &self.now
    }

    /// The rows of events that are not built now.
    pub(super) fn unmatchable(&self) -> Unmatchable {
        if self.is_watched { NONE } else { self.unmatchable }
    }

    /// From now on filters what no rule can match, unless a subscriber gets the events.
    pub(super) fn set(&mut self, by_rules: Filter, unmatchable: Unmatchable) {
        (self.by_rules, self.unmatchable) = (by_rules, unmatchable);
        self.apply();
    }

    /// Filters nothing while a subscriber gets the events. Returns whether the kernel's filter changed.
    pub(super) fn watch(&mut self, is_watched: bool) -> bool {
        self.is_watched = is_watched;
        self.apply()
    }

    fn apply(&mut self) -> bool {
        let wanted = if self.is_watched { Filter::NONE } else { self.by_rules };
        if wanted.dropped == self.now.dropped {
            return false;
        }
        match self.map.set(0, PodFilter(wanted), 0) {
            Ok(()) => self.now = wanted,
            // Rules miss nothing: what they need passes before and after.
            Err(error) => tracing::warn!("cannot update the kernel filter: {error}"),
        }
        true
    }

    /// Compares the kernel's filter with what was set, and restores it. Returns both in words, or `None` if they are
    /// equal.
    pub(super) fn verify(&mut self) -> Option<String> {
        let PodFilter(found) = self.map.get(&0, 0).ok()?;
        if found.dropped == self.now.dropped {
            return None;
        }
        let words = |filter: &Filter| filter.dropped.map(|word| format!("{word:x}")).join(" ");
        let text = format!("{} instead of {}", words(&found), words(&self.now));
        if let Err(error) = self.map.set(0, PodFilter(self.now), 0) {
            return Some(format!("{text}, and it cannot be restored: {error}"));
        }
        Some(text)
    }

    /// The classes for which records of this kind are filtered, by name.
    pub(super) fn dropped(&self, kind: Kind) -> Vec<&'static str> {
        names(&self.now, kind)
    }
}

/// The classes for which records of a kind are filtered, by name.
pub(crate) fn names(filter: &Filter, kind: Kind) -> Vec<&'static str> {
    let classes = Reach::ALL.into_iter().filter(|reach| filter.drops(kind, reach.bit()));
    classes.map(Reach::name).collect()
}

//! The filter in the kernel's map. It is lifted while a subscriber gets the events.

use aya::Pod;
use aya::maps::{Array, MapData};
use lapwing_common::{Filter, Kind, Reach, SLOTS};

/// [`Filter`] as it lies in the kernel's map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PodFilter(pub(super) Filter);

const _: () = assert!(size_of::<PodFilter>() == 4 * SLOTS);
// SAFETY: an array of numbers, without padding, as was just asserted.
#[expect(unsafe_code, reason = "aya reads and writes this type as bytes")]
unsafe impl Pod for PodFilter {}

/// What the kernel leaves out now, and what it would by the rules.
pub(super) struct KernelFilter {
    map: Array<MapData, PodFilter>,
    now: Filter,
    by_rules: Filter,
}

impl KernelFilter {
    /// Nothing is left out at first.
    pub(super) fn new(map: Array<MapData, PodFilter>) -> Self {
        Self { map, now: Filter::NONE, by_rules: Filter::NONE }
    }

    /// What is left out now.
    pub(super) fn now(&self) -> &Filter {
        &self.now
    }

    /// From now on filters what no rule can match, unless a subscriber gets the events.
    pub(super) fn set(&mut self, by_rules: Filter, is_watched: bool) {
        self.by_rules = by_rules;
        self.watch(is_watched);
    }

    /// Filters nothing while a subscriber gets the events. Returns whether the filter changed.
    pub(super) fn watch(&mut self, is_watched: bool) -> bool {
        let wanted = if is_watched { Filter::NONE } else { self.by_rules };
        if wanted.dropped == self.now.dropped {
            return false;
        }
        match self.map.set(0, PodFilter(wanted), 0) {
            Ok(()) => self.now = wanted,
            // Rules miss nothing by that: what they ask for is let through before and after.
            Err(error) => tracing::warn!("cannot update the kernel filter: {error}"),
        }
        true
    }

    /// Whether the kernel leaves out what it should. Where it does not, it is set right. Returns the classes, of any kind, that
    /// it left out beside those; `None` where all is well.
    pub(super) fn verify(&mut self) -> Option<String> {
        let PodFilter(found) = self.map.get(&0, 0).ok()?;
        if found.dropped == self.now.dropped {
            return None;
        }
        let words = |filter: &Filter| filter.dropped.map(|word| format!("{word:x}")).join(" ");
        let text = format!("{} instead of {}", words(&found), words(&self.now));
        if let Err(error) = self.map.set(0, PodFilter(self.now), 0) {
            return Some(format!("{text}, and it cannot be set right: {error}"));
        }
        Some(text)
    }

    /// The classes that records of this kind are left out for, by name.
    pub(super) fn dropped(&self, kind: Kind) -> Vec<&'static str> {
        names(&self.now, kind)
    }
}

/// The classes that records of a kind are left out for, by name.
pub(crate) fn names(filter: &Filter, kind: Kind) -> Vec<&'static str> {
    let classes = Reach::ALL.into_iter().filter(|reach| filter.drops(kind, reach.bit()));
    classes.map(Reach::name).collect()
}

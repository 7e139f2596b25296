//! The matcher's results for the current event, and for lists of fields that many events share.
//!
//! The positions of the queried fields in an event are computed once. The tests that a field passes are computed at its
//! first use, for all of the field's tests at once. For a list that events share, both are kept: a process that makes a
//! hundred connections is evaluated once. A list is identified by its address. The weak reference that is kept here
//! prevents that another list gets this address, and that the list changes. A new list mostly has the same fields as an
//! earlier one, so the positions are also kept by the set of fields.

use std::sync::{Arc, Weak};

use super::compile::{Fact, Program, compute};
use super::field::Scratch;
use super::marks::has;
use super::recent::Recent;
use crate::detect::hash::mix;
use crate::event::{Event, FieldId, Fields};

/// Maximum number of shared lists with kept results; a power of two. On most hosts further lists are not used again
/// soon, and the results should fit into the processor's caches.
const LISTS_MAX: usize = 512;
/// Maximum number of sets of fields with kept positions; a power of two.
const KINDS_MAX: usize = 32;
/// The tests are not evaluated yet.
const UNKNOWN: u32 = u32::MAX;

/// The kept results; see the module.
pub(super) struct Memory {
    /// The number of the current event. Entries with another number are of an earlier event.
    now: u32,
    /// The position of each slot's field.
    places: Vec<Place>,
    /// The results for lists: the kept ones, then the event's own list, then shared lists of this event that found no
    /// room.
    lists: Vec<Known>,
    kinds: Vec<Kind>,
    /// Recent values of each slot's field.
    recent: Vec<Recent>,
    /// Results of computed conditions, each with the number of its event.
    computed: Vec<(u32, bool)>,
    scratch: Scratch,
}

#[derive(Clone, Copy, Default)]
struct Place {
    now: u32,
    list: u32,
    entry: u32,
    /// The index of the event's list: zero is its own.
    layer: u32,
}

/// The results for a list of fields.
struct Known {
    fields: Weak<Fields>,
    /// The number of the last event that used it.
    now: u32,
    /// The slots of its fields. They are in a vector of their own because every event with this list reads them.
    slots: Vec<u16>,
    entries: Vec<Entry>,
    /// The sets of tests that fields pass.
    facts: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Entry {
    /// The field's position in the list.
    position: u16,
    /// The start of its set in `facts`.
    facts: u32,
}

impl Memory {
    /// A memory without results.
    pub(super) fn new(program: &Program) -> Self {
        Self {
            now: 0,
            places: vec![Place::default(); program.fields.len()],
            lists: (0..LISTS_MAX + 1).map(|_| Known::new()).collect(),
            kinds: vec![Kind::default(); KINDS_MAX],
            recent: program.fields.iter().map(|_| Recent::default()).collect(),
            computed: vec![(0, false); program.computed.len()],
            scratch: Scratch::default(),
        }
    }

    /// The number of the current event, never zero.
    pub(super) fn now(&self) -> u32 {
        self.now
    }

    /// Begins the evaluation of an event. Returns whether the numbers have restarted, so that stored numbers are
    /// invalid.
    pub(super) fn begin_event(&mut self, program: &Program, event: &Event) -> bool {
        let restarted = self.now == u32::MAX;
        if restarted {
            *self = Self::new(program);
        }
        self.now += 1;
        let (own, shared) = event.layers();
        self.lists[LISTS_MAX].read(Kind::of(&mut self.kinds, program, own));
        self.place(LISTS_MAX, 0);
        let mut spare = LISTS_MAX + 1;
        for (layer, fields) in (1..).zip(shared) {
            let list = self.find(program, fields, &mut spare);
            self.place(list, layer);
        }
        restarted
    }

    /// Returns the index of a shared list's results, which are kept in one of two places.
    fn find(&mut self, program: &Program, fields: &Arc<Fields>, spare: &mut usize) -> usize {
        let address = Arc::as_ptr(fields);
        let first = mix(0, address as usize as u64) as usize % LISTS_MAX;
        let second = first ^ 1;
        for place in [first, second] {
            if std::ptr::eq(self.lists[place].fields.as_ptr(), address) {
                self.lists[place].now = self.now;
                return place;
            }
        }
        let older = if self.lists[first].now <= self.lists[second].now { first } else { second };
        let place = if self.lists[older].now < self.now {
            older
        } else {
            // Both places hold lists of this event.
            *spare += 1;
            if self.lists.len() < *spare {
                self.lists.push(Known::new());
            }
            *spare - 1
        };
        let known = &mut self.lists[place];
        known.read(Kind::of(&mut self.kinds, program, fields));
        known.fields = Arc::downgrade(fields);
        known.now = self.now;
        place
    }

    /// Records the position of each field of the list, unless a previous list had the field.
    fn place(&mut self, list: usize, layer: u32) {
        for (entry, slot) in (0..).zip(&self.lists[list].slots) {
            let place = &mut self.places[usize::from(*slot)];
            if place.now != self.now {
                *place = Place { now: self.now, list: list as u32, entry, layer };
            }
        }
    }

    /// Whether a field passes a test.
    pub(super) fn holds(&mut self, program: &Program, event: &Event, fact: Fact) -> bool {
        self.facts(program, event, fact.slot).is_some_and(|facts| has(facts, fact.test))
    }

    /// The tests that a field passes; `None` if the field is absent.
    pub(super) fn facts(&mut self, program: &Program, event: &Event, slot: u16) -> Option<&[u64]> {
        let place = self.places[usize::from(slot)];
        if place.now != self.now {
            return None;
        }
        let tests = &program.fields[usize::from(slot)];
        let known = &mut self.lists[place.list as usize];
        let entry = &mut known.entries[place.entry as usize];
        if entry.facts == UNKNOWN {
            let start = known.facts.len();
            known.facts.resize(start + tests.words, 0);
            entry.facts = start as u32;
            let (own, shared) = event.layers();
            let fields = place.layer.checked_sub(1).map_or(own, |layer| &*shared[layer as usize]);
            let value = fields.value_at(usize::from(entry.position));
            let recent = &mut self.recent[usize::from(slot)];
            recent.evaluate(tests, value, &mut known.facts[start..], &mut self.scratch);
        }
        Some(&known.facts[entry.facts as usize..][..tests.words])
    }

    /// Whether a computed condition holds.
    pub(super) fn computed(&mut self, program: &Program, event: &Event, number: u32) -> bool {
        let answer = &mut self.computed[number as usize];
        if answer.0 != self.now {
            *answer = (self.now, compute(&program.computed[number as usize], event));
        }
        answer.1
    }
}

impl Known {
    fn new() -> Self {
        Self { fields: Weak::new(), now: 0, slots: Vec::new(), entries: Vec::new(), facts: Vec::new() }
    }

    /// Resets the results for a list of this kind.
    fn read(&mut self, kind: &Kind) {
        self.slots.clone_from(&kind.slots);
        self.entries.clone_from(&kind.entries);
        self.facts.clear();
    }
}

/// A set of fields, with the positions of the queried ones.
#[derive(Clone, Default)]
struct Kind {
    ids: Vec<FieldId>,
    /// The slots of the queried fields.
    slots: Vec<u16>,
    entries: Vec<Entry>,
}

impl Kind {
    /// The kind of a list. A new kind replaces another one.
    fn of<'a>(kinds: &'a mut [Self], program: &Program, fields: &Fields) -> &'a Self {
        let ids = fields.ids();
        let middle = ids.get(ids.len() / 2).map_or(0, |id| id.index() as u64);
        let kind = &mut kinds[mix(ids.len() as u64, middle) as usize % KINDS_MAX];
        if kind.ids != ids {
            kind.ids.clear();
            kind.ids.extend_from_slice(ids);
            kind.find(program);
        }
        kind
    }

    /// Computes the positions of the queried fields.
    fn find(&mut self, program: &Program) {
        self.slots.clear();
        self.entries.clear();
        for (position, field) in self.ids.iter().enumerate() {
            if let Some(slot) = program.slot(*field) {
                self.slots.push(slot);
                self.entries.push(Entry { position: position as u16, facts: UNKNOWN });
            }
        }
    }
}

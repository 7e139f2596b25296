//! What is known about the event that is looked at, and about lists of fields that many events share.
//!
//! Where an event has the fields of queries is found once. Which tests a field passes is found at its first use, for all
//! of the field's tests at once. For a list that events share, both are kept: a process that makes a hundred
//! connections is evaluated once. A list is identified by its address, which no other list can get while the weak
//! reference kept here lives; it can not change either while there is one. Of a list that is new, the fields are mostly those of
//! one before: where these are is kept too.

use std::sync::{Arc, Weak};

use super::compile::{Fact, Program, compute};
use super::field::Scratch;
use super::marks::has;
use super::recent::Recent;
use crate::detect::hash::mix;
use crate::event::{Event, FieldId, Fields};

/// Most shared lists about which something is kept; a power of two. More than these are not looked at again soon on most
/// hosts, and what is known about them should lie in the processor's caches.
const LISTS_MAX: usize = 512;
/// Most kinds of lists, by their fields, of which it is kept where these are; a power of two.
const KINDS_MAX: usize = 32;
/// Tests not made yet.
const UNKNOWN: u32 = u32::MAX;

/// See the module.
pub(super) struct Memory {
    /// Which event it is; what carries another number is from before.
    now: u32,
    /// Where each slot's field is.
    places: Vec<Place>,
    /// What is known about lists: those kept, then those of this event that found no room, then the event's own.
    lists: Vec<Known>,
    kinds: Vec<RuleKind>,
    /// Values of each slot's field.
    recent: Vec<Recent>,
    /// Answers to what is computed.
    computed: Vec<(u32, bool)>,
    scratch: Scratch,
}

#[derive(Clone, Copy, Default)]
struct Place {
    now: u32,
    list: u32,
    entry: u32,
    /// Which of the event's lists it is: zero is its own.
    layer: u32,
}

/// What is known about a list of fields.
struct Known {
    fields: Weak<Fields>,
    /// When it was looked at last.
    now: u32,
    /// The slots of its fields, apart from the rest because every event that has the list reads them.
    slots: Vec<u16>,
    entries: Vec<Entry>,
    /// The sets of tests that fields pass.
    facts: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Entry {
    /// Where the field stands in the list.
    position: u16,
    /// Where in `facts` its set begins.
    facts: u32,
}

impl Memory {
    /// Nothing is known.
    pub(super) fn new(program: &Program) -> Self {
        Self {
            now: 0,
            places: vec![Place::default(); program.fields.len()],
            lists: (0..LISTS_MAX + 1).map(|_| Known::new()).collect(),
            kinds: vec![RuleKind::default(); KINDS_MAX],
            recent: program.fields.iter().map(|_| Recent::default()).collect(),
            computed: vec![(0, false); program.computed.len()],
            scratch: Scratch::default(),
        }
    }

    /// The number of the event that is looked at, never zero.
    pub(super) fn now(&self) -> u32 {
        self.now
    }

    /// Turns to an event. Returns whether the numbers have begun anew, so that kept ones mean nothing.
    pub(super) fn begin_event(&mut self, program: &Program, event: &Event) -> bool {
        let anew = self.now == u32::MAX;
        if anew {
            *self = Self::new(program);
        }
        self.now += 1;
        let (own, shared) = event.layers();
        self.lists[LISTS_MAX].read(RuleKind::of(&mut self.kinds, program, own));
        self.place(LISTS_MAX, 0);
        let mut spare = LISTS_MAX + 1;
        for (layer, fields) in (1..).zip(shared) {
            let list = self.find(program, fields, &mut spare);
            self.place(list, layer);
        }
        anew
    }

    /// Finds a shared list among those kept, or keeps it, in one of two places.
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
            // Both are lists of this very event.
            *spare += 1;
            if self.lists.len() < *spare {
                self.lists.push(Known::new());
            }
            *spare - 1
        };
        let known = &mut self.lists[place];
        known.read(RuleKind::of(&mut self.kinds, program, fields));
        known.fields = Arc::downgrade(fields);
        known.now = self.now;
        place
    }

    /// Says of each field of the list that it is there, unless a list before had it.
    fn place(&mut self, list: usize, layer: u32) {
        for (entry, slot) in (0..).zip(&self.lists[list].slots) {
            let place = &mut self.places[usize::from(*slot)];
            if place.now != self.now {
                *place = Place { now: self.now, list: list as u32, entry, layer };
            }
        }
    }

    /// Whether a test is passed.
    pub(super) fn holds(&mut self, program: &Program, event: &Event, fact: Fact) -> bool {
        self.facts(program, event, fact.slot).is_some_and(|facts| has(facts, fact.test))
    }

    /// The tests that a field passes; `None` where it is absent and passes none.
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

    /// Turns to a list of this kind.
    fn read(&mut self, kind: &RuleKind) {
        self.slots.clone_from(&kind.slots);
        self.entries.clone_from(&kind.entries);
        self.facts.clear();
    }
}

/// Lists that have the same fields.
#[derive(Clone, Default)]
struct RuleKind {
    ids: Vec<FieldId>,
    /// Where those are that queries ask about.
    slots: Vec<u16>,
    entries: Vec<Entry>,
}

impl RuleKind {
    /// The kind of a list, which takes the place of another where it is new.
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

    /// Finds the fields that queries ask about.
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

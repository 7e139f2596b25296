//! Classes of events. The discriminating fields of all events of a class pass the same tests. For each class the
//! queries are reduced once to their conditions on the other fields. Most queries cannot match and are removed. The
//! remaining ones are found by a test that they require.

use super::compile::{Fact, Node, Program};
use super::marks::{Marks, has};
use super::memory::Memory;
use crate::detect::hash::Table;
use crate::event::Event;

/// Maximum number of classes. Beyond it all are dropped, and built again when needed.
const CLASSES_MAX: usize = 1024;

/// The classes of the events so far.
#[derive(Default)]
pub(super) struct Classes {
    classes: Vec<Class>,
    /// The index of a class, by the tests of discriminating fields that its events pass.
    places: Table<Box<[u64]>, usize>,
    /// The tests of discriminating fields that this event passes.
    key: Vec<u64>,
}

impl Classes {
    /// The class of an event, built for its first event.
    pub(super) fn find(&mut self, program: &Program, memory: &mut Memory, event: &Event) -> &Class {
        self.key.clear();
        for &slot in &program.discriminating {
            match memory.facts(program, event, slot) {
                Some(facts) => self.key.extend_from_slice(facts),
                None => {
                    let words = program.fields[usize::from(slot)].words;
                    self.key.resize(self.key.len() + words, 0);
                }
            }
        }
        let place = match self.places.get(self.key.as_slice()) {
            Some(place) => *place,
            None => {
                if self.classes.len() == CLASSES_MAX {
                    self.classes.clear();
                    self.places.clear();
                }
                self.places.insert(self.key.as_slice().into(), self.classes.len());
                self.classes.push(Class::new(program, &self.key));
                self.classes.len() - 1
            }
        };
        &self.classes[place]
    }
}

/// The queries that events of a class may match.
pub(super) struct Class {
    /// The queries that all its events match.
    pub(super) always: Vec<u32>,
    /// The queries without a required test. They are always evaluated.
    pub(super) unguarded: Vec<Candidate>,
    /// The fields whose tests find the other queries.
    pub(super) guards: Vec<Guard>,
    pub(super) guarded: Vec<Candidate>,
}

/// A query, with its reduced condition.
pub(super) struct Candidate {
    pub(super) query: u32,
    pub(super) node: Node,
}

/// The tests of a field by which queries are found.
pub(super) struct Guard {
    pub(super) slot: u16,
    marks: Marks,
    /// The start of each test's queries in `found`, and the end of the last.
    starts: Vec<u32>,
    /// Indices in `guarded`.
    found: Vec<u32>,
}

impl Class {
    /// The class of events that pass the tests `facts` of the discriminating fields: the sets of the fields one after
    /// the other.
    pub(super) fn new(program: &Program, facts: &[u64]) -> Self {
        let mut starts = vec![None; program.fields.len()];
        let mut start = 0;
        for slot in program.discriminating.iter().copied().map(usize::from) {
            starts[slot] = Some(start);
            start += program.fields[slot].words;
        }
        let known = |fact: Fact| starts[usize::from(fact.slot)].map(|start| has(&facts[start..], fact.test));
        let mut class =
            Self { always: Vec::new(), unguarded: Vec::new(), guards: Vec::new(), guarded: Vec::new() };
        let mut filed: Vec<(Fact, u32)> = Vec::new();
        for (query, node) in (0..).zip(&program.queries) {
            let mut node = node.given(&known, true);
            sort(program, &mut node);
            match (guard(program, &node), &node) {
                (_, Node::Always(false)) => {}
                (_, Node::Always(true)) => class.always.push(query),
                (None, _) => class.unguarded.push(Candidate { query, node }),
                (Some((_, facts)), _) => {
                    let place = class.guarded.len() as u32;
                    filed.extend(facts.into_iter().map(|fact| (fact, place)));
                    class.guarded.push(Candidate { query, node });
                }
            }
        }
        filed.sort_unstable_by_key(|(fact, place)| (fact.slot, fact.test, *place));
        filed.dedup();
        class.guards = filed
            .chunk_by(|(left, _), (right, _)| left.slot == right.slot)
            .map(|filed| Guard::new(program, filed))
            .collect();
        class
    }
}

impl Guard {
    fn new(program: &Program, filed: &[(Fact, u32)]) -> Self {
        let slot = filed[0].0.slot;
        let tests: Vec<_> = filed.iter().map(|(fact, _)| fact.test).collect();
        let count = program.weights[usize::from(slot)].len() as u32;
        Self {
            slot,
            starts: (0..=count).map(|test| tests.partition_point(|other| *other < test) as u32).collect(),
            found: filed.iter().map(|(_, place)| *place).collect(),
            marks: Marks::new(&tests),
        }
    }

    /// The guard's tests that are among these passed tests.
    pub(super) fn passed(&self, facts: &[u64]) -> impl Iterator<Item = usize> {
        self.marks.words().flat_map(|(word, marks)| {
            let mut passed = facts[word] & marks;
            std::iter::from_fn(move || {
                let bit = passed.trailing_zeros() as usize;
                passed &= passed.wrapping_sub(1);
                (bit < 64).then_some(word * 64 + bit)
            })
        })
    }

    /// The indices of the queries that a passed test finds.
    pub(super) fn found(&self, test: usize) -> &[u32] {
        &self.found[self.starts[test] as usize..self.starts[test + 1] as usize]
    }
}

/// The rarest tests of which at least one must be passed if the condition holds, with the sum of their weights; `None`
/// if there are none.
fn guard(program: &Program, node: &Node) -> Option<(u32, Vec<Fact>)> {
    match node {
        Node::Fact(fact) => Some((program.weight(node), vec![*fact])),
        Node::FirstOf(facts) => Some((program.weight(node), facts.to_vec())),
        Node::All(parts) => {
            parts.iter().filter_map(|part| guard(program, part)).min_by_key(|(weight, _)| *weight)
        }
        Node::Any(parts) => parts.iter().try_fold((0u32, Vec::new()), |(sum, mut facts), part| {
            let (weight, more) = guard(program, part)?;
            facts.extend(more);
            Some((sum.saturating_add(weight), facts))
        }),
        Node::Always(_) | Node::Computed(_) | Node::Not(_) => None,
    }
}

/// Sorts parts by how likely they decide: in `All` the rarest first, in `Any` the most frequent first, computed ones
/// last.
fn sort(program: &Program, node: &mut Node) {
    let computed = |node: &Node| matches!(node, Node::Computed(_));
    match node {
        Node::All(parts) => {
            parts.iter_mut().for_each(|part| sort(program, part));
            parts.sort_by_key(|part| (computed(part), program.weight(part)));
        }
        Node::Any(parts) => {
            parts.iter_mut().for_each(|part| sort(program, part));
            parts.sort_by_key(|part| (computed(part), std::cmp::Reverse(program.weight(part))));
        }
        Node::Not(inner) => sort(program, inner),
        Node::Always(_) | Node::Fact(_) | Node::FirstOf(_) | Node::Computed(_) => {}
    }
}

//! Many event queries, compiled to be evaluated together for many events.
//!
//! A query is a tree of tests of fields. A test that several queries share is stored once, and is evaluated once for an
//! event, together with all other tests of its field. A few discriminating fields, such as the action, determine the
//! class of an event. For each class the queries are simplified. A passed test leads to the queries that require it,
//! and only these are evaluated. See the modules below for each step. The results are those of the
//! [reference](super::naive).

mod affix;
mod class;
mod compile;
mod field;
mod marks;
mod memory;
mod networks;
mod outcome;
mod recent;

use std::fmt;

use self::class::Classes;
use self::compile::{Node, Program};
use self::marks::has;
use self::memory::Memory;
use crate::event::Event;
use crate::lang::query::EventQuery;

/// Event queries, compiled to find those that an event matches.
pub struct Matcher {
    program: Program,
    memory: Memory,
    classes: Classes,
    /// The number of the last event for which each query was evaluated, so that it is evaluated once per event.
    seen: Vec<u32>,
    /// The passed tests of this event by which queries are found, each with its guard's index.
    passed: Vec<(usize, usize)>,
    matching: Vec<u32>,
}

impl Matcher {
    /// Compiles queries.
    #[must_use]
    pub fn new<'a>(queries: impl IntoIterator<Item = &'a EventQuery>) -> Self {
        let program = Program::new(queries);
        Self {
            memory: Memory::new(&program),
            classes: Classes::default(),
            seen: vec![0; program.queries.len()],
            passed: Vec::new(),
            matching: Vec::new(),
            program,
        }
    }

    /// The indices of the queries that the event matches, ascending.
    pub fn matching(&mut self, event: &Event) -> &[u32] {
        let Self { program, memory, classes, seen, passed, matching } = self;
        matching.clear();
        if memory.begin_event(program, event) {
            seen.fill(0);
        }
        let class = classes.find(program, memory, event);
        let mut asking = Asking { program, memory, event };
        matching.extend(&class.always);
        for candidate in &class.unguarded {
            if asking.holds(&candidate.node) {
                matching.push(candidate.query);
            }
        }
        passed.clear();
        for (guard, place) in class.guards.iter().zip(0..) {
            if let Some(facts) = asking.memory.facts(program, event, guard.slot) {
                passed.extend(guard.passed(facts).map(|test| (place, test)));
            }
        }
        let now = asking.memory.now();
        for &(guard, test) in passed.iter() {
            for &place in class.guards[guard].found(test) {
                let candidate = &class.guarded[place as usize];
                let seen = &mut seen[candidate.query as usize];
                if std::mem::replace(seen, now) != now && asking.holds(&candidate.node) {
                    matching.push(candidate.query);
                }
            }
        }
        matching.sort_unstable();
        matching
    }

    /// Whether the event matches at least one of the queries.
    pub fn matches(&mut self, event: &Event) -> bool {
        !self.matching(event).is_empty()
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher").field("queries", &self.program.queries.len()).finish_non_exhaustive()
    }
}

/// An event that is being evaluated.
struct Asking<'a> {
    program: &'a Program,
    memory: &'a mut Memory,
    event: &'a Event,
}

impl Asking<'_> {
    fn holds(&mut self, node: &Node) -> bool {
        match node {
            Node::Always(truth) => *truth,
            Node::Fact(fact) => self.memory.holds(self.program, self.event, *fact),
            Node::FirstOf([first, second]) => match self.memory.facts(self.program, self.event, first.slot) {
                Some(facts) => has(facts, first.test),
                None => self.memory.holds(self.program, self.event, *second),
            },
            Node::Computed(number) => self.memory.computed(self.program, self.event, *number),
            Node::Not(inner) => !self.holds(inner),
            Node::All(parts) => parts.iter().all(|part| self.holds(part)),
            Node::Any(parts) => parts.iter().any(|part| self.holds(part)),
        }
    }
}

//! The index of all event queries: finds the rules that an event matches, with the matching event queries.

use crate::detect::{Matcher, naive};
use crate::event::Event;
use crate::lang::EventQuery;

/// All event queries of all rules.
pub(super) struct Index {
    /// The rule of each query, and the query's place in the rule.
    listeners: Vec<(usize, usize)>,
    queries: Queries,
    matching: Vec<u32>,
}

/// The queries that are evaluated for an event.
enum Queries {
    Compiled(Box<Matcher>),
    /// The queries, evaluated one by one by the reference.
    Naive(Vec<EventQuery>),
}

impl Index {
    /// An index of the rules' event queries, compiled together.
    pub(super) fn new(rules: &[Vec<&EventQuery>]) -> Self {
        let queries = rules.iter().flatten().copied();
        Self::over(rules, Queries::Compiled(Box::new(Matcher::new(queries))))
    }

    /// An index without compilation: every query is evaluated for every event.
    pub(super) fn naive(rules: &[Vec<&EventQuery>]) -> Self {
        let queries = rules.iter().flatten().copied().cloned();
        Self::over(rules, Queries::Naive(queries.collect()))
    }

    fn over(rules: &[Vec<&EventQuery>], queries: Queries) -> Self {
        let parts = rules.iter().enumerate().map(|(rule, queries)| (rule, queries.len()));
        let listeners = parts.flat_map(|(rule, parts)| (0..parts).map(move |part| (rule, part))).collect();
        Self { listeners, queries, matching: Vec::new() }
    }

    /// Evaluates the queries for an event; [`next`](Self::next) returns the matches.
    pub(super) fn look(&mut self, event: &Event) {
        self.matching.clear();
        match &mut self.queries {
            Queries::Compiled(matcher) => self.matching.extend(matcher.matching(event).iter().rev()),
            Queries::Naive(queries) => {
                let numbered = (0..).zip(queries.iter());
                let matching = numbered.filter(|(_, query)| naive::matches(query, event));
                self.matching.extend(matching.map(|(number, _)| number));
                self.matching.reverse();
            }
        }
    }

    /// The next rule that the event matches, in order. `parts` gets the matching parts of the rule.
    pub(super) fn next(&mut self, parts: &mut Vec<usize>) -> Option<usize> {
        let (rule, part) = self.listeners[self.matching.pop()? as usize];
        parts.clear();
        parts.push(part);
        while let Some(more) = self.matching.pop_if(|query| self.listeners[*query as usize].0 == rule) {
            parts.push(self.listeners[more as usize].1);
        }
        Some(rule)
    }
}

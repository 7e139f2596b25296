//! Which event queries an event can match at all, so that most are never asked.

use std::collections::HashMap;

use smol_str::SmolStr;

use crate::detect::{Matcher, naive};
use crate::event::{Event, FieldId};
use crate::lang::EventQuery;

/// All event queries of all rules, by what an event must have to match them.
pub(super) struct Index {
    listeners: Vec<Listener>,
    /// The fields that listeners are found by.
    fields: Vec<FieldId>,
    by_value: HashMap<(FieldId, SmolStr), Vec<usize>>,
    /// Listeners that any event may match.
    always: Vec<usize>,
}

struct Listener {
    rule: usize,
    part: usize,
    asked: Asked,
}

/// What is asked about an event.
enum Asked {
    Compiled(Matcher),
    /// The query as it stands, as the reference.
    Naive(EventQuery),
}

impl Index {
    /// An index of the rules' event queries; an event query is known by its rule and its place in the rule.
    pub(super) fn new<'a>(rules: impl Iterator<Item = Vec<&'a EventQuery>>) -> Self {
        Self::of(rules, |query| Asked::Compiled(Matcher::new(query)))
    }

    /// The same without an index: every query is asked about every event, as it stands.
    pub(super) fn naive<'a>(rules: impl Iterator<Item = Vec<&'a EventQuery>>) -> Self {
        Self::of(rules, |query| Asked::Naive(query.clone()))
    }

    fn of<'a>(
        rules: impl Iterator<Item = Vec<&'a EventQuery>>,
        asked: impl Fn(&EventQuery) -> Asked,
    ) -> Self {
        let mut index =
            Self { listeners: Vec::new(), fields: Vec::new(), by_value: HashMap::new(), always: Vec::new() };
        for (rule, queries) in rules.enumerate() {
            for (part, query) in queries.into_iter().enumerate() {
                index.insert(Listener { rule, part, asked: asked(query) });
            }
        }
        index
    }

    fn insert(&mut self, listener: Listener) {
        let place = self.listeners.len();
        match listener.asked.keys() {
            None => self.always.push(place),
            Some((field, values)) => {
                if !self.fields.contains(&field) {
                    self.fields.push(field);
                }
                for value in values {
                    self.by_value.entry((field, value.clone())).or_default().push(place);
                }
            }
        }
        self.listeners.push(listener);
    }

    /// The rules that the event matches, each with the parts of it, in order.
    pub(super) fn matching(&self, event: &Event) -> Vec<(usize, Vec<usize>)> {
        let mut candidates = self.always.clone();
        for &field in &self.fields {
            for value in event.values(field) {
                if let Some(text) = value.as_text()
                    && let Some(places) = self.by_value.get(&(field, text.into()))
                {
                    candidates.extend(places);
                }
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        let mut matching: Vec<(usize, Vec<usize>)> = Vec::new();
        for listener in candidates.into_iter().map(|place| &self.listeners[place]) {
            if listener.asked.matches(event) {
                match matching.last_mut() {
                    Some((rule, parts)) if *rule == listener.rule => parts.push(listener.part),
                    _ => matching.push((listener.rule, vec![listener.part])),
                }
            }
        }
        matching
    }
}

impl Asked {
    fn keys(&self) -> Option<(FieldId, &[SmolStr])> {
        match self {
            Self::Compiled(matcher) => matcher.keys(),
            Self::Naive(_) => None,
        }
    }

    fn matches(&self, event: &Event) -> bool {
        match self {
            Self::Compiled(matcher) => matcher.matches(event),
            Self::Naive(query) => naive::matches(query, event),
        }
    }
}

//! `descendant of […]`, `child of […]` and `event of […]`: whether an event's process is related to the process of
//! another event.
//!
//! For each query in brackets the processes of the events that matched it are remembered, by `process.entity_id`, up to
//! a limit at which an earlier one of the actor who has most goes. Relations are read off an event: its own process,
//! its parent, its ancestry. So a process counts from its matching event on, also when it has ended, and whatever
//! happened before that event does not.

use std::borrow::Cow;

use smol_str::SmolStr;

use super::actor::Charge;
use super::window::Window;
use super::{Hit, Limits, naive};
use crate::event::{Event, FieldId, SHARED_BYTES, Value, allocated};
use crate::field;
use crate::lang::operator::Relation;
use crate::lang::query::{Answers, Condition, Lineage};

/// Bytes of a process without its key.
const PROCESS_BYTES: usize = Window::<SmolStr, ()>::ENTRY_BYTES;

/// The state of one rule's conditions on ancestry.
#[derive(Debug)]
pub struct LineageDetector {
    /// The number of event queries before the subqueries.
    parts: usize,
    conditions: Vec<Option<Condition>>,
    /// The processes of the events that matched each subquery.
    known: Vec<Window<SmolStr, ()>>,
}

impl LineageDetector {
    /// A detector without state.
    #[must_use]
    pub fn new(lineage: &Lineage, limits: Limits) -> Self {
        Self {
            parts: lineage.conditions.len() - lineage.subqueries.len(),
            conditions: lineage.conditions.clone(),
            known: lineage.subqueries.iter().map(|_| Window::new(limits.lineage_bytes_max)).collect(),
        }
    }

    /// Evaluates an event that matched some of the event queries. Returns it with those whose conditions on ancestry
    /// hold too; `None` if there are none.
    pub(crate) fn event(&mut self, hit: &Hit) -> Option<Hit> {
        // A subquery inside another comes before it, so that one event can satisfy both.
        for &part in hit.parts.iter().filter(|part| **part >= self.parts) {
            if self.holds(part, &hit.event) {
                for process in hit.event.values(field!("process.entity_id")) {
                    let process = process.key();
                    let bytes = PROCESS_BYTES + allocated(SHARED_BYTES + process.len());
                    let charge = Charge { bytes, ..*hit.charge() };
                    self.known[part - self.parts].insert(process, hit.ordinal.time, charge, ());
                }
            }
        }
        let own = hit.parts.iter().filter(|part| **part < self.parts);
        let parts: Vec<_> = own.copied().filter(|part| self.holds(*part, &hit.event)).collect();
        (!parts.is_empty()).then(|| Hit {
            event: hit.event.clone(),
            ordinal: hit.ordinal,
            parts,
            charge: hit.charge.clone(),
        })
    }

    fn holds(&self, part: usize, event: &Event) -> bool {
        let condition = self.conditions.get(part).and_then(Option::as_ref);
        condition.is_none_or(|condition| {
            naive::holds(&condition.resolved(&Related { known: &self.known, event }), event)
        })
    }

    /// Processes that were evicted because of the limit.
    pub(crate) fn discarded(&self) -> u64 {
        self.known.iter().map(Window::discarded).sum()
    }

    /// Bytes of the remembered processes.
    pub(crate) fn bytes(&self) -> usize {
        self.known.iter().map(Window::bytes).sum()
    }

    /// Evicts a process of the actor that holds most.
    pub(crate) fn give_way(&mut self) {
        if let Some(known) = self.known.iter_mut().max_by_key(|known| known.bytes()) {
            known.give_way();
        }
    }
}

/// An event's relations to the remembered processes.
struct Related<'a> {
    known: &'a [Window<SmolStr, ()>],
    event: &'a Event,
}

impl Answers for Related<'_> {
    fn related(&self, relation: Relation, subquery: usize) -> bool {
        let values = |field: &FieldId| self.event.values(*field);
        let parent = self.event.get(field!("process.parent.entity_id"));
        let is_known = |process: Cow<'_, Value>| self.known[subquery].get(&process.key()).is_some();
        match (relation, parent) {
            // The nearest ancestor stands first.
            (Relation::Child, None) => values(&field!("process.Ext.ancestry")).next().is_some_and(is_known),
            _ => relation.fields().iter().flat_map(values).any(is_known),
        }
    }

    fn earlier(&self, _: usize, _: FieldId) -> Option<Value> {
        None
    }
}

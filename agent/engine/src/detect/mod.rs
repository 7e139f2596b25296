//! What runs rules: matchers for single events, and detectors for what needs memory, over one bounded store.

pub mod naive;

mod actor;
mod brief;
mod buckets;
mod budget;
mod detection;
mod hash;
mod held_back;
mod indicators;
mod jobs;
mod key;
mod learner;
mod lineage;
mod matcher;
mod new_terms;
mod pattern;
mod rare;
mod sample;
mod sequence;
mod share;
mod spike;
mod suppression;
mod terms;
mod threshold;
mod window;

pub use actor::{Act, Actor, Charge};
pub(crate) use budget::SharedBytes;
pub use held_back::HeldBack;
pub(crate) use held_back::Rows;
pub use indicators::{Enrichment, IndicatorMatch, Indicators, MATCHED_TYPE};
pub use jobs::Jobs;
pub(crate) use key::{JoinKey, join_keys};
pub use lineage::LineageDetector;
pub use matcher::Matcher;
pub use new_terms::NewTerms;
pub use sample::SampleDetector;
pub use sequence::SequenceDetector;
pub(crate) use share::{Quota, Shares, Ticket};
pub use suppression::{Suppressed, Suppressor};
pub use threshold::ThresholdDetector;

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use crate::event::{Elements, Event, FieldId, Timestamp, Value};

/// What orders events: time, then `event.sequence`, then arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ordinal {
    /// When it happened.
    pub time: Timestamp,
    /// The event's own number among those of the same time.
    pub sequence: u64,
    /// The engine's number, in the order in which events came.
    pub arrival: u64,
}

/// An event that matched one or several of a rule's event queries.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The event.
    pub event: Arc<Event>,
    /// Its place in the order of events.
    pub ordinal: Ordinal,
    /// The event queries it matched, by their index in [`Query::events`](crate::lang::Query::events), ascending.
    pub parts: Vec<usize>,
    /// What it costs whom to keep it; found out once, and for what is kept only.
    charge: OnceCell<Charge>,
}

impl Hit {
    /// An event that matched these queries.
    #[must_use]
    pub fn new(event: Arc<Event>, ordinal: Ordinal, parts: Vec<usize>) -> Self {
        Self { event, ordinal, parts, charge: OnceCell::new() }
    }

    /// What it costs whom to keep it.
    #[must_use]
    pub fn charge(&self) -> &Charge {
        self.charge.get_or_init(|| Charge::of(&self.event))
    }
}

/// Half matches that were pushed out because of a limit while they could have become whole: evidence that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// How many, since the engine was made.
    pub total: u64,
    /// How many of the latest, of which none was long after the one before.
    pub recent: u64,
    /// When the latest was pushed out.
    pub latest: Option<Timestamp>,
}

impl Drops {
    /// Counts one that was evicted. Those within one span are reported together.
    pub(crate) fn note(&mut self, now: Timestamp, span: Duration) {
        if self.within(now, span) == 0 {
            self.recent = 0;
        }
        self.total += 1;
        self.recent += 1;
        self.latest = self.latest.max(Some(now));
    }

    /// How many there were of late, where that is not more than a span before `now`.
    pub(crate) fn within(&self, now: Timestamp, span: Duration) -> u64 {
        if self.latest.is_some_and(|latest| now - span <= latest) { self.recent } else { 0 }
    }
}

/// What a detector found: the cause of an alert.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// The events in the order of the rule's stages; `None` where a stage asks for no event.
    pub events: Vec<Option<Arc<Event>>>,
    /// What the events of a sequence agree in; `None` for an optional key that is absent.
    pub keys: Vec<Option<SmolStr>>,
    /// The terms that are new.
    pub new_terms: Vec<Value>,
    /// How unusual it is.
    pub anomaly: Option<Box<Anomaly>>,
    /// The indicators of threats that the event is about.
    pub enrichments: Vec<Enrichment>,
    /// How much of it there is.
    pub threshold: Option<Box<ThresholdResult>>,
}

impl Finding {
    /// The values of a field: those of the last of the events that has it.
    #[must_use]
    pub fn values(&self, field: FieldId) -> Elements<'_> {
        if let Some(threshold) = &self.threshold
            && let Some((_, term)) = threshold.terms.iter().find(|(known, _)| *known == field)
        {
            return term.elements();
        }
        let events = self.events.iter().rev().flatten();
        events.map(|event| event.values(field)).find(|values| !values.is_empty()).unwrap_or_default()
    }

    /// Who did it: whose the last event is.
    pub(crate) fn actor(&self) -> Actor {
        self.events.iter().rev().flatten().next().map(|event| Actor::of(event)).unwrap_or_default()
    }

    /// The values of a field as one text, which is the same for the same values; `None` where there are none.
    pub(crate) fn key(&self, field: FieldId) -> Option<SmolStr> {
        let values = self.values(field);
        match (values.is_empty(), values.clone().only()) {
            (true, _) => None,
            (_, Some(value)) => Some(value.key()),
            _ => Some(Value::list(values.to_vec()).key()),
        }
    }
}

/// What a threshold rule counted, in the terms of Kibana's `threshold_result`.
#[derive(Clone, Debug, PartialEq)]
pub struct ThresholdResult {
    /// The fields that the events agree in, and the values.
    pub terms: Vec<(FieldId, Value)>,
    /// How many events there are.
    pub count: u64,
    /// The field whose values are counted, and how many different ones there are.
    pub cardinality: Option<(FieldId, u64)>,
    /// When the first of them happened.
    pub from: Timestamp,
}

/// How unusual something is, in the terms of Elastic's anomaly records.
#[derive(Clone, Debug, PartialEq)]
pub struct Anomaly {
    /// The job.
    pub job_id: SmolStr,
    /// From 0 to 100; the more, the less usual.
    pub record_score: f64,
    /// How probable it was that something is as unusual or more.
    pub probability: f64,
    /// The start of the time span in which it was scored.
    pub bucket: Timestamp,
    /// The value that is rare, where the job looks for such.
    pub by_value: Option<SmolStr>,
    /// Among what it is unusual.
    pub partition_value: Option<SmolStr>,
    /// How many time spans had been learned for this partition.
    pub buckets_learned: u64,
    /// How many there are, where the job looks for too many.
    pub size: Option<Size>,
}

/// How many different values there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// The field.
    pub field: FieldId,
    /// How many values it has.
    pub actual: u64,
    /// How many it had in half of the time spans or more.
    pub typical: f64,
}

/// A row of a detector's memory that changed and must survive a restart; `None` deletes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The row's key within the rule.
    pub key: String,
    /// What it holds now.
    pub value: Option<Vec<u8>>,
}

/// What a detector gives back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// What was found, in order.
    pub found: Vec<Finding>,
    /// What changed, in order.
    pub changes: Vec<Change>,
}

impl Findings {
    /// Whether nothing was found and nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty() && self.changes.is_empty()
    }
}

/// Bytes and entries a detector may hold. Those who act share each limit of bytes; what of them is over it pushes out
/// entries of the one who holds most, which are counted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes that all rules of an engine hold together, of what the limits of bytes below are about. A rule holds no more
    /// than half of what the others leave.
    pub state_bytes_max: usize,
    /// Bytes that one sequence or sample rule holds of what is not complete; as many again of events that must be missing
    /// (`![…]`), and of sequences that wait to see whether they are.
    pub sequence_bytes_max: usize,
    /// Bytes of buckets that one threshold rule holds.
    pub threshold_bytes_max: usize,
    /// Bytes of groups that the `alert_suppression` of one rule holds.
    pub suppression_bytes_max: usize,
    /// Bytes of what one rule says of alerts that `max_signals` held back.
    pub held_back_bytes_max: usize,
    /// Bytes of processes that one rule remembers for each `descendant of […]`, `child of […]` and `event of […]`.
    pub lineage_bytes_max: usize,
    /// Bytes of events that wait to be reordered. Events beyond it are evaluated early.
    pub unordered_bytes_max: usize,
    /// Alerts that all rules of an engine raise in five minutes of one executable; of all together eight times as many.
    pub alerts_max: usize,
    /// Bytes of terms that one new_terms rule remembers.
    pub terms_bytes_max: usize,
    /// Bytes of terms that all new_terms rules remember together; each may hold half of what the others leave.
    pub terms_bytes_all_max: usize,
    /// Bytes of what one machine learning job learned of partitions, and again as many of time spans that are not over.
    pub job_bytes_max: usize,
    /// The same of all machine learning jobs together; each may hold half of what the others leave.
    pub job_bytes_all_max: usize,
}

/// How much of what several engines may hold together is one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// Of what rules hold of what is not complete.
    pub state: usize,
    /// Of what `new_terms` rules learned.
    pub terms: usize,
    /// Of what machine learning jobs learned.
    pub jobs: usize,
}

impl Limits {
    /// The part that one of several engines has of these limits.
    #[must_use]
    pub fn part(self, own: Weights, all: &[Weights]) -> Self {
        let part = |bytes: usize, weight: fn(&Weights) -> usize| {
            let sum: usize = all.iter().map(weight).sum();
            bytes / sum.max(1) * weight(&own)
        };
        Self {
            state_bytes_max: part(self.state_bytes_max, |weights| weights.state),
            terms_bytes_all_max: part(self.terms_bytes_all_max, |weights| weights.terms),
            job_bytes_all_max: part(self.job_bytes_all_max, |weights| weights.jobs),
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            state_bytes_max: 24 << 20,
            sequence_bytes_max: 12 << 20,
            threshold_bytes_max: 12 << 20,
            suppression_bytes_max: 4 << 20,
            held_back_bytes_max: 32 << 10,
            lineage_bytes_max: 8 << 20,
            unordered_bytes_max: 8 << 20,
            alerts_max: 4096,
            terms_bytes_max: 4 << 20,
            terms_bytes_all_max: 6 << 20,
            job_bytes_max: 3 << 20,
            job_bytes_all_max: 6 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_limits_are_no_more_than_the_whole() {
        let whole = Limits::default();
        let weights = |state, terms, jobs| Weights { state, terms, jobs };
        let (host, auditd, cloud) = (weights(4, 4, 1), weights(1, 1, 1), weights(2, 1, 6));
        for engines in [vec![host], vec![host, auditd], vec![host, auditd, cloud], vec![cloud]] {
            let parts = || engines.iter().map(|own| whole.part(*own, &engines));
            for (of, bytes) in [
                (parts().map(|part| part.state_bytes_max).sum::<usize>(), whole.state_bytes_max),
                (parts().map(|part| part.terms_bytes_all_max).sum(), whole.terms_bytes_all_max),
                (parts().map(|part| part.job_bytes_all_max).sum(), whole.job_bytes_all_max),
            ] {
                assert!(of <= bytes && of > bytes - 64, "{of} of {bytes}");
            }
        }
    }
}

//! The evaluation of rules: matchers for single events, and detectors with bounded state.

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

/// The order of events: by time, then by `event.sequence`, then by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ordinal {
    /// The event's time.
    pub time: Timestamp,
    /// `event.sequence`, which orders events of the same time.
    pub sequence: u64,
    /// The engine's number, in the order of arrival.
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
    /// The bytes that it takes and the actor that is charged. Computed at the first use, so for kept events only.
    charge: OnceCell<Charge>,
}

impl Hit {
    /// An event that matched these queries.
    #[must_use]
    pub fn new(event: Arc<Event>, ordinal: Ordinal, parts: Vec<usize>) -> Self {
        Self { event, ordinal, parts, charge: OnceCell::new() }
    }

    /// The bytes that it takes, and the actor that is charged.
    #[must_use]
    pub fn charge(&self) -> &Charge {
        self.charge.get_or_init(|| Charge::of(&self.event))
    }
}

/// Partial matches that a limit evicted while they could still have been completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Their number since the engine was created.
    pub total: u64,
    /// Their number in the latest episode, in which each follows the one before within a span.
    pub recent: u64,
    /// When the latest was evicted.
    pub latest: Option<Timestamp>,
}

impl Drops {
    /// Counts an eviction. Evictions within a span of the one before belong to the same episode.
    pub(crate) fn note(&mut self, now: Timestamp, span: Duration) {
        if self.within(now, span) == 0 {
            self.recent = 0;
        }
        self.total += 1;
        self.recent += 1;
        self.latest = self.latest.max(Some(now));
    }

    /// The number in the latest episode, or 0 if its last eviction is more than a span before `now`.
    pub(crate) fn within(&self, now: Timestamp, span: Duration) -> u64 {
        if self.latest.is_some_and(|latest| now - span <= latest) { self.recent } else { 0 }
    }
}

/// A match that a detector reports: the cause of an alert.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// The events in the order of the rule's stages; `None` for a stage that must be missing.
    pub events: Vec<Option<Arc<Event>>>,
    /// The join keys of a sequence; `None` for an optional key that is absent.
    pub keys: Vec<Option<SmolStr>>,
    /// The new terms.
    pub new_terms: Vec<Value>,
    /// The anomaly, for a machine learning rule.
    pub anomaly: Option<Box<Anomaly>>,
    /// The threat indicators that matched the event.
    pub enrichments: Vec<Enrichment>,
    /// The count, for a threshold rule.
    pub threshold: Option<Box<ThresholdResult>>,
}

impl Finding {
    /// The values of a field in the last event that has it.
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

    /// The actor of the last event.
    pub(crate) fn actor(&self) -> Actor {
        self.events.iter().rev().flatten().next().map(|event| Actor::of(event)).unwrap_or_default()
    }

    /// The values of a field as one text. Equal values give equal texts; `None` if there are no values.
    pub(crate) fn key(&self, field: FieldId) -> Option<SmolStr> {
        let values = self.values(field);
        match (values.is_empty(), values.clone().only()) {
            (true, _) => None,
            (_, Some(value)) => Some(value.key()),
            _ => Some(Value::list(values.to_vec()).key()),
        }
    }
}

/// The result of a threshold rule, in the terms of Kibana's `threshold_result`.
#[derive(Clone, Debug, PartialEq)]
pub struct ThresholdResult {
    /// The fields by which events are grouped, and the group's values.
    pub terms: Vec<(FieldId, Value)>,
    /// The number of events.
    pub count: u64,
    /// The cardinality field, and the number of its distinct values.
    pub cardinality: Option<(FieldId, u64)>,
    /// The time of the first event.
    pub from: Timestamp,
}

/// An anomaly, in the terms of Elastic's anomaly records.
#[derive(Clone, Debug, PartialEq)]
pub struct Anomaly {
    /// The job.
    pub job_id: SmolStr,
    /// From 0 to 100; a higher score is more unusual.
    pub record_score: f64,
    /// The probability of a value that is at least as unusual.
    pub probability: f64,
    /// The start of the bucket in which it was scored.
    pub bucket: Timestamp,
    /// The rare value, for a job that detects rare values.
    pub by_value: Option<SmolStr>,
    /// The partition in which it is unusual.
    pub partition_value: Option<SmolStr>,
    /// How many buckets this partition had learned.
    pub buckets_learned: u64,
    /// The number of values, for a job that detects high counts.
    pub size: Option<Size>,
}

/// A number of distinct values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// The field.
    pub field: FieldId,
    /// The number of its distinct values in this bucket.
    pub actual: u64,
    /// The number in at least half of the learned buckets.
    pub typical: f64,
}

/// A changed row of a detector's state, which must survive a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The row's key within the rule.
    pub key: String,
    /// The new value; `None` deletes the row.
    pub value: Option<Vec<u8>>,
}

/// The output of a detector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// The findings, in order.
    pub found: Vec<Finding>,
    /// The changes of its state, in order.
    pub changes: Vec<Change>,
}

impl Findings {
    /// Whether nothing was found and nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty() && self.changes.is_empty()
    }
}

/// The bytes and entries that a detector may hold. Actors share each limit in bytes. Beyond a limit, entries of the
/// actor that holds most are evicted and counted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of state of all rules of an engine together. A rule holds no more than half of what the others leave.
    pub state_bytes_max: usize,
    /// Bytes of partial matches of one sequence or sample rule. The same number applies to events that must be missing
    /// (`![…]`), and to sequences that wait for these.
    pub sequence_bytes_max: usize,
    /// Bytes of buckets of one threshold rule.
    pub threshold_bytes_max: usize,
    /// Bytes of groups of one rule's `alert_suppression`.
    pub suppression_bytes_max: usize,
    /// Bytes of one rule's summary of alerts that `max_signals` held back.
    pub held_back_bytes_max: usize,
    /// Bytes of processes that one rule remembers for each `descendant of […]`, `child of […]` and `event of […]`.
    pub lineage_bytes_max: usize,
    /// Bytes of events that wait to be reordered. Events beyond it are evaluated early.
    pub unordered_bytes_max: usize,
    /// Alerts for one executable that all rules of an engine raise in five minutes. For all executables together the
    /// limit is eight times as high.
    pub alerts_max: usize,
    /// Bytes of terms of one new_terms rule.
    pub terms_bytes_max: usize,
    /// Bytes of terms of all new_terms rules together. Each may hold half of what the others leave.
    pub terms_bytes_all_max: usize,
    /// Bytes of learned partitions of one machine learning job. The same number applies to its open buckets.
    pub job_bytes_max: usize,
    /// The same limit for all machine learning jobs together. Each may hold half of what the others leave.
    pub job_bytes_all_max: usize,
}

/// An engine's weight in the limits that several engines share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// For the state of rules.
    pub state: usize,
    /// For the terms of `new_terms` rules.
    pub terms: usize,
    /// For the models of machine learning jobs.
    pub jobs: usize,
}

impl Limits {
    /// The part of these limits for one of several engines.
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

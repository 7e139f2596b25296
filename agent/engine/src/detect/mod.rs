//! What runs rules: matchers for single events, and detectors for what needs memory, over one bounded store.

pub mod naive;

mod buckets;
mod hash;
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
mod spike;
mod suppression;
mod threshold;
mod window;

pub use indicators::{Enrichment, IndicatorMatch, Indicators, MATCHED_TYPE};
pub use jobs::Jobs;
pub(crate) use key::{JoinKey, join_keys};
pub use lineage::LineageDetector;
pub use matcher::Matcher;
pub use new_terms::NewTerms;
pub use sample::SampleDetector;
pub use sequence::SequenceDetector;
pub use suppression::{Suppressed, Suppressor};
pub use threshold::ThresholdDetector;

use std::sync::Arc;

use smol_str::SmolStr;

use crate::event::{Event, FieldId, Timestamp, Value};

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
    pub fn values(&self, field: FieldId) -> &[Value] {
        if let Some(threshold) = &self.threshold
            && let Some((_, term)) = threshold.terms.iter().find(|(known, _)| *known == field)
        {
            return term.elements();
        }
        let events = self.events.iter().rev().flatten();
        events.map(|event| event.values(field)).find(|values| !values.is_empty()).unwrap_or_default()
    }

    /// The values of a field as one text, which is the same for the same values; `None` where there are none.
    pub(crate) fn key(&self, field: FieldId) -> Option<SmolStr> {
        match self.values(field) {
            [] => None,
            [value] => Some(value.key()),
            values => Some(Value::List(values.into()).key()),
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
    /// The start of the time span it was judged in.
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

/// Bytes and entries a detector may hold; what is over a limit pushes out the oldest, which is counted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of events and keys that one sequence rule holds.
    pub sequence_bytes_max: usize,
    /// Events that one sequence rule remembers of those that must be missing (`![…]`).
    pub missing_events_max: usize,
    /// Complete sequences of one rule that wait to see whether what must be missing after them is.
    pub waiting_sequences_max: usize,
    /// Bytes of buckets that one threshold rule holds.
    pub threshold_bytes_max: usize,
    /// Bytes of groups that the `alert_suppression` of one rule holds.
    pub suppression_bytes_max: usize,
    /// Terms that one new_terms rule remembers.
    pub terms_max: usize,
    /// Values, over all partitions, that one machine learning job remembers.
    pub job_values_max: usize,
    /// Processes that one rule remembers for each `descendant of […]`, `child of […]` and `event of […]`.
    pub processes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sequence_bytes_max: 4 << 20,
            missing_events_max: 65_536,
            waiting_sequences_max: 16_384,
            threshold_bytes_max: 4 << 20,
            suppression_bytes_max: 1 << 20,
            terms_max: 100_000,
            job_values_max: 100_000,
            processes_max: 65_536,
        }
    }
}

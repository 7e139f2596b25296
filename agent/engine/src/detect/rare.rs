//! `rare`: values that turn up in few time spans, judged among the values of the same partition.
//!
//! It follows what is public of the `rare` function of Elastic's anomaly detection. A time span (bucket) is learned
//! when it is over: each value present in it, however often, adds one to that value's weight; the weights of the
//! partition then fade a little. A present value is as improbable as all values together that weigh no more than it,
//! itself included: what was never seen before has weight one, and values seen equally seldom share their rarity.
//! The score grows with the logarithm of the improbability, from 5 at one in 20 to 100 at one in 10,000; Elastic's
//! further ceilings, which depend on all scores of the past, are left out, so that a score depends on the partition
//! alone and never changes afterwards.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{Anomaly, Change, Finding, Findings, Hit, Limits};
use crate::event::{Event, FieldId, Schema, Timestamp, Value};

/// Nothing more probable than this is an anomaly.
const PROBABILITY_MAX: f64 = 0.05;
/// Everything less probable than this has the highest score.
const PROBABILITY_MIN: f64 = 1e-4;
/// How fast weights fade in a bucket of half an hour or more, and proportionally slower in a shorter one.
const DECAY: f64 = 0.0005;
/// The bucket length from which weights fade no faster.
const DECAY_FULL_AT: Duration = Duration::from_secs(1800);
/// Weights that differ by less are the same.
const SAME_WEIGHT: f64 = 1e-9;
/// What the keys of partitions' rows start with.
const PARTITION: &str = "partition:";
/// What the keys of rows of buckets that are not over start with.
const OPEN: &str = "open:";
/// Between the parts of a row's key.
const PARTED: char = '\u{1f}';

/// What is rare in what, by the terms of a machine learning job.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// The job's id.
    pub job_id: SmolStr,
    /// The field whose values are rare.
    pub by: FieldId,
    /// The field whose values are judged apart.
    pub partition: Option<FieldId>,
    /// The length of a bucket.
    pub bucket_span: Duration,
    /// Buckets that must have been learned for a partition before anything in it is rare.
    pub buckets_learned_min: u64,
    /// Anomalies below this score, from 0 to 100, are not told.
    pub record_score_min: f64,
}

/// The memory of one rare job.
#[derive(Debug)]
pub struct Rare {
    detection: Detection,
    partitions: HashMap<SmolStr, Partition>,
    /// Buckets that are not over: what is present in them, with the first event that brought it.
    open: BTreeMap<Timestamp, BTreeMap<Present, Arc<Event>>>,
    values: usize,
    values_max: usize,
    discarded: u64,
}

/// A value and its partition; the partition is empty where the job has none.
type Present = (SmolStr, SmolStr);

/// What was learned of a partition, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Partition {
    buckets: u64,
    last_bucket: i64,
    weights: BTreeMap<SmolStr, f64>,
}

impl Rare {
    /// A detector that has learned nothing.
    #[must_use]
    pub fn new(detection: Detection, limits: Limits) -> Self {
        Self {
            detection,
            partitions: HashMap::new(),
            open: BTreeMap::new(),
            values: 0,
            values_max: limits.rare_values_max,
            discarded: 0,
        }
    }

    /// Puts back a row that was given out as a [`Change`]; rows that cannot be read are passed over.
    pub(crate) fn restore(&mut self, schema: &Schema, key: &str, value: &[u8]) {
        if let Some(name) = key.strip_prefix(PARTITION)
            && let Ok(partition) = serde_json::from_slice::<Partition>(value)
        {
            self.values += partition.weights.len();
            self.partitions.insert(name.into(), partition);
        } else if let Some((bucket, present)) = key.strip_prefix(OPEN).and_then(open_place)
            && let Ok(json) = serde_json::from_slice(value)
            && let Ok(event) = Event::from_json(schema, &json)
        {
            self.open.entry(bucket).or_default().insert(present, Arc::new(event));
        }
    }

    /// Takes an event that matched the job's query.
    pub(crate) fn event(&mut self, schema: &Schema, hit: &Hit, findings: &mut Findings) {
        let bucket = hit.ordinal.time.floor(self.detection.bucket_span);
        let partitions = match self.detection.partition {
            Some(field) => hit.event.values(field).iter().map(Value::key).collect(),
            None => vec![SmolStr::default()],
        };
        for partition in &partitions {
            for value in hit.event.values(self.detection.by) {
                let present = (partition.clone(), value.key());
                if let Entry::Vacant(place) = self.open.entry(bucket).or_default().entry(present) {
                    let key = open_key(bucket, place.key());
                    let document = hit.event.to_json(schema).to_string().into_bytes();
                    findings.changes.push(Change { key, value: Some(document) });
                    place.insert(hit.event.clone());
                }
            }
        }
    }

    /// Tells that no event before `now` will come any more: buckets that are over are judged and learned.
    pub(crate) fn advance(&mut self, now: Timestamp, findings: &mut Findings) {
        while let Some(bucket) = self.open.first_entry()
            && *bucket.key() + self.detection.bucket_span <= now
        {
            let (start, present) = bucket.remove_entry();
            findings
                .changes
                .extend(present.keys().map(|present| Change { key: open_key(start, present), value: None }));
            self.close(start, present, findings);
        }
    }

    fn close(&mut self, bucket: Timestamp, present: BTreeMap<Present, Arc<Event>>, findings: &mut Findings) {
        let mut by_partition: BTreeMap<SmolStr, Vec<(SmolStr, Arc<Event>)>> = BTreeMap::new();
        for ((partition, value), event) in present {
            by_partition.entry(partition).or_default().push((value, event));
        }
        for (name, values) in by_partition {
            let partition = self.partitions.entry(name.clone()).or_default();
            let before = partition.weights.len();
            let learned = partition.buckets;
            for (value, _) in &values {
                *partition.weights.entry(value.clone()).or_default() += 1.0;
            }
            for (value, event) in values {
                let probability = partition.probability(&value);
                let record_score = score(probability);
                if learned >= self.detection.buckets_learned_min
                    && record_score > 0.0
                    && record_score >= self.detection.record_score_min
                {
                    let anomaly = Anomaly {
                        job_id: self.detection.job_id.clone(),
                        record_score,
                        probability,
                        bucket,
                        by_value: value,
                        partition_value: self.detection.partition.map(|_| name.clone()),
                        buckets_learned: learned,
                    };
                    let events = vec![Some(event)];
                    findings.found.push(Finding { events, anomaly: Some(anomaly), ..Finding::default() });
                }
            }
            partition.fade(self.detection.bucket_span);
            partition.buckets += 1;
            partition.last_bucket = bucket.as_nanos();
            self.values += partition.weights.len() - before;
            findings.changes.push(partition.row(&name));
            self.hold_limit(findings);
        }
    }

    /// Forgets the partitions that were longest without an event while there are too many values.
    fn hold_limit(&mut self, findings: &mut Findings) {
        while self.values > self.values_max && self.partitions.len() > 1 {
            let oldest =
                self.partitions.iter().min_by_key(|(name, partition)| (partition.last_bucket, *name));
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { return };
            if let Some(partition) = self.partitions.remove(&name) {
                self.values -= partition.weights.len();
                self.discarded += partition.weights.len() as u64;
                findings.changes.push(Change { key: format!("{PARTITION}{name}"), value: None });
            }
        }
    }

    /// Values that were forgotten because of the limit.
    pub(crate) fn discarded(&self) -> u64 {
        self.discarded
    }
}

impl Partition {
    /// How probable a value is that weighs as little as this one.
    fn probability(&self, value: &str) -> f64 {
        let weight = self.weights.get(value).copied().unwrap_or_default();
        let total: f64 = self.weights.values().sum();
        let as_rare: f64 = self.weights.values().filter(|other| **other <= weight + SAME_WEIGHT).sum();
        if total > 0.0 { as_rare / total } else { 1.0 }
    }

    fn fade(&mut self, bucket_span: Duration) {
        let rate = DECAY * (bucket_span.as_secs_f64() / DECAY_FULL_AT.as_secs_f64()).min(1.0);
        self.weights.values_mut().for_each(|weight| *weight *= (-rate).exp());
    }

    fn row(&self, name: &str) -> Change {
        Change { key: format!("{PARTITION}{name}"), value: serde_json::to_vec(self).ok() }
    }
}

/// The score of a probability: 0 where it is no anomaly, else from 5 to 100 with its logarithm.
fn score(probability: f64) -> f64 {
    if probability > PROBABILITY_MAX {
        return 0.0;
    }
    let depth = (PROBABILITY_MAX / probability.max(PROBABILITY_MIN)).ln();
    5.0 + 95.0 * depth / (PROBABILITY_MAX / PROBABILITY_MIN).ln()
}

fn open_key(bucket: Timestamp, (partition, value): &Present) -> String {
    format!("{OPEN}{}{PARTED}{partition}{PARTED}{value}", bucket.as_nanos())
}

fn open_place(place: &str) -> Option<(Timestamp, Present)> {
    let mut parts = place.splitn(3, PARTED);
    let bucket = parts.next()?.parse().ok().map(Timestamp::from_nanos)?;
    Some((bucket, (parts.next()?.into(), parts.next()?.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_follows_the_probability() {
        for (probability, expected) in
            [(0.06, 0.0), (0.05, 5.0), (0.0026, 50.2), (1e-4, 100.0), (1e-9, 100.0)]
        {
            assert!((score(probability) - expected).abs() < 0.1, "{probability}: {}", score(probability));
        }
    }

    #[test]
    fn equally_rare_values_share_their_rarity() {
        let mut partition = Partition::default();
        partition.weights.extend([("a".into(), 98.0), ("b".into(), 1.0), ("c".into(), 1.0)]);
        assert!((partition.probability("b") - 0.02).abs() < 1e-9);
        assert!((partition.probability("a") - 1.0).abs() < 1e-9);
    }
}

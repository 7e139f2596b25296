//! `rare`: values that turn up in few time spans, judged among the values of the same partition.
//!
//! It follows what is public of the `rare` function of Elastic's anomaly detection. A time span (bucket) is learned
//! when it is over: each value present in it, however often, adds one to that value's weight; the weights of the
//! partition then fade a little. A present value is as improbable as all values together that weigh no more than it,
//! itself included: what was never seen before has weight one, and values seen equally seldom share their rarity.
//! The score grows with the logarithm of the improbability, from 5 at one in 20 to 100 at one in 10,000; Elastic's
//! further ceilings, which depend on all scores of the past, are left out, so that a score depends on the partition
//! alone and never changes afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::buckets::{Buckets, Detection, Learned, Over, Partitions};
use super::{Anomaly, Finding, Findings, Hit, Limits};
use crate::event::{FieldId, Schema, Timestamp};

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

/// The memory of one rare job.
#[derive(Debug)]
pub struct Rare {
    detection: Detection,
    /// The field whose values are rare.
    by: FieldId,
    partitions: Partitions<Partition>,
    buckets: Buckets,
}

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
    pub fn new(detection: Detection, by: FieldId, limits: Limits) -> Self {
        let buckets = Buckets::new(detection.bucket_span, limits.job_values_max);
        Self { detection, by, partitions: Partitions::new(limits.job_values_max), buckets }
    }

    /// Puts back a row that was given out as a [`Change`](super::Change); rows that cannot be read are passed over.
    pub(crate) fn restore(&mut self, schema: &Schema, key: &str, value: &[u8]) {
        if !self.buckets.restore(schema, key, value) {
            self.partitions.restore(key, value);
        }
    }

    /// Takes an event that matched the job's query.
    pub(crate) fn event(&mut self, schema: &Schema, hit: &Hit, findings: &mut Findings) {
        self.buckets.event(schema, hit, self.by, self.detection.partition, findings);
    }

    /// Tells that no event before `now` will come any more: buckets that are over are judged and learned.
    pub(crate) fn advance(&mut self, now: Timestamp, findings: &mut Findings) {
        while let Some((bucket, over)) = self.buckets.next_over(now, findings) {
            self.close(bucket, over, findings);
        }
    }

    fn close(&mut self, bucket: Timestamp, over: Over, findings: &mut Findings) {
        for (name, values) in over {
            let mut partition = self.partitions.take(&name);
            let learned = partition.buckets;
            for (value, _) in &values {
                *partition.weights.entry(value.clone()).or_default() += 1.0;
            }
            for (value, event) in values {
                let probability = partition.probability(&value);
                let record_score = score(probability);
                if self.detection.tells(record_score, learned) {
                    let anomaly = Anomaly {
                        job_id: self.detection.job_id.clone(),
                        record_score,
                        probability,
                        bucket,
                        by_value: Some(value),
                        partition_value: self.detection.partition.map(|_| name.clone()),
                        buckets_learned: learned,
                        size: None,
                    };
                    let events = vec![Some(event)];
                    findings.found.push(Finding {
                        events,
                        anomaly: Some(anomaly.into()),
                        ..Finding::default()
                    });
                }
            }
            partition.fade(self.detection.bucket_span);
            partition.buckets += 1;
            partition.last_bucket = bucket.as_nanos();
            self.partitions.put(name, partition, findings);
        }
    }

    /// Values that were forgotten because of the limit.
    pub(crate) fn discarded(&self) -> u64 {
        self.partitions.discarded() + self.buckets.discarded()
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
        let kept = kept(bucket_span);
        self.weights.values_mut().for_each(|weight| *weight *= kept);
    }
}

impl Learned for Partition {
    fn values(&self) -> usize {
        self.weights.len()
    }

    fn last_bucket(&self) -> i64 {
        self.last_bucket
    }

    fn shrink(&mut self, values_max: usize) {
        let mut weights: Vec<_> = self.weights.values().copied().collect();
        weights.sort_by(|left, right| right.total_cmp(left));
        if let Some(least) = weights.get(values_max).copied() {
            self.weights.retain(|_, weight| *weight > least);
        }
    }
}

/// What part of a weight is left after a bucket.
pub(super) fn kept(bucket_span: Duration) -> f64 {
    let rate = DECAY * (bucket_span.as_secs_f64() / DECAY_FULL_AT.as_secs_f64()).min(1.0);
    (-rate).exp()
}

/// The score of a probability: 0 where it is no anomaly, else from 5 to 100 with its logarithm.
pub(super) fn score(probability: f64) -> f64 {
    if probability > PROBABILITY_MAX {
        return 0.0;
    }
    let depth = (PROBABILITY_MAX / probability.max(PROBABILITY_MIN)).ln();
    5.0 + 95.0 * depth / (PROBABILITY_MAX / PROBABILITY_MIN).ln()
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

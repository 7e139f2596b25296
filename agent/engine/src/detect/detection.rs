//! The configuration of a machine learning job, and the trait of its function: how it learns, and how it scores.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;

use super::{Anomaly, Finding, Size};
use crate::event::{Event, FieldId, Timestamp};

/// A value with a higher probability is not an anomaly.
const PROBABILITY_MAX: f64 = 0.05;
/// A value with a lower probability has the highest score.
const PROBABILITY_MIN: f64 = 1e-4;
/// The decay rate of weights per bucket of half an hour or more. It is proportionally lower for shorter buckets.
const DECAY: f64 = 0.0005;
/// The bucket length from which the decay rate is constant.
const DECAY_FULL_AT: Duration = Duration::from_secs(1800);

/// The values of a closed bucket, by their partition.
pub(super) type Over = BTreeMap<SmolStr, Vec<Brought>>;
/// A value, and the first event that had it, or an extract of that event.
pub(super) type Brought = (SmolStr, Arc<Event>);

/// The configuration of a machine learning job, without its function.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Detection {
    /// The job's id.
    pub(super) job_id: SmolStr,
    /// The field whose values are scored.
    pub(super) field: FieldId,
    /// The field whose values are scored separately.
    pub(super) partition: Option<FieldId>,
    /// The length of a bucket.
    pub(super) bucket_span: Duration,
    /// How many buckets a partition must have learned before it can report an anomaly.
    pub(super) buckets_learned_min: u64,
    /// Anomalies below this score, from 0 to 100, are dropped.
    pub(super) record_score_min: f64,
}

/// The model of a partition: what a function has learned, and how it scores.
pub(super) trait Learned: Default + Serialize + DeserializeOwned {
    /// Bytes that it holds.
    fn bytes(&self) -> usize;
    /// How many buckets it has learned.
    fn buckets(&self) -> u64;
    /// The last bucket that it has learned, in nanoseconds since 1970.
    fn last_bucket(&self) -> i64;
    /// Learns that the buckets since the last one were empty, if the function uses empty buckets.
    fn pass(&mut self, _bucket: Timestamp, _span: Duration) {}
    /// Scores the values of a bucket, and then learns the bucket.
    fn close(&mut self, bucket: Timestamp, detection: &Detection, present: Vec<Brought>) -> Vec<Scored>;
    /// Forgets the values with the lowest weights, so that at most `bytes_max` are left. Returns the number of values.
    fn shrink(&mut self, bytes_max: usize) -> u64;
    /// Shortens the values that an earlier version has learned to the current limits.
    fn settle(&mut self) {}
}

/// A value or a count of a bucket, with its probability by the model before this bucket.
pub(super) struct Scored {
    pub(super) probability: f64,
    /// The event that had it.
    pub(super) event: Arc<Event>,
    /// The scored value, if the function scores values.
    pub(super) by_value: Option<SmolStr>,
    /// The number of values, if the function scores their number.
    pub(super) size: Option<Size>,
}

impl Detection {
    /// The finding, if the score is high enough and the partition has learned enough buckets.
    pub(super) fn finding(
        &self,
        scored: Scored,
        partition: &SmolStr,
        bucket: Timestamp,
        learned: u64,
    ) -> Option<Finding> {
        let Scored { probability, event, by_value, size } = scored;
        let record_score = score(probability);
        if learned < self.buckets_learned_min || record_score <= 0.0 || record_score < self.record_score_min {
            return None;
        }
        let anomaly = Anomaly {
            job_id: self.job_id.clone(),
            record_score,
            probability,
            bucket,
            by_value,
            partition_value: self.partition.map(|_| partition.clone()),
            buckets_learned: learned,
            size,
        };
        Some(Finding { events: vec![Some(event)], anomaly: Some(anomaly.into()), ..Finding::default() })
    }
}

/// The fraction of a weight that is left after a bucket.
pub(super) fn kept(bucket_span: Duration) -> f64 {
    let rate = DECAY * (bucket_span.as_secs_f64() / DECAY_FULL_AT.as_secs_f64()).min(1.0);
    (-rate).exp()
}

/// The score of a probability: 0 if it is no anomaly, otherwise from 5 to 100, linear in its logarithm.
fn score(probability: f64) -> f64 {
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
}

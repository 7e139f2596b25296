//! What a machine learning job detects, and what its function must define: how it learns, and how it scores.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;

use super::{Anomaly, Finding, Size};
use crate::event::{Event, FieldId, Timestamp};

/// Nothing more probable than this is an anomaly.
const PROBABILITY_MAX: f64 = 0.05;
/// Everything less probable than this has the highest score.
const PROBABILITY_MIN: f64 = 1e-4;
/// How fast weights fade in a bucket of half an hour or more, and proportionally slower in a shorter one.
const DECAY: f64 = 0.0005;
/// The bucket length from which weights fade no faster.
const DECAY_FULL_AT: Duration = Duration::from_secs(1800);

/// The values present in a bucket that is over, by their partition.
pub(super) type Over = BTreeMap<SmolStr, Vec<Brought>>;
/// A value, and the first event that brought it, or what is kept of it.
pub(super) type Brought = (SmolStr, Arc<Event>);

/// What a machine learning job scores, without its function.
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
    /// Buckets that must have been learned for a partition before anything in it is an anomaly.
    pub(super) buckets_learned_min: u64,
    /// Anomalies below this score, from 0 to 100, are dropped.
    pub(super) record_score_min: f64,
}

/// What a function learns of a partition, and how it scores by that.
pub(super) trait Learned: Default + Serialize + DeserializeOwned {
    /// Bytes that it holds.
    fn bytes(&self) -> usize;
    /// How many buckets it learned.
    fn buckets(&self) -> u64;
    /// The last bucket that it learned, in nanoseconds since 1970.
    fn last_bucket(&self) -> i64;
    /// Learns that nothing was present in the buckets since the last one, where that says something.
    fn pass(&mut self, _bucket: Timestamp, _span: Duration) {}
    /// Scores what is present in a bucket, and learns the bucket.
    fn close(&mut self, bucket: Timestamp, detection: &Detection, present: Vec<Brought>) -> Vec<Scored>;
    /// Forgets what weighs least, so that no more than this many bytes are left. Returns how many values went.
    fn shrink(&mut self, bytes_max: usize) -> u64;
    /// Makes what an earlier version learned as short as what is learned now.
    fn settle(&mut self) {}
}

/// How probable something in a bucket was by what was learned before it.
pub(super) struct Scored {
    pub(super) probability: f64,
    /// What brought it.
    pub(super) event: Arc<Event>,
    /// The value that is scored, where the function scores values.
    pub(super) by_value: Option<SmolStr>,
    /// How many values there are, where the function scores their number.
    pub(super) size: Option<Size>,
}

impl Detection {
    /// The finding, where the value is unusual enough and enough was learned.
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

/// What part of a weight is left after a bucket.
pub(super) fn kept(bucket_span: Duration) -> f64 {
    let rate = DECAY * (bucket_span.as_secs_f64() / DECAY_FULL_AT.as_secs_f64()).min(1.0);
    (-rate).exp()
}

/// The score of a probability: 0 where it is no anomaly, else from 5 to 100 with its logarithm.
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

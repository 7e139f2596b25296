//! `rare`: values that appear in few time spans, scored among the values of the same partition.
//!
//! It follows what is public of the `rare` function of Elastic's anomaly detection. A time span (bucket) is learned
//! when it is over: each value present in it, however often, adds one to that value's weight; the weights of the
//! partition then fade a little. A present value is as improbable as all values together that weigh no more than it,
//! itself included: what was never seen before has weight one, and values seen equally seldom share their rarity.
//! The score grows with the logarithm of the improbability, from 5 at one in 20 to 100 at one in 10,000; Elastic's
//! further ceilings, which depend on all scores of the past, are left out, so that a score depends on the partition
//! alone and never changes afterwards.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::brief::kept_text;
use super::detection::{Brought, Detection, Learned, Scored, kept};
use crate::event::Timestamp;

/// Weights that differ by less are the same.
const SAME_WEIGHT: f64 = 1e-9;

/// What a value takes besides its text.
const VALUE_BYTES: usize = 96;

/// What was learned of a partition, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rare {
    buckets: u64,
    last_bucket: i64,
    weights: BTreeMap<SmolStr, f64>,
}

impl Rare {
    /// How probable a value is that weighs as little as this one.
    fn probability(&self, value: &str) -> f64 {
        let weight = self.weights.get(value).copied().unwrap_or_default();
        let total: f64 = self.weights.values().sum();
        let as_rare: f64 = self.weights.values().filter(|other| **other <= weight + SAME_WEIGHT).sum();
        if total > 0.0 { as_rare / total } else { 1.0 }
    }
}

impl Learned for Rare {
    fn bytes(&self) -> usize {
        self.weights.keys().map(|value| VALUE_BYTES + value.len()).sum()
    }

    fn buckets(&self) -> u64 {
        self.buckets
    }

    fn last_bucket(&self) -> i64 {
        self.last_bucket
    }

    fn close(&mut self, bucket: Timestamp, detection: &Detection, present: Vec<Brought>) -> Vec<Scored> {
        for (value, _) in &present {
            *self.weights.entry(value.clone()).or_default() += 1.0;
        }
        let scored = present.into_iter().map(|(value, event)| {
            let probability = self.probability(&value);
            Scored { probability, event, by_value: Some(value), size: None }
        });
        let scored = scored.collect();
        let kept = kept(detection.bucket_span);
        self.weights.values_mut().for_each(|weight| *weight *= kept);
        self.buckets += 1;
        self.last_bucket = bucket.as_nanos();
        scored
    }

    fn shrink(&mut self, bytes_max: usize) -> u64 {
        let before = self.weights.len();
        let mut weights: Vec<_> = std::mem::take(&mut self.weights).into_iter().collect();
        weights.sort_by(|(_, left), (_, right)| right.total_cmp(left));
        let mut bytes = 0;
        self.weights.extend(weights.into_iter().take_while(|(value, _)| {
            bytes += VALUE_BYTES + value.len();
            bytes <= bytes_max
        }));
        (before - self.weights.len()) as u64
    }

    fn settle(&mut self) {
        let weights = std::mem::take(&mut self.weights).into_iter();
        self.weights.extend(weights.map(|(value, weight)| (kept_text(&value), weight)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equally_rare_values_share_their_rarity() {
        let mut partition = Rare::default();
        partition.weights.extend([("a".into(), 98.0), ("b".into(), 1.0), ("c".into(), 1.0)]);
        assert!((partition.probability("b") - 0.02).abs() < 1e-9);
        assert!((partition.probability("a") - 1.0).abs() < 1e-9);
    }
}

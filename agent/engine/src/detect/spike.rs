//! `high_distinct_count`: buckets in which a field has unusually many distinct values.
//!
//! The function has the name and the purpose of Elastic's; the method is our own. For each partition it learns a
//! histogram: how often a bucket had which number of distinct values, with empty buckets. Old buckets fade as for
//! `rare`. The probability of a number is the higher of two estimates:
//!
//! - the frequency of buckets with at least this number, the current bucket included;
//! - the upper tail of a normal distribution with the learned median and spread.
//!
//! The spread is the median absolute deviation, scaled to a standard deviation. It is at least the standard deviation
//! of as many independent events, so that a quiet history does not make two values a spike. By the first estimate, a
//! score of 50 needs about 380 buckets that were all lower; by the second, a number far above the median.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Size;
use super::detection::{Brought, Detection, Learned, Scored, kept};
use crate::event::Timestamp;

/// The factor from a median absolute deviation to the standard deviation of a normal distribution.
const DEVIATION_TO_STANDARD: f64 = 1.4826;

/// Bytes of a number and its weight.
const COUNT_BYTES: usize = 64;

/// The model of a partition, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Spike {
    buckets: u64,
    last_bucket: i64,
    /// The weight of the buckets with a number of distinct values, by this number.
    weights: BTreeMap<u64, f64>,
}

impl Spike {
    fn learn(&mut self, count: u64, bucket: Timestamp, span: Duration) {
        let kept = kept(span);
        self.weights.values_mut().for_each(|weight| *weight *= kept);
        *self.weights.entry(count).or_default() += 1.0;
        self.buckets += 1;
        self.last_bucket = bucket.as_nanos();
    }

    fn probability(&self, count: u64) -> f64 {
        let total: f64 = self.weights.values().sum();
        let as_high: f64 = self.weights.range(count..).map(|(_, weight)| weight).sum();
        let seldom = (as_high + 1.0) / (total + 1.0);
        let median = self.median();
        let deviations = self.weights.iter().map(|(count, weight)| ((*count as f64 - median).abs(), *weight));
        let deviation = weighted_median(deviations.collect()) * DEVIATION_TO_STANDARD;
        let spread = deviation.max((median + 1.0).sqrt());
        seldom.max(upper_tail((count as f64 - median) / spread))
    }

    fn median(&self) -> f64 {
        weighted_median(self.weights.iter().map(|(count, weight)| (*count as f64, *weight)).collect())
    }
}

impl Learned for Spike {
    fn bytes(&self) -> usize {
        self.weights.len() * COUNT_BYTES
    }

    fn buckets(&self) -> u64 {
        self.buckets
    }

    fn last_bucket(&self) -> i64 {
        self.last_bucket
    }

    fn pass(&mut self, bucket: Timestamp, span: Duration) {
        if self.buckets == 0 {
            return;
        }
        let since = bucket.since(Timestamp::from_nanos(self.last_bucket));
        let spans = since.as_nanos() / span.as_nanos().max(1);
        let empty = u32::try_from(spans.saturating_sub(1)).unwrap_or(u32::MAX);
        let kept_of_one = kept(span);
        let kept_of_all = kept_of_one.powf(f64::from(empty));
        self.weights.values_mut().for_each(|weight| *weight *= kept_of_all);
        if empty > 0 {
            *self.weights.entry(0).or_default() += (1.0 - kept_of_all) / (1.0 - kept_of_one);
            self.buckets += u64::from(empty);
        }
    }

    fn close(&mut self, bucket: Timestamp, detection: &Detection, present: Vec<Brought>) -> Vec<Scored> {
        let count = present.len() as u64;
        let probability = self.probability(count);
        let size = Size { field: detection.field, actual: count, typical: self.median() };
        let last = present.into_iter().max_by_key(|(_, event)| (event.time(), event.sequence()));
        self.learn(count, bucket, detection.bucket_span);
        last.map(|(_, event)| Scored { probability, event, by_value: None, size: Some(size) })
            .into_iter()
            .collect()
    }

    fn shrink(&mut self, bytes_max: usize) -> u64 {
        // The number of entries is limited, because the values of one bucket have a limit of their own.
        let before = self.weights.len();
        while self.bytes() > bytes_max && self.weights.pop_last().is_some() {}
        (before - self.weights.len()) as u64
    }
}

/// The weighted median; zero if there are no values.
fn weighted_median(mut values: Vec<(f64, f64)>) -> f64 {
    values.sort_by(|(left, _), (right, _)| left.total_cmp(right));
    let half = values.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut reached = 0.0;
    let median = values.iter().find(|(_, weight)| {
        reached += weight;
        reached >= half
    });
    median.map_or(0.0, |(value, _)| *value)
}

/// The probability that a normally distributed value is at least `deviations` standard deviations above the mean. It
/// uses formula 7.1.26 of Abramowitz and Stegun's handbook for the error function, exact to about 1e-7.
fn upper_tail(deviations: f64) -> f64 {
    if deviations <= 0.0 {
        return 1.0;
    }
    let x = deviations / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let terms = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let sum = terms.iter().fold(0.0, |sum, term| (sum + term) * t);
    0.5 * sum * (-x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_that_of_a_normal_distribution() {
        for (deviations, expected) in [(-1.0, 1.0), (1.0, 0.158_655), (2.0, 0.022_750), (3.0, 0.001_350)] {
            let found = upper_tail(deviations);
            assert!((found - expected).abs() < 1e-5, "{deviations}: {found}");
        }
    }

    #[test]
    fn what_is_as_high_as_often_is_no_spike() {
        let mut partition = Spike::default();
        partition.weights.extend([(0, 500.0), (9, 20.0)]);
        assert!(partition.probability(9) > 0.03, "{}", partition.probability(9));
        assert!(partition.probability(10) < 0.002, "{}", partition.probability(10));
        assert!(partition.probability(0) > 0.99);
    }

    #[test]
    fn buckets_without_a_value_are_learned() {
        let span = Duration::from_secs(900);
        let mut partition = Spike::default();
        partition.learn(3, Timestamp::from_millis(0), span);
        partition.pass(Timestamp::from_millis(100 * 900_000), span);
        assert_eq!((partition.buckets, partition.median()), (100, 0.0));
        assert!((partition.weights[&0] - 98.0).abs() < 1.5, "{partition:?}");
    }
}

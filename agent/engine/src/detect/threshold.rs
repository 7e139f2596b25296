//! `threshold`: a number of events with the same values in some fields, within a time window.
//!
//! The Elastic stack runs such a rule every `interval` over the events of the last `from`. Here events are counted as
//! they come, so the window slides. A bucket has the events that agree in the group's fields. The event with which a
//! bucket has enough of them within `from` raises an alert. The bucket is then silent for `from` and counts from zero
//! afterwards, so that lasting activity raises one alert in each window.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::actor::{Actor, Charge};
use super::window::Window;
use super::{Drops, Finding, Findings, Hit, Limits, ThresholdResult};
use crate::event::{Elements, Event, SHARED_BYTES, Timestamp, Value, allocated};
use crate::rule::Threshold;

/// Maximum number of buckets for one event with multi-valued fields.
const BUCKETS_OF_EVENT_MAX: usize = 256;
/// Maximum number of events, and of distinct values, that a bucket counts if the rule's threshold is lower. An alert
/// then has this number as a lower bound.
const COUNTED_MAX: usize = 4096;
/// The common values of a bucket's events.
type Terms = Arc<[Value]>;
/// The terms as a key.
type BucketKey = Arc<[SmolStr]>;

type Buckets = Window<BucketKey, Bucket>;

/// The state of one threshold rule.
#[derive(Debug)]
pub struct ThresholdDetector {
    threshold: Threshold,
    lookback: Duration,
    /// Buckets by their key, each at the time of its latest event, or of the end of its silence.
    buckets: Buckets,
    drops: Drops,
}

#[derive(Debug)]
enum Bucket {
    Counting(Counting),
    /// It has raised an alert, and is silent until its time in the window.
    Silent,
}

#[derive(Debug, Default)]
struct Counting {
    /// The times of its events, earliest first.
    times: VecDeque<Timestamp>,
    /// The last time of each value of the cardinality field.
    values: HashMap<SmolStr, Timestamp>,
}

impl ThresholdDetector {
    /// A detector without state. `lookback` is the rule's `from`.
    #[must_use]
    pub fn new(threshold: &Threshold, lookback: Duration, limits: Limits) -> Self {
        let buckets = Window::new(limits.threshold_bytes_max);
        Self { threshold: threshold.clone(), lookback, buckets, drops: Drops::default() }
    }

    /// Counts an event that matched the rule's query.
    pub(crate) fn event(&mut self, hit: &Hit, findings: &mut Findings) {
        for terms in self.terms(&hit.event) {
            self.count(&terms, hit, findings);
        }
    }

    fn count(&mut self, terms: &Terms, hit: &Hit, findings: &mut Findings) {
        let time = hit.ordinal.time;
        let key: BucketKey = terms.iter().map(Value::key).collect();
        let silent = match self.buckets.get(&key) {
            Some((until, Bucket::Silent)) => time < until,
            _ => false,
        };
        if silent {
            return;
        }
        let latest = self.buckets.get(&key).map_or(time, |(latest, _)| latest.max(time));
        let actor = &hit.charge().actor;
        let actor = self.buckets.charge(&key).map_or(*actor, |before| before.actor.common(actor));
        let mut counting = match self.buckets.remove(&key) {
            Some(Bucket::Counting(counting)) => counting,
            _ => Counting::default(),
        };
        counting.add(time, &hit.event, &self.threshold);
        if let Some(result) = counting.result(&self.threshold, latest - self.lookback, terms) {
            let events = vec![Some(hit.event.clone())];
            findings.found.push(Finding { events, threshold: Some(result.into()), ..Finding::default() });
            self.insert(key, latest + self.lookback, actor, Bucket::Silent, time);
        } else {
            self.insert(key, latest, actor, Bucket::Counting(counting), time);
        }
    }

    fn insert(&mut self, key: BucketKey, time: Timestamp, actor: Actor, bucket: Bucket, now: Timestamp) {
        let texts = key.iter().filter(|text| text.is_heap_allocated());
        let texts: usize = texts.map(|text| allocated(SHARED_BYTES + text.len())).sum();
        let key_bytes = allocated(SHARED_BYTES + size_of_val(&*key)) + texts;
        let bytes = Buckets::ENTRY_BYTES + key_bytes + bucket.bytes();
        let gone = self.buckets.insert(key, time, Charge { actor, bytes }, bucket);
        gone.iter().for_each(|(_, bucket)| self.drop(bucket, now));
    }

    /// Counts the eviction of a bucket. A silent bucket is no loss: without it the next alert comes earlier.
    fn drop(&mut self, bucket: &Bucket, now: Timestamp) {
        if let Bucket::Counting(_) = bucket {
            self.drops.note(now, self.lookback);
        }
    }

    /// The evicted buckets.
    pub(crate) fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Evicts a bucket of the actor that holds most.
    pub(crate) fn give_way(&mut self, now: Timestamp) {
        if let Some((_, bucket)) = self.buckets.give_way() {
            self.drop(&bucket, now);
        }
    }

    /// Advances the time: no event before `now` will come.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        self.buckets.expire(now - self.lookback);
    }

    /// The buckets of an event: all combinations of the fields' distinct values; none if a field is absent.
    fn terms(&self, event: &Event) -> Vec<Terms> {
        let combinations = self.threshold.fields.iter().fold(vec![Vec::new()], |terms, field| {
            let values = distinct(event.values(*field));
            let longer = terms.iter().flat_map(|term: &Vec<Value>| {
                let values = values.iter().cloned();
                values.map(move |value| [term.as_slice(), &[value]].concat())
            });
            longer.take(BUCKETS_OF_EVENT_MAX).collect()
        });
        combinations.into_iter().map(Into::into).collect()
    }

    /// Buckets that were evicted because of the limit.
    pub(crate) fn discarded(&self) -> u64 {
        self.buckets.discarded()
    }

    /// Bytes held by buckets.
    pub(crate) fn bytes(&self) -> usize {
        self.buckets.bytes()
    }
}

impl Bucket {
    fn bytes(&self) -> usize {
        match self {
            Self::Silent => 0,
            Self::Counting(Counting { times, values }) => {
                let texts = values.keys().filter(|text| text.is_heap_allocated());
                let texts: usize = texts.map(|text| allocated(SHARED_BYTES + text.len())).sum();
                allocated(times.capacity() * size_of::<Timestamp>())
                    + allocated(values.capacity() * size_of::<(SmolStr, Timestamp)>() * 8 / 7)
                    + texts
            }
        }
    }
}

impl Counting {
    fn add(&mut self, time: Timestamp, event: &Event, threshold: &Threshold) {
        // A late event is inserted in order. Nearly all events are appended.
        let place = self.times.iter().rposition(|before| *before <= time).map_or(0, |before| before + 1);
        self.times.insert(place, time);
        while self.times.len() > at_least(threshold.value) {
            self.times.pop_front();
        }
        let Some((field, least)) = threshold.cardinality else { return };
        for value in event.values(field) {
            let seen = self.values.entry(value.key()).or_insert(time);
            *seen = time.max(*seen);
        }
        // Half of them are removed at once, so that the search for the earliest costs little per event.
        let held_max = at_least(least);
        if self.values.len() > held_max * 2 {
            let mut times: Vec<_> = self.values.values().copied().collect();
            times.sort_unstable_by(|left, right| right.cmp(left));
            let earliest = times[held_max - 1];
            self.values.retain(|_, seen| *seen >= earliest);
        }
    }

    /// The result, if the events since `start` reach the threshold.
    fn result(&mut self, threshold: &Threshold, start: Timestamp, terms: &Terms) -> Option<ThresholdResult> {
        while self.times.front().is_some_and(|first| *first < start) {
            self.times.pop_front();
        }
        let count = self.times.len() as u64;
        let from = *self.times.front().filter(|_| count >= threshold.value)?;
        let mut cardinality = None;
        if let Some((field, least)) = threshold.cardinality {
            // Old values are removed only if the result depends on it, because the removal reads all of them.
            if self.values.len() as u64 >= least {
                self.values.retain(|_, seen| *seen >= start);
            }
            cardinality = Some((field, self.values.len() as u64)).filter(|(_, found)| *found >= least);
            cardinality?;
        }
        let terms = threshold.fields.iter().copied().zip(terms.iter().cloned()).collect();
        Some(ThresholdResult { terms, count, cardinality, from })
    }
}

/// The distinct values.
fn distinct(values: Elements<'_>) -> Vec<Value> {
    if let Some(only) = values.clone().only() {
        return vec![only.into_owned()];
    }
    let mut seen = HashSet::new();
    values.filter(|value| seen.insert(value.key())).map(Cow::into_owned).collect()
}

/// How many events or values a bucket counts for this threshold.
fn at_least(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX / 4).max(COUNTED_MAX)
}

//! The detector of a rule: one of the detectors, behind a common interface.

use std::sync::Arc;

use crate::detect::{
    Change, Drops, Finding, Findings, Hit, IndicatorMatch, Jobs, Limits, NewTerms, SampleDetector,
    SequenceDetector, SharedBytes, ThresholdDetector,
};
use crate::event::{Schema, Timestamp};
use crate::lang::Query;
use crate::rule::{Rule, RuleKind};

use super::{Counters, Options};

/// The limits that all rules of an engine share.
pub(super) struct Pools {
    terms: SharedBytes,
    jobs: SharedBytes,
}

impl Pools {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            terms: SharedBytes::new(limits.terms_bytes_all_max),
            jobs: SharedBytes::new(limits.job_bytes_all_max),
        }
    }
}

/// The detector of a rule. The set is closed: each rule type uses one of these.
pub(super) enum Detector {
    Match,
    Sequence(Box<SequenceDetector>),
    Sample(Box<SampleDetector>),
    NewTerms(NewTerms),
    Threshold(ThresholdDetector),
    Indicators(IndicatorMatch),
    Jobs(Jobs),
}

impl Detector {
    pub(super) fn new(rule: &Rule, options: Options, pools: &Pools) -> Self {
        let limits: Limits = options.limits;
        match &rule.kind {
            RuleKind::Query(_) => Self::Match,
            RuleKind::Eql(query) => match query.inner() {
                Query::Event(_) | Query::Lineage(_) => Self::Match,
                Query::Sequence(sequence) => {
                    Self::Sequence(SequenceDetector::new(sequence, rule.lookback, limits).into())
                }
                Query::Sample(sample) => {
                    Self::Sample(SampleDetector::new(sample, rule.lookback, limits).into())
                }
            },
            RuleKind::NewTerms { fields, history, .. } => {
                Self::NewTerms(NewTerms::new(fields.clone(), *history, options.learn, limits, &pools.terms))
            }
            RuleKind::Threshold { threshold, .. } => {
                Self::Threshold(ThresholdDetector::new(threshold, rule.lookback, limits))
            }
            // Without indicators nothing matches. `Engine::with_indicators` adds them later.
            RuleKind::ThreatMatch { threat, .. } => {
                Self::Indicators(IndicatorMatch::new(threat, &Arc::default(), &Schema::default()))
            }
            RuleKind::MachineLearning { jobs, anomaly_threshold } => {
                Self::Jobs(Jobs::new(jobs, *anomaly_threshold, limits, &pools.jobs))
            }
        }
    }

    /// Whether it must see events in the order of their times.
    pub(super) fn is_ordered(&self) -> bool {
        matches!(self, Self::Sequence(_))
    }

    /// Whether it counts events. Such a detector must not get an event that an exception suppresses.
    pub(super) fn counts(&self) -> bool {
        matches!(self, Self::Threshold(_))
    }

    pub(super) fn event(&mut self, schema: &Schema, hit: &Hit, findings: &mut Findings) {
        match self {
            Self::Match => {
                let events = vec![Some(hit.event.clone())];
                findings.found.push(Finding { events, ..Finding::default() });
            }
            Self::Sequence(sequence) => sequence.event(hit, findings),
            Self::Sample(sample) => sample.event(hit, findings),
            Self::NewTerms(terms) => terms.event(hit, findings),
            Self::Threshold(threshold) => threshold.event(hit, findings),
            Self::Indicators(indicators) => indicators.event(schema, hit, findings),
            Self::Jobs(jobs) => jobs.event(schema, hit, findings),
        }
    }

    /// Advances the time: no event before `now` will come.
    pub(super) fn advance(&mut self, now: Timestamp, findings: &mut Findings) {
        match self {
            Self::Match | Self::Indicators(_) => {}
            Self::Sequence(sequence) => sequence.advance(now, findings),
            Self::Sample(sample) => sample.advance(now),
            Self::NewTerms(terms) => terms.advance(now, findings),
            Self::Threshold(threshold) => threshold.advance(now),
            Self::Jobs(jobs) => jobs.advance(now, findings),
        }
    }

    /// Whether it holds no state that expires.
    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::Match | Self::Indicators(_) => true,
            Self::Sequence(sequence) => sequence.is_idle(),
            Self::Sample(_) | Self::NewTerms(_) | Self::Threshold(_) | Self::Jobs(_) => false,
        }
    }

    /// The partial matches of a sequence, and the hits that it has not evaluated; `None` if there are none.
    pub(super) fn suspend(&self, schema: &Schema, rule: &Rule, pending: &[&Hit]) -> Option<Vec<u8>> {
        match self {
            Self::Sequence(sequence) => sequence.suspend(schema, &rule.query, pending),
            _ => None,
        }
    }

    /// Restores the state of [`suspend`](Self::suspend), and returns the hits that it must still evaluate.
    pub(super) fn resume(&mut self, schema: &Schema, rule: &Rule, value: &[u8]) -> Vec<Hit> {
        match self {
            Self::Sequence(sequence) => sequence.resume(schema, &rule.query, value),
            _ => Vec::new(),
        }
    }

    /// The number of the latest event that it holds.
    pub(super) fn latest_arrival(&self) -> u64 {
        match self {
            Self::Sequence(sequence) => sequence.latest_arrival(),
            _ => 0,
        }
    }

    /// Restores a row. Changes of rows, because an earlier version wrote them or there is no room, are added to
    /// `changes`.
    pub(super) fn restore(&mut self, schema: &Schema, key: &str, value: &[u8], changes: &mut Vec<Change>) {
        match self {
            Self::Match | Self::Sequence(_) | Self::Sample(_) | Self::Threshold(_) | Self::Indicators(_) => {}
            Self::NewTerms(terms) => terms.restore(key, value, changes),
            Self::Jobs(jobs) => jobs.restore(schema, key, value, changes),
        }
    }

    /// Whether it evaluates each event by itself.
    pub(super) fn is_memoryless(&self) -> bool {
        matches!(self, Self::Match | Self::Indicators(_))
    }

    /// Bytes that it holds of the limit that all rules share.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Sequence(sequence) => sequence.bytes(),
            Self::Sample(sample) => sample.bytes(),
            Self::Threshold(threshold) => threshold.bytes(),
            Self::Match | Self::Indicators(_) | Self::NewTerms(_) | Self::Jobs(_) => 0,
        }
    }

    /// Evicts an entry of the actor that holds most.
    pub(super) fn give_way(&mut self, now: Timestamp) {
        match self {
            Self::Sequence(sequence) => sequence.give_way(now),
            Self::Sample(sample) => sample.give_way(now),
            Self::Threshold(threshold) => threshold.give_way(now),
            Self::Match | Self::Indicators(_) | Self::NewTerms(_) | Self::Jobs(_) => {}
        }
    }

    /// The partial matches that it evicted; `None` if it never has partial matches.
    pub(super) fn drops(&self) -> Option<&Drops> {
        match self {
            Self::Sequence(sequence) => Some(sequence.drops()),
            Self::Sample(sample) => Some(sample.drops()),
            Self::Threshold(threshold) => Some(threshold.drops()),
            Self::Match | Self::Indicators(_) | Self::NewTerms(_) | Self::Jobs(_) => None,
        }
    }

    /// Adds its counters.
    pub(super) fn count(&self, counters: &mut Counters) {
        counters.discarded += match self {
            Self::Match | Self::Indicators(_) => 0,
            Self::Sequence(sequence) => {
                counters.sequence_bytes += sequence.bytes() as u64;
                sequence.discarded()
            }
            Self::Sample(sample) => {
                counters.sequence_bytes += sample.bytes() as u64;
                sample.discarded()
            }
            Self::NewTerms(terms) => {
                counters.learned_bytes += terms.bytes() as u64;
                terms.discarded()
            }
            Self::Threshold(threshold) => {
                counters.threshold_bytes += threshold.bytes() as u64;
                threshold.discarded()
            }
            Self::Jobs(jobs) => {
                counters.learned_bytes += jobs.bytes() as u64;
                jobs.discarded()
            }
        };
    }
}

//! A rule at work: from what its detector finds to the alerts that are raised.

use std::sync::Arc;

use super::detector::Detector;
use super::excuse::Excuses;
use super::flood::Flood;
use super::{Alert, Counters, Options, Output, StateChange};
use crate::detect::{Findings, Hit, LineageDetector, Suppressor};
use crate::event::{Event, Schema, Timestamp};
use crate::lang::Query;
use crate::rule::{Kind, Rule};

/// A rule and its memory.
pub(super) struct Running {
    pub(super) rule: Arc<Rule>,
    pub(super) detector: Detector,
    /// What answers its questions about the ancestry of processes.
    lineage: Option<LineageDetector>,
    /// The exceptions that are for it, by their places.
    pub(super) excuses: Vec<usize>,
    suppressor: Option<Suppressor>,
    flood: Flood,
    /// Whether the engine tells it the time.
    pub(super) is_awake: bool,
}

impl Running {
    pub(super) fn new(rule: &Arc<Rule>, options: Options) -> Self {
        let suppressor = rule.suppression.as_ref();
        Self {
            rule: rule.clone(),
            detector: Detector::new(rule, options),
            lineage: match &rule.kind {
                Kind::Eql(Query::Lineage(lineage)) => Some(LineageDetector::new(lineage, options.limits)),
                _ => None,
            },
            excuses: Vec::new(),
            suppressor: suppressor.map(|suppression| Suppressor::new(suppression, options.limits)),
            flood: Flood::new(rule.interval, rule.max_signals),
            is_awake: false,
        }
    }

    pub(super) fn judge(&mut self, schema: &Schema, excuses: &mut Excuses, hit: &Hit, output: &mut Output) {
        let related = self.lineage.as_mut().map(|lineage| lineage.event(hit));
        let hit = match &related {
            None => hit,
            Some(None) => return,
            Some(Some(related)) => related,
        };
        let events = std::iter::once(&*hit.event);
        if self.detector.counts() && excuses.excuse(&self.excuses, hit.ordinal.time, events) {
            return;
        }
        let mut findings = Findings::default();
        self.detector.event(schema, hit, &mut findings);
        self.collect(schema, excuses, findings, output);
    }

    /// Tells that no event before `now` will come any more.
    pub(super) fn advance(
        &mut self,
        schema: &Schema,
        excuses: &mut Excuses,
        now: Timestamp,
        output: &mut Output,
    ) {
        let mut findings = Findings::default();
        self.detector.advance(now, &mut findings);
        self.collect(schema, excuses, findings, output);
        let groups = self.suppressor.iter_mut().flat_map(|suppressor| suppressor.advance(now));
        let summaries = groups.chain(self.flood.advance(now));
        output.alerts.extend(summaries.map(|suppressed| Alert::summary(&self.rule, suppressed)));
    }

    /// Whether it needs not be told the time until it has judged another event: most rules remember nothing mostly.
    pub(super) fn is_idle(&self) -> bool {
        self.suppressor.is_none() && self.flood.is_idle() && self.detector.is_idle()
    }

    /// Makes alerts of what was found and is not excused: of a group that is suppressed the first, and no more than the limit of alerts in
    /// a time span.
    fn collect(&mut self, schema: &Schema, excuses: &mut Excuses, findings: Findings, output: &mut Output) {
        for finding in findings.found {
            let events = finding.events.iter().flatten().map(|event| &**event);
            let time = events.clone().map(Event::time).max().unwrap_or_default();
            if !self.detector.counts() && excuses.excuse(&self.excuses, time, events) {
                continue;
            }
            let alert = Alert::detection(schema, &self.rule, finding);
            let (mut raise, mut summaries) = (true, Vec::new());
            if let (Some(suppressor), Some(finding)) = (&mut self.suppressor, alert.finding()) {
                (raise, summaries) = suppressor.admit(finding, time);
            }
            if raise {
                let summary;
                (raise, summary) = self.flood.admit(time);
                summaries.extend(summary);
            }
            output.alerts.extend(summaries.into_iter().map(|cause| Alert::summary(&self.rule, cause)));
            if raise {
                output.alerts.push(alert);
            }
        }
        let rule_id = &self.rule.id;
        let changes = findings.changes.into_iter();
        output.changes.extend(changes.map(|change| StateChange { rule_id: rule_id.clone(), change }));
    }

    /// Adds what it holds and what it gave up.
    pub(super) fn count(&self, counters: &mut Counters) {
        self.detector.count(counters);
        counters.discarded += self.lineage.as_ref().map_or(0, LineageDetector::discarded);
        counters.discarded += self.suppressor.as_ref().map_or(0, Suppressor::discarded);
    }
}

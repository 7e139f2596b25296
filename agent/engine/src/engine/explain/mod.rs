//! Why a rule does or does not match: its event queries evaluated condition by condition, the longest chain of a
//! sequence, and the state that the events leave. The alerts are those of an [`Engine`] with the one rule.

mod chain;
mod state;
mod trace;

pub use chain::{Chain, Stopped};
pub use state::{Bound, bounds, spelled};
pub use trace::{Trace, Traced};

use std::sync::Arc;

use self::chain::{HITS_MAX, Stages};
use self::state::Groups;
use self::trace::nearness;
use super::{Alert, Engine, Options, Output};
use crate::detect::{Indicators, naive};
use crate::event::{Event, Schema, Timestamp};
use crate::lang::{EventQuery, Query};
use crate::rule::{Exception, Rule, RuleKind};

/// Maximum number of near misses that are reported for each event query.
pub const MISSES_MAX: usize = 3;
/// Maximum number of alerts that are reported.
pub const ALERTS_MAX: usize = 3;

/// Runs one rule over events, and records why it matches or not.
pub struct Explainer {
    rule: Arc<Rule>,
    schema: Arc<Schema>,
    engine: Engine,
    output: Output,
    latest: Timestamp,
    events: u64,
    alert_count: u64,
    alerts: Vec<Alert>,
    parts: Vec<Part>,
    hits: Vec<Vec<Arc<Event>>>,
    groups: Option<Groups>,
}

/// The results of an event query of the rule.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// The number of events that matched it.
    pub matched: u64,
    /// The first event that matched it, with its trace.
    pub first: Option<Traced>,
    /// The nearest misses, the nearest first.
    pub misses: Vec<Traced>,
}

/// Why a rule did or did not match.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// How many events there were.
    pub events: u64,
    /// How many alerts the rule raised.
    pub alert_count: u64,
    /// The first of them.
    pub alerts: Vec<Alert>,
    /// The rule's event queries, in their order.
    pub parts: Vec<Part>,
    /// How far the rule's sequence or sample came.
    pub chain: Option<Chain>,
    /// What the events made of the rule's memory, in sentences.
    pub state: Vec<String>,
    /// The exceptions that kept an alert back, or an event from being counted, each with how often.
    pub excused: Vec<(Arc<Exception>, u64)>,
}

impl Explainer {
    /// Explains a rule that was read with this schema.
    #[must_use]
    pub fn new(rule: &Arc<Rule>, schema: Arc<Schema>, options: Options) -> Self {
        let enabled = Arc::new(Rule { enabled: true, ..(**rule).clone() });
        let queries = enabled.kind.events().len();
        Self {
            engine: Engine::new(schema.clone(), &[enabled], options),
            schema,
            output: Output::default(),
            latest: Timestamp::MIN,
            events: 0,
            alert_count: 0,
            alerts: Vec::new(),
            parts: vec![Part::default(); queries],
            hits: vec![Vec::new(); queries],
            groups: Groups::of(rule),
            rule: rule.clone(),
        }
    }

    /// The same with exceptions, in place of any it had: see [`Engine::with_exceptions`].
    #[must_use]
    pub fn with_exceptions(mut self, exceptions: &[Arc<Exception>]) -> Self {
        self.engine = self.engine.with_exceptions(exceptions);
        self
    }

    /// The same with indicators of threats, in place of any it had: see [`Engine::with_indicators`].
    #[must_use]
    pub fn with_indicators(mut self, indicators: &Arc<Indicators>) -> Self {
        self.engine = self.engine.with_indicators(indicators);
        self
    }

    /// Shows it an event.
    pub fn push(&mut self, event: impl Into<Arc<Event>>) {
        let event = event.into();
        self.events += 1;
        for (index, query) in self.rule.kind.events().into_iter().enumerate() {
            let part = &mut self.parts[index];
            if naive::matches(query, &event) {
                part.matched += 1;
                if part.first.is_none() {
                    part.first = Some(Traced::new(query, &event, 1.0, &self.schema));
                }
                if self.hits[index].len() < HITS_MAX {
                    self.hits[index].push(event.clone());
                }
                self.groups.iter_mut().for_each(|groups| groups.count(&event));
            } else if part.matched == 0 {
                part.miss(query, &event, &self.schema);
            }
        }
        self.latest = self.latest.max(event.time());
        self.engine.push(event, &mut self.output);
        self.engine.advance(self.latest, &mut self.output);
        self.take();
    }

    /// No more events come.
    #[must_use]
    pub fn finish(mut self) -> Explanation {
        self.engine.finish(&mut self.output);
        self.take();
        self.hits.iter_mut().for_each(|hits| hits.sort_by_key(|hit| (hit.time(), hit.sequence())));
        let chain = match &self.rule.kind {
            RuleKind::Eql(query) => {
                Stages::of(query, &self.hits).and_then(|stages| stages.longest(&self.schema))
            }
            _ => None,
        };
        self.parts.iter_mut().for_each(Part::settle);
        let groups = self.groups.as_ref();
        let mut state = groups.map(|groups| groups.lines(&self.rule, &self.schema)).unwrap_or_default();
        if matches!(self.rule.kind, RuleKind::Eql(Query::Lineage(_))) {
            let of =
                "conditions on the ancestry of processes hang on earlier events and are not shown one by one";
            state.push(of.to_owned());
        }
        let excused = self.engine.exceptions().filter(|(_, times)| *times > 0);
        let excused = excused.map(|(exception, times)| (exception.clone(), times)).collect();
        Explanation {
            events: self.events,
            alert_count: self.alert_count,
            alerts: self.alerts,
            parts: self.parts,
            chain,
            state,
            excused,
        }
    }

    fn take(&mut self) {
        self.output.changes.clear();
        for alert in self.output.alerts.drain(..) {
            self.alert_count += 1;
            if self.alerts.len() < ALERTS_MAX {
                self.alerts.push(alert);
            }
        }
    }
}

impl Part {
    /// Keeps an event that is nearer than those kept, or as near and there is room.
    fn miss(&mut self, query: &EventQuery, event: &Arc<Event>, schema: &Schema) {
        let near = nearness(query, event);
        let place = self.misses.iter().position(|miss| miss.nearness < near);
        let place = place.unwrap_or(self.misses.len());
        if place < MISSES_MAX {
            self.misses.insert(place, Traced::new(query, event, near, schema));
            self.misses.truncate(MISSES_MAX);
        }
    }

    /// Where an event of the right kind was near, those of other kinds are no misses.
    fn settle(&mut self) {
        let is_of = |miss: &Traced| miss.trace.parts.first().is_none_or(|category| category.holds);
        if self.misses.first().is_some_and(is_of) {
            self.misses.retain(is_of);
        }
    }
}

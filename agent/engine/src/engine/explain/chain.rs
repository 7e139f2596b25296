//! Why a sequence or a sample is not complete: the longest chain of events that it came to, and what kept each event of
//! the next stage from going on with it.

use std::sync::Arc;

use smol_str::SmolStr;

use super::state::spelled;
use crate::detect::{JoinKey, join_keys, naive};
use crate::event::{Event, FieldId, Schema, Value};
use crate::lang::operator::Relation;
use crate::lang::query::{Answers, Query, Stage};

/// How far a sequence came.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The event queries that were met, by their place in the rule, each with the event.
    pub reached: Vec<(usize, Arc<Event>)>,
    /// What the events agree in: the first stage's fields and their values, `None` where an optional one is absent.
    pub keys: Vec<(String, Option<SmolStr>)>,
    /// What it stopped at; `None` where nothing of the stages is missing.
    pub stopped: Option<Stopped>,
}

/// Why it went no further.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// The stage that was not met, by its place in the rule.
    pub stage: usize,
    /// Events that met the stage's query and were not taken, with the reason, the nearest to being taken first.
    pub refused: Vec<(Arc<Event>, String)>,
    /// How many such events there were.
    pub refused_count: usize,
}

/// The stages that were met, each with its event.
type Reached = Vec<(usize, Arc<Event>)>;
/// What events are joined by.
type Key = Vec<Option<SmolStr>>;

/// Most events of each stage that are looked at.
pub(super) const HITS_MAX: usize = 1000;
/// Most refused events that are reported.
const REFUSED_MAX: usize = 3;

/// The hits of every stage, in the order of events.
pub(super) struct Stages<'a> {
    stages: Vec<&'a Stage>,
    is_ordered: bool,
    until: Option<&'a Stage>,
    maxspan: Option<std::time::Duration>,
    hits: &'a [Vec<Arc<Event>>],
}

impl<'a> Stages<'a> {
    /// The stages of a query with the hits of its event queries; `None` of a query for single events.
    pub(super) fn of(query: &'a Query, hits: &'a [Vec<Arc<Event>>]) -> Option<Self> {
        let (stages, is_ordered, until, maxspan) = match query.inner() {
            Query::Sequence(sequence) => (&sequence.stages, true, sequence.until.as_ref(), sequence.maxspan),
            Query::Sample(sample) => (&sample.stages, false, None, None),
            Query::Event(_) | Query::Lineage(_) => return None,
        };
        Some(Self { stages: stages.iter().collect(), is_ordered, until, maxspan, hits })
    }

    /// The chain that came furthest; of several the first.
    pub(super) fn longest(&self, schema: &Schema) -> Option<Chain> {
        let positive: Vec<_> = (0..self.stages.len()).filter(|stage| !self.stages[*stage].missing).collect();
        let first = *positive.first()?;
        let mut best: Option<(Reached, Key)> = None;
        for start in &self.hits[first] {
            for key in join_keys(&self.stages[first].keys, start) {
                let chain = self.follow(&positive, start, &key);
                if best.as_ref().is_none_or(|(longest, _)| longest.len() < chain.len()) {
                    best = Some((chain, key.to_vec()));
                }
            }
        }
        let (reached, key) = best?;
        let name = |key: &crate::lang::query::Key| key.field.map_or("?", |id| schema.name(id)).to_owned();
        let keys = self.stages[first].keys.iter().map(name).zip(key.iter().cloned()).collect();
        let next = positive.get(reached.len()).copied();
        let stopped = next.map(|stage| self.stopped(stage, &reached, &key));
        Some(Chain { reached, keys, stopped })
    }

    /// Goes on from an event as far as it goes.
    fn follow(
        &self,
        positive: &[usize],
        start: &Arc<Event>,
        key: &[Option<SmolStr>],
    ) -> Vec<(usize, Arc<Event>)> {
        let mut reached = vec![(positive[0], start.clone())];
        for &stage in &positive[1..] {
            let next = self.hits[stage].iter().find(|hit| self.refusal(stage, hit, &reached, key).is_none());
            let Some(next) = next else { break };
            reached.push((stage, next.clone()));
        }
        reached
    }

    fn stopped(&self, stage: usize, reached: &[(usize, Arc<Event>)], key: &[Option<SmolStr>]) -> Stopped {
        let refusal = |hit: &Arc<Event>| Some((hit.clone(), self.refusal(stage, hit, reached, key)?));
        let mut refused: Vec<_> = self.hits[stage].iter().filter_map(refusal).collect();
        refused.sort_by_key(|(_, (rank, _))| *rank);
        let refused_count = refused.len();
        refused.truncate(REFUSED_MAX);
        let refused = refused.into_iter().map(|(event, (_, reason))| (event, reason)).collect();
        Stopped { stage, refused, refused_count }
    }

    /// Why an event that meets a stage does not go on with a chain, and how far it is from doing so.
    fn refusal(
        &self,
        stage: usize,
        hit: &Arc<Event>,
        reached: &[(usize, Arc<Event>)],
        key: &[Option<SmolStr>],
    ) -> Option<(u8, String)> {
        let (first, last) = (&reached.first()?.1, &reached.last()?.1);
        let own: Vec<_> = join_keys(&self.stages[stage].keys, hit).collect();
        if !own.iter().any(|own| **own == *key) {
            return Some((4, other_key(&own, key)));
        }
        let is_taken = reached.iter().any(|(_, taken)| Arc::ptr_eq(taken, hit));
        if is_taken {
            return Some((5, "it is an event of an earlier stage already".to_owned()));
        }
        if !self.is_ordered {
            return None;
        }
        if order(hit) <= order(last) {
            return Some((3, format!("it came before the event of the stage before, at {}", last.time())));
        }
        if let Some(until) =
            self.until.and_then(|until| self.between(self.stages.len(), until, key, last, hit))
        {
            return Some((1, format!("`until` ended the sequence at {}", until.time())));
        }
        let span = hit.time().since(first.time());
        if let Some(maxspan) = self.maxspan.filter(|maxspan| span > *maxspan) {
            return Some((
                2,
                format!("it came {span:?} after the first event, and maxspan is {}", spelled(maxspan)),
            ));
        }
        let before = reached.last().map_or(0, |(stage, _)| stage + 1);
        let absent = (before..stage).filter(|between| self.stages[*between].missing);
        for between in absent {
            if let Some(found) = self.between(between, self.stages[between], key, last, hit) {
                return Some((
                    1,
                    format!("what stage {} says must be missing came at {}", between + 1, found.time()),
                ));
            }
        }
        let later = self.stages[stage].later.as_ref();
        let holds =
            |later: &crate::lang::query::Condition| naive::holds(&later.resolved(&Before(reached)), hit);
        later
            .is_some_and(|later| !holds(later))
            .then(|| (1, "what it says of earlier events does not hold".to_owned()))
    }

    /// A hit of this part with the key between two events.
    fn between(
        &self,
        part: usize,
        stage: &Stage,
        key: &[Option<SmolStr>],
        after: &Event,
        before: &Event,
    ) -> Option<&Arc<Event>> {
        let lies = |hit: &&Arc<Event>| order(after) < order(hit) && order(hit) < order(before);
        let agrees = |hit: &&Arc<Event>| join_keys(&stage.keys, hit).any(|own| *own == *key);
        self.hits.get(part)?.iter().filter(lies).find(agrees)
    }
}

/// The events of earlier stages, for conditions that ask about them.
struct Before<'a>(&'a [(usize, Arc<Event>)]);

impl Answers for Before<'_> {
    fn related(&self, _: Relation, _: usize) -> bool {
        false
    }

    fn earlier(&self, stage: usize, field: FieldId) -> Option<Value> {
        self.0.iter().find(|(reached, _)| *reached == stage).and_then(|(_, event)| event.get(field)).cloned()
    }
}

fn order(event: &Event) -> (crate::event::Timestamp, u64) {
    (event.time(), event.sequence())
}

fn other_key(own: &[JoinKey], wanted: &[Option<SmolStr>]) -> String {
    let words = |key: &[Option<SmolStr>]| {
        let words: Vec<_> = key.iter().map(|value| value.as_deref().unwrap_or("(absent)")).collect();
        words.join(", ")
    };
    match own.first() {
        None => "it lacks a field that the sequence is joined by".to_owned(),
        Some(own) => format!("it is joined by {}, and the events before by {}", words(own), words(wanted)),
    }
}

//! What sequences mean, said over a whole recording and not event by event: a table of which event ends a chain of
//! which stages, filled stage after stage. It shares nothing with the detector, whose tables it knows nothing of.
//!
//! - An event ends a chain of n stages where it fits stage n and the chain that it goes on from still waits: that of
//!   the latest event before it that ends a chain of n-1 stages, unless another event in between fitted stage n and so
//!   used it up, or an `until` came at or after its last event.
//! - A chain that is used up by an event beyond `maxspan` from its first event is lost.
//! - Missing events are looked for in the end, around what else is complete.

use std::collections::BTreeSet;

use super::FIELDS;

/// What is looked for.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) shared: Vec<Key>,
    /// In seconds.
    pub(super) maxspan: Option<i64>,
    pub(super) stages: Vec<Stage>,
    pub(super) until: Option<Stage>,
}

/// A stage of it.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    /// `None` for any.
    pub(super) category: Option<&'static str>,
    /// Those of its own.
    pub(super) keys: Vec<Key>,
    pub(super) missing: bool,
    pub(super) runs: usize,
}

/// A field that events agree in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) field: &'static str,
    pub(super) optional: bool,
}

/// An event; its id is its place among those that arrived.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) id: usize,
    pub(super) second: i64,
    pub(super) tiebreaker: Option<u64>,
    pub(super) categories: Vec<&'static str>,
    /// Of each of the fields.
    pub(super) values: Vec<Vec<i64>>,
}

/// A sequence that was found; its events are those of the stages, `None` for a missing one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Match {
    pub(super) keys: JoinKey,
    pub(super) events: Vec<Option<usize>>,
}

type JoinKey = Vec<Option<i64>>;

impl Moment {
    /// What orders events: one without a tiebreaker is the last of its time.
    pub(super) fn place(&self) -> (i64, u64, usize) {
        (self.second, self.tiebreaker.unwrap_or(u64::MAX), self.id)
    }
}

/// Every match in a recording.
pub(super) fn matches(sequence: &Sequence, moments: &[Moment]) -> Vec<Match> {
    let mut ordered: Vec<_> = moments.iter().collect();
    ordered.sort_by_key(|moment| moment.place());
    let stages: Vec<_> =
        sequence.stages.iter().flat_map(|stage| std::iter::repeat_n(stage, stage.runs)).collect();
    let keys: BTreeSet<_> = ordered
        .iter()
        .flat_map(|moment| stages.iter().flat_map(|stage| join_keys(&sequence.shared, stage, moment)))
        .collect();
    keys.into_iter()
        .flat_map(|key| {
            let recording = Recording { sequence, stages: &stages, moments: &ordered, key: &key };
            recording.matches()
        })
        .collect()
}

/// The keys under which an event fits a stage: none where it does not.
fn join_keys(shared: &[Key], stage: &Stage, moment: &Moment) -> Vec<JoinKey> {
    if stage.category.is_some_and(|category| !moment.categories.contains(&category)) {
        return Vec::new();
    }
    let mut tuples: Vec<JoinKey> = vec![Vec::new()];
    for key in shared.iter().chain(&stage.keys) {
        let field = FIELDS.iter().position(|field| *field == key.field).unwrap();
        let mut values: BTreeSet<_> = moment.values[field].iter().map(|value| Some(*value)).collect();
        if values.is_empty() && key.optional {
            values.insert(None);
        }
        let longer =
            tuples.iter().flat_map(|tuple| values.iter().map(|value| [tuple.as_slice(), &[*value]].concat()));
        tuples = longer.collect();
    }
    tuples
}

/// What of a recording belongs to one key. Events are named by their place in the order.
struct Recording<'a> {
    sequence: &'a Sequence,
    stages: &'a [&'a Stage],
    moments: &'a [&'a Moment],
    key: &'a JoinKey,
}

impl Recording<'_> {
    fn matches(&self) -> Vec<Match> {
        let positive: Vec<_> = (0..self.stages.len()).filter(|stage| !self.stages[*stage].missing).collect();
        let mut chains: Vec<Option<Vec<usize>>> = Vec::new();
        for (stage, place) in positive.iter().enumerate() {
            chains = (0..self.moments.len())
                .map(|event| match stage {
                    0 => self.fits(*place, event).then(|| vec![event]),
                    _ => self.longer(&chains, *place, event),
                })
                .collect();
        }
        let complete = chains.into_iter().flatten().filter(|chain| !self.is_spoilt(&positive, chain));
        complete.map(|chain| self.found(&chain)).collect()
    }

    /// The chain that ends with this event in this stage, made of those one stage shorter.
    fn longer(&self, chains: &[Option<Vec<usize>>], stage: usize, event: usize) -> Option<Vec<usize>> {
        if !self.fits(stage, event) {
            return None;
        }
        let before =
            (0..event).rev().find(|before| chains[*before].is_some() || self.fits(stage, *before))?;
        let mut chain = chains[before].clone()?;
        let is_over =
            self.sequence.maxspan.is_some_and(|span| self.second(event) - self.second(chain[0]) > span);
        let is_ended = (before..event)
            .any(|between| self.sequence.until.as_ref().is_some_and(|until| self.is_of(until, between)));
        chain.push(event);
        (!is_over && !is_ended).then_some(chain)
    }

    /// Whether an event is there that must be missing.
    fn is_spoilt(&self, positive: &[usize], chain: &[usize]) -> bool {
        let (first, last) = (chain[0], chain[chain.len() - 1]);
        let inner = (1..chain.len()).any(|at| {
            let stages = positive[at - 1] + 1..positive[at];
            (chain[at - 1] + 1..chain[at]).any(|event| self.is_one_of(stages.clone(), event))
        });
        let Some(span) = self.sequence.maxspan else { return inner };
        let (leading, trailing) = (0..positive[0], positive[positive.len() - 1] + 1..self.stages.len());
        let before = |reach: i64| {
            let leading = leading.clone();
            (0..first)
                .filter(move |event| self.second(*event) >= reach && self.is_one_of(leading.clone(), *event))
        };
        let after = || {
            let trailing = trailing.clone();
            (last + 1..self.moments.len()).filter(move |event| {
                self.second(*event) <= self.second(first) + span && self.is_one_of(trailing.clone(), *event)
            })
        };
        let outer = match (leading.is_empty(), trailing.is_empty()) {
            (true, true) => false,
            (false, true) => before(self.second(last) - span).next().is_some(),
            (true, false) => after().next().is_some(),
            // Only a pair of both within the span counts.
            (false, false) => after().any(|after| before(self.second(after) - span).next().is_some()),
        };
        inner || outer
    }

    fn found(&self, chain: &[usize]) -> Match {
        let mut chain = chain.iter();
        let events = self.stages.iter().map(|stage| {
            if stage.missing { None } else { chain.next().map(|event| self.moments[*event].id) }
        });
        Match { keys: self.key.clone(), events: events.collect() }
    }

    fn is_one_of(&self, stages: std::ops::Range<usize>, event: usize) -> bool {
        stages.into_iter().any(|stage| self.fits(stage, event))
    }

    fn fits(&self, stage: usize, event: usize) -> bool {
        self.is_of(self.stages[stage], event)
    }

    fn is_of(&self, stage: &Stage, event: usize) -> bool {
        join_keys(&self.sequence.shared, stage, self.moments[event]).contains(self.key)
    }

    fn second(&self, event: usize) -> i64 {
        self.moments[event].second
    }
}

//! `sample`: events in any order that agree in their keys, one for each stage, as Elasticsearch finds them.
//!
//! Elasticsearch looks at all that a run of the rule sees; here each key keeps the latest events of each stage for as long
//! as a run would look back. As soon as every stage can have an event of its own the sample is emitted and the events of
//! its key are dropped, so that the next sample of the key has other events.

use std::time::Duration;

use super::actor::Charge;
use super::hash::Quickly;
use super::key::{JoinKey, join_keys};
use super::sequence::{Member, cost};
use super::window::Window;
use super::{Drops, Finding, Findings, Hit, Limits};
use crate::event::Timestamp;
use crate::lang::query::{Sample, Stage};

type Held = Window<JoinKey, Vec<Vec<Member>>, Quickly>;

/// The memory of one sample rule.
#[derive(Debug)]
pub struct SampleDetector {
    stages: Vec<Stage>,
    lookback: Duration,
    /// The latest events of each stage by key, each key at the time of its latest event.
    held: Held,
    drops: Drops,
}

impl SampleDetector {
    /// A detector that has seen nothing. Events further apart than `lookback` make no sample together.
    #[must_use]
    pub fn new(sample: &Sample, lookback: Duration, limits: Limits) -> Self {
        let held = Window::new(limits.sequence_bytes_max);
        Self { stages: sample.stages.clone(), lookback, held, drops: Drops::default() }
    }

    /// Takes an event that matched some of the stages.
    pub(crate) fn event(&mut self, hit: &Hit, findings: &mut Findings) {
        let mut keys: Vec<(JoinKey, usize)> = Vec::new();
        for &part in &hit.parts {
            keys.extend(join_keys(&self.stages[part].keys, &hit.event).map(|key| (key, part)));
        }
        keys.sort();
        for group in keys.chunk_by(|(left, _), (right, _)| left == right) {
            let stages = group.iter().map(|(_, stage)| *stage);
            self.take(group[0].0.clone(), stages, hit, findings);
        }
    }

    fn take(
        &mut self,
        key: JoinKey,
        stages: impl Iterator<Item = usize>,
        hit: &Hit,
        findings: &mut Findings,
    ) {
        let time = hit.ordinal.time;
        if self.held.get(&key).is_none() {
            let charge = Charge { bytes: Held::ENTRY_BYTES + cost(&key), ..*hit.charge() };
            let gone = self.held.insert(key.clone(), time, charge, vec![Vec::new(); self.stages.len()]);
            self.drop(gone.len(), time);
        }
        let lookback = self.lookback;
        let (whole, gone) = self.held.change(&key, |latest, charge, held| {
            *latest = time.max(*latest);
            for stage in stages {
                // One more for each other stage is enough: at most so many can be taken by the others.
                if held[stage].len() == held.len() {
                    held[stage].remove(0);
                }
                held[stage].push(Member::new(hit));
            }
            let start = *latest - lookback;
            held.iter_mut().for_each(|members| members.retain(|member| member.ordinal.time >= start));
            *charge = Charge::sum(held.iter().flatten().map(|member| &member.charge))
                .plus(Held::ENTRY_BYTES + cost(&key));
            let mut chosen = Vec::new();
            choose(held, &mut chosen)
                .then(|| chosen.into_iter().map(|member| Some(member.event.clone())).collect::<Vec<_>>())
        });
        self.drop(gone.len(), time);
        if let Some(events) = whole.flatten() {
            self.held.remove(&key);
            findings.found.push(Finding { events, keys: key.to_vec(), ..Finding::default() });
        }
    }

    /// Advances the time: no event before `now` will come.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        self.held.expire(now - self.lookback);
    }

    /// Keys that were given up because of a limit.
    pub(crate) fn discarded(&self) -> u64 {
        self.held.discarded()
    }

    fn drop(&mut self, count: usize, now: Timestamp) {
        (0..count).for_each(|_| self.drops.note(now, self.lookback));
    }

    /// What was given up of it.
    pub(crate) fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Gives up what a key of the one who holds most has seen.
    pub(crate) fn give_way(&mut self, now: Timestamp) {
        let gone = self.held.give_way();
        self.drop(gone.iter().count(), now);
    }

    /// Bytes held by samples that are not complete.
    pub(crate) fn bytes(&self) -> usize {
        self.held.bytes()
    }
}

/// Chooses an event for each stage, none of them twice, the earliest that came first. There are five stages at most and
/// as many events for each, so that trying is cheap.
fn choose<'a>(held: &'a [Vec<Member>], chosen: &mut Vec<&'a Member>) -> bool {
    let Some(members) = held.get(chosen.len()) else { return true };
    for member in members {
        if chosen.iter().all(|other| other.ordinal != member.ordinal) {
            chosen.push(member);
            if choose(held, chosen) {
                return true;
            }
            chosen.pop();
        }
    }
    false
}

//! `sequence`: events in order that agree in their keys, as Elasticsearch matches them.
//!
//! For each key at most one partial match waits at each stage. An event is evaluated for the last stage first, so that
//! it never fills two stages of one sequence. A newer partial match that reaches a stage replaces the one that waits
//! there. Missing events (`![…]`) are remembered by key. They are looked up when all other stages are met; those after
//! the last stage are looked up when the span is over.

mod held;
mod missing;

use std::sync::Arc;
use std::time::Duration;

use self::missing::Missing;
use super::actor::{Actor, Charge};
use super::hash::Quickly;
use super::key::{JoinKey, join_keys};
use super::window::Window;
use super::{Drops, Finding, Findings, Hit, Limits, Ordinal, naive};
use crate::event::{Event, FieldId, SHARED_BYTES, Timestamp, Value, allocated};
use crate::lang::operator::Relation;
use crate::lang::query::{Answers, Sequence, Stage};

/// Maximum number of partial matches of one key at one stage, if a stage refers to events of earlier stages. The next
/// event decides which of them it continues, so a newer one cannot replace the others.
const CHAINS_MAX: usize = 64;
/// Maximum number of their bytes. The newest alone may hold more.
const CHAINS_BYTES_MAX: usize = 256 << 10;

/// The events of one sequence so far.
type Chain = Vec<Member>;

type Partial = Window<(JoinKey, usize), Waiting, Quickly>;

/// The state of one sequence rule.
#[derive(Debug)]
pub struct SequenceDetector {
    stages: Vec<Stage>,
    /// The stages that are not missing, by their place in `stages`.
    positive: Vec<usize>,
    until: Option<Stage>,
    maxspan: Option<Duration>,
    /// How long a partial match can be completed: `maxspan`, or else the rule's lookback.
    span: Duration,
    /// Partial matches by key and positive stage, at the time of the first event of the newest.
    partial: Partial,
    /// How many partial matches of one key may wait at one stage.
    chains_max: usize,
    missing: Missing,
    /// Matches whose positive stages are met, and which wait for events that must be missing after them. By their
    /// number, at the time of their first event.
    waiting: Window<u64, (JoinKey, Chain), Quickly>,
    waited: u64,
    discarded: u64,
    drops: Drops,
}

/// An event that has a place in a sequence or sample.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) event: Arc<Event>,
    pub(super) ordinal: Ordinal,
    /// The bytes that it takes, and the actor that is charged.
    pub(super) charge: Charge,
}

impl Member {
    pub(super) fn new(hit: &Hit) -> Self {
        let charge = hit.charge().plus(allocated(size_of::<Self>()));
        Self { event: hit.event.clone(), ordinal: hit.ordinal, charge }
    }
}

/// The partial matches of one key that wait at one stage.
#[derive(Debug)]
struct Waiting {
    newest: Chain,
    /// The older ones, the oldest first.
    older: Vec<Chain>,
}

impl Waiting {
    /// All of them, the oldest first.
    fn all(&self) -> impl Iterator<Item = &Chain> {
        self.older.iter().chain([&self.newest])
    }

    /// Removes the oldest partial match of the user who holds most, but never the newest of all. `None` if there is no
    /// other.
    fn give_way(&mut self) -> Option<Chain> {
        let mut users: Vec<(Actor, usize)> = Vec::new();
        for charge in self.all().map(sum) {
            let user = charge.actor.user();
            match users.iter_mut().find(|(known, _)| *known == user) {
                Some((_, bytes)) => *bytes += charge.bytes,
                None => users.push((user, charge.bytes)),
            }
        }
        // The newest may be all that a user has.
        users.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let oldest = |user| self.older.iter().position(|chain| sum(chain).actor.user() == user);
        let place = users.iter().find_map(|(user, _)| oldest(*user))?;
        Some(self.older.remove(place))
    }

    /// All of them as a list, the oldest first.
    fn chains(self) -> Vec<Chain> {
        let mut chains = self.older;
        chains.push(self.newest);
        chains
    }
}

impl SequenceDetector {
    /// A detector without state. `lookback` is the rule's `from`.
    #[must_use]
    pub fn new(sequence: &Sequence, lookback: Duration, limits: Limits) -> Self {
        let refers = sequence.stages.iter().any(|stage| stage.later.is_some());
        Self {
            stages: sequence.stages.clone(),
            positive: (0..sequence.stages.len()).filter(|index| !sequence.stages[*index].missing).collect(),
            until: sequence.until.clone(),
            maxspan: sequence.maxspan,
            span: sequence.maxspan.unwrap_or(lookback),
            partial: Window::new(limits.sequence_bytes_max),
            chains_max: if refers { CHAINS_MAX } else { 1 },
            missing: Missing::new(limits.sequence_bytes_max),
            waiting: Window::new(limits.sequence_bytes_max),
            waited: 0,
            discarded: 0,
            drops: Drops::default(),
        }
    }

    /// Evaluates an event that matched some of the stages. If the sequence has an `until`, it counts as the last stage.
    pub(crate) fn event(&mut self, hit: &Hit, findings: &mut Findings) {
        let until_part = self.stages.len();
        for &part in hit.parts.iter().rev().filter(|part| **part < until_part) {
            // If nothing waits, an event of a later stage continues no partial match.
            if self.partial.is_empty() && self.positive[0] < part && !self.stages[part].missing {
                continue;
            }
            for key in join_keys(&self.stages[part].keys, &hit.event) {
                match self.positive.binary_search(&part) {
                    Ok(stage) => self.step(stage, key, hit, findings),
                    Err(_) => {
                        let gone = self.missing.remember(key, part, hit.ordinal, hit.charge().actor);
                        gone.into_iter().for_each(|gone| self.drop(gone.time, hit.ordinal.time));
                    }
                }
            }
        }
        if let Some(until) = self.until.as_ref().filter(|_| hit.parts.last() == Some(&until_part)) {
            for key in join_keys(&until.keys, &hit.event) {
                self.end(&key, hit.ordinal);
            }
        }
    }

    /// Evaluates an event for a positive stage: it starts, continues or completes a sequence.
    fn step(&mut self, stage: usize, key: JoinKey, hit: &Hit, findings: &mut Findings) {
        let mut members = Vec::new();
        if stage > 0 {
            let Some(reached) = self.reached(stage, &key, hit) else { return };
            let span = hit.ordinal.time.since(reached[0].ordinal.time);
            if self.maxspan.is_some_and(|maxspan| span > maxspan) {
                return;
            }
            members = reached;
        }
        members.reserve_exact(1);
        members.push(Member::new(hit));
        if stage + 1 == self.positive.len() {
            return self.complete(key, members, findings);
        }
        // Inserting a newer partial match replaces the older one; it need not be removed first.
        let mut waiting = Waiting { newest: members, older: Vec::new() };
        if self.chains_max > 1
            && let Some(before) = self.partial.remove(&(key.clone(), stage))
        {
            waiting.older = before.chains();
            self.thin_out(&mut waiting, hit.ordinal.time);
        }
        self.wait(key, stage, waiting, hit.ordinal.time);
    }

    /// Evicts partial matches beyond the limits for one key.
    fn thin_out(&mut self, waiting: &mut Waiting, now: Timestamp) {
        let mut bytes = waiting.all().map(|chain| sum(chain).bytes).sum::<usize>();
        while (waiting.older.len() >= self.chains_max || bytes > CHAINS_BYTES_MAX)
            && let Some(gone) = waiting.give_way()
        {
            bytes -= sum(&gone).bytes;
            self.discarded += 1;
            self.drop(gone[0].ordinal.time, now);
        }
    }

    /// Counts an eviction of a partial match of this time. One that could not be completed any more is no loss.
    fn drop(&mut self, time: Timestamp, now: Timestamp) {
        if now - self.span <= time {
            self.drops.note(now, self.span);
        }
    }

    /// The evicted partial matches.
    pub(crate) fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Evicts an entry of the actor that holds most.
    pub(crate) fn give_way(&mut self, now: Timestamp) {
        let (partial, waiting, missing) = (self.partial.bytes(), self.waiting.bytes(), self.missing.bytes());
        let time = if partial >= waiting.max(missing) {
            self.partial.give_way().map(|(_, waiting)| waiting.newest[0].ordinal.time)
        } else if waiting >= missing {
            self.waiting.give_way().map(|(_, (_, chain))| chain[0].ordinal.time)
        } else {
            self.missing.give_way().map(|ordinal| ordinal.time)
        };
        time.into_iter().for_each(|time| self.drop(time, now));
    }

    /// Removes and returns the newest partial match at the previous stage that this event continues.
    fn reached(&mut self, stage: usize, key: &JoinKey, hit: &Hit) -> Option<Chain> {
        let before = (key.clone(), stage - 1);
        let (_, waiting) = self.partial.get(&before)?;
        let fits = |chain: &Chain| {
            chain.last().is_some_and(|last| last.ordinal < hit.ordinal) && self.agrees(stage, chain, hit)
        };
        let place = match fits(&waiting.newest) {
            true => None,
            false => Some(waiting.older.iter().rposition(fits)?),
        };
        let Waiting { newest, mut older } = self.partial.remove(&before)?;
        let now = hit.ordinal.time;
        let Some(place) = place else {
            self.wait_any(before.0, stage - 1, older, now);
            return Some(newest);
        };
        let chain = older.remove(place);
        self.wait(before.0, stage - 1, Waiting { newest, older }, now);
        Some(chain)
    }

    /// Whether the stage's condition on earlier events holds.
    fn agrees(&self, stage: usize, chain: &Chain, hit: &Hit) -> bool {
        let later = self.stages[self.positive[stage]].later.as_ref();
        later.is_none_or(|later| {
            let earlier = Earlier { positive: &self.positive, members: chain };
            naive::holds(&later.resolved(&earlier), &hit.event)
        })
    }

    /// Stores partial matches at a stage.
    fn wait(&mut self, key: JoinKey, stage: usize, waiting: Waiting, now: Timestamp) {
        let first = waiting.newest[0].ordinal.time;
        let charge = Charge::sum(waiting.all().flatten().map(|member| &member.charge))
            .plus(Partial::ENTRY_BYTES + cost(&key));
        let gone = self.partial.insert((key, stage), first, charge, waiting);
        gone.iter().for_each(|(_, waiting)| self.drop(waiting.newest[0].ordinal.time, now));
    }

    /// Stores partial matches at a stage, if there are any. The newest is the last.
    fn wait_any(&mut self, key: JoinKey, stage: usize, mut chains: Vec<Chain>, now: Timestamp) {
        if let Some(newest) = chains.pop() {
            self.wait(key, stage, Waiting { newest, older: chains }, now);
        }
    }

    /// Reports a sequence whose positive stages are all met, or lets it wait, or drops it because of a missing event.
    fn complete(&mut self, key: JoinKey, members: Vec<Member>, findings: &mut Findings) {
        for (stage, pair) in members.windows(2).enumerate() {
            let between = self.positive[stage] + 1..self.positive[stage + 1];
            let early = |found: &Ordinal| *found <= pair[0].ordinal;
            if self.missing.any(&key, between, early, |found| found < pair[1].ordinal) {
                return;
            }
        }
        if self.after().is_empty() {
            if !self.preceded(&key, &members) {
                findings.found.push(self.finding(&key, &members));
            }
            return;
        }
        self.await_missing(key, members);
    }

    /// Lets a sequence wait for the events that must be missing after it.
    fn await_missing(&mut self, key: JoinKey, members: Chain) {
        let (first, last) = (members[0].ordinal.time, members[members.len() - 1].ordinal.time);
        self.waited += 1;
        let charge = sum(&members).plus(Partial::ENTRY_BYTES + cost(&key));
        let gone = self.waiting.insert(self.waited, first, charge, (key, members));
        gone.iter().for_each(|(_, (_, chain))| self.drop(chain[0].ordinal.time, last));
    }

    /// Stages that must be missing before the first positive one.
    fn before(&self) -> std::ops::Range<usize> {
        0..self.positive[0]
    }

    /// Stages that must be missing after the last positive one.
    fn after(&self) -> std::ops::Range<usize> {
        self.positive[self.positive.len() - 1] + 1..self.stages.len()
    }

    fn maxspan(&self) -> Duration {
        self.maxspan.unwrap_or(Duration::MAX)
    }

    /// Whether an event that must be missing came before the first event and within the span of the last.
    fn preceded(&self, key: &JoinKey, members: &[Member]) -> bool {
        let (first, last) = (members[0].ordinal, members[members.len() - 1].ordinal);
        let start = last.time - self.maxspan();
        self.missing.any(key, self.before(), |found| found.time < start, |found| found < first)
    }

    /// Whether an event that must be missing came after the last event and within the span of the first. If events must
    /// be missing on both sides, only a pair of both within the span counts, as in Elasticsearch.
    fn enclosed(&self, key: &JoinKey, members: &[Member]) -> bool {
        let (first, last) = (members[0].ordinal, members[members.len() - 1].ordinal);
        let end = first.time + self.maxspan();
        // The first event after the last one is the nearest to the events before the first.
        let early = |found: &Ordinal| *found <= last;
        self.missing.any(key, self.after(), early, |after| {
            let start = after.time - self.maxspan();
            let before =
                || self.missing.any(key, self.before(), |found| found.time < start, |found| found < first);
            after.time <= end && (self.before().is_empty() || before())
        })
    }

    /// Ends the sequences of this key whose last event is not after the given one.
    fn end(&mut self, key: &JoinKey, ordinal: Ordinal) {
        for stage in 0..self.positive.len() {
            let Some(waiting) = self.partial.remove(&(key.clone(), stage)) else { continue };
            let mut chains = waiting.chains();
            chains.retain(|chain| chain.last().is_some_and(|last| last.ordinal > ordinal));
            self.wait_any(key.clone(), stage, chains, ordinal.time);
        }
    }

    /// Advances the time: no event before `now` will come.
    pub(crate) fn advance(&mut self, now: Timestamp, findings: &mut Findings) {
        let Some(maxspan) = self.maxspan else { return };
        self.partial.expire(now - maxspan);
        for (_, (key, members)) in self.waiting.expire(now - maxspan) {
            if !self.enclosed(&key, &members) {
                findings.found.push(self.finding(&key, &members));
            }
        }
        // A leading missing stage looks back one span from an event that may itself wait for a span.
        self.missing.forget(now - maxspan.saturating_mul(2));
    }

    fn finding(&self, key: &JoinKey, members: &[Member]) -> Finding {
        let mut members = members.iter();
        let events = self.stages.iter().map(|stage| {
            if stage.missing { None } else { members.next().map(|member| member.event.clone()) }
        });
        Finding { events: events.collect(), keys: key.to_vec(), ..Finding::default() }
    }

    /// Whether it holds no state that expires.
    pub(crate) fn is_idle(&self) -> bool {
        self.maxspan.is_none()
            || (self.partial.is_empty() && self.waiting.is_empty() && self.missing.is_empty())
    }

    /// Entries that were evicted because of a limit.
    pub(crate) fn discarded(&self) -> u64 {
        let windows = self.partial.discarded() + self.waiting.discarded() + self.missing.discarded();
        self.discarded + windows
    }

    /// Bytes of partial and waiting matches, and of events that must be missing.
    pub(crate) fn bytes(&self) -> usize {
        self.partial.bytes() + self.waiting.bytes() + self.missing.bytes()
    }
}

/// The events of a sequence, for a condition that refers to them.
struct Earlier<'a> {
    positive: &'a [usize],
    members: &'a [Member],
}

impl Answers for Earlier<'_> {
    fn related(&self, _: Relation, _: usize) -> bool {
        false
    }

    fn earlier(&self, stage: usize, field: FieldId) -> Option<Value> {
        let member = self.positive.binary_search(&stage).ok().and_then(|place| self.members.get(place))?;
        member.event.get(field).cloned()
    }
}

/// The sum of the charges of a sequence's events.
fn sum(chain: &Chain) -> Charge {
    Charge::sum(chain.iter().map(|member| &member.charge))
}

/// Bytes of a key on the heap.
pub(super) fn cost(key: &JoinKey) -> usize {
    let texts = key.iter().flatten().filter(|text| text.is_heap_allocated());
    allocated(SHARED_BYTES + size_of_val(&**key))
        + texts.map(|text| allocated(SHARED_BYTES + text.len())).sum::<usize>()
}

//! `sequence`: events in order that agree in their keys, as Elasticsearch matches them.
//!
//! For each key there is at most one sequence waiting at each stage. An event is shown to the last stage first, so
//! that it never fills two stages of one sequence; a newer sequence that reaches a stage takes the place of the one
//! waiting there. Missing events (`![…]`) are remembered by key and looked up when all other stages are met, the ones
//! after the last stage when the span is over.

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

/// Most sequences of one key that wait at one stage for an event that refers to theirs: which of them it fits is not known
/// before it comes, so that a newer one cannot take the place of the others.
const CHAINS_MAX: usize = 64;
/// Most bytes that they hold; the newest may hold more.
const CHAINS_BYTES_MAX: usize = 256 << 10;

/// The events of one sequence so far.
type Chain = Vec<Member>;

type Partial = Window<(JoinKey, usize), Waiting, Quickly>;

/// The memory of one sequence rule.
#[derive(Debug)]
pub struct SequenceDetector {
    stages: Vec<Stage>,
    /// The stages that are not missing, by their place in `stages`.
    positive: Vec<usize>,
    until: Option<Stage>,
    maxspan: Option<Duration>,
    /// How long one that is not complete is of use: `maxspan`, or else how far a run of the rule would look back.
    span: Duration,
    /// Sequences by key and the positive stage they have reached, at the time of the first event of the newest, which is
    /// the last.
    partial: Partial,
    /// How many sequences of one key may wait at one stage.
    chains_max: usize,
    missing: Missing,
    /// Complete but for what must be missing after them, by their number, at the time of their first event.
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
    /// What it costs whom.
    pub(super) charge: Charge,
}

impl Member {
    pub(super) fn new(hit: &Hit) -> Self {
        let charge = hit.charge().plus(allocated(size_of::<Self>()));
        Self { event: hit.event.clone(), ordinal: hit.ordinal, charge }
    }
}

/// The sequences of one key that wait at one stage.
#[derive(Debug)]
struct Waiting {
    newest: Chain,
    /// Before it, the oldest first.
    older: Vec<Chain>,
}

impl Waiting {
    /// All of them, the oldest first.
    fn all(&self) -> impl Iterator<Item = &Chain> {
        self.older.iter().chain([&self.newest])
    }

    /// Takes out the oldest, before the newest, of the user who has most; `None` where there is no more than the newest.
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

    /// The same, as a list.
    fn chains(self) -> Vec<Chain> {
        let mut chains = self.older;
        chains.push(self.newest);
        chains
    }
}

impl SequenceDetector {
    /// A detector that has seen nothing. `lookback` is the rule's `from`.
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

    /// Takes an event that matched some of the stages, the last of which is `until` where there is one.
    pub(crate) fn event(&mut self, hit: &Hit, findings: &mut Findings) {
        let until_part = self.stages.len();
        for &part in hit.parts.iter().rev().filter(|part| **part < until_part) {
            // Where nothing waits, an event of a later stage belongs to no partial match.
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

    /// Shows an event to a positive stage: it starts a sequence, moves one on or completes it.
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
        // What a newer sequence takes the place of need not be taken out first.
        let mut waiting = Waiting { newest: members, older: Vec::new() };
        if self.chains_max > 1
            && let Some(before) = self.partial.remove(&(key.clone(), stage))
        {
            waiting.older = before.chains();
            self.thin_out(&mut waiting, hit.ordinal.time);
        }
        self.wait(key, stage, waiting, hit.ordinal.time);
    }

    /// Takes out what is too much for one key.
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

    /// Something of this time was given up. What the rule would not look at any more is no loss.
    fn drop(&mut self, time: Timestamp, now: Timestamp) {
        if now - self.span <= time {
            self.drops.note(now, self.span);
        }
    }

    /// What was given up of it.
    pub(crate) fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Gives up something of the one who holds most.
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

    /// Takes out the newest sequence that waits for this event at the stage before.
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

    /// Whether what the stage asks of earlier events holds.
    fn agrees(&self, stage: usize, chain: &Chain, hit: &Hit) -> bool {
        let later = self.stages[self.positive[stage]].later.as_ref();
        later.is_none_or(|later| {
            let earlier = Earlier { positive: &self.positive, members: chain };
            naive::holds(&later.resolved(&earlier), &hit.event)
        })
    }

    /// Lets sequences wait at a stage.
    fn wait(&mut self, key: JoinKey, stage: usize, waiting: Waiting, now: Timestamp) {
        let first = waiting.newest[0].ordinal.time;
        let charge = Charge::sum(waiting.all().flatten().map(|member| &member.charge))
            .plus(Partial::ENTRY_BYTES + cost(&key));
        let gone = self.partial.insert((key, stage), first, charge, waiting);
        gone.iter().for_each(|(_, waiting)| self.drop(waiting.newest[0].ordinal.time, now));
    }

    /// Lets sequences wait at a stage, the newest last, if there are any.
    fn wait_any(&mut self, key: JoinKey, stage: usize, mut chains: Vec<Chain>, now: Timestamp) {
        if let Some(newest) = chains.pop() {
            self.wait(key, stage, Waiting { newest, older: chains }, now);
        }
    }

    /// All positive stages are met.
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

    /// Lets a sequence wait for what must be missing after it.
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

    /// Whether something that must be missing came before the first event and within the span of the last.
    fn preceded(&self, key: &JoinKey, members: &[Member]) -> bool {
        let (first, last) = (members[0].ordinal, members[members.len() - 1].ordinal);
        let start = last.time - self.maxspan();
        self.missing.any(key, self.before(), |found| found.time < start, |found| found < first)
    }

    /// Whether something that must be missing came after the last event and within the span of the first. Where
    /// something must be missing on both sides, only a pair of both within the span counts, as in Elasticsearch.
    fn enclosed(&self, key: &JoinKey, members: &[Member]) -> bool {
        let (first, last) = (members[0].ordinal, members[members.len() - 1].ordinal);
        let end = first.time + self.maxspan();
        // The first one after it is the nearest to what may come before it.
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
        // A leading one reaches back a span from an event that may itself wait a span.
        self.missing.forget(now - maxspan.saturating_mul(2));
    }

    fn finding(&self, key: &JoinKey, members: &[Member]) -> Finding {
        let mut members = members.iter();
        let events = self.stages.iter().map(|stage| {
            if stage.missing { None } else { members.next().map(|member| member.event.clone()) }
        });
        Finding { events: events.collect(), keys: key.to_vec(), ..Finding::default() }
    }

    /// Whether nothing is remembered that ends with time.
    pub(crate) fn is_idle(&self) -> bool {
        self.maxspan.is_none()
            || (self.partial.is_empty() && self.waiting.is_empty() && self.missing.is_empty())
    }

    /// Sequences that were given up because of a limit.
    pub(crate) fn discarded(&self) -> u64 {
        let windows = self.partial.discarded() + self.waiting.discarded() + self.missing.discarded();
        self.discarded + windows
    }

    /// Bytes held by sequences that are not complete, and by what must be missing.
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

/// What events cost together.
fn sum(chain: &Chain) -> Charge {
    Charge::sum(chain.iter().map(|member| &member.charge))
}

/// Bytes that a key takes beside its place.
pub(super) fn cost(key: &JoinKey) -> usize {
    let texts = key.iter().flatten().filter(|text| text.is_heap_allocated());
    allocated(SHARED_BYTES + size_of_val(&**key))
        + texts.map(|text| allocated(SHARED_BYTES + text.len())).sum::<usize>()
}

//! The state of a sequence rule, as one engine writes it for the next. It is complete, so that the next engine finds
//! the same matches as this one would.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::{Chain, JoinKey, Member, SequenceDetector};
use crate::detect::{Actor, Drops, Hit, Ordinal};
use crate::event::{Event, Schema, Timestamp};

/// The version of the format. A reader ignores other versions.
const VERSION: u32 = 1;

/// A [`JoinKey`].
type Key = Vec<Option<SmolStr>>;
/// Events of a sequence, by their places in [`Held::events`].
type Places = Vec<usize>;
/// An [`Ordinal`]: nanoseconds since the epoch, the event's own number, and the engine's.
type Place = (i64, u64, u64);

/// The written state. `E` is an event, which is written as JSON. Events are parsed one by one, because the JSON of all
/// of them would take much more memory than the rule may hold.
#[derive(Deserialize, Serialize)]
struct Held<E> {
    version: u32,
    /// The query. State of another query is ignored.
    query: String,
    /// Every event of a partial or waiting match, in order, with the engine's number.
    events: Vec<(u64, E)>,
    /// The partial matches of a key at a stage, the newest last.
    partial: Vec<(Key, usize, Vec<Places>)>,
    /// Matches that wait for events that must be missing after them, the earliest first.
    waiting: Vec<(Key, Places)>,
    /// The events that must be missing and occurred, by key and stage.
    missing: Vec<(Key, usize, Place)>,
    /// How many partial matches were evicted recently, and the time of the latest, in nanoseconds since the epoch.
    #[serde(default)]
    drops: (u64, Option<i64>),
    /// Hits that wait for late events, with the stages that they matched.
    pending: Vec<(u64, E, Vec<usize>)>,
}

/// An event to be written.
struct Written<'a> {
    event: &'a Event,
    schema: &'a Schema,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.event.to_json(self.schema).serialize(serializer)
    }
}

impl SequenceDetector {
    /// The state and the hits that it has not evaluated yet, as JSON; `None` if there is nothing to write.
    pub(crate) fn suspend(&self, schema: &Schema, query: &str, pending: &[&Hit]) -> Option<Vec<u8>> {
        let mut partial: Vec<_> = self.partial.iter().collect();
        let is_empty = partial.is_empty() && self.waiting.is_empty() && self.missing.is_empty();
        if is_empty && pending.is_empty() {
            return None;
        }
        // The order of the hash table differs from process to process.
        partial.sort_unstable_by_key(|(key, waiting)| (waiting.newest[0].ordinal, *key));
        let mut waiting: Vec<_> = self.waiting.iter().collect();
        waiting.sort_unstable_by_key(|(number, _)| **number);
        let events: BTreeMap<Ordinal, &Arc<Event>> =
            self.members().map(|member| (member.ordinal, &member.event)).collect();
        let places: BTreeMap<Ordinal, usize> = events.keys().copied().zip(0..).collect();
        let places = |chain: &Chain| chain.iter().map(|member| places[&member.ordinal]).collect::<Places>();
        let written = |event| Written { event, schema };
        let held = Held {
            version: VERSION,
            query: query.to_owned(),
            events: events.iter().map(|(ordinal, event)| (ordinal.arrival, written(event))).collect(),
            partial: partial
                .iter()
                .map(|((key, stage), waiting)| (key.to_vec(), *stage, waiting.all().map(places).collect()))
                .collect(),
            waiting: waiting.iter().map(|(_, (key, members))| (key.to_vec(), places(members))).collect(),
            missing: self
                .missing
                .all()
                .iter()
                .map(|((key, stage), at)| (key.to_vec(), *stage, place(*at)))
                .collect(),
            drops: (self.drops.recent, self.drops.latest.map(Timestamp::as_nanos)),
            pending: pending
                .iter()
                .map(|hit| (hit.ordinal.arrival, written(&hit.event), hit.parts.clone()))
                .collect(),
        };
        serde_json::to_vec(&held).ok()
    }

    /// Restores the state that another detector wrote for the same query, and returns the hits that it had not
    /// evaluated. Entries that cannot be read are skipped.
    pub(crate) fn resume(&mut self, schema: &Schema, query: &str, value: &[u8]) -> Vec<Hit> {
        let is_known = |held: &Held<&RawValue>| held.version == VERSION && held.query == query;
        let Some(held) = serde_json::from_slice::<Held<&RawValue>>(value).ok().filter(is_known) else {
            return Vec::new();
        };
        let members: Vec<_> = held
            .events
            .iter()
            .map(|(arrival, json)| Some(Member::new(&hit(schema, *arrival, json)?)))
            .collect();
        let chain = |places: &Places| {
            places.iter().map(|place| members.get(*place)?.clone()).collect::<Option<Chain>>()
        };
        let stages = self.positive.len();
        for (key, stage, chains) in held.partial {
            let fits = |chain: &Chain| chain.len() == stage + 1 && chain.len() < stages;
            let chains = chains.iter().filter_map(chain).filter(fits).take(self.chains_max).collect();
            self.wait_any(JoinKey::new(key.into()), stage, chains, Timestamp::MIN);
        }
        for (key, places) in held.waiting {
            if let Some(members) = chain(&places).filter(|chain| chain.len() == stages) {
                self.await_missing(JoinKey::new(key.into()), members);
            }
        }
        let (recent, latest) = held.drops;
        self.drops = Drops { recent, latest: latest.map(Timestamp::from_nanos), ..self.drops };
        for (key, stage, (nanos, sequence, arrival)) in held.missing {
            if self.stages.get(stage).is_some_and(|stage| stage.missing) {
                let ordinal = Ordinal { time: Timestamp::from_nanos(nanos), sequence, arrival };
                // The actor is not stored.
                self.missing.remember(JoinKey::new(key.into()), stage, ordinal, Actor::default());
            }
        }
        let parts_max = self.stages.len() + usize::from(self.until.is_some());
        let pending = held.pending.into_iter().filter_map(|(arrival, json, parts)| {
            let known = parts.iter().all(|part| *part < parts_max);
            known.then(|| Some(Hit { parts, ..hit(schema, arrival, json)? }))?
        });
        pending.collect()
    }

    /// The number of the latest event that it holds.
    pub(crate) fn latest_arrival(&self) -> u64 {
        let missing = self.missing.all().into_iter().map(|(_, ordinal)| ordinal.arrival);
        self.members().map(|member| member.ordinal.arrival).chain(missing).max().unwrap_or(0)
    }

    /// The events of all partial and waiting matches, with repetitions.
    fn members(&self) -> impl Iterator<Item = &Member> {
        let partial = self.partial.iter().flat_map(|(_, waiting)| waiting.all());
        partial.chain(self.waiting.iter().map(|(_, (_, members))| members)).flatten()
    }
}

fn place(ordinal: Ordinal) -> Place {
    (ordinal.time.as_nanos(), ordinal.sequence, ordinal.arrival)
}

/// A stored event as a hit.
fn hit(schema: &Schema, arrival: u64, json: &RawValue) -> Option<Hit> {
    let json = serde_json::from_str(json.get()).ok()?;
    let event = Arc::new(Event::from_json(schema, &json).ok()?);
    let ordinal = Ordinal { time: event.time(), sequence: event.sequence(), arrival };
    Some(Hit::new(event, ordinal, Vec::new()))
}

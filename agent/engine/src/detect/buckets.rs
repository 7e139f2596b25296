//! What the functions of machine learning jobs have in common: time spans (buckets) that are not over, and what was
//! learned of partitions, both kept over restarts and bounded.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::learner::Learned;
use super::{Change, Findings, Hit};
use crate::event::{Event, FieldId, Schema, Timestamp};

/// What the keys of partitions' rows start with.
const PARTITION: &str = "partition:";
/// What the keys of rows of buckets that are not over start with.
const OPEN: &str = "open:";
/// Between the parts of a row's key.
const PARTED: char = '\u{1f}';

/// A value and its partition; the partition is empty where the job has none.
type Present = (SmolStr, SmolStr);
/// The values present in a bucket that is over, by their partition.
pub(super) type Over = BTreeMap<SmolStr, Vec<Brought>>;
/// A value, and the first event that brought it.
pub(super) type Brought = (SmolStr, Arc<Event>);

/// Buckets that are not over: what is present in them, with the first event that brought it.
#[derive(Debug)]
pub(super) struct Buckets {
    span: Duration,
    open: BTreeMap<Timestamp, BTreeMap<Present, Arc<Event>>>,
    held: usize,
    held_max: usize,
    discarded: u64,
}

impl Buckets {
    pub(super) fn new(span: Duration, held_max: usize) -> Self {
        Self { span, open: BTreeMap::new(), held: 0, held_max, discarded: 0 }
    }

    /// Puts back a row; `false` where it is none of these.
    pub(super) fn restore(&mut self, schema: &Schema, key: &str, value: &[u8]) -> bool {
        let Some(place) = key.strip_prefix(OPEN) else { return false };
        if let Some((bucket, present)) = open_place(place)
            && let Ok(json) = serde_json::from_slice(value)
            && let Ok(event) = Event::from_json(schema, &json)
        {
            let before = self.open.entry(bucket).or_default().insert(present, Arc::new(event));
            self.held += usize::from(before.is_none());
        }
        true
    }

    /// Takes an event: the values of `field` are present in their bucket and partition.
    pub(super) fn event(
        &mut self,
        schema: &Schema,
        hit: &Hit,
        field: FieldId,
        partition: Option<FieldId>,
        findings: &mut Findings,
    ) {
        let bucket = hit.ordinal.time.floor(self.span);
        let partitions = match partition {
            Some(field) => hit.event.values(field).map(|value| value.key()).collect(),
            None => vec![SmolStr::default()],
        };
        for partition in &partitions {
            for value in hit.event.values(field) {
                let present = (partition.clone(), value.key());
                if let Entry::Vacant(place) = self.open.entry(bucket).or_default().entry(present) {
                    if self.held == self.held_max {
                        self.discarded += 1;
                        continue;
                    }
                    self.held += 1;
                    let key = open_key(bucket, place.key());
                    let document = hit.event.to_json(schema).to_string().into_bytes();
                    findings.changes.push(Change { key, value: Some(document) });
                    place.insert(hit.event.clone());
                }
            }
        }
    }

    /// The earliest bucket that is over.
    pub(super) fn next_over(&mut self, now: Timestamp, findings: &mut Findings) -> Option<(Timestamp, Over)> {
        let bucket = self.open.first_entry().filter(|bucket| *bucket.key() + self.span <= now)?;
        let (start, present) = bucket.remove_entry();
        self.held -= present.len();
        let mut over = Over::new();
        for ((partition, value), event) in present {
            let key = open_key(start, &(partition.clone(), value.clone()));
            findings.changes.push(Change { key, value: None });
            over.entry(partition).or_default().push((value, event));
        }
        Some((start, over))
    }

    /// Values that found no room.
    pub(super) fn discarded(&self) -> u64 {
        self.discarded
    }
}

/// What was learned of all partitions of a job.
#[derive(Debug)]
pub(super) struct Partitions<L> {
    by_name: HashMap<SmolStr, L>,
    values: usize,
    values_max: usize,
    discarded: u64,
}

impl<L: Learned> Partitions<L> {
    pub(super) fn new(values_max: usize) -> Self {
        Self { by_name: HashMap::new(), values: 0, values_max, discarded: 0 }
    }

    /// Puts back a row; rows that cannot be read are passed over.
    pub(super) fn restore(&mut self, key: &str, value: &[u8]) {
        if let Some(name) = key.strip_prefix(PARTITION)
            && let Ok(learned) = serde_json::from_slice::<L>(value)
        {
            self.put_in(name.into(), learned);
        }
    }

    /// Takes a partition out, to learn more; one that is new has learned nothing.
    pub(super) fn take(&mut self, name: &str) -> L {
        let learned = self.by_name.remove(name);
        self.values -= learned.as_ref().map_or(0, L::values);
        learned.unwrap_or_default()
    }

    /// Puts a partition back, and writes it down. Where there are too many values, the partitions that were longest
    /// without an event are forgotten, and of the last one what weighs least.
    pub(super) fn put(&mut self, name: SmolStr, learned: L, findings: &mut Findings) {
        self.put_in(name.clone(), learned);
        while self.values > self.values_max && self.by_name.len() > 1 {
            let oldest = self.by_name.iter().min_by_key(|(name, learned)| (learned.last_bucket(), *name));
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
            self.discarded += self.take(&oldest).values() as u64;
            findings.changes.push(Change { key: format!("{PARTITION}{oldest}"), value: None });
        }
        if let Some(learned) = self.by_name.get_mut(&name) {
            let before = learned.values();
            if self.values > self.values_max {
                learned.shrink(self.values_max / 2);
                let gone = before - learned.values();
                self.values -= gone;
                self.discarded += gone as u64;
            }
            let value = serde_json::to_vec(learned).ok();
            findings.changes.push(Change { key: format!("{PARTITION}{name}"), value });
        }
    }

    fn put_in(&mut self, name: SmolStr, learned: L) {
        self.values += learned.values();
        self.by_name.insert(name, learned);
    }

    /// Values that were forgotten because of the limit.
    pub(super) fn discarded(&self) -> u64 {
        self.discarded
    }
}

fn open_key(bucket: Timestamp, (partition, value): &Present) -> String {
    format!("{OPEN}{}{PARTED}{partition}{PARTED}{value}", bucket.as_nanos())
}

fn open_place(place: &str) -> Option<(Timestamp, Present)> {
    let mut parts = place.splitn(3, PARTED);
    let bucket = parts.next()?.parse().ok().map(Timestamp::from_nanos)?;
    Some((bucket, (parts.next()?.into(), parts.next()?.into())))
}

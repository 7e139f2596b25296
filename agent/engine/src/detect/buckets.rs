//! The common state of the functions of machine learning jobs: open time spans (buckets) and the models of partitions.
//! Both survive restarts and are bounded in bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::brief::{example, kept_text, text};
use super::budget::{Budget, Holder};
use super::detection::{Detection, Learned, Over};
use super::{Change, Findings, Hit};
use crate::event::{Event, FieldId, Schema, Timestamp};

/// Prefix of the keys of partition rows.
const PARTITION: &str = "partition:";
/// Prefix of the keys of rows of open buckets.
const OPEN: &str = "open:";
/// Separator of the parts of a row's key.
const PARTED: char = '\u{1f}';
/// Bytes of a value in a bucket, without its texts and its example.
const PRESENT_BYTES: usize = 128;
/// Maximum size of a value's example, in bytes.
const EXAMPLE_BYTES_MAX: usize = 4096;
/// The same for an actor that uses half of its share, so that more values find room.
const EXAMPLE_BYTES_LEAST: usize = 1024;
/// Maximum size of a row of an earlier version that is read, in bytes.
const ROW_BYTES_MAX: usize = 256 << 10;
/// After this number of rows that found no room, the remaining rows are skipped.
const REFUSED_MAX: usize = 64;
/// Bytes of a partition, without its model and its name.
const PARTITION_BYTES: usize = 192;

/// A partition and a value in it; the partition is empty if the job has none.
type Present = (SmolStr, SmolStr);

/// Open buckets: the values in them, each with an example event.
#[derive(Debug)]
pub(super) struct Buckets {
    span: Duration,
    field: FieldId,
    partition: Option<FieldId>,
    open: BTreeMap<Timestamp, BTreeMap<Present, Held>>,
    budget: Budget,
    discarded: u64,
    /// Restored rows that found no room.
    refused: usize,
}

/// An extract of the first event that had a value.
#[derive(Debug)]
struct Held {
    example: Arc<Event>,
    actor: Holder,
    bytes: usize,
}

impl Buckets {
    pub(super) fn new(detection: &Detection, budget: Budget) -> Self {
        let Detection { field, partition, bucket_span, .. } = *detection;
        Self { span: bucket_span, field, partition, open: BTreeMap::new(), budget, discarded: 0, refused: 0 }
    }

    /// Restores a row; `false` if it is not a row of an open bucket. A row that is longer than this version writes is
    /// rewritten; a row that finds no room is deleted.
    pub(super) fn restore(
        &mut self,
        schema: &Schema,
        key: &str,
        value: &[u8],
        changes: &mut Vec<Change>,
    ) -> bool {
        let Some(place) = key.strip_prefix(OPEN) else { return false };
        // Reading a row takes long. If many found no room, the others will not either.
        let is_read = value.len() <= ROW_BYTES_MAX && self.refused < REFUSED_MAX;
        let row = open_place(place).filter(|_| is_read).and_then(|(bucket, (partition, present))| {
            let event = Event::from_json(schema, &serde_json::from_slice(value).ok()?).ok()?;
            self.hold(schema, bucket, (kept_text(&partition), kept_text(&present)), &event)
        });
        self.discarded += u64::from(!is_read);
        self.refused += usize::from(is_read && row.is_none());
        match row {
            Some(row) if row.key == key && row.value.as_deref() == Some(value) => {}
            row => {
                changes.push(Change { key: key.to_owned(), value: None });
                changes.extend(row);
            }
        }
        true
    }

    /// Adds the values of the job's field to their bucket and partition.
    pub(super) fn event(&mut self, schema: &Schema, hit: &Hit, findings: &mut Findings) {
        let bucket = hit.ordinal.time.floor(self.span);
        let partitions = match self.partition {
            Some(field) => hit.event.values(field).map(|value| text(&value.key())).collect(),
            None => vec![SmolStr::default()],
        };
        for partition in &partitions {
            for value in hit.event.values(self.field) {
                let present = (partition.clone(), text(&value.key()));
                findings.changes.extend(self.hold(schema, bucket, present, &hit.event));
            }
        }
    }

    /// Adds a value with an example. Returns its row, or nothing if the value is known or the actor's share is used up.
    fn hold(
        &mut self,
        schema: &Schema,
        bucket: Timestamp,
        present: Present,
        event: &Event,
    ) -> Option<Change> {
        if self.open.get(&bucket).is_some_and(|open| open.contains_key(&present)) {
            return None;
        }
        let actor = Holder::of(event);
        let (used, room) = (self.budget.used_by(actor), self.budget.room_for(actor));
        let bytes_max = if used > room / 2 { EXAMPLE_BYTES_LEAST } else { EXAMPLE_BYTES_MAX };
        let needed: Vec<_> = self.partition.into_iter().chain([self.field]).collect();
        let example = example(event, &needed, bytes_max);
        let bytes = PRESENT_BYTES + present.0.len() + present.1.len() + example.own_bytes();
        if used + bytes > room {
            self.discarded += 1;
            return None;
        }
        self.budget.take(actor, bytes);
        let document = example.to_json(schema).to_string().into_bytes();
        let row = Change { key: open_key(bucket, &present), value: Some(document) };
        self.open.entry(bucket).or_default().insert(present, Held { example, actor, bytes });
        Some(row)
    }

    /// Removes and returns the earliest bucket that is over.
    pub(super) fn next_over(&mut self, now: Timestamp, findings: &mut Findings) -> Option<(Timestamp, Over)> {
        let bucket = self.open.first_entry().filter(|bucket| *bucket.key() + self.span <= now)?;
        let (start, present) = bucket.remove_entry();
        let mut over = Over::new();
        for (present, Held { example, actor, bytes }) in present {
            self.budget.give_back(actor, bytes);
            findings.changes.push(Change { key: open_key(start, &present), value: None });
            let (partition, value) = present;
            over.entry(partition).or_default().push((value, example));
        }
        Some((start, over))
    }

    /// Values that found no room.
    pub(super) fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.budget.used()
    }
}

/// The models of all partitions of a job.
#[derive(Debug)]
pub(super) struct Partitions<L> {
    by_name: HashMap<SmolStr, L>,
    budget: Budget,
    discarded: u64,
}

impl<L: Learned> Partitions<L> {
    pub(super) fn new(budget: Budget) -> Self {
        Self { by_name: HashMap::new(), budget, discarded: 0 }
    }

    /// Restores a row. Rows that cannot be read are skipped. A row that is longer than this version writes is
    /// rewritten.
    pub(super) fn restore(&mut self, key: &str, value: &[u8], changes: &mut Vec<Change>) {
        let Some(name) = key.strip_prefix(PARTITION) else { return };
        let Ok(mut learned) = serde_json::from_slice::<L>(value) else { return };
        learned.settle();
        let kept = kept_text(name);
        if kept != name {
            changes.push(Change { key: key.to_owned(), value: None });
        }
        let mut rows = Vec::new();
        self.put(kept, learned, &mut rows);
        changes.extend(rows.into_iter().filter(|row| row.key != key || row.value.as_deref() != Some(value)));
    }

    /// Removes and returns a partition's model for learning; the model of a new partition is empty.
    pub(super) fn take(&mut self, name: &str) -> L {
        let learned = self.by_name.remove(name);
        let bytes = learned.as_ref().map_or(0, |learned| bytes(name, learned));
        self.budget.give_back(ALL, bytes);
        learned.unwrap_or_default()
    }

    /// Puts a partition's model back, with a change that stores it. A model that takes more than half of what the
    /// others leave forgets the values with the lowest weights. Beyond the limit, the partitions with the fewest
    /// buckets are removed.
    pub(super) fn put(&mut self, name: SmolStr, mut learned: L, changes: &mut Vec<Change>) {
        let room = self.budget.room().saturating_sub(self.budget.used()) / 2;
        if bytes(&name, &learned) > room {
            self.discarded += learned.shrink(room / 2);
        }
        let value = serde_json::to_vec(&learned).ok();
        self.budget.take(ALL, bytes(&name, &learned));
        changes.push(Change { key: format!("{PARTITION}{name}"), value });
        self.by_name.insert(name, learned);
        while self.budget.used() > self.budget.room() {
            let learned_least = self
                .by_name
                .iter()
                .min_by_key(|(name, learned)| (learned.buckets(), learned.last_bucket(), *name));
            let Some(least) = learned_least.map(|(name, _)| name.clone()) else { break };
            self.take(&least);
            self.discarded += 1;
            changes.push(Change { key: format!("{PARTITION}{least}"), value: None });
        }
    }

    /// Values and partitions that were forgotten because of the limit.
    pub(super) fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.budget.used()
    }
}

/// The holder of all partitions.
const ALL: Holder = Holder([0, 0]);

fn bytes<L: Learned>(name: &str, learned: &L) -> usize {
    PARTITION_BYTES + name.len() + learned.bytes()
}

fn open_key(bucket: Timestamp, (partition, value): &Present) -> String {
    format!("{OPEN}{}{PARTED}{partition}{PARTED}{value}", bucket.as_nanos())
}

fn open_place(place: &str) -> Option<(Timestamp, Present)> {
    let mut parts = place.splitn(3, PARTED);
    let bucket = parts.next()?.parse().ok().map(Timestamp::from_nanos)?;
    Some((bucket, (parts.next()?.into(), parts.next()?.into())))
}

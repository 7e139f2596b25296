//! Events, as ECS fields. This is the lowest module; it imports no other.
//!
//! An event is a stack of sorted field lists. The top list is the event's own. The lists below are shared with
//! other events (the process, its parent, the host). So a sensor does not build the same eighty fields for
//! every connection of one process, and events that are kept for a sequence share them in memory.

mod field;
mod fields;
mod inference;
mod json;
mod mapping;
mod opened;
mod schema;
mod texts;
mod time;
mod value;
pub(crate) mod version;

pub use field::{Field, Type};
pub use inference::Inference;
pub use json::{EventError, Leaf, insert};
pub use mapping::{Mapping, MappingError};
pub use schema::{FieldId, Schema};
pub use texts::{Elements, Texts};
pub use time::Timestamp;
pub use value::Value;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::field;

/// Bytes of an `Arc` on the heap, without its content.
pub(crate) const SHARED_BYTES: usize = 16;

/// The bytes that the allocator uses for an allocation of this size: it adds a word, and rounds up.
#[must_use]
pub const fn allocated(bytes: usize) -> usize {
    const LEAST: usize = 32;
    let taken = (bytes + size_of::<usize>()).next_multiple_of(16);
    match bytes {
        0 => 0,
        _ if taken < LEAST => LEAST,
        _ => taken,
    }
}

/// Fields with their values, sorted by field, each at most once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields {
    /// In a vector of their own, because a search for a field reads only these.
    ids: Vec<FieldId>,
    values: Vec<Value>,
    /// A bit for each field. Most look-ups are for absent fields, and these bits answer most of them.
    marks: u64,
    taken: Taken,
}

/// The bytes of the values, computed once; zero before. Comparisons ignore it.
#[derive(Debug, Default)]
struct Taken(AtomicUsize);

impl Clone for Taken {
    fn clone(&self) -> Self {
        Self(self.0.load(Relaxed).into())
    }
}

impl PartialEq for Taken {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Fields {
    /// No fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No fields, with capacity for this many.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        Self { ids: Vec::with_capacity(count), values: Vec::with_capacity(count), ..Self::default() }
    }

    /// Sets a field's value, which replaces an earlier one. An empty list sets nothing.
    pub fn set(&mut self, id: FieldId, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        if value.is_nothing() {
            return self;
        }
        *self.taken.0.get_mut() = 0;
        self.marks |= id.mark();
        match self.ids.last() {
            Some(last) if *last >= id => match self.ids.binary_search(&id) {
                Ok(place) => self.values[place] = value,
                Err(place) => {
                    self.ids.insert(place, id);
                    self.values.insert(place, value);
                }
            },
            _ => {
                self.ids.push(id);
                self.values.push(value);
            }
        }
        self
    }

    /// Sets a field's value, if there is one.
    pub fn set_some(&mut self, id: FieldId, value: Option<impl Into<Value>>) -> &mut Self {
        match value {
            Some(value) => self.set(id, value),
            None => self,
        }
    }

    /// The value of a field.
    #[must_use]
    #[inline]
    pub fn get(&self, id: FieldId) -> Option<&Value> {
        if self.marks & id.mark() == 0 {
            return None;
        }
        self.ids.binary_search(&id).ok().map(|place| &self.values[place])
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (FieldId, &Value)> {
        self.ids.iter().copied().zip(&self.values)
    }

    /// The fields in order, without their values.
    pub(crate) fn ids(&self) -> &[FieldId] {
        &self.ids
    }

    /// The value of the field at this position.
    pub(crate) fn value_at(&self, place: usize) -> &Value {
        &self.values[place]
    }

    /// The approximate bytes of the list when it is shared.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        allocated(SHARED_BYTES + size_of::<Self>()) + self.heap_bytes()
    }

    fn heap_bytes(&self) -> usize {
        // A shared list is summed once, and not for each event.
        let Taken(taken) = &self.taken;
        if taken.load(Relaxed) == 0 {
            let lists = allocated(size_of_val(&*self.ids)) + allocated(size_of_val(&*self.values));
            taken.store(lists + self.values.iter().map(Value::heap_bytes).sum::<usize>(), Relaxed);
        }
        taken.load(Relaxed)
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    time: Timestamp,
    timestamp: Timestamp,
    sequence: u64,
    own: Fields,
    shared: Vec<Arc<Fields>>,
    /// Values outside the schema: kept for the alert, never compared.
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Event {
    /// An event of this time, with its own fields over lists that it shares with other events. If two lists have
    /// the same field, the earlier list counts. `@timestamp` is set from `time`. `event.sequence`, if it is set,
    /// orders events of the same time.
    #[must_use]
    pub fn new(time: Timestamp, mut own: Fields, shared: Vec<Arc<Fields>>) -> Self {
        own.set(field!("@timestamp"), time);
        Self::assembled(time, own, shared)
    }

    fn assembled(time: Timestamp, own: Fields, shared: Vec<Arc<Fields>>) -> Self {
        let sequence = match own.get(field!("event.sequence")) {
            Some(Value::Long(number)) => u64::try_from(*number).unwrap_or(0),
            _ => u64::MAX,
        };
        Self { time, timestamp: time, sequence, own, shared, rest: serde_json::Map::new() }
    }

    /// The same event with another correlation time. Its `@timestamp` does not change. If the two differ, the event has
    /// `lapwing.event.monotonic_time`, so that a replay correlates it in the same way.
    ///
    /// For sources with a monotonic clock: the host's clock can be set, also by an attacker who wants to break a
    /// sequence.
    #[must_use]
    pub fn with_correlation_time(mut self, time: Timestamp) -> Self {
        self.time = time;
        if time != self.timestamp {
            self.own.set(field!("lapwing.event.monotonic_time"), time);
        }
        self
    }

    /// The correlation time, for the order of events and the time between them.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The time for reports: `@timestamp`.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// `event.sequence`, which orders events of the same time. An event without it comes last.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, id: FieldId) -> Option<&Value> {
        self.find(id)
    }

    /// The text of a field; its first value if it has several.
    #[must_use]
    pub fn text(&self, id: FieldId) -> Option<&str> {
        self.get(id)?.first_text()
    }

    /// As [`text`](Self::text), inlined: for field ids that are constants in the code, whose bit is then known.
    #[inline(always)]
    pub(crate) fn known_text(&self, id: FieldId) -> Option<&str> {
        self.find(id)?.first_text()
    }

    #[inline(always)]
    fn find(&self, id: FieldId) -> Option<&Value> {
        self.own.get(id).or_else(|| self.shared.iter().find_map(|fields| fields.get(id)))
    }

    /// The values of a field; none if it is absent.
    #[must_use]
    pub fn values(&self, id: FieldId) -> Elements<'_> {
        self.get(id).map(Value::elements).unwrap_or_default()
    }

    /// The lists of fields: its own, and below it those that it shares with other events.
    pub(crate) fn layers(&self) -> (&Fields, &[Arc<Fields>]) {
        (&self.own, &self.shared)
    }

    /// The values outside the schema.
    pub(crate) fn rest(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.rest
    }

    /// Every field that is set, in the order of the schema.
    #[must_use]
    pub fn fields(&self) -> Vec<(FieldId, &Value)> {
        let mut all: Vec<_> = self.own.iter().collect();
        all.extend(self.shared.iter().flat_map(|fields| fields.iter()));
        // The sort is stable: of two values of one field, that of the upper list stays first and is kept.
        all.sort_by_key(|(id, _)| *id);
        all.dedup_by_key(|(id, _)| *id);
        all
    }

    /// Sets a field of the event's own, as enrichment does.
    pub fn set(&mut self, id: FieldId, value: impl Into<Value>) {
        self.own.set(id, value);
    }

    /// The approximate bytes of the event, without those that it shares.
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        let rest: usize = self.rest.iter().map(|(name, value)| name.len() + json::heap_bytes(value)).sum();
        let lists = allocated(SHARED_BYTES + size_of::<Self>()) + allocated(size_of_val(&*self.shared));
        lists + self.own.heap_bytes() + rest
    }

    /// The bytes with those that it shares in full, because the event keeps them alive.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.own_bytes() + self.shared.iter().map(|fields| fields.held_bytes()).sum::<usize>()
    }

    /// The bytes with its part of those that it shares. If events are kept one after the other, the sum of the parts is
    /// at least the whole.
    #[must_use]
    pub fn part_bytes(&self) -> usize {
        // The creator of the list holds it too.
        let part = |fields: &Arc<Fields>| fields.held_bytes() / (Arc::strong_count(fields) - 1).max(1);
        self.own_bytes() + self.shared.iter().map(part).sum::<usize>()
    }
}

//! What is not durable yet, in order, and the numbers by which sinks refer to it.
//!
//! An alert gets its number in the spool when it is held, so that a sink that has delivered it from memory can
//! acknowledge it and does not get it again from disk. A number is never reused.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::mem;

use crate::alert::AlertDocument;
use crate::ledger::COMMIT_BYTES;
use crate::store::{Change, Checkpoint, Spooled, Store};

/// What is not yet durable.
#[derive(Default)]
pub(super) struct Held {
    /// The number of the first alert; released alerts had the numbers before.
    first: i64,
    pub(super) alerts: VecDeque<AlertDocument>,
    ids: HashSet<String>,
    /// By scope and key: the later of two changes of a row wins.
    changes: BTreeMap<(String, String), Change>,
    cursors: BTreeMap<String, i64>,
    pub(super) done: Vec<Box<dyn FnOnce() + Send>>,
    pub(super) commits: u64,
    /// Whether some were released because the log has them: the store has to read them there.
    pub(super) in_log: bool,
    /// Whether some were released that are not in the log.
    pub(super) left_out: bool,
    bytes: usize,
}

impl Held {
    /// An empty set, whose first alert gets this number or a later one.
    pub(super) fn from_number(first: i64) -> Self {
        Self { first, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commits == 0 && self.cursors.is_empty()
    }

    /// How much memory is charged for it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Holds an alert that the store does not have; `last` is the number of the newest alert in the store.
    pub(super) fn alert(&mut self, alert: AlertDocument, last: i64) {
        self.first = self.first.max(last + 1 - self.alerts.len() as i64);
        self.bytes += cost(&alert);
        self.ids.insert(alert.id.clone());
        self.alerts.push_back(alert);
    }

    pub(super) fn checkpoint(&mut self, checkpoint: Checkpoint) {
        for change in checkpoint.changes {
            self.bytes += size(&change);
            let replaced = self.changes.insert((change.scope.clone(), change.key.clone()), change);
            self.bytes -= replaced.as_ref().map_or(0, size);
        }
        self.done.extend(checkpoint.done);
        self.commits += 1;
        self.bytes += COMMIT_BYTES;
    }

    pub(super) fn acknowledge(&mut self, sink: &str, number: i64) {
        self.cursors.insert(sink.to_owned(), number);
    }

    /// The number of the first alert, and that of the one that comes next.
    pub(super) fn first(&self) -> i64 {
        self.first
    }

    pub(super) fn next(&self) -> i64 {
        self.first + self.alerts.len() as i64
    }

    /// The number of the last alert; `None` where there are none.
    pub(super) fn last(&self) -> Option<i64> {
        (!self.alerts.is_empty()).then(|| self.next() - 1)
    }

    /// The alerts with their numbers.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (i64, &AlertDocument)> {
        (self.first..).zip(&self.alerts)
    }

    pub(super) fn changes(&self) -> impl ExactSizeIterator<Item = &Change> {
        self.changes.values()
    }

    pub(super) fn cursors(&self) -> impl Iterator<Item = (&String, &i64)> {
        self.cursors.iter()
    }

    /// Removes the first alert.
    pub(super) fn release(&mut self) -> Option<AlertDocument> {
        let alert = self.alerts.pop_front()?;
        self.first += 1;
        self.bytes -= cost(&alert);
        self.ids.remove(&alert.id);
        Some(alert)
    }

    /// The alerts after a number that are to be delivered, as many as fit; at least one if there is one.
    pub(super) fn read(&self, after: i64, count_max: usize, bytes_max: usize) -> Vec<Spooled> {
        let mut bytes = 0;
        let wanted = self.numbered().filter(|(number, alert)| *number > after && !alert.local);
        let fitting = wanted.take(count_max).enumerate().take_while(|(index, (_, alert))| {
            bytes += alert.json.len();
            *index == 0 || bytes <= bytes_max
        });
        fitting
            .map(|(_, (sequence, alert))| Spooled {
                sequence,
                id: alert.id.clone(),
                json: alert.json.clone(),
            })
            .collect()
    }
}

/// What an alert takes: its document, and its id twice.
fn cost(alert: &AlertDocument) -> usize {
    alert.json.len() + 2 * alert.id.len() + 2 * mem::size_of::<AlertDocument>()
}

fn size(change: &Change) -> usize {
    2 * (change.scope.len() + change.key.len())
        + change.value.as_ref().map_or(0, Vec::len)
        + 2 * mem::size_of::<Change>()
}

/// The last alert that each sink has acknowledged.
pub(super) struct Cursors(BTreeMap<String, i64>);

impl Cursors {
    /// The cursors in the store.
    pub(super) fn of(sinks: &[String], store: &Store) -> rusqlite::Result<Self> {
        sinks.iter().map(|sink| Ok((sink.clone(), store.cursor(sink)?))).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn advance(&mut self, sink: String, number: i64) {
        let cursor = self.0.entry(sink).or_default();
        *cursor = number.max(*cursor);
    }

    /// The sinks with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &i64)> {
        self.0.iter()
    }

    /// The last alert that all sinks have delivered; 0 without sinks.
    pub(super) fn delivered(&self) -> i64 {
        self.0.values().copied().min().unwrap_or(0)
    }
}

/// Holds small alerts up to the limit: what `budget::overhead` measures.
#[cfg(test)]
pub(crate) fn full(probe: &mut crate::budget::overhead::Probe) -> crate::budget::overhead::Full {
    probe.begin();
    let mut held = Held::from_number(1);
    for number in 0.. {
        if held.bytes() >= crate::ledger::HELD_BYTES_MAX {
            break;
        }
        let json = vec![b'x'; 1000].into();
        held.alert(AlertDocument { json, ..crate::testing::alert_of(number, "") }, 0);
    }
    let charged = held.bytes();
    (Box::new(held), charged)
}

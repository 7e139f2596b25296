//! The one store under every detector that remembers: entries by key and by time, and never more than a limit.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use crate::event::Timestamp;

/// Entries that each have a key, a time and a cost. When the costs together pass the limit, the entries of the
/// earliest times go, and are counted.
#[derive(Debug)]
pub(super) struct Window<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by time; the number tells entries of the same time apart.
    order: BTreeMap<(Timestamp, u64), K>,
    cost: usize,
    cost_max: usize,
    evicted: u64,
    next: u64,
}

#[derive(Debug)]
struct Entry<V> {
    place: (Timestamp, u64),
    cost: usize,
    value: V,
}

impl<K: Clone + Eq + Hash, V> Window<K, V> {
    /// An empty window that holds entries up to a cost of `cost_max` together.
    pub(super) fn new(cost_max: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), cost: 0, cost_max, evicted: 0, next: 0 }
    }

    /// The time and value of an entry.
    pub(super) fn get(&self, key: &K) -> Option<(Timestamp, &V)> {
        self.entries.get(key).map(|entry| (entry.place.0, &entry.value))
    }

    /// Puts an entry in, in place of one of the same key. Returns those that had to go for it.
    pub(super) fn insert(&mut self, key: K, time: Timestamp, cost: usize, value: V) -> Vec<(K, V)> {
        let place = (time, self.next);
        self.next += 1;
        self.cost += cost;
        if let Some(replaced) = self.entries.insert(key.clone(), Entry { place, cost, value }) {
            self.order.remove(&replaced.place);
            self.cost -= replaced.cost;
        }
        self.order.insert(place, key);
        let mut gone = Vec::new();
        while self.cost > self.cost_max
            && let Some((_, key)) = self.order.first_key_value()
        {
            let key = key.clone();
            let value = self.remove(&key);
            self.evicted += 1;
            gone.extend(value.map(|value| (key, value)));
        }
        gone
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.place);
        self.cost -= entry.cost;
        Some(entry.value)
    }

    /// Takes out the entries whose time is before `time`, and returns them, earliest first.
    pub(super) fn expire(&mut self, time: Timestamp) -> Vec<(K, V)> {
        if self.order.first_key_value().is_none_or(|((first, _), _)| *first >= time) {
            return Vec::new();
        }
        let kept = self.order.split_off(&(time, 0));
        let gone = std::mem::replace(&mut self.order, kept);
        let entries = gone.into_values().filter_map(|key| {
            let entry = self.entries.remove(&key)?;
            self.cost -= entry.cost;
            Some((key, entry.value))
        });
        entries.collect()
    }

    /// Whether there is no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the entries cost together.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    /// How many entries had to go because of the limit.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn the_limit_pushes_out_the_earliest() {
        let mut window = Window::new(2);
        assert_eq!(window.insert("b", at(2), 1, 'b'), []);
        window.insert("a", at(1), 1, 'a');
        assert_eq!(window.insert("c", at(3), 1, 'c'), [("a", 'a')]);
        assert_eq!((window.cost(), window.evicted(), window.get(&"b")), (2, 1, Some((at(2), &'b'))));
    }

    #[test]
    fn an_entry_too_costly_goes_itself() {
        let mut window = Window::new(2);
        assert_eq!(window.insert("a", at(1), 3, 'a'), [("a", 'a')]);
        assert_eq!(window.cost(), 0);
    }

    #[test]
    fn entries_expire_by_time() {
        let mut window = Window::new(9);
        for (key, time) in [("a", 1), ("b", 2), ("c", 3)] {
            window.insert(key, at(time), 1, time);
        }
        window.insert("a", at(4), 2, 4);
        assert_eq!(window.expire(at(3)), [("b", 2)]);
        assert_eq!((window.cost(), window.remove(&"a")), (3, Some(4)));
    }
}

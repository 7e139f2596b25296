//! The store of detectors: entries by key and by time. It has a limit in bytes, with shares by actor.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};

use super::actor::Charge;
use super::share::{Shares, Ticket};
use crate::event::Timestamp;

/// Entries with a key, a time and a charge. When an actor's share of the limit is exceeded, entries of the actor that
/// holds most are evicted and counted, the oldest insertion first.
#[derive(Debug)]
pub(super) struct Window<K, V, S = RandomState> {
    entries: HashMap<K, Entry<V>, S>,
    order: Order<K>,
    shares: Shares<K>,
    evicted: u64,
    next: u64,
}

/// The order is tidied only if it has more stale places than this number.
const STALE_MIN: usize = 64;

/// An entry's position in the order of time. The number distinguishes entries of the same time, and an entry from the
/// previous one under its key.
type Place = (Timestamp, u64);

#[derive(Debug)]
struct Entry<V> {
    place: Place,
    /// Its place in the queue, at or before `place`. So the queue need not change whenever the time moves on.
    queued: Place,
    charge: Charge,
    ticket: Ticket,
    value: V,
}

impl<K: Clone + Eq + Hash, V, S: BuildHasher + Default> Window<K, V, S> {
    /// Bytes of an entry without the heap memory of its key and value: its places in three lists, whose capacity is on
    /// average half as much again as their length.
    pub(super) const ENTRY_BYTES: usize =
        (size_of::<(K, Entry<V>)>() + 1 + size_of::<(Place, K)>() + Shares::<K>::SLOT_BYTES) * 3 / 2;

    /// An empty window that holds at most `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Self {
        let order = Order { queue: VecDeque::new(), late: BTreeMap::new() };
        Self { entries: HashMap::default(), order, shares: Shares::new(bytes_max), evicted: 0, next: 0 }
    }

    /// The time and value of an entry.
    pub(super) fn get(&self, key: &K) -> Option<(Timestamp, &V)> {
        self.entries.get(key).map(|entry| (entry.place.0, &entry.value))
    }

    /// The charge of an entry.
    pub(super) fn charge(&self, key: &K) -> Option<&Charge> {
        self.entries.get(key).map(|entry| &entry.charge)
    }

    /// Inserts an entry, which replaces one with the same key. Returns the entries that were evicted for it.
    pub(super) fn insert(&mut self, key: K, time: Timestamp, charge: Charge, value: V) -> Vec<(K, V)> {
        let place = (time, self.next);
        self.next += 1;
        let ticket = self.shares.charge(&charge.actor, charge.bytes, key.clone());
        match self.entries.get_mut(&key) {
            Some(entry) => {
                self.shares.release(entry.ticket);
                let queued = entry.queued.min(place);
                if queued == place {
                    self.order.put(place, key);
                }
                *entry = Entry { place, queued, charge, ticket, value };
            }
            None => {
                self.order.put(place, key.clone());
                self.entries.insert(key, Entry { place, queued: place, charge, ticket, value });
            }
        }
        self.tidy();
        self.evict(&charge)
    }

    /// Changes the value, the time and the charge of an entry. Returns the result of `change`, or `None` if there is no
    /// such entry, and the entries that were evicted.
    pub(super) fn change<R>(
        &mut self,
        key: &K,
        change: impl FnOnce(&mut Timestamp, &mut Charge, &mut V) -> R,
    ) -> (Option<R>, Vec<(K, V)>) {
        let Some(entry) = self.entries.get_mut(key) else { return (None, Vec::new()) };
        let (mut time, before) = (entry.place.0, entry.charge);
        let result = change(&mut time, &mut entry.charge, &mut entry.value);
        let charge = entry.charge;
        if charge.actor != before.actor {
            self.shares.release(entry.ticket);
            entry.ticket = self.shares.charge(&charge.actor, charge.bytes, key.clone());
        } else if charge != before {
            self.shares.change(entry.ticket, charge.bytes);
        }
        if time != entry.place.0 {
            entry.place = (time, self.next);
            self.next += 1;
            if entry.place < entry.queued {
                entry.queued = entry.place;
                self.order.put(entry.place, key.clone());
            }
        }
        (Some(result), self.evict(&charge))
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.shares.release(entry.ticket);
        self.tidy();
        Some(entry.value)
    }

    /// Evicts entries until this charge's shares are met.
    fn evict(&mut self, charge: &Charge) -> Vec<(K, V)> {
        let mut gone = Vec::new();
        while let Some(key) = self.shares.surplus(&charge.actor) {
            gone.extend(self.evicted(key));
        }
        gone
    }

    /// Evicts the oldest entry of the actor that holds most, when other state needs the room.
    pub(super) fn give_way(&mut self) -> Option<(K, V)> {
        let key = self.shares.give_way()?;
        self.evicted(key)
    }

    fn evicted(&mut self, key: K) -> Option<(K, V)> {
        let entry = self.entries.remove(&key)?;
        self.evicted += 1;
        self.tidy();
        Some((key, entry.value))
    }

    /// Removes the entries before `time`, and returns them, earliest first.
    pub(super) fn expire(&mut self, time: Timestamp) -> Vec<(K, V)> {
        std::iter::from_fn(|| self.take_first(|first| first < time)).collect()
    }

    /// Removes and returns the earliest entry if its time is wanted.
    fn take_first(&mut self, is_wanted: impl Fn(Timestamp) -> bool) -> Option<(K, V)> {
        while let Some((queued, key)) = self.order.take_first(&is_wanted) {
            match self.entries.get_mut(&key) {
                Some(entry) if entry.queued != queued => {}
                Some(entry) if entry.place != queued => {
                    entry.queued = entry.place;
                    self.order.put(entry.place, key);
                }
                Some(_) => {
                    let entry = self.entries.remove(&key)?;
                    self.shares.release(entry.ticket);
                    return Some((key, entry.value));
                }
                None => {}
            }
        }
        None
    }

    /// Removes stale places from the order, when there are many.
    fn tidy(&mut self) {
        if self.order.len() > STALE_MIN + self.entries.len() / 4 * 5 {
            let entries = &self.entries;
            self.order.retain(|queued, key| entries.get(key).is_some_and(|entry| entry.queued == *queued));
        }
    }

    /// Every entry, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }

    /// Whether there is no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of all entries.
    pub(super) fn bytes(&self) -> usize {
        self.shares.used()
    }

    /// How many entries were evicted because of a limit.
    pub(super) fn discarded(&self) -> u64 {
        self.evicted
    }
}

/// Keys in the order of time, with those of removed entries. Nearly all keys arrive in this order, so that a queue is
/// enough for them.
#[derive(Debug)]
struct Order<K> {
    queue: VecDeque<(Place, K)>,
    /// The keys that arrived out of order.
    late: BTreeMap<Place, K>,
}

impl<K> Order<K> {
    fn put(&mut self, place: Place, key: K) {
        if self.queue.back().is_none_or(|(last, _)| *last < place) {
            self.queue.push_back((place, key));
        } else {
            self.late.insert(place, key);
        }
    }

    /// Removes and returns the first if its time is wanted.
    fn take_first(&mut self, is_wanted: impl Fn(Timestamp) -> bool) -> Option<(Place, K)> {
        let queued = self.queue.front().map(|(place, _)| *place);
        let late = self.late.first_key_value().map(|(place, _)| *place);
        let first = queued.into_iter().chain(late).min().filter(|(time, _)| is_wanted(*time))?;
        if queued == Some(first) { self.queue.pop_front() } else { self.late.pop_first() }
    }

    fn retain(&mut self, mut is_kept: impl FnMut(&Place, &K) -> bool) {
        self.queue.retain(|(place, key)| is_kept(place, key));
        self.late.retain(|place, key| is_kept(place, key));
    }

    fn len(&self) -> usize {
        self.queue.len() + self.late.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    /// Bytes that are the host's own.
    fn costs(bytes: usize) -> Charge {
        Charge { bytes, ..Charge::default() }
    }

    #[test]
    fn the_limit_pushes_out_what_came_first() {
        let mut window: Window<_, _> = Window::new(2);
        assert_eq!(window.insert("b", at(2), costs(1), 'b'), []);
        window.insert("a", at(1), costs(1), 'a');
        assert_eq!(window.insert("c", at(3), costs(1), 'c'), [("b", 'b')]);
        assert_eq!((window.bytes(), window.discarded(), window.get(&"a")), (2, 1, Some((at(1), &'a'))));
    }

    #[test]
    fn an_entry_too_costly_goes_itself() {
        let mut window: Window<_, _> = Window::new(2);
        assert_eq!(window.insert("a", at(1), costs(3), 'a'), [("a", 'a')]);
        assert_eq!(window.bytes(), 0);
    }

    #[test]
    fn entries_expire_by_time() {
        let mut window: Window<_, _> = Window::new(9);
        for (key, time) in [("a", 1), ("b", 2), ("c", 3)] {
            window.insert(key, at(time), costs(1), time);
        }
        window.insert("a", at(4), costs(2), 4);
        assert_eq!(window.expire(at(3)), [("b", 2)]);
        assert_eq!((window.bytes(), window.remove(&"a")), (3, Some(4)));
    }

    #[test]
    fn the_order_holds_for_what_comes_late_and_forgets_what_is_gone() {
        let mut window: Window<_, _> = Window::new(usize::MAX);
        for (key, time) in [(1, 5), (2, 9), (3, 2), (4, 7), (5, 9)] {
            window.insert(key, at(time), costs(1), ());
        }
        window.insert(2, at(1), costs(1), ());
        window.remove(&4);
        let keys = window.expire(at(9)).into_iter().map(|(key, ())| key);
        assert_eq!(keys.collect::<Vec<_>>(), [2, 3, 1]);
        for time in 10..10_000 {
            window.insert(5, at(time), costs(1), ());
        }
        assert!(window.order.len() <= STALE_MIN + 2, "{}", window.order.len());
        assert_eq!(window.expire(at(99_999)), [(5, ())]);
    }
}

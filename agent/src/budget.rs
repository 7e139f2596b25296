//! Memory limits in bytes, by owner.
//!
//! A [`Meter`] is one limit with the bytes that are held. A [`Charge`] is stored beside the object that it is for and returns
//! its bytes when dropped, so that a shared object is charged once and only while it exists. [`Accounts`] divide a meter by
//! owner, so that the biggest consumer is evicted first. `docs/limits.md` lists every limit; `limits` is its source and
//! checks that it is complete and that the sum fits into the unit's memory limit.

#[cfg(test)]
mod limits;
#[cfg(test)]
pub(crate) mod overhead;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use serde_json::{Value as Json, json};

/// A limit in bytes, and the bytes that are held.
#[derive(Debug)]
pub(crate) struct Meter {
    name: &'static str,
    bytes_max: usize,
    held: AtomicUsize,
    given_up: AtomicU64,
}

impl Meter {
    pub(crate) fn new(name: &'static str, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { name, bytes_max, held: AtomicUsize::new(0), given_up: AtomicU64::new(0) })
    }

    /// Takes bytes, beyond the limit too: the owner then evicts.
    pub(crate) fn take(&self, bytes: usize) {
        self.held.fetch_add(bytes, Relaxed);
    }

    /// Takes bytes if the limit allows it.
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.bytes_max);
        let is_taken = self.held.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if !is_taken {
            self.given_up(1);
        }
        is_taken
    }

    /// Returns bytes.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    /// Counts objects that were evicted for the limit.
    pub(crate) fn given_up(&self, count: u64) {
        self.given_up.fetch_add(count, Relaxed);
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Whether more is held than the limit.
    pub(crate) fn is_over(&self) -> bool {
        self.held() > self.bytes_max
    }

    /// The meter, for `lapwing status`.
    pub(crate) fn status(&self) -> Json {
        json!({
            "name": self.name,
            "bytes": self.held(),
            "bytes_max": self.bytes_max,
            "evicted": self.given_up.load(Relaxed),
        })
    }
}

/// Bytes of a meter, held until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    meter: Arc<Meter>,
    bytes: usize,
}

impl Taken {
    /// Takes bytes if the limit allows it.
    pub(crate) fn try_of(meter: &Arc<Meter>, bytes: usize) -> Option<Self> {
        meter.try_take(bytes).then(|| Self { meter: meter.clone(), bytes })
    }

    /// Takes bytes if the limit is not exceeded yet: a single object may be larger than the limit.
    pub(crate) fn next_of(meter: &Arc<Meter>, bytes: usize) -> Option<Self> {
        let is_open = meter.held() < meter.bytes_max;
        is_open.then(|| {
            meter.take(bytes);
            Self { meter: meter.clone(), bytes }
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.meter.give_back(self.bytes);
    }
}

/// Shares of a limit: no owner may hold more than half of what the others leave, so that there is always room for one more.
#[derive(Debug)]
pub(crate) struct Shares {
    most: u64,
    held: u64,
    by_owner: HashMap<u32, u64>,
}

impl Shares {
    pub(crate) fn new(most: u64) -> Self {
        Self { most, held: 0, by_owner: HashMap::new() }
    }

    /// How much more this owner may hold.
    pub(crate) fn room(&self, owner: u32) -> u64 {
        let own = self.by_owner.get(&owner).copied().unwrap_or(0);
        (self.most.saturating_sub(self.held - own) / 2).saturating_sub(own)
    }

    pub(crate) fn take(&mut self, owner: u32, amount: u64) {
        if amount > 0 {
            self.held += amount;
            *self.by_owner.entry(owner).or_default() += amount;
        }
    }

    pub(crate) fn give_back(&mut self, owner: u32, amount: u64) {
        let Some(own) = self.by_owner.get_mut(&owner) else { return };
        let amount = amount.min(*own);
        *own -= amount;
        self.held -= amount;
        if *own == 0 {
            self.by_owner.remove(&owner);
        }
    }

    /// Every owner returns this many bytes.
    pub(crate) fn give_back_each(&mut self, amount: u64) {
        self.by_owner.retain(|_, own| {
            *own = own.saturating_sub(amount);
            *own > 0
        });
        self.held = self.by_owner.values().sum();
    }

    /// Number of owners that hold bytes.
    pub(crate) fn owners(&self) -> usize {
        self.by_owner.len()
    }

    /// Whether an owner holds bytes.
    pub(crate) fn knows(&self, owner: u32) -> bool {
        self.by_owner.contains_key(&owner)
    }
}

/// A meter, divided by owner.
pub(crate) struct Accounts {
    meter: Arc<Meter>,
    by_owner: HashMap<u32, Arc<Account>>,
}

/// The bytes of one owner.
#[derive(Debug)]
struct Account {
    meter: Arc<Meter>,
    held: AtomicUsize,
}

impl Accounts {
    pub(crate) fn new(meter: Arc<Meter>) -> Self {
        Self { meter, by_owner: HashMap::new() }
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Charges an owner.
    pub(crate) fn charge(&mut self, owner: u32, bytes: usize) -> Charge {
        let charge = Charge::default();
        self.charge_once(&charge, owner, bytes);
        charge
    }

    /// Charges an owner, unless one is charged already.
    pub(crate) fn charge_once(&mut self, charge: &Charge, owner: u32, bytes: usize) {
        if charge.0.get().is_some() {
            return;
        }
        let account = self
            .by_owner
            .entry(owner)
            .or_insert_with(|| Arc::new(Account { meter: self.meter.clone(), held: AtomicUsize::new(0) }));
        if charge.0.set((account.clone(), bytes)).is_ok() {
            account.meter.take(bytes);
            account.held.fetch_add(bytes, Relaxed);
        }
    }

    /// Bytes of an owner.
    pub(crate) fn held(&self, owner: u32) -> usize {
        self.by_owner.get(&owner).map_or(0, |account| account.held.load(Relaxed))
    }

    /// The owner with the most bytes, these bytes, and those of the next owner. Of equal owners any one.
    pub(crate) fn biggest(&self) -> Option<(u32, usize, usize)> {
        self.by_owner.iter().map(|(owner, account)| (*owner, account.held.load(Relaxed))).fold(
            None,
            |biggest, (owner, held)| match biggest {
                Some((first, most, second)) if held <= most => Some((first, most, second.max(held))),
                Some((_, most, _)) => Some((owner, held, most)),
                None => Some((owner, held, 0)),
            },
        )
    }

    /// Removes owners without bytes.
    pub(crate) fn tidy(&mut self) {
        self.by_owner.retain(|_, account| account.held.load(Relaxed) > 0);
    }
}

/// Bytes that are charged while this exists. A copy is another object, and is not charged.
#[derive(Debug, Default)]
pub(crate) struct Charge(OnceLock<(Arc<Account>, usize)>);

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some((account, bytes)) = self.0.get() {
            account.held.fetch_sub(*bytes, Relaxed);
            account.meter.give_back(*bytes);
        }
    }
}

impl Clone for Charge {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// A charge is not part of the value that it is for.
impl PartialEq for Charge {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_charge_is_returned() {
        let mut accounts = Accounts::new(Meter::new("test", 100));
        let first = accounts.charge(7, 60);
        let second = accounts.charge(8, 50);
        assert!(accounts.meter().is_over());
        assert_eq!(accounts.biggest(), Some((7, 60, 50)));
        let copy = first.clone();
        drop(first);
        assert_eq!((accounts.held(7), accounts.held(8), accounts.meter().held()), (0, 50, 50));
        accounts.tidy();
        assert_eq!(accounts.biggest(), Some((8, 50, 0)));
        drop((copy, second));
        assert_eq!(accounts.meter().held(), 0);
    }

    #[test]
    fn each_owner_has_half_of_what_the_others_leave() {
        let mut shares = Shares::new(100);
        for (owner, room, taken) in [(1, 50, 50), (1, 0, 0), (2, 25, 25), (3, 12, 12), (2, 0, 0)] {
            assert_eq!(shares.room(owner), room, "{owner}");
            shares.take(owner, taken);
        }
        shares.give_back(1, 50);
        assert_eq!((shares.room(2), shares.room(1), shares.owners(), shares.knows(1)), (19, 31, 2, false));
        shares.give_back_each(12);
        assert_eq!((shares.owners(), shares.held), (1, 13));
    }

    #[test]
    fn files_beyond_the_limit_are_counted() {
        let meter = Meter::new("test", 100);
        assert!(meter.try_take(100) && !meter.try_take(1));
        meter.give_back(1);
        assert!(meter.try_take(1));
        assert_eq!(meter.status()["evicted"], 1);
    }
}

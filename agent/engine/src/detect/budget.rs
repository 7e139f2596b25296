//! Shared limits in bytes, so that no owner takes the room of the others.
//!
//! A [`SharedBytes`] is the limit of all memories of one kind together. A [`Budget`] is the account of one of them.
//! Each holder, a rule in the pool or an actor in the rule, may hold half of what the others leave. So there is always
//! room for a further holder, and no actor displaces the entries of another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::event::Event;
use crate::field;

use super::brief::digest;

/// The limit of all memories of one kind together.
#[derive(Clone, Debug)]
pub(crate) struct SharedBytes {
    used: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl SharedBytes {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { used: Arc::default(), bytes_max }
    }
}

/// The share that is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exceeded {
    /// The share of a user or an account.
    Outer,
    /// The share of a program or a principal.
    Inner,
    /// The memory's share of the pool.
    All,
}

/// The bytes that one memory holds of its pool, in total and by actor.
#[derive(Debug)]
pub(super) struct Budget {
    pool: SharedBytes,
    bytes_max: usize,
    used: usize,
    shares: HashMap<u32, usize>,
}

impl Budget {
    /// An account in the pool that never holds more than `bytes_max`.
    pub(super) fn new(pool: &SharedBytes, bytes_max: usize) -> Self {
        Self { pool: pool.clone(), bytes_max, used: 0, shares: HashMap::new() }
    }

    /// The bytes that it may hold now.
    pub(super) fn room(&self) -> usize {
        let others = self.pool.used.load(Relaxed).saturating_sub(self.used);
        self.bytes_max.min(half_of_rest(self.pool.bytes_max, others))
    }

    /// The first exceeded share: of this actor's user or account, of its program or principal, or of the whole memory.
    pub(super) fn exceeded(&self, actor: Holder) -> Option<Exceeded> {
        let [outer, inner] = self.rooms(actor);
        let levels = [
            (Exceeded::Outer, self.held(actor.0[0]), outer),
            (Exceeded::Inner, self.held(actor.0[1]), inner),
            (Exceeded::All, self.used, self.room()),
        ];
        levels.into_iter().find(|(_, held, room)| held > room).map(|(level, ..)| level)
    }

    /// The bytes that it may hold for this actor now.
    pub(super) fn room_for(&self, actor: Holder) -> usize {
        self.rooms(actor)[1]
    }

    fn rooms(&self, actor: Holder) -> [usize; 2] {
        let [outer, inner] = actor.0.map(|level| self.held(level));
        let room = half_of_rest(self.room(), self.used.saturating_sub(outer));
        [room, half_of_rest(room, outer.saturating_sub(inner))]
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// The bytes that it holds for this actor.
    pub(super) fn used_by(&self, actor: Holder) -> usize {
        self.held(actor.0[1])
    }

    fn held(&self, level: u32) -> usize {
        self.shares.get(&level).copied().unwrap_or(0)
    }

    pub(super) fn take(&mut self, actor: Holder, bytes: usize) {
        self.used += bytes;
        self.pool.used.fetch_add(bytes, Relaxed);
        for level in actor.0 {
            *self.shares.entry(level).or_default() += bytes;
        }
    }

    pub(super) fn give_back(&mut self, actor: Holder, bytes: usize) {
        self.used -= bytes.min(self.used);
        self.pool.used.fetch_sub(bytes, Relaxed);
        for level in actor.0 {
            let left = self.held(level).saturating_sub(bytes);
            match left {
                0 => self.shares.remove(&level),
                left => self.shares.insert(level, left),
            };
        }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.used, Relaxed);
    }
}

fn half_of_rest(all: usize, others: usize) -> usize {
    all.saturating_sub(others) / 2
}

/// The holder of an entry: a user and a program, or a cloud account and a principal. Each is stored as a 32-bit hash.
/// Actors with the same hash have a common share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Holder(pub(super) [u32; 2]);

impl Holder {
    /// The actor of an event. A setuid program counts for the user who started it.
    pub(super) fn of(event: &Event) -> Self {
        let outer = [
            field!("lapwing.actor.id"),
            field!("process.real_user.id"),
            field!("user.Ext.real.id"),
            field!("cloud.account.id"),
            field!("user.id"),
        ];
        let inner = [
            field!("process.executable"),
            field!("aws.cloudtrail.user_identity.session_context.session_issuer.arn"),
            field!("aws.cloudtrail.user_identity.arn"),
            field!("user.id"),
            field!("user.name"),
        ];
        let first = |fields: &[crate::event::FieldId]| fields.iter().find_map(|field| event.text(*field));
        let outer = first(&outer).unwrap_or_default();
        let inner = first(&inner).unwrap_or_default();
        Self([short(&["outer", outer]), short(&["inner", outer, inner])])
    }
}

fn short(parts: &[&str]) -> u32 {
    digest(parts) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Holder = Holder([1, 2]);
    const B: Holder = Holder([3, 4]);

    #[test]
    fn each_may_hold_half_of_what_the_others_leave() {
        let pool = SharedBytes::new(1600);
        let (mut first, second) = (Budget::new(&pool, 1000), Budget::new(&pool, 1000));
        assert_eq!((first.room(), first.room_for(A)), (800, 200));
        first.take(A, 200);
        assert_eq!((first.room(), second.room()), (800, 700));
        assert_eq!((first.room_for(A), first.room_for(B)), (200, 150));
        first.give_back(A, 200);
        assert_eq!((first.used(), first.shares.len(), second.room()), (0, 0, 800));
    }

    #[test]
    fn what_a_memory_held_is_given_back_with_it() {
        let pool = SharedBytes::new(100);
        let mut budget = Budget::new(&pool, 100);
        budget.take(A, 30);
        drop(budget);
        assert_eq!(Budget::new(&pool, 100).room(), 50);
    }
}

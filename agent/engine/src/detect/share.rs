//! Nested shares: the part of a limit that each actor may take.
//!
//! Amounts, bytes or alerts, are counted for the host, the user, the control group and the executable. **No child
//! takes more than half of what is left at its parent**: after it has taken an amount,
//! `used(child) ≤ room(child)`, where `room(child)` is half of `room(parent) − used(all others below the parent)`,
//! rounded up, and `room(host)` is the limit. So the sum never exceeds the limit. Ten thousand executables share
//! the room of their user, and the room that one user leaves is available to the next.
//!
//! Entries are evicted in this order: from the user who holds most, from that user's group that holds most, from that
//! group's executable that holds most, the oldest first. So an actor that exceeds its share displaces its own entries,
//! and an actor that holds less than another displaces the other's.

mod tree;

use super::actor::{Actor, LEVELS};
use tree::{NONE, Tree};

/// Bytes of a node of the tree.
const NODE_BYTES: usize = 256;
/// Up to this fraction of the limit no actor can exceed its share: a share is at least an eighth (half of half of half)
/// of the limit, less what others use.
const EASY: usize = 16;

/// Entries that share a limit. The owner of an entry finds it by its token.
#[derive(Debug)]
pub(crate) struct Shares<T> {
    tree: Tree,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

/// An entry, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

#[derive(Debug)]
struct Slot<T> {
    node: u32,
    amount: usize,
    /// The next older and the next newer entry of the same node.
    older: u32,
    newer: u32,
    /// `None` if the slot is free.
    token: Option<T>,
}

impl<T> Shares<T> {
    /// Bytes of an entry here.
    pub(crate) const SLOT_BYTES: usize = size_of::<Slot<T>>();

    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { tree: Tree::new(bytes_max, NODE_BYTES), slots: Vec::new(), free: Vec::new() }
    }

    /// The amount that all entries take.
    pub(crate) fn used(&self) -> usize {
        self.tree.used(tree::ROOT)
    }

    /// Charges an actor for an entry, also beyond its share: call [`surplus`](Self::surplus) afterwards.
    pub(crate) fn charge(&mut self, actor: &Actor, amount: usize, token: T) -> Ticket {
        // A node with entries must not look empty.
        let amount = amount.max(1);
        let node = self.tree.node(actor);
        self.tree.add(node, amount);
        let older = self.tree.at(node).last;
        let slot = Slot { node, amount, older, newer: NONE, token: Some(token) };
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.tree.at(node).last = place;
        match older {
            NONE => self.tree.at(node).first = place,
            older => self.slots[older as usize].newer = place,
        }
        Ticket(place)
    }

    /// Changes the amount of an entry. Its age does not change.
    pub(crate) fn change(&mut self, Ticket(place): Ticket, amount: usize) {
        let Slot { node, amount: taken, .. } = &mut self.slots[place as usize];
        let (amount, before) = (amount.max(1), *taken);
        *taken = amount;
        // Add first: a node without an amount would be removed.
        self.tree.add(*node, amount);
        self.tree.sub(*node, before);
    }

    /// Removes an entry.
    pub(crate) fn release(&mut self, Ticket(place): Ticket) -> Option<T> {
        let slot = &mut self.slots[place as usize];
        let token = slot.token.take()?;
        let (node, amount, older, newer) = (slot.node, slot.amount, slot.older, slot.newer);
        match older {
            NONE => self.tree.at(node).first = newer,
            older => self.slots[older as usize].newer = newer,
        }
        match newer {
            NONE => self.tree.at(node).last = older,
            newer => self.slots[newer as usize].older = older,
        }
        self.free.push(place);
        self.tree.sub(node, amount);
        Some(token)
    }

    /// Removes and returns an entry, if a share on this actor's path is exceeded.
    pub(crate) fn surplus(&mut self, actor: &Actor) -> Option<T> {
        if self.used() <= self.tree.limit() / EASY {
            return None;
        }
        let crowded = self.tree.crowded(self.tree.known(actor))?;
        self.oldest_of_biggest(crowded)
    }

    /// Removes and returns the oldest entry of the actor that holds most.
    pub(crate) fn give_way(&mut self) -> Option<T> {
        self.oldest_of_biggest(tree::ROOT)
    }

    fn oldest_of_biggest(&mut self, node: u32) -> Option<T> {
        let biggest = self.tree.biggest(node);
        match self.tree.at(biggest).first {
            NONE => None,
            oldest => self.release(Ticket(oldest)),
        }
    }
}

/// Shares of a count that only grows, by [whole](Actor::whole) actors.
#[derive(Debug)]
pub(crate) struct Quota(Tree);

impl Quota {
    /// Shares in which the first executable may take `of_first_max`: an eighth (half of half of half) of the total.
    pub(crate) fn new(of_first_max: usize) -> Self {
        Self(Tree::new(of_first_max.saturating_mul(1 << LEVELS), 0))
    }

    /// Counts one more. Returns `false`, and counts nothing, if a share on the actor's path is used up.
    pub(crate) fn take(&mut self, actor: &Actor) -> bool {
        self.take_anyhow(actor);
        let node = self.0.known(actor);
        let fits = self.0.crowded(node).is_none();
        if !fits {
            self.0.sub(node, 1);
        }
        fits
    }

    /// Counts one more, also beyond the share.
    pub(crate) fn take_anyhow(&mut self, actor: &Actor) {
        let node = self.0.node(actor);
        self.0.add(node, 1);
    }

    /// Whether nothing was counted for an actor's user yet.
    pub(crate) fn is_of_new_user(&self, actor: &Actor) -> bool {
        self.0.known(&actor.user()) == tree::ROOT
    }
}

#[cfg(test)]
mod tests;

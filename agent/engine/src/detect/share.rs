//! Shares that nest: how much of a limit each of those who act may take.
//!
//! What is taken, bytes or alerts, is counted for the host, the user, the control group and the executable. **No child
//! takes more than half of what is left at its parent**: after it has taken something,
//! `used(child) ≤ room(child)`, where `room(child)` is half of `room(parent) − used(all others below the parent)`,
//! rounded up, and `room(host)` is the limit. So all together never pass the limit; ten thousand executables share
//! what one user may take; and what one user left is there for the next.
//!
//! Where entries can be given up, they go in this order: of the user who holds most, of that the group that holds most, of
//! that the executable that holds most, and of that the oldest. So who takes too much pushes out its own, and who holds
//! less than another pushes out the other's.

mod tree;

use super::actor::{Actor, LEVELS};
use tree::{NONE, Tree};

/// What a node of the tree takes, in bytes.
const NODE_BYTES: usize = 256;
/// The share of the limit up to which no actor can have too much: half of half of half is an eighth, and as much may be
/// used by others.
const EASY: usize = 16;

/// Entries that share a limit. The owner of an entry finds it by its token.
#[derive(Debug)]
pub(crate) struct Shares<T> {
    tree: Tree,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

/// An entry, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

#[derive(Debug)]
struct Slot<T> {
    node: u32,
    amount: usize,
    /// The entries of the same node that are next to it, older and newer.
    older: u32,
    newer: u32,
    /// `None` where the place is free.
    token: Option<T>,
}

impl<T> Shares<T> {
    /// What an entry takes here.
    pub(crate) const SLOT_BYTES: usize = size_of::<Slot<T>>();

    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { tree: Tree::new(bytes_max, NODE_BYTES), slots: Vec::new(), free: Vec::new() }
    }

    /// What is taken in all.
    pub(crate) fn used(&self) -> usize {
        self.tree.used(tree::ROOT)
    }

    /// Lets an actor take an entry. Whether that was too much, [`surplus`](Self::surplus) says.
    pub(crate) fn charge(&mut self, actor: &Actor, amount: usize, token: T) -> Ticket {
        // What takes nothing would not be seen.
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

    /// Changes what an entry takes. It stays as old as it is.
    pub(crate) fn change(&mut self, Ticket(place): Ticket, amount: usize) {
        let Slot { node, amount: taken, .. } = &mut self.slots[place as usize];
        let (amount, before) = (amount.max(1), *taken);
        *taken = amount;
        // More first: a node of which nothing is left would go.
        self.tree.add(*node, amount);
        self.tree.sub(*node, before);
    }

    /// Takes an entry back.
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

    /// An entry that must go, for a share on this actor's path is larger than it may be. It is taken out.
    pub(crate) fn surplus(&mut self, actor: &Actor) -> Option<T> {
        if self.used() <= self.tree.limit() / EASY {
            return None;
        }
        let crowded = self.tree.crowded(self.tree.known(actor))?;
        self.oldest_of_biggest(crowded)
    }

    /// The oldest entry of the one who holds most. It is taken out.
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

/// Shares of something that is counted and cannot be given up again, of [whole](Actor::whole) actors.
#[derive(Debug)]
pub(crate) struct Quota(Tree);

impl Quota {
    /// Shares of which the first executable that takes any may take so many: half of half of half of all.
    pub(crate) fn new(of_first_max: usize) -> Self {
        Self(Tree::new(of_first_max.saturating_mul(1 << LEVELS), 0))
    }

    /// Counts one more; `false` where an actor's share is used up, and nothing is counted.
    pub(crate) fn take(&mut self, actor: &Actor) -> bool {
        self.take_anyhow(actor);
        let node = self.0.known(actor);
        let fits = self.0.crowded(node).is_none();
        if !fits {
            self.0.sub(node, 1);
        }
        fits
    }

    /// Counts one more, whatever the share.
    pub(crate) fn take_anyhow(&mut self, actor: &Actor) {
        let node = self.0.node(actor);
        self.0.add(node, 1);
    }

    /// Whether nothing was counted of an actor's user.
    pub(crate) fn is_of_new_user(&self, actor: &Actor) -> bool {
        self.0.known(&actor.user()) == tree::ROOT
    }
}

#[cfg(test)]
mod tests;

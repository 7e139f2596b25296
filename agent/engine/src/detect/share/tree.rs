//! The tree of actors: host, users, groups, executables. Each node has the amount that it and all nodes below it use.
//!
//! Nodes are bounded in the same way as the amounts: a user has at most half of the nodes that are left.
//! Further actors are counted at the node above them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::detect::actor::Actor;
use crate::detect::hash::Quickly;

/// The host.
pub(super) const ROOT: u32 = 0;
/// No node, and no entry.
pub(super) const NONE: u32 = u32::MAX;
/// Maximum number of nodes for groups and executables, of all users.
const NODES_MAX: usize = 256;
/// Maximum number of users with a node of their own.
const USERS_MAX: usize = 64;
/// The key of the node that all further users share.
const OTHERS: u64 = u64::MAX;
/// A heap is rebuilt when it has more entries than this number plus twice its children.
const STALE_MIN: usize = 16;

/// The used amounts, by actor.
#[derive(Debug)]
pub(super) struct Tree {
    limit: usize,
    /// The amount that a node itself takes of the limit.
    node_cost: usize,
    nodes: Vec<ShareNode>,
    free: Vec<u32>,
    by_key: HashMap<u64, u32, Quickly>,
    users: usize,
    births: u64,
}

/// The host, a user, a control group or an executable.
#[derive(Debug)]
pub(super) struct ShareNode {
    parent: u32,
    key: u64,
    /// The number of the node, in order of creation. Of equal nodes the older comes first.
    birth: u64,
    used: usize,
    /// The amount of its own entries, without those of its children.
    own: usize,
    children: usize,
    /// The number of nodes below it.
    below: usize,
    /// Its children, each with an upper bound of its used amount. An entry is valid if it has the child's current
    /// `bound`.
    biggest: BinaryHeap<(usize, Reverse<u64>, u32)>,
    /// The upper bound of `used` in the parent's heap.
    bound: usize,
    /// Its own entries: the oldest and the newest.
    pub(super) first: u32,
    pub(super) last: u32,
}

impl Tree {
    pub(super) fn new(limit: usize, node_cost: usize) -> Self {
        let nodes = vec![ShareNode::new(NONE, 0, 0)];
        Self { limit, node_cost, nodes, free: Vec::new(), by_key: HashMap::default(), users: 0, births: 0 }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn used(&self, node: u32) -> usize {
        self.nodes[node as usize].used
    }

    pub(super) fn at(&mut self, node: u32) -> &mut ShareNode {
        &mut self.nodes[node as usize]
    }

    /// Adds to a node's own amount.
    pub(super) fn add(&mut self, node: u32, amount: usize) {
        self.nodes[node as usize].own += amount;
        self.add_path(node, amount);
    }

    /// Subtracts from a node's own amount. A node that becomes empty is removed.
    pub(super) fn sub(&mut self, node: u32, amount: usize) {
        self.nodes[node as usize].own -= amount;
        self.sub_path(node, amount);
        self.prune(node);
    }

    fn add_path(&mut self, mut node: u32, amount: usize) {
        while node != NONE {
            let this = &mut self.nodes[node as usize];
            this.used += amount;
            if this.used > this.bound && node != ROOT {
                // Rounded to the next power of two, so that not every growth adds an entry to the heap.
                this.bound = this.used.checked_next_power_of_two().unwrap_or(usize::MAX);
                let (parent, place) = (this.parent, (this.bound, Reverse(this.birth), node));
                self.rank(parent, place);
            }
            node = self.nodes[node as usize].parent;
        }
    }

    fn sub_path(&mut self, mut node: u32, amount: usize) {
        while node != NONE {
            let this = &mut self.nodes[node as usize];
            this.used -= amount;
            node = this.parent;
        }
    }

    fn rank(&mut self, parent: u32, place: (usize, Reverse<u64>, u32)) {
        let ShareNode { biggest, children, .. } = &mut self.nodes[parent as usize];
        biggest.push(place);
        if biggest.len() > STALE_MIN + 2 * *children {
            let mut heap = std::mem::take(biggest);
            heap.retain(|place| self.counts(place));
            self.nodes[parent as usize].biggest = heap;
        }
    }

    fn counts(&self, (bound, Reverse(birth), node): &(usize, Reverse<u64>, u32)) -> bool {
        let node = &self.nodes[*node as usize];
        node.birth == *birth && node.bound == *bound
    }

    /// The child that uses most. The top of the heap is corrected until its bound is exact. The other children use no
    /// more than their bounds, so they use no more than the top.
    fn biggest_child(&mut self, parent: u32) -> Option<u32> {
        let mut heap = std::mem::take(&mut self.nodes[parent as usize].biggest);
        let mut found = None;
        while let Some(place) = heap.peek().copied() {
            let (bound, birth, child) = place;
            let used = self.used(child);
            if self.counts(&place) && used == bound {
                found = Some(child);
                break;
            }
            heap.pop();
            if self.counts(&place) {
                self.nodes[child as usize].bound = used;
                heap.push((used, birth, child));
            }
        }
        self.nodes[parent as usize].biggest = heap;
        found
    }

    /// The node whose oldest entry is evicted next: the search descends from a node to the child that holds most.
    pub(super) fn biggest(&mut self, mut node: u32) -> u32 {
        while let Some(child) = self.biggest_child(node)
            && self.used(child) > self.nodes[node as usize].own
        {
            node = child;
        }
        node
    }

    /// The first node on the path to this one with a child that exceeds its share.
    pub(super) fn crowded(&self, node: u32) -> Option<u32> {
        if self.used(ROOT) > self.limit { Some(ROOT) } else { self.room(node).err() }
    }

    /// The share of a node. The error is the first node on its path with a child that exceeds its share.
    fn room(&self, node: u32) -> Result<usize, u32> {
        if node == ROOT {
            return Ok(self.limit);
        }
        let ShareNode { parent, used, .. } = self.nodes[node as usize];
        let others = self.used(parent) - used;
        let room = self.room(parent)?.saturating_sub(others).div_ceil(2);
        if used > room { Err(parent) } else { Ok(room) }
    }

    /// The lowest existing node on an actor's path.
    pub(super) fn known(&self, actor: &Actor) -> u32 {
        let Some(user) = actor.path().first() else { return ROOT };
        if !self.by_key.contains_key(user) {
            return self.by_key.get(&OTHERS).copied().unwrap_or(ROOT);
        }
        let nodes = actor.path().iter().map_while(|key| self.by_key.get(key));
        nodes.last().copied().unwrap_or(ROOT)
    }

    /// The node of an actor, created if necessary. If there is no room for it, the lowest node above it.
    pub(super) fn node(&mut self, actor: &Actor) -> u32 {
        if let Some(node) = actor.path().last().and_then(|key| self.by_key.get(key)) {
            return *node;
        }
        let Some((user, below)) = actor.path().split_first() else { return ROOT };
        let user = match self.by_key.get(user) {
            Some(user) => *user,
            None if self.users < USERS_MAX => self.make(ROOT, *user),
            None => return self.by_key.get(&OTHERS).copied().unwrap_or_else(|| self.make(ROOT, OTHERS)),
        };
        let mut node = user;
        for key in below {
            node = match self.by_key.get(key) {
                Some(known) => *known,
                None if self.has_room_below(user) => self.make(node, *key),
                None => break,
            };
        }
        node
    }

    fn has_room_below(&self, user: u32) -> bool {
        let of_all = self.nodes[ROOT as usize].below - self.users;
        self.nodes[user as usize].below + of_all < NODES_MAX
    }

    fn make(&mut self, parent: u32, key: u64) -> u32 {
        self.births += 1;
        let made = ShareNode::new(parent, key, self.births);
        let place = match self.free.pop() {
            Some(place) => {
                self.nodes[place as usize] = made;
                place
            }
            None => {
                self.nodes.push(made);
                (self.nodes.len() - 1) as u32
            }
        };
        self.by_key.insert(key, place);
        self.users += usize::from(parent == ROOT);
        self.nodes[parent as usize].children += 1;
        self.for_path(parent, |above| above.below += 1);
        self.add_path(place, self.node_cost);
        place
    }

    /// Removes a node if it is empty, and then the empty nodes above it.
    fn prune(&mut self, mut place: u32) {
        while place != ROOT {
            let ShareNode { parent, key, children, own, .. } = self.nodes[place as usize];
            if children > 0 || own > 0 {
                return;
            }
            self.sub_path(place, self.node_cost);
            self.by_key.remove(&key);
            self.users -= usize::from(parent == ROOT);
            self.nodes[place as usize] = ShareNode::new(NONE, 0, 0);
            self.free.push(place);
            self.nodes[parent as usize].children -= 1;
            self.for_path(parent, |above| above.below -= 1);
            place = parent;
        }
    }

    fn for_path(&mut self, mut node: u32, mut change: impl FnMut(&mut ShareNode)) {
        while node != NONE {
            change(&mut self.nodes[node as usize]);
            node = self.nodes[node as usize].parent;
        }
    }
}

impl ShareNode {
    fn new(parent: u32, key: u64, birth: u64) -> Self {
        Self {
            parent,
            key,
            birth,
            used: 0,
            own: 0,
            children: 0,
            below: 0,
            biggest: BinaryHeap::new(),
            bound: 0,
            first: NONE,
            last: NONE,
        }
    }
}

#[cfg(test)]
impl Tree {
    /// How many nodes there are.
    pub(super) fn size(&self) -> usize {
        self.nodes.len() - self.free.len()
    }
}

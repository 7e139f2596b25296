//! The tree of those who take: host, users, groups, executables, each with what it and all below it use.
//!
//! Nodes are bounded in the same way as what they count: below a user no more are known than half of what is left.
//! Actors beyond are merged into what is above them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::detect::actor::Actor;
use crate::detect::hash::Quickly;

/// The host.
pub(super) const ROOT: u32 = 0;
/// No node, and no entry.
pub(super) const NONE: u32 = u32::MAX;
/// Most groups and executables that are known apart, of all users.
const NODES_MAX: usize = 256;
/// Most users that are known apart.
const USERS_MAX: usize = 64;
/// The user that all further ones are together.
const OTHERS: u64 = u64::MAX;
/// How many places in a heap may be out of date before it is made anew, beside as many as are not.
const STALE_MIN: usize = 16;

/// What is used, by actor.
#[derive(Debug)]
pub(super) struct Tree {
    limit: usize,
    /// What a node takes of the limit itself.
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
    /// Among equals the one that was born first comes first.
    birth: u64,
    used: usize,
    /// How much of it is its own, and not that of a child.
    own: usize,
    children: usize,
    /// Nodes below it.
    below: usize,
    /// Its children, each with no less than it uses. Of the places of a child the one that says `bound` counts.
    biggest: BinaryHeap<(usize, Reverse<u64>, u32)>,
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

    /// Counts what a node takes for itself.
    pub(super) fn add(&mut self, node: u32, amount: usize) {
        self.nodes[node as usize].own += amount;
        self.add_path(node, amount);
    }

    /// Counts what it gives back. A node of which nothing is left goes.
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
                // To the next power of two, so that not every growth takes a place in the heap.
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

    /// The child that uses most. The heap is put right from the top until its first is exact: the others, which use no
    /// more than they say, use no more than that.
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

    /// The one below a node, or itself, of which the next entry is to go: always down to who holds most.
    pub(super) fn biggest(&mut self, mut node: u32) -> u32 {
        while let Some(child) = self.biggest_child(node)
            && self.used(child) > self.nodes[node as usize].own
        {
            node = child;
        }
        node
    }

    /// The node on the way to this one below which a child has more than its share.
    pub(super) fn crowded(&self, node: u32) -> Option<u32> {
        if self.used(ROOT) > self.limit { Some(ROOT) } else { self.room(node).err() }
    }

    /// The share of a node; or else the node on the way to it below which a child has more than its share.
    fn room(&self, node: u32) -> Result<usize, u32> {
        if node == ROOT {
            return Ok(self.limit);
        }
        let ShareNode { parent, used, .. } = self.nodes[node as usize];
        let others = self.used(parent) - used;
        let room = self.room(parent)?.saturating_sub(others).div_ceil(2);
        if used > room { Err(parent) } else { Ok(room) }
    }

    /// The lowest node on an actor's path that is known.
    pub(super) fn known(&self, actor: &Actor) -> u32 {
        let Some(user) = actor.path().first() else { return ROOT };
        if !self.by_key.contains_key(user) {
            return self.by_key.get(&OTHERS).copied().unwrap_or(ROOT);
        }
        let nodes = actor.path().iter().map_while(|key| self.by_key.get(key));
        nodes.last().copied().unwrap_or(ROOT)
    }

    /// The node of an actor. Where there is no room for it, that of what is above.
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

    /// Takes out a node in which nothing is any more, and those above it that were there for it alone.
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

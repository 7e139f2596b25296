//! The owners of connections. The end of a connection is attributed by this, because the kernel handles it in no
//! process.

use std::collections::HashMap;

use lapwing_common::Reach;
use serde::{Deserialize, Serialize};

use super::key::Key;
use crate::budget::Shares;

/// Maximum number of bytes of open connections: 65,536 connections, of which a user may have half of the free ones.
/// The ends of further connections are not reported; these are counted.
const OWNERS_BYTES_MAX: usize = 5 << 20;
/// Bytes of a connection, with its part of the table.
const OWNER_BYTES: usize = 80;

/// The process that connected or accepted.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Owner {
    pub(super) key: Key,
    /// Whether it accepted.
    pub(super) is_acceptor: bool,
    /// The class of its destination.
    #[serde(with = "ReachName")]
    pub(super) reach: Reach,
    /// The responsible user; 0 in the state of an older version.
    #[serde(default)]
    pub(super) user: u32,
}

/// [`Reach`], for serde.
#[derive(Deserialize, Serialize)]
#[serde(remote = "Reach")]
enum ReachName {
    Loopback,
    LinkLocal,
    Private,
    Public,
}

/// The open connections, by the kernel's address of their sockets.
pub(super) struct Owners {
    open: HashMap<u64, Owner>,
    shares: Shares,
    table_full: u64,
    closes_without_owner: u64,
}

/// The counters of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnerCounts {
    /// Open connections.
    pub(crate) open: usize,
    /// Connections whose end will not be reported, because too many are open.
    pub(crate) table_full: u64,
    /// Ends of connections whose beginning was not reported: older ones, the agent's own, those that were never
    /// accepted.
    pub(crate) closes_without_owner: u64,
}

impl Default for Owners {
    fn default() -> Self {
        let shares = Shares::new(OWNERS_BYTES_MAX as u64);
        Self { open: HashMap::new(), shares, table_full: 0, closes_without_owner: 0 }
    }
}

impl Owners {
    /// Adds a connected or accepted socket. An earlier socket at the same address is closed, even without a record.
    pub(super) fn set(&mut self, socket: u64, owner: Owner) {
        self.remove(socket);
        if self.shares.room(owner.user) < OWNER_BYTES as u64 {
            self.table_full += 1;
            return;
        }
        self.shares.take(owner.user, OWNER_BYTES as u64);
        self.open.insert(socket, owner);
    }

    fn remove(&mut self, socket: u64) -> Option<Owner> {
        let owner = self.open.remove(&socket)?;
        self.shares.give_back(owner.user, OWNER_BYTES as u64);
        Some(owner)
    }

    /// Removes a closed socket, and returns its owner.
    pub(super) fn take(&mut self, socket: u64) -> Option<Owner> {
        let owner = self.remove(socket);
        self.closes_without_owner += u64::from(owner.is_none());
        // Memory is returned after a burst.
        if self.open.is_empty() && self.open.capacity() > OWNERS_BYTES_MAX / OWNER_BYTES / 16 {
            self.open.shrink_to_fit();
        }
        owner
    }

    /// Removes connections whose ends will not be reported.
    pub(super) fn keep(&mut self, is_reported: impl Fn(Reach) -> bool) {
        let shares = &mut self.shares;
        self.open.retain(|_, owner| {
            let is_reported = is_reported(owner.reach);
            if !is_reported {
                shares.give_back(owner.user, OWNER_BYTES as u64);
            }
            is_reported
        });
        self.open.shrink_to_fit();
    }

    /// The open connections, for the next run.
    pub(super) fn save(&self) -> Vec<(u64, Owner)> {
        self.open.iter().map(|(socket, owner)| (*socket, *owner)).collect()
    }

    /// Restores the connections of the previous run.
    pub(super) fn restore(&mut self, saved: Vec<(u64, Owner)>) {
        saved.into_iter().for_each(|(socket, owner)| self.set(socket, owner));
    }

    /// Their bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.open.len() * OWNER_BYTES
    }

    /// The counters.
    pub(super) fn counts(&self) -> OwnerCounts {
        OwnerCounts {
            open: self.open.len(),
            table_full: self.table_full,
            closes_without_owner: self.closes_without_owner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_reported_once_and_for_the_last_owner() {
        let owner =
            |pid, is_acceptor| Owner { key: Key::new(pid, 0), is_acceptor, reach: Reach::Public, user: 0 };
        let mut owners = Owners::default();
        owners.set(1, owner(7, false));
        owners.set(1, owner(8, true));
        assert_eq!(owners.take(1), Some(owner(8, true)));
        assert_eq!(owners.take(1), None);
        let most = OWNERS_BYTES_MAX / OWNER_BYTES / 2;
        for socket in 0..most as u64 + 5 {
            owners.set(socket, owner(7, false));
        }
        owners.set(3, owner(9, false));
        assert_eq!(owners.counts(), OwnerCounts { open: most, table_full: 5, closes_without_owner: 1 });
        let other = Owner { user: 1000, ..owner(10, false) };
        owners.set(1 << 40, other);
        assert_eq!(owners.take(1 << 40), Some(other), "one user's connections leave room for another's");
        assert_eq!(owners.take(3), Some(owner(9, false)));
        owners.set(3, Owner { reach: Reach::Loopback, ..owner(9, false) });
        owners.keep(|reach| reach == Reach::Loopback);
        assert_eq!(owners.counts().open, 1);
    }
}

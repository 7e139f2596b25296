//! Which of many networks hold an address: the addresses are cut where a network begins or ends, and one binary search
//! finds the piece.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::marks::Marks;

/// The networks of all tests of a field.
#[derive(Debug, Default)]
pub(super) struct Networks {
    v4: Pieces<u32>,
    v6: Pieces<u128>,
}

/// Where pieces begin, and which tests hold for the addresses in each. Addresses before the first are in no network.
#[derive(Debug)]
struct Pieces<T> {
    starts: Vec<T>,
    marks: Vec<Marks>,
}

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self { starts: Vec::new(), marks: Vec::new() }
    }
}

impl Networks {
    /// A table of networks, each with the test that it belongs to.
    pub(super) fn new(networks: &[(IpNet, u32)]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, test) in networks {
            match network {
                IpNet::V4(network) => {
                    let (first, last) = (network.network().into(), u32::from(network.broadcast()));
                    v4.push((first, last.checked_add(1), *test));
                }
                IpNet::V6(network) => {
                    let (first, last) = (network.network().into(), u128::from(network.broadcast()));
                    v6.push((first, last.checked_add(1), *test));
                }
            }
        }
        Self { v4: Pieces::new(v4), v6: Pieces::new(v6) }
    }

    /// The tests that the address passes.
    pub(super) fn find(&self, address: &IpAddr) -> Option<&Marks> {
        match address {
            IpAddr::V4(address) => self.v4.find((*address).into()),
            IpAddr::V6(address) => self.v6.find((*address).into()),
        }
    }
}

impl<T: Copy + Ord> Pieces<T> {
    /// From spans with their first address and the one after their last, where there is one.
    fn new(spans: Vec<(T, Option<T>, u32)>) -> Self {
        let mut turns: BTreeMap<T, Vec<(u32, bool)>> = BTreeMap::new();
        for (start, end, test) in spans {
            turns.entry(start).or_default().push((test, true));
            if let Some(end) = end {
                turns.entry(end).or_default().push((test, false));
            }
        }
        // How many networks of each test hold the piece that is being made.
        let mut open: BTreeMap<u32, usize> = BTreeMap::new();
        let mut pieces = Self::default();
        for (start, turns) in turns {
            for (test, opens) in turns {
                let count = open.entry(test).or_default();
                *count = if opens { *count + 1 } else { count.saturating_sub(1) };
            }
            open.retain(|_, count| *count > 0);
            pieces.starts.push(start);
            pieces.marks.push(Marks::new(&open.keys().copied().collect::<Vec<_>>()));
        }
        pieces
    }

    fn find(&self, address: T) -> Option<&Marks> {
        let place = self.starts.partition_point(|start| *start <= address).checked_sub(1)?;
        Some(&self.marks[place])
    }
}

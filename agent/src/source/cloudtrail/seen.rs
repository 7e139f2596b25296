//! The ids of the latest records, for deduplication: queues redeliver, and trails overlap.
//!
//! On disk the ids are in a ring of blocks, one row each. A block holds [`BLOCK_IDS`] ids, so a batch rewrites few
//! rows; there are [`BLOCKS_MAX`] rows, and no row is ever deleted.

use std::collections::{BTreeSet, HashSet};

use sha2::{Digest, Sha256};

use crate::store::Change;

/// The scope of the rows in the store.
pub(crate) const SCOPE: &str = "cloudtrail/seen";

/// Ids in a block.
const BLOCK_IDS: usize = 256;
/// Blocks in the ring: the ids of the last 56,320 records are known, which a set of 65,536 places holds, in about
/// 2 MiB. Trails overlap by minutes, and a busy account makes some ten records a second.
const BLOCKS_MAX: u64 = 220;
/// The first byte of a row.
const VERSION: u8 = 1;

/// The ids that were seen.
#[derive(Default)]
pub(crate) struct SeenIds {
    ids: HashSet<u128>,
    /// The blocks from the oldest to the one that is being filled.
    blocks: std::collections::VecDeque<Vec<u128>>,
    /// The number of the block that is being filled, counted from the first ever.
    current: u64,
    changed: BTreeSet<u64>,
}

impl SeenIds {
    /// Reads the rows of the store. A row that cannot be parsed is ignored.
    pub(crate) fn load(rows: Vec<(String, Vec<u8>)>) -> Self {
        let mut blocks: Vec<_> = rows.iter().filter_map(|(_, value)| decode(value)).collect();
        blocks.sort_unstable_by_key(|(number, _)| *number);
        let mut seen = Self::default();
        for (number, ids) in blocks {
            seen.current = number;
            seen.ids.extend(&ids);
            seen.blocks.push_back(ids);
        }
        seen
    }

    /// Notes an id; whether it is new.
    pub(crate) fn insert(&mut self, id: &str) -> bool {
        let id = number(id);
        if !self.ids.insert(id) {
            return false;
        }
        if self.blocks.back().is_none_or(|block| block.len() >= BLOCK_IDS) {
            if !self.blocks.is_empty() {
                self.current += 1;
            }
            self.blocks.push_back(Vec::with_capacity(BLOCK_IDS));
        }
        if self.blocks.len() as u64 > BLOCKS_MAX {
            for old in self.blocks.pop_front().unwrap_or_default() {
                self.ids.remove(&old);
            }
        }
        if let Some(block) = self.blocks.back_mut() {
            block.push(id);
        }
        self.changed.insert(self.current);
        true
    }

    /// The rows that changed since the last call.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().filter_map(|number| self.row(number)).collect()
    }

    fn row(&self, number: u64) -> Option<Change> {
        let behind = usize::try_from(self.current - number).ok()?;
        let block = self.blocks.get(self.blocks.len().checked_sub(behind + 1)?)?;
        let mut value = vec![VERSION];
        value.extend_from_slice(&number.to_le_bytes());
        value.extend(block.iter().flat_map(|id| id.to_le_bytes()));
        Some(Change {
            scope: SCOPE.to_owned(),
            key: format!("{:03}", number % BLOCKS_MAX),
            value: Some(value),
        })
    }
}

fn decode(value: &[u8]) -> Option<(u64, Vec<u128>)> {
    let (number, ids) = value.strip_prefix(&[VERSION])?.split_first_chunk()?;
    let ids = ids.chunks_exact(16).filter_map(|id| id.try_into().ok().map(u128::from_le_bytes));
    Some((u64::from_le_bytes(*number), ids.collect()))
}

/// A UUID's own number, as nearly every id is one; of any other text a hash.
fn number(id: &str) -> u128 {
    let digits: String = id.chars().filter(|c| *c != '-').collect();
    if digits.len() == 32
        && let Ok(number) = u128::from_str_radix(&digits, 16)
    {
        return number;
    }
    let hash = Sha256::digest(id.as_bytes());
    u128::from_le_bytes(std::array::from_fn(|index| hash[index]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn id(number: usize) -> String {
        format!("{number:08x}-0000-4000-8000-000000000000")
    }

    #[test]
    fn ids_survive_a_restart_and_the_oldest_are_evicted() {
        let mut store = BTreeMap::new();
        let mut seen = SeenIds::default();
        let total = BLOCK_IDS * BLOCKS_MAX as usize + 3 * BLOCK_IDS;
        for batch in (0..total).collect::<Vec<_>>().chunks(100) {
            for number in batch {
                assert!(seen.insert(&id(*number)));
            }
            store.extend(seen.changes().into_iter().map(|change| (change.key, change.value.unwrap())));
        }
        assert_eq!(store.len() as u64, BLOCKS_MAX);
        let mut again = SeenIds::load(store.into_iter().collect());
        for seen in [&mut seen, &mut again] {
            assert!(!seen.insert(&id(total - 1)) && !seen.insert(&id(3 * BLOCK_IDS)));
            assert_eq!(seen.ids.len(), BLOCK_IDS * BLOCKS_MAX as usize);
            assert!(seen.insert(&id(0)), "the oldest is forgotten");
        }
        assert_eq!(again.current, seen.current);
    }

    #[test]
    fn a_batch_writes_the_blocks_that_it_touched() {
        let mut seen = SeenIds::default();
        (0..300).for_each(|number| assert!(seen.insert(&id(number))));
        assert_eq!(
            seen.changes().iter().map(|change| change.key.as_str()).collect::<Vec<_>>(),
            ["000", "001"]
        );
        assert!(!seen.insert(&id(7)) && seen.changes().is_empty());
        assert!(seen.insert("not a uuid") && !seen.insert("not a uuid"));
    }

    #[test]
    fn invalid_rows_are_ignored() {
        let rows =
            vec![("000".to_owned(), vec![]), ("001".to_owned(), vec![9; 40]), ("002".to_owned(), vec![1, 2])];
        assert!(SeenIds::load(rows).insert("x"));
    }
}

//! Cache of file hashes. Every change of a file changes its change time, which cannot be set, so that device, inode and
//! change time identify the content. A file that is changed within the clock tick in which it was read is not cached.

use std::collections::VecDeque;

use crate::digest::Hash;
use crate::program::FileKey;

/// Maximum bytes of the cache.
const CACHE_BYTES_MAX: usize = 64 << 10;
/// Maximum number of hashes.
const HASHES_MAX: usize = CACHE_BYTES_MAX / size_of::<(FileKey, Hash)>();

/// The hashes, the most recently used last.
#[derive(Default)]
pub(super) struct Cache(VecDeque<(FileKey, Hash)>);

impl Cache {
    /// The hash of a file.
    pub(super) fn get(&mut self, file: FileKey) -> Option<Hash> {
        let index = self.0.iter().rposition(|(known, _)| *known == file)?;
        let found = self.0.remove(index)?;
        self.0.push_back(found);
        Some(found.1)
    }

    /// Adds a hash; the least recently used one is evicted.
    pub(super) fn put(&mut self, file: FileKey, hash: Hash) {
        if self.get(file).is_some() {
            return;
        }
        if self.0.len() >= HASHES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((file, hash));
    }

    /// Number of hashes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

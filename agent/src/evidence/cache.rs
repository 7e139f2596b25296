//! Hashes of files that were read before. Every change of a file sets its change time, which cannot be forged, so that
//! device, inode and change time name a content; a file that is changed within the clock's tick in which it was read is
//! not kept here.

use std::collections::VecDeque;

use crate::digest::Hash;
use crate::program::FileKey;

/// Most bytes that hashes are kept in.
const CACHE_BYTES_MAX: usize = 64 << 10;
/// How many that are.
const HASHES_MAX: usize = CACHE_BYTES_MAX / size_of::<(FileKey, Hash)>();

/// The hashes, the one that was wanted last at the end.
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

    /// Remembers a hash; the one that was not wanted for longest is forgotten for it.
    pub(super) fn put(&mut self, file: FileKey, hash: Hash) {
        if self.get(file).is_some() {
            return;
        }
        if self.0.len() >= HASHES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((file, hash));
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

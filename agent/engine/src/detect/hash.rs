//! A quick hash for tables whose keys come from rules alone: what an attacker writes is only looked up in them, so no
//! flood of colliding keys can grow in one. And for keys that carry a hash of their own that cannot be guessed.

use std::hash::{BuildHasherDefault, Hasher};

/// What makes the quick hash.
pub(super) type Quickly = BuildHasherDefault<Quick>;
/// A table with the quick hash.
pub(super) type Table<K, V> = std::collections::HashMap<K, V, Quickly>;

/// Multiplies and folds eight bytes at a time.
#[derive(Default)]
pub(super) struct Quick(u64);

/// An odd number without structure: the fraction of the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// One step: both halves of the product count, or what differs in high bits alone would collide.
pub(super) fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word) * u128::from(FACTOR);
    (product as u64) ^ (product >> 64) as u64
}

impl Quick {
    /// Several words at once, as slices of them are hashed.
    fn words(&mut self, bytes: &[[u8; 8]]) {
        for word in bytes {
            self.0 = mix(self.0, u64::from_le_bytes(*word));
        }
    }
}

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<8>();
        self.words(chunks);
        if rest.is_empty() {
            return;
        }
        // The length distinguishes texts that differ only in zeros at their ends.
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.0 = mix(mix(self.0, u64::from_le_bytes(last)), bytes.len() as u64);
    }

    fn write_u8(&mut self, byte: u8) {
        self.0 = mix(self.0, byte.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0, word);
    }

    fn write_usize(&mut self, word: usize) {
        self.0 = mix(self.0, word as u64);
    }

    fn write_i64(&mut self, word: i64) {
        self.0 = mix(self.0, word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

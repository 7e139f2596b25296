//! Sets of a field's tests: which of them a value passes.

/// Some tests of one field, by their numbers, as the words of a set of bits that are not empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(Box<[(u32, u64)]>);

impl Marks {
    /// The set of these tests.
    pub(super) fn new(tests: &[u32]) -> Self {
        let mut tests = tests.to_vec();
        tests.sort_unstable();
        tests.dedup();
        let words = tests.chunk_by(|left, right| left / 64 == right / 64);
        Self(words.map(|word| (word[0] / 64, word.iter().fold(0, |bits, test| bits | bit(*test)))).collect())
    }

    /// The tests of a set.
    pub(super) fn of(facts: &[u64]) -> Self {
        Self((0..).zip(facts).filter(|(_, bits)| **bits != 0).map(|(word, bits)| (word, *bits)).collect())
    }

    /// Adds them to a set.
    pub(super) fn add_to(&self, facts: &mut [u64]) {
        for (word, bits) in &self.0 {
            facts[*word as usize] |= bits;
        }
    }

    /// The words that are not empty.
    pub(super) fn words(&self) -> impl Iterator<Item = (usize, u64)> {
        self.0.iter().map(|(word, bits)| (*word as usize, *bits))
    }
}

/// A test's bit in its word.
pub(super) fn bit(test: u32) -> u64 {
    1 << (test % 64)
}

/// Whether a set holds a test.
pub(super) fn has(facts: &[u64], test: u32) -> bool {
    facts[test as usize / 64] & bit(test) != 0
}

/// Adds one test to a set.
pub(super) fn add(facts: &mut [u64], test: u32) {
    facts[test as usize / 64] |= bit(test);
}

//! The result of finding a text in a value.

use super::marks::Marks;

/// The result of finding a text in a folded value. If folding did not change the value, case-sensitive tests are passed
/// too; otherwise they must be tried.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Tests that are passed.
    pub(super) marks: Marks,
    /// Tests that are passed if folding did not change the value.
    pub(super) plain: Marks,
    /// Patterns that must be tried if folding changed the value.
    pub(super) cased: Box<[u32]>,
    /// Patterns that must be tried, because the text is only a part of them.
    pub(super) tries: Box<[u32]>,
}

/// An [`Outcome`] that is being built.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    pub(super) tests: Vec<u32>,
    pub(super) plain: Vec<u32>,
    pub(super) cased: Vec<u32>,
    pub(super) tries: Vec<u32>,
}

impl Pending {
    /// Adds the result of another text.
    pub(super) fn extend(&mut self, other: &Self) {
        for (own, others) in [(&mut self.tests, &other.tests), (&mut self.plain, &other.plain)] {
            own.extend(others);
            own.sort_unstable();
            own.dedup();
        }
        self.cased.extend(&other.cased);
        self.tries.extend(&other.tries);
    }

    pub(super) fn outcome(&self) -> Outcome {
        Outcome {
            marks: Marks::new(&self.tests),
            plain: Marks::new(&self.plain),
            cased: self.cased.as_slice().into(),
            tries: self.tries.as_slice().into(),
        }
    }
}

//! What follows from a text that a field has.

use super::marks::Marks;

/// What follows from a text that was found in a folded one. Tests that regard case are passed too where nothing was to
/// fold; else they must be tried.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Tests that are passed.
    pub(super) marks: Marks,
    /// Tests that are passed where nothing was to fold.
    pub(super) plain: Marks,
    /// Patterns that must be tried where something was.
    pub(super) cased: Box<[u32]>,
    /// Patterns that must be tried, for more than was found.
    pub(super) tries: Box<[u32]>,
}

/// An [`Outcome`] in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    pub(super) tests: Vec<u32>,
    pub(super) plain: Vec<u32>,
    pub(super) cased: Vec<u32>,
    pub(super) tries: Vec<u32>,
}

impl Pending {
    /// Takes over what follows from another text.
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

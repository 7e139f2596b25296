//! Which of many texts another one begins with, or ends with: one binary search.

use super::outcome::{Outcome, Pending};

/// The beginnings that are looked for, sorted, or the ends, turned around.
#[derive(Debug, Default)]
pub(super) struct Affixes {
    /// The first bytes of each, so that most of the search reads nothing else.
    heads: Vec<u64>,
    sorted: Vec<Affix>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Affix {
    text: Box<[u8]>,
    /// The longest other one that this one begins with, by its place.
    within: Option<usize>,
    /// What follows for a text that begins with this one, and so with those within it.
    outcome: Outcome,
}

impl Affixes {
    /// A table of these. Each takes over what follows from those that it begins with itself.
    pub(super) fn new(affixes: impl IntoIterator<Item = (Box<[u8]>, Pending)>) -> Self {
        let mut affixes: Vec<_> = affixes.into_iter().collect();
        affixes.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        let mut sorted: Vec<Affix> = Vec::with_capacity(affixes.len());
        let mut pending: Vec<Pending> = Vec::with_capacity(affixes.len());
        for (text, mut follows) in affixes {
            let mut within = sorted.len().checked_sub(1);
            while let Some(place) = within.filter(|place| !text.starts_with(&sorted[*place].text)) {
                within = sorted[place].within;
            }
            if let Some(place) = within {
                follows.extend(&pending[place]);
            }
            sorted.push(Affix { text, within, outcome: follows.outcome() });
            pending.push(follows);
        }
        Self {
            heads: sorted.iter().map(|affix| head(&affix.text)).collect(),
            bytes_max: sorted.iter().map(|affix| affix.text.len()).max().unwrap_or(0),
            sorted,
        }
    }

    /// What follows for a text. Whatever stands between a beginning of the text and the text itself in the order begins
    /// alike, so the last one not behind the text is either a beginning of it or begins with all of them.
    pub(super) fn find(&self, text: &[u8]) -> Option<&Outcome> {
        let head = head(text);
        let mut end = self.heads.partition_point(|other| *other <= head);
        // Those of the same first bytes may yet stand behind the text.
        while end > 0 && self.heads[end - 1] == head && *self.sorted[end - 1].text > *text {
            end -= 1;
        }
        let mut place = end.checked_sub(1)?;
        while !text.starts_with(&self.sorted[place].text) {
            place = self.sorted[place].within?;
        }
        Some(&self.sorted[place].outcome)
    }

    /// Length of the longest. What of a text comes after so many bytes changes nothing.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }
}

/// The first eight bytes as a number that sorts as they do.
fn head(text: &[u8]) -> u64 {
    match text.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..text.len()].copy_from_slice(text);
            u64::from_be_bytes(bytes)
        }
    }
}

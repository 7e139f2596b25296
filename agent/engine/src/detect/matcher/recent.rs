//! Values that a field had lately, and the tests they passed: programs, folders and most arguments come again and again,
//! in lists that no events share.

use std::hash::Hasher as _;
use std::sync::Arc;

use super::field::{FieldTests, Scratch};
use super::hash::Quick;
use crate::event::Value;

/// How many values of a field are kept; a power of two. A new one takes the place of an older one.
const VALUES_MAX: usize = 128;
/// Longest value that is kept, in bytes of its texts.
const VALUE_BYTES_MAX: usize = 1024;

/// See the module.
#[derive(Default)]
pub(super) struct Recent {
    values: Vec<(u64, Option<Value>)>,
    /// The values' sets of tests, one after the other.
    facts: Vec<u64>,
}

impl Recent {
    /// Puts the tests that a value passes into `facts`, which is empty.
    pub(super) fn judge(
        &mut self,
        tests: &FieldTests,
        value: &Value,
        facts: &mut [u64],
        scratch: &mut Scratch,
    ) {
        let hash = if tests.is_light() { None } else { hash(value) };
        let Some(hash) = hash else { return tests.judge(value.elements(), facts, scratch) };
        if self.values.is_empty() {
            self.values = vec![(0, None); VALUES_MAX];
            self.facts = vec![0; VALUES_MAX * tests.words];
        }
        let place = hash as usize % VALUES_MAX;
        let kept = &mut self.facts[place * tests.words..][..tests.words];
        let entry = &mut self.values[place];
        if entry.0 == hash && entry.1.as_ref().is_some_and(|kept| is_same(kept, value)) {
            facts.copy_from_slice(kept);
            return;
        }
        tests.judge(value.elements(), facts, scratch);
        kept.copy_from_slice(facts);
        *entry = (hash, Some(value.clone()));
    }
}

fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::List(left), Value::List(right)) => Arc::ptr_eq(left, right) || left == right,
        (left, right) => left == right,
    }
}

/// A hash of a text or of a list of texts that is worth keeping.
fn hash(value: &Value) -> Option<u64> {
    let mut hasher = Quick::default();
    let mut bytes = 0;
    for value in value.elements() {
        let text = value.as_text()?;
        bytes += text.len();
        if bytes > VALUE_BYTES_MAX {
            return None;
        }
        hasher.write(text.as_bytes());
    }
    Some(hasher.finish())
}

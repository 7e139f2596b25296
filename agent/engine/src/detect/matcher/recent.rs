//! Texts that a field had lately, and the tests they passed: programs, folders, users and most arguments come again and
//! again, in lists that no events share.

use std::hash::Hasher as _;

use smol_str::SmolStr;

use super::field::{FieldTests, Scratch};
use super::marks::Marks;
use crate::detect::hash::Quick;
use crate::event::Value;

/// How many texts of a field are kept; a power of two. A new one takes the place of an older one.
const TEXTS_MAX: usize = 512;
/// Longest text that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// See the module.
#[derive(Default)]
pub(super) struct Recent {
    /// By hash; nothing before the first text.
    texts: Vec<Kept>,
}

#[derive(Clone, Default)]
struct Kept {
    hash: u64,
    text: SmolStr,
    passed: Marks,
}

impl Recent {
    /// Adds the tests that a field with these values passes.
    pub(super) fn judge(
        &mut self,
        tests: &FieldTests,
        value: &Value,
        facts: &mut [u64],
        scratch: &mut Scratch,
    ) {
        tests.any(facts);
        for value in value.elements() {
            match value {
                Value::Text(text) if !tests.is_light() && text.len() <= TEXT_BYTES_MAX => {
                    self.kept(tests, value, text, scratch).add_to(facts);
                }
                value => tests.judge(value, facts, scratch),
            }
        }
    }

    /// The tests that a text passes, judged where it did not come lately.
    fn kept(&mut self, tests: &FieldTests, value: &Value, text: &SmolStr, scratch: &mut Scratch) -> &Marks {
        if self.texts.is_empty() {
            self.texts = vec![Kept::default(); TEXTS_MAX];
        }
        let mut hasher = Quick::default();
        hasher.write(text.as_bytes());
        // An empty place has the hash of nothing.
        let hash = hasher.finish() | 1;
        let kept = &mut self.texts[(hash >> 1) as usize % TEXTS_MAX];
        if kept.hash != hash || kept.text != *text {
            *kept = Kept { hash, text: text.clone(), passed: tests.passed(value, scratch) };
        }
        &kept.passed
    }
}

//! What a field had lately, and the tests that it passed: programs, folders, users and most arguments come again and
//! again, and some lists of them are shared, such as the capabilities of root.

use std::hash::Hasher as _;
use std::sync::{Arc, Weak};

use smol_str::SmolStr;

use super::field::{FieldTests, Scratch};
use super::marks::Marks;
use crate::detect::hash::{Quick, mix};
use crate::event::Value;

/// How many texts of a field are kept; a power of two. A new one takes the place of an older one.
const TEXTS_MAX: usize = 512;
/// How many lists of a field are kept; a power of two.
const LISTS_MAX: usize = 64;
/// Longest list that is kept, in values: its room is not given back as long as it is.
const LIST_VALUES_MAX: usize = 64;
/// Longest text that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// See the module.
#[derive(Default)]
pub(super) struct Recent {
    /// By hash; nothing before the first text.
    texts: Vec<Kept>,
    /// By address, which no other list can have while the weak reference lives; nothing before the first list.
    lists: Vec<Weak<[Value]>>,
    /// The lists' sets of tests, one after the other.
    facts: Vec<u64>,
}

#[derive(Clone, Default)]
struct Kept {
    hash: u64,
    text: SmolStr,
    passed: Marks,
}

impl Recent {
    /// Puts the tests that a field with this value passes into `facts`, which is empty.
    pub(super) fn judge(
        &mut self,
        tests: &FieldTests,
        value: &Value,
        facts: &mut [u64],
        scratch: &mut Scratch,
    ) {
        match value {
            Value::List(list) if (2..=LIST_VALUES_MAX).contains(&list.len()) => {
                self.list(tests, list, facts, scratch);
            }
            value => self.values(tests, value.elements(), facts, scratch),
        }
    }

    fn list(&mut self, tests: &FieldTests, list: &Arc<[Value]>, facts: &mut [u64], scratch: &mut Scratch) {
        if self.lists.is_empty() {
            self.lists = vec![Weak::<[Value; 0]>::new() as Weak<[Value]>; LISTS_MAX];
            self.facts = vec![0; LISTS_MAX * tests.words];
        }
        let address = Arc::as_ptr(list);
        let place = mix(0, address.cast::<u8>() as usize as u64) as usize % LISTS_MAX;
        let kept = place * tests.words..(place + 1) * tests.words;
        if std::ptr::addr_eq(self.lists[place].as_ptr(), address) {
            return facts.copy_from_slice(&self.facts[kept]);
        }
        self.values(tests, list, facts, scratch);
        self.facts[kept].copy_from_slice(facts);
        self.lists[place] = Arc::downgrade(list);
    }

    fn values(&mut self, tests: &FieldTests, values: &[Value], facts: &mut [u64], scratch: &mut Scratch) {
        tests.any(facts);
        for value in values {
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

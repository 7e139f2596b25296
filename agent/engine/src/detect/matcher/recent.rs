//! A cache of the recent values of a field, with the tests that they passed. Programs, folders, users and most
//! arguments repeat, and some lists are shared, such as the capabilities of root.

use std::hash::Hasher as _;
use std::sync::{Arc, Weak};

use smol_str::SmolStr;

use super::field::{FieldTests, Scratch};
use super::marks::Marks;
use crate::detect::hash::{Quick, mix};
use crate::event::{Texts, Value};

/// How many texts of a field are kept; a power of two. A new text replaces an older one.
const TEXTS_MAX: usize = 512;
/// How many lists of a field are kept; a power of two.
const LISTS_MAX: usize = 64;
/// Maximum size of a kept list, in bytes: the weak reference keeps its memory allocated.
const LIST_BYTES_MAX: usize = 1024;
/// Maximum size of a kept text, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Maximum number of bytes of a field's texts. Beyond it all are dropped: most texts are short, and an attacker can
/// choose long ones.
const TEXTS_BYTES_MAX: usize = 64 << 10;

/// The cache of a field; see the module.
#[derive(Default)]
pub(super) struct Recent {
    /// The texts, by hash; empty before the first text.
    texts: Vec<Kept>,
    /// The heap bytes of the texts.
    bytes: usize,
    /// The lists, by address, which no other list can have while the weak reference lives; empty before the first list.
    lists: Vec<Option<Weak<str>>>,
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
    /// Adds the tests that a field with this value passes to `facts`, which is empty.
    pub(super) fn evaluate(
        &mut self,
        tests: &FieldTests,
        value: &Value,
        facts: &mut [u64],
        scratch: &mut Scratch,
    ) {
        match value {
            Value::Texts(list) if list.as_ended().len() <= LIST_BYTES_MAX && list.are_several() => {
                self.list(tests, list, facts, scratch);
            }
            Value::Texts(list) => self.texts(tests, list, facts, scratch),
            Value::List(values) => {
                tests.any(facts);
                values.iter().for_each(|value| self.value(tests, value, facts, scratch));
            }
            value => {
                tests.any(facts);
                self.value(tests, value, facts, scratch);
            }
        }
    }

    fn list(&mut self, tests: &FieldTests, list: &Texts, facts: &mut [u64], scratch: &mut Scratch) {
        if self.lists.is_empty() {
            self.lists = vec![None; LISTS_MAX];
            self.facts = vec![0; LISTS_MAX * tests.words];
        }
        let address = Arc::as_ptr(list.shared());
        let place = mix(0, address.cast::<u8>() as usize as u64) as usize % LISTS_MAX;
        let kept = place * tests.words..(place + 1) * tests.words;
        if self.lists[place].as_ref().is_some_and(|known| std::ptr::addr_eq(known.as_ptr(), address)) {
            return facts.copy_from_slice(&self.facts[kept]);
        }
        self.texts(tests, list, facts, scratch);
        self.facts[kept].copy_from_slice(facts);
        self.lists[place] = Some(Arc::downgrade(list.shared()));
    }

    fn texts(&mut self, tests: &FieldTests, list: &Texts, facts: &mut [u64], scratch: &mut Scratch) {
        tests.any(facts);
        let is_kept = !tests.is_light();
        for text in list.iter() {
            if is_kept && text.len() <= TEXT_BYTES_MAX {
                self.kept(tests, text, || text.into(), scratch).add_to(facts);
            } else {
                tests.evaluate_text(text, facts, scratch);
            }
        }
    }

    fn value(&mut self, tests: &FieldTests, value: &Value, facts: &mut [u64], scratch: &mut Scratch) {
        match value {
            Value::Text(text) if !tests.is_light() && text.len() <= TEXT_BYTES_MAX => {
                self.kept(tests, text, || text.clone(), scratch).add_to(facts);
            }
            value => tests.evaluate(value, facts, scratch),
        }
    }

    /// The tests that a text passes, evaluated unless the text is in the cache.
    fn kept(
        &mut self,
        tests: &FieldTests,
        text: &str,
        keep: impl FnOnce() -> SmolStr,
        scratch: &mut Scratch,
    ) -> &Marks {
        if self.texts.is_empty() || self.bytes > TEXTS_BYTES_MAX {
            (self.texts, self.bytes) = (vec![Kept::default(); TEXTS_MAX], 0);
        }
        let mut hasher = Quick::default();
        hasher.write(text.as_bytes());
        // Zero marks an empty place, so no hash is zero.
        let hash = hasher.finish() | 1;
        let kept = &mut self.texts[(hash >> 1) as usize % TEXTS_MAX];
        if kept.hash != hash || kept.text != *text {
            self.bytes = self.bytes + text.len() - kept.text.len();
            *kept = Kept { hash, text: keep(), passed: tests.passed(text, scratch) };
        }
        &kept.passed
    }
}

#[cfg(test)]
mod tests {
    use super::super::field::FieldTest;
    use super::*;

    /// How long texts are, and how many, is chosen by those who run programs.
    #[test]
    fn texts_are_kept_within_a_limit_in_bytes() {
        let tests = FieldTests::new(&[FieldTest::Exists]);
        for (bytes, count) in [(20, 20_000), (200, 5000), (TEXT_BYTES_MAX, 2000)] {
            let (mut recent, mut most) = (Recent::default(), 0);
            for number in 0..count {
                let text = format!("{number:0>bytes$}");
                recent.kept(&tests, &text, || SmolStr::new(&text), &mut Scratch::default());
                let held: usize = recent.texts.iter().map(|kept| kept.text.len()).sum();
                assert_eq!(held, recent.bytes);
                most = most.max(held);
            }
            assert!(most <= TEXTS_BYTES_MAX + bytes, "{most} of {bytes}");
            assert!(most >= (TEXTS_MAX / 2 * bytes).min(TEXTS_BYTES_MAX), "{most} of {bytes}");
        }
    }
}

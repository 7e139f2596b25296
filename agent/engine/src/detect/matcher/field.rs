//! All tests of one field, evaluated together for a value.
//!
//! Whole texts are looked up in a table, prefixes and suffixes in sorted tables, and substrings with one automaton.
//! Addresses are looked up by ranges of the address space. A pattern that consists of more than one such text is tried
//! only if its text was found. Case is folded once per value.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use ipnet::IpNet;
use smol_str::SmolStr;

use super::affix::Affixes;
use super::marks::{Marks, add, has};
use super::networks::Networks;
use super::outcome::{Outcome, Pending};
use crate::detect::hash::Table;
use crate::detect::naive;
use crate::detect::pattern::{Pattern, fold};
use crate::event::Value;
use crate::lang::query::Test;
use crate::lang::wildcard::{Wildcard, WildcardPart};

/// Up to this number of bytes of texts, the automaton is a full table with one step per byte. It takes some hundred
/// bytes of memory for each of them. Beyond it a compact automaton is used, which has a third of the speed.
const TABLE_BYTES_MAX: usize = 8192;

/// A test of a field.
#[derive(Clone, Debug)]
pub(super) enum FieldTest {
    /// The field is present.
    Exists,
    /// One of its values passes the test.
    Test(Test),
}

/// The tests of one field, numbered from zero.
pub(super) struct FieldTests {
    /// The number of words of a set of the field's tests.
    pub(super) words: usize,
    /// The tests that every value passes.
    exists: Marks,
    /// Whole texts, prefixes, and reversed suffixes, all folded.
    whole: Table<SmolStr, Outcome>,
    /// Length of the longest whole text; longer values need no look-up.
    whole_bytes_max: usize,
    starts: Affixes,
    ends: Affixes,
    inside: Option<Inside>,
    /// The tests that any text passes, and patterns without a text by which they could be found.
    any_text: Outcome,
    tries: Vec<Try>,
    longs: Table<i64, Marks>,
    /// The tests in `longs`, for numbers with a fraction.
    numbers: Vec<(u32, Test)>,
    networks: Networks,
    /// All other tests, evaluated one by one.
    others: Vec<(u32, Test)>,
}

/// The automaton over all substrings that are searched for in folded texts.
struct Inside {
    automaton: AhoCorasick,
    outcomes: Vec<Outcome>,
}

/// A pattern of which a part was found.
struct Try {
    test: u32,
    pattern: Pattern,
    folded: bool,
}

/// Buffers that are reused for each value.
#[derive(Default)]
pub(super) struct Scratch {
    folded: String,
    turned: Vec<u8>,
    facts: Vec<u64>,
}

impl FieldTests {
    /// Compiles tests. Their numbers are their indices.
    pub(super) fn new(tests: &[FieldTest]) -> Self {
        let mut builder = Builder::default();
        for (test, wanted) in (0..).zip(tests) {
            match wanted {
                FieldTest::Exists => builder.exists.push(test),
                FieldTest::Test(wanted) => builder.test(test, wanted),
            }
        }
        builder.build(tests.len().div_ceil(64))
    }

    /// Whether there are only look-ups of whole texts, so that a cache of results would gain nothing.
    pub(super) fn is_light(&self) -> bool {
        self.starts.is_empty() && self.ends.is_empty() && self.inside.is_none() && self.others.is_empty()
    }

    /// Adds the tests that a field passes with any value.
    pub(super) fn any(&self, facts: &mut [u64]) {
        self.exists.add_to(facts);
    }

    /// Adds the tests that a value passes by itself.
    pub(super) fn evaluate(&self, value: &Value, facts: &mut [u64], scratch: &mut Scratch) {
        match value {
            Value::Text(text) => self.text(text, facts, scratch),
            Value::Long(number) => {
                if let Some(marks) = self.longs.get(number) {
                    marks.add_to(facts);
                }
            }
            Value::Double(_) => one_by_one(&self.numbers, value, facts),
            Value::Ip(address) => {
                if let Some(marks) = self.networks.find(address) {
                    marks.add_to(facts);
                }
            }
            Value::Boolean(_) | Value::Date(_) | Value::List(_) | Value::Texts(_) => {}
        }
        one_by_one(&self.others, value, facts);
    }

    /// Adds the tests that a text passes by itself.
    pub(super) fn evaluate_text(&self, text: &str, facts: &mut [u64], scratch: &mut Scratch) {
        self.text(text, facts, scratch);
        if !self.others.is_empty() {
            one_by_one(&self.others, &Value::Text(text.into()), facts);
        }
    }

    /// The tests that a text passes by itself.
    pub(super) fn passed(&self, text: &str, scratch: &mut Scratch) -> Marks {
        let mut facts = std::mem::take(&mut scratch.facts);
        facts.clear();
        facts.resize(self.words, 0);
        self.evaluate_text(text, &mut facts, scratch);
        let passed = Marks::of(&facts);
        scratch.facts = facts;
        passed
    }

    fn text(&self, text: &str, facts: &mut [u64], scratch: &mut Scratch) {
        let Scratch { folded, turned, .. } = scratch;
        let folded = fold(text, folded);
        // A copy may be equal to the text. Then more patterns are tried than necessary.
        let is_plain = std::ptr::eq(folded, text);
        let mut follow = |outcome: &Outcome| {
            outcome.marks.add_to(facts);
            if is_plain {
                outcome.plain.add_to(facts);
            }
            let cased = if is_plain { &[] } else { &*outcome.cased };
            for &place in cased.iter().chain(&outcome.tries) {
                let Try { test, pattern, folded: as_folded } = &self.tries[place as usize];
                if !has(facts, *test) && pattern.matches(if *as_folded { folded } else { text }) {
                    add(facts, *test);
                }
            }
        };
        follow(&self.any_text);
        if folded.len() <= self.whole_bytes_max {
            self.whole.get(folded).into_iter().for_each(&mut follow);
        }
        self.starts.find(folded.as_bytes()).into_iter().for_each(&mut follow);
        if !self.ends.is_empty() {
            turned.clear();
            turned.extend(folded.bytes().rev().take(self.ends.bytes_max()));
            self.ends.find(turned).into_iter().for_each(&mut follow);
        }
        if let Some(inside) = &self.inside {
            for found in inside.automaton.find_overlapping_iter(folded) {
                follow(&inside.outcomes[found.pattern().as_usize()]);
            }
        }
    }
}

fn one_by_one(tests: &[(u32, Test)], value: &Value, facts: &mut [u64]) {
    for (number, test) in tests {
        if !has(facts, *number) && naive::passes(test, value) {
            add(facts, *number);
        }
    }
}

#[derive(Default)]
struct Builder {
    exists: Vec<u32>,
    whole: HashMap<SmolStr, Pending>,
    starts: HashMap<SmolStr, Pending>,
    ends: HashMap<SmolStr, Pending>,
    inside: HashMap<SmolStr, Pending>,
    any_text: Pending,
    tries: Vec<Try>,
    longs: HashMap<i64, Vec<u32>>,
    numbers: Vec<(u32, Test)>,
    networks: Vec<(IpNet, u32)>,
    others: Vec<(u32, Test)>,
}

impl Builder {
    fn test(&mut self, test: u32, wanted: &Test) {
        match wanted {
            Test::OneOf { values, insensitive } => self.one_of(test, wanted, values, *insensitive),
            Test::Like { patterns, insensitive } => {
                patterns.iter().for_each(|pattern| self.pattern(test, pattern, *insensitive));
            }
            Test::Within(networks) => self.networks.extend(networks.iter().map(|network| (*network, test))),
            wanted => self.others.push((test, wanted.clone())),
        }
    }

    fn one_of(&mut self, test: u32, wanted: &Test, values: &[Value], insensitive: bool) {
        if values.iter().all(|value| matches!(value, Value::Text(_))) {
            for text in values.iter().filter_map(Value::as_text) {
                let parts = if text.is_empty() { Vec::new() } else { vec![WildcardPart::Text(text.into())] };
                self.pattern(test, &Wildcard(parts), insensitive);
            }
        } else if values.iter().all(|value| matches!(value, Value::Long(_))) {
            for value in values {
                if let Value::Long(number) = value {
                    self.longs.entry(*number).or_default().push(test);
                }
            }
            self.numbers.push((test, wanted.clone()));
        } else if values.iter().all(|value| matches!(value, Value::Ip(_))) {
            for value in values {
                if let Value::Ip(address) = value {
                    self.networks.push(((*address).into(), test));
                }
            }
        } else {
            self.others.push((test, wanted.clone()));
        }
    }

    fn pattern(&mut self, test: u32, wildcard: &Wildcard, insensitive: bool) {
        use WildcardPart::{Many, Text};
        let parts = wildcard.0.as_slice();
        // The text by which the pattern is found, and whether it is the whole pattern.
        let (text, found, is_all) = match parts {
            [] => (None, &mut self.whole, true),
            [Text(text)] => (Some(text), &mut self.whole, true),
            [Text(start), rest @ ..] => (Some(start), &mut self.starts, *rest == [Many]),
            [rest @ .., Text(end)] => (Some(end), &mut self.ends, *rest == [Many]),
            parts => (longest_text(parts), &mut self.inside, matches!(parts, [Many, Text(_), Many])),
        };
        let (pending, is_folded) = match text {
            // Any text passes or may pass: there is no text by which to find the pattern.
            None if !parts.is_empty() => (&mut self.any_text, true),
            text => {
                let text = text.map_or("", SmolStr::as_str);
                let folded = SmolStr::new(fold(text, &mut String::new()));
                let is_folded = folded == text;
                (found.entry(folded).or_default(), is_folded)
            }
        };
        let is_all = is_all || *parts == [Many];
        let place = u32::try_from(self.tries.len()).unwrap_or(u32::MAX);
        match (is_all, insensitive || *parts == [Many]) {
            (true, true) => return pending.tests.push(test),
            (true, false) => {
                // A text with upper case never occurs in a value without upper case.
                pending.plain.extend(is_folded.then_some(test));
                pending.cased.push(place);
            }
            (false, _) => pending.tries.push(place),
        }
        self.tries.push(Try { test, pattern: Pattern::new(wildcard, insensitive), folded: insensitive });
    }

    fn build(self, words: usize) -> FieldTests {
        let (texts, outcomes): (Vec<_>, Vec<_>) =
            self.inside.into_iter().map(|(text, pending)| (text, pending.outcome())).unzip();
        let mut any_text = self.any_text;
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        let kind = (bytes <= TABLE_BYTES_MAX).then_some(AhoCorasickKind::DFA);
        let automaton = AhoCorasick::builder().kind(kind).build(texts.iter().map(|text| text.as_bytes()));
        let inside = match automaton {
            _ if texts.is_empty() => None,
            Ok(automaton) => Some(Inside { automaton, outcomes }),
            // There are more texts than an automaton can number. Then each pattern is tried.
            Err(_) => {
                any_text.tries = (0..).take(self.tries.len()).collect();
                None
            }
        };
        FieldTests {
            words,
            exists: Marks::new(&self.exists),
            whole_bytes_max: self.whole.keys().map(|text| text.len()).max().unwrap_or(0),
            whole: self.whole.into_iter().map(|(text, pending)| (text, pending.outcome())).collect(),
            starts: affixes(self.starts, false),
            ends: affixes(self.ends, true),
            inside,
            any_text: any_text.outcome(),
            tries: self.tries,
            longs: self.longs.into_iter().map(|(number, tests)| (number, Marks::new(&tests))).collect(),
            numbers: self.numbers,
            networks: Networks::new(&self.networks),
            others: self.others,
        }
    }
}

fn affixes(affixes: HashMap<SmolStr, Pending>, turned: bool) -> Affixes {
    Affixes::new(affixes.into_iter().map(|(text, pending)| {
        let mut text: Box<[u8]> = text.as_bytes().into();
        if turned {
            text.reverse();
        }
        (text, pending)
    }))
}

fn longest_text(parts: &[WildcardPart]) -> Option<&SmolStr> {
    let texts = parts.iter().filter_map(|part| match part {
        WildcardPart::Text(text) => Some(text),
        WildcardPart::Many | WildcardPart::One => None,
    });
    texts.max_by_key(|text| text.len())
}

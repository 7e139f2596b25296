//! The common limit of all rules of an engine: a rule may hold no more than half of what the others leave.

use std::cmp::Reverse;

/// Bytes by rule. There are some hundreds of rules, and an attacker cannot choose them.
#[derive(Debug)]
pub(super) struct Pool {
    bytes_max: usize,
    by_rule: Vec<usize>,
    bytes: usize,
}

impl Pool {
    pub(super) fn new(bytes_max: usize, rules: usize) -> Self {
        Self { bytes_max, by_rule: vec![0; rules], bytes: 0 }
    }

    /// The bytes of all rules.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records the bytes that a rule holds now.
    pub(super) fn note(&mut self, rule: usize, bytes: usize) {
        self.bytes = self.bytes - self.by_rule[rule] + bytes;
        self.by_rule[rule] = bytes;
    }

    /// The rule that must evict entries because of the bytes that this rule holds.
    pub(super) fn gives_way(&self, rule: usize) -> Option<usize> {
        let held = self.by_rule[rule];
        if held == 0 || held + self.bytes <= self.bytes_max {
            return None;
        }
        let places = self.by_rule.iter().enumerate();
        places.max_by_key(|(place, bytes)| (**bytes, Reverse(*place))).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noisy_rule_gives_way_and_no_other_does() {
        let mut pool = Pool::new(100, 3);
        pool.note(0, 50);
        assert_eq!(pool.gives_way(0), None);
        pool.note(0, 51);
        assert_eq!(pool.gives_way(0), Some(0));
        pool.note(0, 50);
        pool.note(1, 26);
        assert_eq!(pool.gives_way(1), Some(0));
        pool.note(0, 40);
        assert_eq!((pool.gives_way(1), pool.bytes()), (None, 66));
        pool.note(2, 18);
        assert_eq!(pool.gives_way(2), Some(0));
    }
}

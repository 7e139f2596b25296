//! Join keys: the common values of the events of a sequence or sample.

use std::cmp::Ordering;
use std::hash::{BuildHasher as _, Hash, Hasher, RandomState};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use smol_str::SmolStr;

use crate::event::{Event, Value};
use crate::lang::query::Key;

/// Maximum number of keys of one event with multi-valued fields.
const JOIN_KEYS_MAX: usize = 256;
/// The hash function of all keys. It is randomized, because an attacker can choose the values.
pub(super) static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The values of the key fields, with their hash: a key is looked up several times for each event.
#[derive(Clone, Debug)]
pub(crate) struct JoinKey {
    hash: u64,
    values: Arc<[Option<SmolStr>]>,
}

impl JoinKey {
    pub(super) fn new(values: Arc<[Option<SmolStr>]>) -> Self {
        let mut hasher = HASHES.build_hasher();
        for value in &*values {
            // No text contains either byte, so that the boundaries of values count.
            match value {
                Some(text) => {
                    hasher.write(text.as_bytes());
                    hasher.write_u8(0xff);
                }
                None => hasher.write_u8(0xfe),
            }
        }
        Self { hash: hasher.finish(), values }
    }
}

/// The values in the order of the key fields; `None` for an optional field that is absent.
impl Deref for JoinKey {
    type Target = [Option<SmolStr>];

    fn deref(&self) -> &Self::Target {
        &self.values
    }
}

impl PartialEq for JoinKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.values == other.values
    }
}

impl Eq for JoinKey {}

impl Hash for JoinKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// By the values only: the order is visible outside, and the hash differs from process to process.
impl Ord for JoinKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.values.cmp(&other.values)
    }
}

impl PartialOrd for JoinKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The keys of an event for a stage: usually one; several if fields have several values; none if a required field is
/// absent.
pub(crate) fn join_keys(keys: &[Key], event: &Event) -> impl Iterator<Item = JoinKey> + use<> {
    let only = only_join_key(keys, event);
    let several = if only.is_some() { Vec::new() } else { several_join_keys(keys, event) };
    only.into_iter().chain(several)
}

fn several_join_keys(keys: &[Key], event: &Event) -> Vec<JoinKey> {
    let mut combinations: Vec<Vec<Option<SmolStr>>> = vec![Vec::new()];
    for key in keys {
        let mut values: Vec<Option<SmolStr>> = Vec::new();
        for value in key.field.map(|field| event.values(field)).unwrap_or_default() {
            let value = Some(value.key());
            if values.len() < JOIN_KEYS_MAX && !values.contains(&value) {
                values.push(value);
            }
        }
        if values.is_empty() && key.optional {
            values.push(None);
        }
        combinations = combinations
            .iter()
            .flat_map(|combination| {
                values.iter().map(|value| [combination.as_slice(), std::slice::from_ref(value)].concat())
            })
            .take(JOIN_KEYS_MAX)
            .collect();
    }
    combinations.into_iter().map(|values| JoinKey::new(values.into())).collect()
}

/// The key of an event whose key fields all have one value, as in nearly all events. Most rules have one or two key
/// fields.
fn only_join_key(keys: &[Key], event: &Event) -> Option<JoinKey> {
    let only = |key: &Key| match event.get(key.field?)? {
        list @ (Value::List(_) | Value::Texts(_)) => list.elements().only().map(|value| Some(value.key())),
        value => Some(Some(value.key())),
    };
    let values: Arc<[_]> = match keys {
        [key] => Arc::new([only(key)?]),
        [first, second] => Arc::new([only(first)?, only(second)?]),
        [first, second, third] => Arc::new([only(first)?, only(second)?, only(third)?]),
        keys => keys.iter().map(only).collect::<Option<_>>()?,
    };
    Some(JoinKey::new(values))
}

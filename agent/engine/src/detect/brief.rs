//! What is kept for long of what anyone may make as long as they like: texts by a beginning and a hash, events by the
//! fields that an alert needs.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use smol_str::{SmolStr, format_smolstr};

use crate::event::{Event, FieldId, Fields, Value};
use crate::field;

/// Longest text that is kept as it is.
const TEXT_BYTES_MAX: usize = 128;
/// How much of a longer one is kept before its hash.
const BEGINNING_BYTES: usize = 64;
/// What stands before the hash.
const MARK: &str = "…#";
/// The hash in hexadecimal digits.
const HASH_DIGITS: usize = 32;
/// Most bytes of one field of an event that is kept as an example.
const VALUE_BYTES_MAX: usize = 256;
/// What parts the keys of rows.
const PARTING: [char; 2] = ['\u{1e}', '\u{1f}'];
/// Where a value is cut.
const CUT: &str = "…";
/// What a field costs besides its texts, about.
const FIELD_BYTES: usize = 48;

/// What an alert about an example needs first: who did what, from where, and by which event to find the rest.
const FIRST: [FieldId; 20] = [
    field!("@timestamp"),
    field!("event.id"),
    field!("event.action"),
    field!("event.category"),
    field!("event.dataset"),
    field!("event.outcome"),
    field!("event.provider"),
    field!("event.sequence"),
    field!("data_stream.dataset"),
    field!("host.id"),
    field!("host.name"),
    field!("lapwing.actor.id"),
    field!("user.id"),
    field!("user.name"),
    field!("aws.cloudtrail.user_identity.arn"),
    field!("source.ip"),
    field!("cloud.account.id"),
    field!("cloud.region"),
    field!("process.entity_id"),
    field!("process.executable"),
];

/// A number for these texts, for which no other texts can be found.
pub(super) fn digest(parts: &[&str]) -> u128 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    u128::from_be_bytes(bytes)
}

/// The text, or of a long one its beginning and its hash. No text that is kept as it is looks like that, and none holds
/// what parts the keys of rows.
pub(super) fn text(text: &str) -> SmolStr {
    let has_form = || text.rsplit_once(MARK).is_some_and(|(_, hash)| hash.len() == HASH_DIGITS);
    if text.len() <= TEXT_BYTES_MAX && !text.contains(PARTING) && !has_form() {
        return text.into();
    }
    let beginning = start(text, BEGINNING_BYTES).replace(|c: char| c.is_control(), "");
    format_smolstr!("{beginning}{MARK}{:032x}", digest(&[text]))
}

/// A text that was kept, and came through [`text`] unless an earlier version kept it.
pub(super) fn kept_text(kept: &str) -> SmolStr {
    if kept.len() <= TEXT_BYTES_MAX { kept.into() } else { text(kept) }
}

/// The beginning of a text.
pub(super) fn start(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// An event as an example in an alert to come, in about so many bytes: the fields that an alert needs first, then the
/// others in their order, each cut where it is long. `lapwing.event.cut` says that something is missing.
pub(super) fn example(event: &Event, needed: &[FieldId], bytes_max: usize) -> Arc<Event> {
    let mut own = Fields::new();
    let (mut bytes, mut is_cut) = (0, !event.rest().is_empty());
    let all = event.fields();
    let first = |field: &FieldId| FIRST.contains(field) || needed.contains(field);
    let in_order = all.iter().filter(|(id, _)| first(id)).chain(all.iter().filter(|(id, _)| !first(id)));
    for (id, value) in in_order {
        let (value, value_is_cut) = cut(value);
        is_cut |= value_is_cut;
        let cost = FIELD_BYTES + value.heap_bytes();
        if bytes + cost > bytes_max && *id != field!("@timestamp") {
            is_cut = true;
            continue;
        }
        bytes += cost;
        own.set(*id, value);
    }
    if is_cut {
        own.set(field!("lapwing.event.cut"), true);
    }
    Arc::new(Event::new(event.timestamp(), own, Vec::new()).with_correlation_time(event.time()))
}

/// A value of no more than [`VALUE_BYTES_MAX`], and whether something is missing.
fn cut(value: &Value) -> (Value, bool) {
    match value {
        Value::Text(text) if text.len() > VALUE_BYTES_MAX => {
            (format_smolstr!("{}{CUT}", start(text, VALUE_BYTES_MAX - CUT.len())).into(), true)
        }
        Value::Texts(texts) if texts.as_ended().len() > VALUE_BYTES_MAX => {
            (Value::Texts(texts.cut(VALUE_BYTES_MAX)), true)
        }
        Value::List(values) if value.heap_bytes() > VALUE_BYTES_MAX => {
            let mut bytes = 0;
            let cut = values.iter().map(|value| cut(value).0).take_while(|value| {
                bytes += size_of::<Value>() + value.heap_bytes();
                bytes <= 2 * VALUE_BYTES_MAX
            });
            (Value::list(cut.collect()), true)
        }
        value => (value.clone(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;

    #[test]
    fn short_texts_stay_and_long_ones_become_a_beginning_and_a_hash() {
        for short in ["", "curl", "a…#b", &"x".repeat(TEXT_BYTES_MAX)] {
            assert_eq!(text(short), short);
        }
        let long = text(&"é".repeat(40_000));
        assert!(long.starts_with("éé") && long.len() <= TEXT_BYTES_MAX, "{long}");
        assert_ne!(text(&"x".repeat(200)), text(&"x".repeat(201)));
        // What looks like the hash of another text, or would part a key, is one itself.
        assert_ne!(text(&long), long);
        assert!(text("a\u{1f}b").starts_with("ab…#"));
        assert_eq!(kept_text(&long), long);
    }

    #[test]
    fn an_example_holds_what_an_alert_needs_first() {
        let mut own = Fields::new();
        own.set(field!("process.command_line"), "c".repeat(100_000));
        own.set(field!("process.args"), Value::texts((0..9_000).map(|_| "")));
        own.set(field!("user.name"), "alice");
        own.set(field!("event.action"), "exec");
        let event = Event::new(Timestamp::from_millis(1), own, Vec::new());
        let example = example(&event, &[], 4096);
        assert!(example.own_bytes() < 6000, "{}", example.own_bytes());
        assert_eq!(example.text(field!("user.name")), Some("alice"));
        assert!(example.text(field!("process.command_line")).is_some_and(|text| text.ends_with(CUT)));
        assert_eq!(example.get(field!("lapwing.event.cut")), Some(&true.into()));
        let least = super::example(&event, &[], 100);
        assert_eq!((least.text(field!("event.action")), least.time()), (Some("exec"), event.time()));
    }
}

//! Short forms of data that an attacker can make arbitrarily long, for state that is kept for long: a long text becomes
//! its beginning and a hash, an event the fields that an alert needs.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use smol_str::{SmolStr, format_smolstr};

use crate::event::{Event, FieldId, Fields, Value};
use crate::field;

/// Maximum length of a text that is kept unchanged, in bytes.
const TEXT_BYTES_MAX: usize = 128;
/// Length of the beginning of a longer text.
const BEGINNING_BYTES: usize = 64;
/// The mark before the hash.
const MARK: &str = "…#";
/// Length of the hash in hexadecimal digits.
const HASH_DIGITS: usize = 32;
/// Maximum number of bytes of one field of an example event.
const VALUE_BYTES_MAX: usize = 256;
/// The separators in the keys of rows.
const PARTING: [char; 2] = ['\u{1e}', '\u{1f}'];
/// The end of a value that was cut.
const CUT: &str = "…";
/// Approximate bytes of a field, without its texts.
const FIELD_BYTES: usize = 48;

/// The fields that an alert about an example needs first: the actor, the action, the origin, and the ids of the event.
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

/// A collision-resistant number for these texts.
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

/// The text, or the beginning and the hash of a long text. A text that is kept unchanged never has this form, and
/// contains no separator of row keys.
pub(super) fn text(text: &str) -> SmolStr {
    let has_form = || text.rsplit_once(MARK).is_some_and(|(_, hash)| hash.len() == HASH_DIGITS);
    if text.len() <= TEXT_BYTES_MAX && !text.contains(PARTING) && !has_form() {
        return text.into();
    }
    let beginning = start(text, BEGINNING_BYTES).replace(|c: char| c.is_control(), "");
    format_smolstr!("{beginning}{MARK}{:032x}", digest(&[text]))
}

/// A text of a stored row. Rows of earlier versions may have longer texts than [`text`] returns.
pub(super) fn kept_text(kept: &str) -> SmolStr {
    if kept.len() <= TEXT_BYTES_MAX { kept.into() } else { text(kept) }
}

/// The beginning of a text.
pub(super) fn start(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// An event as an example for a later alert, in about `bytes_max`: first the fields that an alert needs, then the
/// others in order. Long values are cut. `lapwing.event.cut` marks an example that is not complete.
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

/// The value, cut to [`VALUE_BYTES_MAX`], and whether it was cut.
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

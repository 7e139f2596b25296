//! Texts as one run leaves them to the next, in JSON that is hardly longer than they are, whatever they hold: a control
//! character would take six bytes there, and attackers choose what arguments and folders are called.
//!
//! A text that needs no escape is stored as it is. Any other, and each list, is Base64 behind a mark.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapwing_engine::{Texts, Value};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

/// How Base64 begins.
const ENCODED: char = '=';
/// How Base64 of a list begins.
const LIST: char = '+';

fn pack(text: &str) -> String {
    let needs_escape = |c: char| c.is_control() || matches!(c, '"' | '\\');
    if text.starts_with([ENCODED, LIST]) || text.contains(needs_escape) {
        return format!("{ENCODED}{}", STANDARD.encode(text));
    }
    text.to_owned()
}

fn decode(encoded: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

fn unpack(packed: &str) -> Option<SmolStr> {
    match packed.strip_prefix(ENCODED) {
        Some(encoded) => decode(encoded).map(Into::into),
        None => Some(packed.into()),
    }
}

fn pack_value(value: &Value) -> String {
    match value {
        Value::Texts(texts) => format!("{LIST}{}", STANDARD.encode(texts.as_ended())),
        // No other list holds texts that the sensor makes.
        value => pack(&value.to_text()),
    }
}

fn unpack_value(packed: &str) -> Option<Value> {
    match packed.strip_prefix(LIST) {
        Some(encoded) => Some(Texts::of_ended(decode(encoded)?).into()),
        None => unpack(packed).map(Value::Text),
    }
}

fn read<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    unpack: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    unpack(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("a text is damaged"))
}

/// For a text.
pub(super) mod text {
    use super::{Deserializer, Serialize as _, Serializer, SmolStr, pack, read, unpack};

    pub(in super::super) fn serialize<S: Serializer>(
        text: &SmolStr,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        pack(text).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SmolStr, D::Error> {
        read(from, unpack)
    }
}

/// For a text that may be missing.
pub(super) mod some {
    use super::{Deserialize as _, Deserializer, Serialize as _, Serializer, SmolStr, pack, unpack};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(in super::super) fn serialize<S: Serializer>(
        text: &Option<SmolStr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        text.as_deref().map(pack).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SmolStr>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.and_then(|packed| unpack(&packed)))
    }
}

/// For arguments.
pub(super) mod args {
    use super::{Deserializer, STANDARD, Serialize as _, Serializer, Texts, decode, read};
    use base64::Engine as _;

    pub(in super::super) fn serialize<S: Serializer>(args: &Texts, serializer: S) -> Result<S::Ok, S::Error> {
        STANDARD.encode(args.as_ended()).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Texts, D::Error> {
        read(from, |packed| decode(packed).map(Texts::of_ended))
    }
}

/// For a text or a list of texts.
pub(super) mod value {
    use super::{Deserializer, Serialize as _, Serializer, Value, pack_value, read, unpack_value};

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Value,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        pack_value(value).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
        read(from, unpack_value)
    }
}

/// The same where it may be missing.
pub(super) mod some_value {
    use super::{
        Deserialize as _, Deserializer, Serialize as _, Serializer, Value, pack_value, unpack_value,
    };

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Value>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(pack_value).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Value>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.and_then(|packed| unpack_value(&packed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_short_and_comes_back() {
        for text in ["", "/usr/bin/sh", "=", "+a", "a\nb", "\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}", "\"\\", "é"] {
            let packed = pack(text);
            assert_eq!(unpack(&packed).as_deref(), Some(text));
            assert!(serde_json::to_string(&packed).unwrap().len() <= text.len() * 4 / 3 + 8, "{packed}");
            for value in [Value::from(text), Value::texts([text]), Value::texts(["", text, ""])] {
                assert_eq!(unpack_value(&pack_value(&value)), Some(value));
            }
        }
        assert_eq!((unpack("=no"), unpack_value("+no")), (None, None));
    }
}

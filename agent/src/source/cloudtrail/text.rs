//! Objects as one line of text, `{key=value, …}`: what `aws.cloudtrail.request_parameters` and its like hold.
//!
//! Rules match that text with wildcards that may span several keys, so the order of the keys counts. It is that of
//! a Java `HashMap`, for the text that rules were written against is made by one.

use serde_json::{Map, Value as Json};

/// An object's text.
pub(crate) fn of_object(object: &Map<String, Json>) -> String {
    let mut text = String::new();
    write_object(&mut text, object);
    text
}

fn write_object(text: &mut String, object: &Map<String, Json>) {
    // A table doubles when it is more than three quarters full; keys that share a place stay in the order of arrival.
    let mut table = 16;
    while object.len() * 4 > table * 3 {
        table *= 2;
    }
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_by_key(|(key, _)| spread_hash(key) as usize & (table - 1));
    text.push('{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(key);
        text.push('=');
        write_value(text, value);
    }
    text.push('}');
}

fn write_value(text: &mut String, value: &Json) {
    match value {
        Json::Object(object) => write_object(text, object),
        Json::Array(array) => {
            text.push('[');
            for (index, element) in array.iter().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                write_value(text, element);
            }
            text.push(']');
        }
        Json::String(string) => text.push_str(string),
        other => text.push_str(&other.to_string()),
    }
}

/// `String.hashCode` with its upper half folded into the lower, as `HashMap` does.
fn spread_hash(key: &str) -> u32 {
    let hash = key.encode_utf16().fold(0_u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_written_as_java_writes_them() {
        for (json, text) in [
            (
                r#"{"MobileVersion":"No","LoginTo":"x","MFAUsed":"No"}"#,
                "{LoginTo=x, MobileVersion=No, MFAUsed=No}",
            ),
            (r#"{"a":{"b":[1,true,{"c":"d"}]},"empty":[]}"#, "{a={b=[1, true, {c=d}]}, empty=[]}"),
            ("{}", "{}"),
        ] {
            let object: Map<_, _> = serde_json::from_str(json).unwrap();
            assert_eq!(of_object(&object), text);
        }
    }
}

//! Infers a schema from data that has none.
//!
//! Types are chosen as in Elasticsearch's dynamic mapping, with one difference: Elasticsearch uses the first value of a
//! field, and Lapwing uses all of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::json::DEPTH_MAX;
use super::{FieldId, MappingError, Schema, Timestamp, Type, Value};

/// The last part of a field's name if its type is `version`.
const VERSION: &str = "version";

/// Reads documents, and builds a schema from the values of their fields:
///
/// - integers are `long`, or `double` if one of them has a fraction or is too large;
/// - `true` and `false` are `boolean`;
/// - text is `date` if all values are ISO 8601 with a full date, `ip` if all are addresses and ECS has an `ip` field of
///   this name, `version` if the last part of the name is `version`, otherwise `keyword`;
/// - a field with values of several types is `keyword`;
/// - a field with nulls only is not added, as in Elasticsearch.
///
/// ```
/// use lapwing_engine::event::{Inference, Type};
///
/// let mut inference = Inference::new();
/// inference.see(&serde_json::json!({"at": "17", "size": 1, "from": {"host": "a"}}));
/// inference.see(&serde_json::json!({"at": "18", "size": 2.5, "from.host": ["b", null]}));
/// let (schema, timestamp) = inference.finish("at")?;
/// assert_eq!(schema.ty(timestamp), Type::Date);
/// let ty = |name| schema.id(name).map(|id| schema.ty(id));
/// assert_eq!((ty("size"), ty("from.host")), (Some(Type::Double), Some(Type::Keyword)));
/// # Ok::<(), lapwing_engine::event::MappingError>(())
/// ```
#[derive(Debug)]
pub struct Inference {
    /// The fields with given types.
    schema: Schema,
    seen: BTreeMap<String, Seen>,
    left_out: u64,
}

/// The types of values that a field has.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    long: bool,
    double: bool,
    boolean: bool,
    date: bool,
    ip: bool,
    text: bool,
}

impl Inference {
    /// An inference without documents.
    #[must_use]
    pub fn new() -> Self {
        Self::beside(Schema::empty())
    }

    /// An inference in which the fields of this schema keep their types.
    #[must_use]
    pub fn beside(schema: Schema) -> Self {
        Self { schema, seen: BTreeMap::new(), left_out: 0 }
    }

    /// Reads a document. A value that is not an object, or is nested deeper than an event may be, has no fields.
    pub fn see(&mut self, document: &Json) {
        if let Json::Object(object) = document {
            self.object(&mut String::new(), object, 0);
        }
    }

    /// How many values were ignored because there are too many fields.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The schema, and its timestamp field, which is a date for any values.
    ///
    /// # Errors
    /// The timestamp field has another type in the given schema.
    pub fn finish(self, timestamp: &str) -> Result<(Schema, FieldId), MappingError> {
        let mut schema = self.schema;
        let id = schema.define(timestamp, Type::Date).filter(|id| schema.ty(*id) == Type::Date);
        let id = id.ok_or_else(|| MappingError::Timestamp(timestamp.to_owned()))?;
        for (name, seen) in &self.seen {
            if let Some(ty) = seen.ty(name) {
                schema.define(name, ty);
            }
        }
        Ok((schema, id))
    }

    fn object(&mut self, path: &mut String, object: &Map<String, Json>, depth: usize) {
        for (name, value) in object {
            let end = path.len();
            if end > 0 {
                path.push('.');
            }
            path.push_str(name);
            self.value(path, value, depth + 1);
            path.truncate(end);
        }
    }

    fn value(&mut self, path: &mut String, json: &Json, depth: usize) {
        match json {
            _ if depth > DEPTH_MAX => {}
            Json::Null => {}
            _ if self.schema.id(path).is_some() => {}
            Json::Object(object) => self.object(path, object, depth),
            Json::Array(array) => array.iter().for_each(|element| self.value(path, element, depth + 1)),
            // One field is reserved for the timestamp.
            _ if self.schema.len() + self.seen.len() + 1 >= Schema::DEFINED_MAX
                && !self.seen.contains_key(path.as_str()) =>
            {
                self.left_out += 1;
            }
            scalar => match self.seen.get_mut(path.as_str()) {
                Some(seen) => seen.see(scalar),
                None => self.seen.entry(path.clone()).or_default().see(scalar),
            },
        }
    }
}

impl Default for Inference {
    fn default() -> Self {
        Self::new()
    }
}

impl Seen {
    fn see(&mut self, scalar: &Json) {
        match scalar {
            Json::Bool(_) => self.boolean = true,
            Json::Number(number) if number.is_i64() => self.long = true,
            Json::Number(_) => self.double = true,
            Json::String(text) if is_date(text) => self.date = true,
            Json::String(text) if Value::parse(Type::Ip, text).is_some() => self.ip = true,
            _ => self.text = true,
        }
    }

    fn ty(self, name: &str) -> Option<Type> {
        let text = if name.rsplit('.').next() == Some(VERSION) { Type::Version } else { Type::Keyword };
        match (self.long || self.double, self.boolean, self.date, self.ip, self.text) {
            (false, false, false, false, false) => None,
            (true, false, false, false, false) => Some(if self.double { Type::Double } else { Type::Long }),
            (false, true, false, false, false) => Some(Type::Boolean),
            (false, false, true, false, false) => Some(Type::Date),
            (false, false, false, true, false) if is_address(name) => Some(Type::Ip),
            _ => Some(text),
        }
    }
}

/// Whether ECS has an `ip` field with this name.
fn is_address(name: &str) -> bool {
    let ecs = Schema::new();
    ecs.id(name).is_some_and(|id| ecs.ty(id) == Type::Ip)
}

/// Whether text is a date: it starts as `2026-11-22` does, and is valid as a whole. A year alone may be any number.
fn is_date(text: &str) -> bool {
    let looks = |(index, byte): (usize, &u8)| {
        if matches!(index, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() }
    };
    let start = text.as_bytes().get(..10);
    start.is_some_and(|start| start.iter().enumerate().all(looks)) && Timestamp::parse_date(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_all_values() {
        let documents = [
            serde_json::json!({"n": 1, "f": 1, "b": true, "mixed": 1, "when": "2026-11-22", "year": "2026", "null": null,
                "source": {"ip": "10.0.0.1"}, "peer": "10.0.0.1", "empty": [], "version": "1.2.3", "big": 1}),
            serde_json::json!({"n": [2, null], "f": 1.5, "b": [false], "mixed": "x", "when": ["2026-11-22T00:00:00Z"],
                "source.ip": "::1", "list": [{"of": 1}, {"of": 2}], "agent": {"version": 8}, "null": {}, "big": u64::MAX}),
        ];
        let mut inference = Inference::new();
        documents.iter().for_each(|document| inference.see(document));
        let (schema, timestamp) = inference.finish("@timestamp").unwrap();
        assert_eq!(schema.name(timestamp), "@timestamp");
        let mut found: Vec<_> = schema.names().collect();
        found.sort_unstable();
        let found: Vec<_> = found
            .into_iter()
            .map(|name| (name, schema.id(name).map_or("", |id| schema.ty(id).name())))
            .collect();
        assert_eq!(
            found,
            [
                ("@timestamp", "date"),
                ("agent.version", "long"),
                ("b", "boolean"),
                ("big", "double"),
                ("f", "double"),
                ("list.of", "long"),
                ("mixed", "keyword"),
                ("n", "long"),
                ("peer", "keyword"),
                ("source.ip", "ip"),
                ("version", "version"),
                ("when", "date"),
                ("year", "keyword"),
            ]
        );
    }

    #[test]
    fn what_is_known_is_not_looked_at() {
        let mut known = Schema::empty();
        known.define("code", Type::Keyword);
        known.define("labels", Type::Flattened);
        let mut inference = Inference::beside(known);
        inference.see(&serde_json::json!({"code": 7, "labels": {"a": 1}, "size": 2}));
        let names: Vec<_> = inference.seen.keys().collect();
        assert_eq!(names, ["size"]);
        let Err(fault) = inference.finish("code") else { panic!("text is no time") };
        assert_eq!(fault.to_string(), "`code` says when events happened, and must be of type date");
        let mut inference = Inference::beside(Schema::empty());
        inference.see(&serde_json::json!({"at": "soon"}));
        let (schema, at) = inference.finish("at").unwrap();
        assert_eq!((schema.len(), schema.ty(at)), (1, Type::Date));
    }

    #[test]
    fn there_are_only_so_many_fields() {
        let mut inference = Inference::new();
        for number in 0..=Schema::DEFINED_MAX {
            inference.see(&serde_json::json!({format!("f{number}"): 1}));
        }
        assert_eq!(inference.left_out(), 2);
        let (schema, timestamp) = inference.finish("at").unwrap();
        assert_eq!((schema.len(), schema.ty(timestamp)), (Schema::DEFINED_MAX, Type::Date));
    }
}

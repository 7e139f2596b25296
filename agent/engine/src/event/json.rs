//! Events as JSON: reads and writes ECS documents.
//!
//! The reader accepts both forms of Elasticsearch, nested objects and dotted names, also mixed. The writer nests
//! objects, and sorts fields by name.

use serde_json::map::Entry;
use serde_json::{Map, Value as Json};
use smol_str::SmolStr;
use thiserror::Error;

use super::{Event, FieldId, Fields, Schema, Type, Value};
use crate::field;

/// Why a JSON document is no event.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EventError {
    /// The document is not a JSON object.
    #[error("an event must be a JSON object")]
    NotAnObject,
    /// The timestamp is missing or invalid.
    #[error("`{0}` is missing or is no time; it must be RFC 3339 text or milliseconds since 1970")]
    NoTimestamp(SmolStr),
    /// Objects are nested too deeply.
    #[error("objects are nested more than {DEPTH_MAX} deep, each dot of a name counted")]
    TooDeep,
}

/// Deepest nesting of objects and arrays that is read; the dots of a name count as objects.
pub(super) const DEPTH_MAX: usize = 64;

impl Event {
    /// Reads an ECS document. Unknown fields, and values that do not have their field's type, are kept for the alert
    /// and cannot be compared.
    ///
    /// # Errors
    /// See [`EventError`].
    pub fn from_json(schema: &Schema, json: &Json) -> Result<Self, EventError> {
        Self::from_json_timed(schema, json, field!("@timestamp"))
    }

    /// As [`from_json`](Self::from_json), with the date field `timestamp` as the event's time. `@timestamp` is then an
    /// ordinary field.
    ///
    /// # Errors
    /// See [`EventError`].
    pub fn from_json_timed(schema: &Schema, json: &Json, timestamp: FieldId) -> Result<Self, EventError> {
        let object = json.as_object().ok_or(EventError::NotAnObject)?;
        let mut reader = Reader { schema, fields: Vec::new(), rest: Map::new() };
        reader.object(&mut String::new(), object, 0)?;
        let Reader { mut fields, rest, .. } = reader;
        // The sort is stable, so that the values of an array of objects keep their order.
        fields.sort_by_key(|(id, _)| *id);
        let of_one_field = |(left, _): &(FieldId, _), (right, _): &(FieldId, _)| left == right;
        // An exact capacity, because events may be held for long.
        let mut own = Fields::with_capacity(fields.chunk_by(of_one_field).count());
        for chunk in fields.chunk_by(of_one_field) {
            let (id, _) = chunk[0];
            match chunk {
                [(_, value)] if !schema.is_list(id) => own.set(id, value.clone()),
                several => own.set(
                    id,
                    Value::list(several.iter().flat_map(|(_, value)| value.elements().to_vec()).collect()),
                ),
            };
        }
        let Some(Value::Date(time)) = own.get(timestamp).cloned() else {
            return Err(EventError::NoTimestamp(schema.name(timestamp).into()));
        };
        let correlated = match own.get(field!("lapwing.event.monotonic_time")) {
            Some(Value::Date(correlated)) if timestamp == field!("@timestamp") => *correlated,
            _ => time,
        };
        Ok(Self { rest, ..Self::assembled(time, own, Vec::new()) }.with_correlation_time(correlated))
    }

    /// Sets a flattened field, for a source that builds its events itself. The object is kept for the alert. Leaves
    /// that a rule names become fields.
    pub fn set_flattened(&mut self, schema: &Schema, id: FieldId, object: Map<String, Json>) {
        let object = Json::Object(object);
        for leaf in leaves(schema, id, &object) {
            match leaf {
                (leaf, values) if values.len() == 1 => self.own.set(leaf, values[0].clone()),
                (leaf, values) => self.own.set(leaf, Value::list(values)),
            };
        }
        self.keep(schema.name(id), object);
    }

    /// Keeps a value outside the schema under a dotted name: it is in the alert, and no rule can compare it.
    pub fn keep(&mut self, name: &str, json: Json) {
        self.rest.insert(name.to_owned(), json);
    }

    /// The event as an ECS document.
    #[must_use]
    pub fn to_json(&self, schema: &Schema) -> Json {
        let mut document = Map::new();
        for (id, value) in self.fields() {
            insert(&mut document, schema.name(id), leaf(schema, id, value));
        }
        for (name, value) in &self.rest {
            insert(&mut document, name, value.clone());
        }
        Json::Object(document)
    }

    /// The values of the event: all fields, then the values outside the schema.
    pub fn leaves(&self) -> impl Iterator<Item = Leaf<'_>> {
        let fields = self.fields().into_iter().map(|(id, value)| Leaf::Field(id, value));
        fields.chain(self.rest.iter().map(|(name, json)| Leaf::Unknown(name, json)))
    }

    /// Writes the event as an ECS document: the text of [`to_json`](Self::to_json), usually without building a
    /// document.
    pub fn write_json(&self, schema: &Schema, out: &mut Vec<u8>) {
        let start = out.len();
        let is_written = self.rest.is_empty() && Writer { schema, out, above: "", last: None }.event(self);
        if !is_written {
            out.truncate(start);
            // Writing to memory cannot fail, and a document's names are texts.
            let _ = serde_json::to_writer(out, &self.to_json(schema));
        }
    }
}

/// A value of a document, with its name.
#[derive(Clone, Copy, Debug)]
pub enum Leaf<'a> {
    /// A field of the schema.
    Field(FieldId, &'a Value),
    /// A value outside the schema, by its dotted name.
    Unknown(&'a str, &'a Json),
}

impl Fields {
    /// The fields as an ECS document.
    #[must_use]
    pub fn to_json(&self, schema: &Schema) -> Json {
        let mut document = Map::new();
        for (id, value) in self.iter() {
            insert(&mut document, schema.name(id), leaf(schema, id, value));
        }
        Json::Object(document)
    }
}

/// Writes fields in the order of their names, and opens and closes objects between them.
struct Writer<'a> {
    schema: &'a Schema,
    out: &'a mut Vec<u8>,
    /// The dotted name of the open object.
    above: &'a str,
    last: Option<&'a str>,
}

impl<'a> Writer<'a> {
    /// Writes an event. `false` if its fields are not sorted by name: fields that rules have defined come after all
    /// others.
    fn event(mut self, event: &Event) -> bool {
        self.out.push(b'{');
        for (id, value) in event.fields() {
            if !self.enter(self.schema.name(id)) {
                return false;
            }
            match value {
                Value::Texts(texts) => self.list(texts.iter(), Self::text),
                Value::List(values) => self.list(values.iter(), Self::scalar),
                value if self.schema.is_list(id) => self.list([value].into_iter(), Self::scalar),
                value => self.scalar(value),
            }
        }
        self.close(0);
        self.out.push(b'}');
        true
    }

    /// Closes and opens objects, and writes the last part of a name.
    fn enter(&mut self, name: &'a str) -> bool {
        let is_below = |last: &str| name.strip_prefix(last).is_some_and(|rest| rest.starts_with('.'));
        if self.last.is_some_and(|last| name <= last || is_below(last)) {
            return false;
        }
        let (parents, own) = name.rsplit_once('.').unwrap_or(("", name));
        let shared = parts(parents).zip(parts(self.above)).take_while(|(one, other)| one == other).count();
        self.close(shared);
        if self.last.is_some() {
            self.out.push(b',');
        }
        for part in parts(parents).skip(shared) {
            self.text(part);
            self.out.extend_from_slice(b":{");
        }
        self.text(own);
        self.out.push(b':');
        (self.above, self.last) = (parents, Some(name));
        true
    }

    /// Closes objects until this many are open.
    fn close(&mut self, open: usize) {
        let count = parts(self.above).count() - open;
        self.out.extend(std::iter::repeat_n(b'}', count));
    }

    fn list<T>(&mut self, values: impl Iterator<Item = T>, write: impl Fn(&mut Self, T)) {
        self.out.push(b'[');
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            write(self, value);
        }
        self.out.push(b']');
    }

    fn scalar(&mut self, value: &Value) {
        match value {
            Value::Text(text) => self.text(text),
            // Writing to memory does not fail.
            Value::Long(number) => drop(serde_json::to_writer(&mut *self.out, number)),
            Value::Boolean(truth) => drop(serde_json::to_writer(&mut *self.out, truth)),
            Value::Double(number) => drop(serde_json::to_writer(&mut *self.out, number)),
            value => self.text(&value.to_text()),
        }
    }

    fn text(&mut self, text: &str) {
        let _ = serde_json::to_writer(&mut *self.out, text);
    }
}

/// The parts of a dotted name; none if it is empty.
fn parts(name: &str) -> impl Iterator<Item = &str> {
    (!name.is_empty()).then(|| name.split('.')).into_iter().flatten()
}

fn leaf(schema: &Schema, id: FieldId, value: &Value) -> Json {
    match value {
        Value::List(_) | Value::Texts(_) => value.to_json(),
        value if schema.is_list(id) => Json::Array(vec![value.to_json()]),
        value => value.to_json(),
    }
}

/// Inserts a value into a document under a dotted name, and creates the objects on the path.
pub fn insert(document: &mut Map<String, Json>, name: &str, value: Json) {
    let Some((head, rest)) = name.split_once('.') else { return put(document, name, value) };
    match document.entry(head).or_insert_with(|| Json::Object(Map::new())) {
        Json::Object(inner) => insert(inner, rest, value),
        // A leaf and an object of the same name can only come from an unknown field: keep both.
        _ => put(document, name, value),
    }
}

/// Adds a member to an object, and merges it with a member of the same name. Both exist if only some values of a field
/// have its type, and if a rule names leaves of a flattened object.
fn put(document: &mut Map<String, Json>, name: &str, value: Json) {
    let mut place = match document.entry(name) {
        Entry::Vacant(place) => {
            place.insert(value);
            return;
        }
        Entry::Occupied(place) => place,
    };
    let held = place.get_mut().take();
    *place.get_mut() = match (held, value) {
        (Json::Object(held), Json::Object(mut object)) => {
            fill(&mut object, held);
            Json::Object(object)
        }
        (held, value) => [listed(held), listed(value)].concat().into(),
    };
}

/// Adds the members of another object that an object lacks.
fn fill(object: &mut Map<String, Json>, other: Map<String, Json>) {
    for (name, value) in other {
        match object.entry(name) {
            Entry::Vacant(place) => {
                place.insert(value);
            }
            Entry::Occupied(mut place) => {
                if let (Json::Object(object), Json::Object(other)) = (place.get_mut(), value) {
                    fill(object, other);
                }
            }
        }
    }
}

fn listed(json: Json) -> Vec<Json> {
    match json {
        Json::Array(array) => array,
        json => vec![json],
    }
}

/// The leaves of a flattened object that rules name, with their values. Other leaves are ignored.
fn leaves(schema: &Schema, id: FieldId, object: &Json) -> Vec<(FieldId, Vec<Value>)> {
    let above = schema.name(id).len() + 1;
    let values = |leaf: &FieldId| {
        let mut values = Vec::new();
        collect(object, &schema.name(*leaf)[above..], &mut values);
        (*leaf, values)
    };
    schema.leaves(id).iter().map(values).filter(|(_, values)| !values.is_empty()).collect()
}

/// Collects the scalars under a dotted name. A dot separates objects, or is part of a member's name.
fn collect(json: &Json, name: &str, values: &mut Vec<Value>) {
    match json {
        Json::Array(array) => array.iter().for_each(|element| collect(element, name, values)),
        Json::Object(object) => {
            for (key, value) in object {
                match name.strip_prefix(key.as_str()) {
                    Some("") => scalars(value, values),
                    Some(rest) if rest.starts_with('.') => collect(value, &rest[1..], values),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn scalars(json: &Json, values: &mut Vec<Value>) {
    match json {
        Json::Array(array) => array.iter().for_each(|element| scalars(element, values)),
        scalar => values.extend(Value::from_json(Type::Flattened, scalar)),
    }
}

struct Reader<'a> {
    schema: &'a Schema,
    fields: Vec<(FieldId, Value)>,
    rest: Map<String, Json>,
}

impl Reader<'_> {
    fn object(
        &mut self,
        path: &mut String,
        object: &Map<String, Json>,
        depth: usize,
    ) -> Result<(), EventError> {
        for (name, value) in object {
            let end = path.len();
            if depth > 0 {
                path.push('.');
            }
            path.push_str(name);
            // A dotted name counts as the nested objects as which it is written.
            let dots = name.bytes().filter(|byte| *byte == b'.').count();
            self.value(path, value, depth + 1 + dots)?;
            path.truncate(end);
        }
        Ok(())
    }

    fn value(&mut self, path: &mut String, json: &Json, depth: usize) -> Result<(), EventError> {
        if depth > DEPTH_MAX {
            return Err(EventError::TooDeep);
        }
        let known = self.schema.id(path).map(|id| (id, self.schema.ty(id)));
        match (json, known) {
            (Json::Null, Some((id, _))) => {
                self.fields.extend(self.schema.null(id).map(|value| (id, value.clone())));
            }
            (Json::Null, None) => {}
            (_, Some((_, Type::Point))) => self.keep(path, json),
            (Json::Object(_), Some((id, Type::Flattened))) => {
                self.keep(path, json);
                for (leaf, values) in leaves(self.schema, id, json) {
                    self.fields.extend(values.into_iter().map(|value| (leaf, value)));
                }
            }
            (Json::Object(object), _) => self.object(path, object, depth)?,
            (Json::Array(array), _) => {
                for element in array {
                    self.value(path, element, depth + 1)?;
                }
            }
            (scalar, Some((id, ty))) => {
                match Value::from_json(ty, scalar) {
                    Some(value) => self.fields.push((id, value)),
                    None => self.keep(path, scalar),
                }
                for copy in self.schema.copies(id) {
                    let value = Value::from_json(self.schema.ty(*copy), scalar);
                    self.fields.extend(value.map(|value| (*copy, value)));
                }
            }
            (scalar, None) => self.keep(path, scalar),
        }
        Ok(())
    }

    /// Keeps a value that cannot be compared. Several values with one name become an array.
    fn keep(&mut self, path: &str, json: &Json) {
        match self.rest.get_mut(path) {
            None => {
                self.rest.insert(path.to_owned(), json.clone());
            }
            Some(Json::Array(array)) => array.push(json.clone()),
            Some(kept) => *kept = Json::Array(vec![kept.take(), json.clone()]),
        }
    }
}

/// The approximate bytes of a value outside the schema, with its member in the map.
pub(super) fn heap_bytes(value: &serde_json::Value) -> usize {
    /// Bytes of a member in a map, without its name and value.
    const MEMBER_BYTES: usize = 64;
    use serde_json::Value as Json;
    MEMBER_BYTES
        + match value {
            Json::String(text) => text.len(),
            Json::Array(values) => values.iter().map(heap_bytes).sum(),
            Json::Object(members) => members.iter().map(|(name, value)| name.len() + heap_bytes(value)).sum(),
            Json::Null | Json::Bool(_) | Json::Number(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;

    fn read(text: &str) -> Event {
        Event::from_json(&Schema::new(), &serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn nested_and_dotted_names_are_the_same() {
        let nested =
            read(r#"{"@timestamp":"2026-01-01T00:00:00Z","process":{"name":"nc","parent":{"pid":1}}}"#);
        let dotted = read(r#"{"@timestamp":1767225600000,"process.name":"nc","process":{"parent.pid":1}}"#);
        assert_eq!(nested, dotted);
    }

    #[test]
    fn nothing_is_lost_on_the_way_through() {
        let text = r#"{"@timestamp":"2026-01-01T00:00:00.000Z","event":{"category":["process"],"odd":{"x":[1,2]}},"process":{"args":["a","b"],"pid":7},"source":{"geo":{"location":{"lat":1.5,"lon":2}},"ip":"not an address"},"weird":true}"#;
        let json: Json = serde_json::from_str(text).unwrap();
        let event = Event::from_json(&Schema::new(), &json).unwrap();
        assert_eq!(event.to_json(&Schema::new()), json);
        assert_eq!(event.get(field!("source.ip")), None, "a host name is no address");
    }

    #[test]
    fn an_event_keeps_its_correlation_time_in_json() {
        let [reported, correlated] = [7_000, 5_000].map(Timestamp::from_millis);
        let schema = Schema::new();
        for (event, time) in [
            (Event::new(reported, Fields::new(), Vec::new()), reported),
            (Event::new(reported, Fields::new(), Vec::new()).with_correlation_time(reported), reported),
            (Event::new(reported, Fields::new(), Vec::new()).with_correlation_time(correlated), correlated),
        ] {
            let again = Event::from_json(&schema, &event.to_json(&schema)).unwrap();
            assert_eq!((again.time(), again.timestamp()), (time, reported));
            assert_eq!(again, event);
            assert_eq!(event.get(field!("lapwing.event.monotonic_time")).is_some(), time != reported);
        }
    }

    #[test]
    fn what_is_written_is_the_document() {
        let mut schema = Schema::new();
        schema.define("process.Odd", Type::Keyword).unwrap();
        let list = serde_json::json!({"@timestamp": "2026-01-01T00:00:00.000000001Z", "event": {"category": ["process"]},
            "process": {"args": ["a\"\n", "b\u{1}"], "name": ["x", "y"], "parent": {"args_count": 2, "group_leader": {"pid": 1}},
            "pid": 7, "uptime": -1}, "source": {"ip": "::1", "port": 3}});
        let odd = serde_json::json!({"@timestamp": 0, "odd": [1, {"a": 2}], "process": {"pid": 7}});
        let defined =
            serde_json::json!({"@timestamp": 0, "process": {"Odd": "x", "pid": 7}, "user": {"name": "y"}});
        for json in [list, odd, defined, serde_json::json!({"@timestamp": 0})] {
            let event = Event::from_json(&schema, &json).unwrap();
            let mut written = b"before ".to_vec();
            event.write_json(&schema, &mut written);
            let text = event.to_json(&schema).to_string();
            assert_eq!(String::from_utf8(written).unwrap(), format!("before {text}"));
        }
    }

    #[test]
    fn values_of_one_name_stay_beside_each_other() {
        let json = serde_json::json!({"@timestamp": "2026-01-01T00:00:00.000Z", "labels": {"team": "a"},
            "labels.tier": {"x": 1}, "odd.a": 1, "odd": 2, "process": {"uptime": [7, 1e300]}, "source.ip": ["::1", "host"]});
        let mut schema = Schema::new();
        schema.define("labels.team", Type::Keyword).unwrap();
        let event = Event::from_json(&schema, &json).unwrap();
        let written = serde_json::json!({"@timestamp": "2026-01-01T00:00:00.000Z", "labels": {"team": "a", "tier": {"x": 1}},
            "odd": [{"a": 1}, 2], "process": {"uptime": [7, 1e300]}, "source": {"ip": ["::1", "host"]}});
        assert_eq!(event.to_json(&schema), written);
        assert_eq!(Event::from_json(&schema, &written).unwrap().fields(), event.fields());
    }

    #[test]
    fn arrays_of_objects_become_lists() {
        let event = read(r#"{"@timestamp":0,"dns":{"answers":[{"name":"a"},{"name":"b"}]}}"#);
        assert_eq!(event.get(field!("dns.answers.name")), Some(&Value::texts(["a", "b"])));
    }

    #[test]
    fn leaves_of_flattened_fields_are_read_where_a_rule_named_them() {
        let mut schema = Schema::new();
        let name = "aws.cloudtrail.flattened.request_parameters.instanceId";
        let id = schema.define(name, Type::Keyword).unwrap();
        let json = serde_json::json!({"@timestamp": 0,
            "aws": {"cloudtrail": {"flattened": {"request_parameters": {"instanceId": "i-1", "other": 2}}}}});
        let event = Event::from_json(&schema, &json).unwrap();
        assert_eq!(event.get(id), Some(&"i-1".into()));
        assert_eq!(event.to_json(&schema)["aws"], json["aws"]);
    }

    #[test]
    fn a_flattened_field_is_the_same_whether_set_or_read() {
        let mut schema = Schema::new();
        for leaf in ["instanceId", "tags.key"] {
            schema
                .define(&format!("aws.cloudtrail.flattened.request_parameters.{leaf}"), Type::Keyword)
                .unwrap();
        }
        let object = serde_json::json!({"instanceId": "i-1", "tags": [{"key": "a"}, {"key": ["b"]}],
            "tags.key": "c", "instanceIdX": 1, "n": {"instanceId": 2}});
        let json = serde_json::json!({"@timestamp": 0,
            "aws": {"cloudtrail": {"flattened": {"request_parameters": object}}}});
        let mut event = Event::new(Timestamp::default(), Fields::new(), Vec::new());
        let Json::Object(object) = object else { unreachable!("written as an object above") };
        event.set_flattened(&schema, field!("aws.cloudtrail.flattened.request_parameters"), object);
        assert_eq!(event, Event::from_json(&schema, &json).unwrap());
        let tags = schema.id("aws.cloudtrail.flattened.request_parameters.tags.key").unwrap();
        assert_eq!(event.get(tags), Some(&Value::texts(["a", "b", "c"])));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let schema = Schema::new();
        let deep = (0..100).fold(Json::from(1), |inner, _| serde_json::json!({"a": inner}));
        let dotted = serde_json::json!({"a.".repeat(100_000): 1});
        for deep in [deep, dotted] {
            assert_eq!(Event::from_json(&schema, &deep), Err(EventError::TooDeep));
        }
        assert_eq!(Event::from_json(&schema, &Json::from(1)), Err(EventError::NotAnObject));
        assert_eq!(
            Event::from_json(&schema, &serde_json::json!({})),
            Err(EventError::NoTimestamp("@timestamp".into()))
        );
    }

    #[test]
    fn the_upper_list_of_an_event_counts() {
        let mut shared = Fields::new();
        shared.set(field!("process.name"), "old").set(field!("host.id"), "h");
        let mut own = Fields::new();
        own.set(field!("process.name"), "new");
        let event = Event::new(Timestamp::default(), own, vec![shared.into()]);
        assert_eq!(event.text(field!("process.name")), Some("new"));
        assert_eq!(event.fields().len(), 3);
    }
}

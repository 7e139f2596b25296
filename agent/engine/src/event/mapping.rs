//! A schema out of an Elasticsearch mapping, for data whose types are known but are not those of ECS.

use serde_json::{Map, Value as Json};
use thiserror::Error;

use super::json::DEPTH_MAX;
use super::{FieldId, Schema, Type, Value};

/// Why a JSON document is no mapping that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MappingError {
    /// There are no fields in it.
    #[error("a mapping has `properties` at its top, or in `mappings`, or below the name of an index")]
    NoProperties,
    /// Objects lie in objects deeper than anything that is an event.
    #[error("properties are nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// There are more fields than a schema holds.
    #[error("there are more fields than the {} that are read", Schema::DEFINED_MAX)]
    TooMany,
    /// Dates are written in a way that is not read.
    #[error(
        "`{field}` has dates of format {format:?}; formats that are read are strict_date_optional_time and epoch_millis"
    )]
    Format {
        /// The field.
        field: String,
        /// The format.
        format: String,
    },
    /// Events cannot be ordered by a field that holds something else than time.
    #[error("`{0}` says when events happened, and must be of type date")]
    Timestamp(String),
}

/// Formats of dates that are all read alike.
const FORMATS: &[&str] = &[
    "strict_date_optional_time",
    "date_optional_time",
    "strict_date_optional_time_nanos",
    "strict_date_time",
    "date_time",
    "strict_date_time_no_millis",
    "date_time_no_millis",
    "epoch_millis",
];

/// What an Elasticsearch mapping says.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Its fields and no others.
    pub schema: Schema,
    /// Whether documents may bring fields that it does not name, as Elasticsearch has it unless `dynamic` says
    /// something else: their types are those of an [`Inference`](super::Inference).
    pub is_dynamic: bool,
}

impl Mapping {
    /// Reads what `GET /INDEX/_mapping` answers, or only the inner part with the `properties`. `null_value`,
    /// multi-fields and aliases mean what they mean there. Fields of types that no query here can compare, such as
    /// `geo_shape`, are not known.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub fn read(mapping: &Json) -> Result<Self, MappingError> {
        let mapping = innermost(mapping).ok_or(MappingError::NoProperties)?;
        let properties = mapping.get("properties").and_then(Json::as_object);
        let mut reader = Reader { schema: Schema::empty(), aliases: Vec::new() };
        reader.properties("", properties.ok_or(MappingError::NoProperties)?, 0)?;
        let Reader { mut schema, aliases } = reader;
        for (name, path) in aliases {
            if let Some(id) = schema.id(path) {
                schema.alias(&name, id);
            }
        }
        let is_dynamic = match mapping.get("dynamic") {
            None | Some(Json::Bool(true)) => true,
            Some(dynamic) => dynamic == "true" || dynamic == "runtime",
        };
        Ok(Self { schema, is_dynamic })
    }
}

/// The part that has the properties.
fn innermost(mapping: &Json) -> Option<&Map<String, Json>> {
    let has = |object: &&Map<String, Json>| object.contains_key("properties");
    let object = mapping.as_object()?;
    let below =
        |json: &'_ Json| json.get("mappings").and_then(Json::as_object).is_some_and(|inner| has(&inner));
    Some(object)
        .filter(has)
        .or_else(|| object.get("mappings")?.as_object().filter(has))
        .or_else(|| object.values().find(|index| below(index))?.get("mappings")?.as_object())
}

struct Reader<'a> {
    schema: Schema,
    /// Names that stand for others, which may come later.
    aliases: Vec<(String, &'a str)>,
}

impl<'a> Reader<'a> {
    fn properties(
        &mut self,
        above: &str,
        properties: &'a Map<String, Json>,
        depth: usize,
    ) -> Result<(), MappingError> {
        if depth > DEPTH_MAX {
            return Err(MappingError::TooDeep);
        }
        for (name, property) in properties {
            let name = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            if let Some(Json::Object(below)) = property.get("properties") {
                self.properties(&name, below, depth + 1)?;
            } else if let Some(path) = property.get("path").and_then(Json::as_str) {
                self.aliases.push((name, path));
            } else {
                self.field(name, property)?;
            }
        }
        Ok(())
    }

    fn field(&mut self, name: String, property: &Json) -> Result<(), MappingError> {
        let Some(id) = self.define(&name, property)? else { return Ok(()) };
        if let Some(value) =
            property.get("null_value").and_then(|json| Value::from_json(self.schema.ty(id), json))
        {
            self.schema.set_null(id, value);
        }
        for (sub, property) in property.get("fields").and_then(Json::as_object).into_iter().flatten() {
            if let Some(copy) = self.define(&format!("{name}.{sub}"), property)? {
                self.schema.copy(id, copy);
            }
        }
        Ok(())
    }

    /// The field, where it has a type that can be compared.
    fn define(&mut self, name: &str, property: &Json) -> Result<Option<FieldId>, MappingError> {
        let Some(ty) = property.get("type").and_then(Json::as_str).and_then(ty) else { return Ok(None) };
        if let (Type::Date, Some(format)) = (ty, property.get("format").and_then(Json::as_str))
            && !format.split("||").all(|format| FORMATS.contains(&format.trim()))
        {
            return Err(MappingError::Format { field: name.to_owned(), format: format.to_owned() });
        }
        if self.schema.len() >= Schema::DEFINED_MAX {
            return Err(MappingError::TooMany);
        }
        Ok(self.schema.define(name, ty))
    }
}

/// What a type of a mapping is to queries; `None` where they cannot compare it.
fn ty(name: &str) -> Option<Type> {
    Some(match name {
        "keyword" | "wildcard" | "constant_keyword" => Type::Keyword,
        "text" | "match_only_text" | "search_as_you_type" | "annotated_text" => Type::Text,
        "version" => Type::Version,
        "long" | "integer" | "short" | "byte" | "unsigned_long" => Type::Long,
        "double" | "float" | "half_float" | "scaled_float" => Type::Double,
        "boolean" => Type::Boolean,
        "ip" => Type::Ip,
        "date" | "date_nanos" => Type::Date,
        "flattened" => Type::Flattened,
        "geo_point" => Type::Point,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn a_mapping_becomes_a_schema() {
        let mapping = serde_json::json!({"logs-1": {"mappings": {"dynamic": "strict", "properties": {
            "at": {"type": "date", "format": "strict_date_optional_time||epoch_millis"},
            "code": {"type": "keyword", "null_value": "none"},
            "message": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
            "user": {"properties": {"id": {"type": "long"}}},
            "uid": {"type": "alias", "path": "user.id"},
            "shape": {"type": "geo_shape"},
            "extra": {"type": "object"},
        }}}});
        let Mapping { schema, is_dynamic } = Mapping::read(&mapping).unwrap();
        assert!(!is_dynamic);
        let mut names: Vec<_> = schema.names().collect();
        names.sort_unstable();
        assert_eq!(names, ["at", "code", "message", "message.raw", "user.id"]);
        let json =
            serde_json::json!({"at": "7", "code": [null, "a"], "message": "Two words", "user": {"id": "3"}});
        let event = Event::from_json_timed(&schema, &json, schema.id("at").unwrap()).unwrap();
        let values = |name| event.values(schema.id(name).unwrap()).to_vec();
        assert_eq!(event.time().as_millis(), 7);
        assert_eq!(values("code"), ["none".into(), "a".into()]);
        assert_eq!(values("message.raw"), ["Two words".into()]);
        assert_eq!(values("uid"), [3.into()]);
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        let read = |json: Json| Mapping::read(&json).map(drop).unwrap_err().to_string();
        assert!(read(serde_json::json!([1])).starts_with("a mapping has `properties`"));
        assert!(read(serde_json::json!({"a": {"b": 1}})).starts_with("a mapping has `properties`"));
        let format = serde_json::json!({"properties": {"at": {"type": "date", "format": "epoch_second"}}});
        assert!(read(format).starts_with("`at` has dates of format \"epoch_second\""));
        let deep = (0..100).fold(
            serde_json::json!({"type": "long"}),
            |inner, _| serde_json::json!({"properties": {"a": inner}}),
        );
        assert_eq!(read(deep), "properties are nested more than 64 deep");
    }
}

//! The schema: the names and types of fields. It has the fields of ECS, of Elastic's sensors and integrations, and
//! our own. A rule that names another field is refused; the error suggests the nearest name.

use std::collections::HashMap;

use smol_str::SmolStr;

use super::Value;
use super::field::Type;
use super::fields::FIELDS;

/// A field's index in the schema. It is compared instead of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldId(u16);

/// The id of a built-in field, looked up at compile time. An unknown name does not compile.
///
/// ```
/// use lapwing_engine::{Schema, field};
/// assert_eq!(Schema::new().id("process.name"), Some(field!("process.name")));
/// ```
#[macro_export]
macro_rules! field {
    ($name:literal) => {
        const { $crate::FieldId::of($name) }
    };
}

impl FieldId {
    /// The id of the built-in field `name`; see [`field!`](crate::field).
    ///
    /// # Panics
    /// If there is no such field. In the macro this happens at compile time.
    #[must_use]
    pub const fn of(name: &str) -> Self {
        match position(name) {
            Some(index) => Self(index as u16),
            None => panic!("no such field in the built-in schema"),
        }
    }

    /// Its bit, which some other fields share.
    pub(super) const fn mark(self) -> u64 {
        1 << (self.0 % u64::BITS as u16)
    }

    /// The index in the schema.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The index of `name` in the sorted table. It is a search by hand because `binary_search_by` is not const.
const fn position(name: &str) -> Option<usize> {
    let (mut low, mut high) = (0, FIELDS.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        match compare(FIELDS[middle].name.as_bytes(), name.as_bytes()) {
            0 => return Some(middle),
            ..0 => low = middle + 1,
            _ => high = middle,
        }
    }
    None
}

const fn compare(left: &[u8], right: &[u8]) -> i32 {
    let mut index = 0;
    while index < left.len() && index < right.len() {
        if left[index] != right[index] {
            return left[index] as i32 - right[index] as i32;
        }
        index += 1;
    }
    left.len() as i32 - right.len() as i32
}

/// The fields that rules and events may name: the built-in table and further definitions.
///
/// It is complete before events are read, and does not change afterwards. So ids mean the same everywhere.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    defined: Vec<(SmolStr, Type)>,
    by_name: HashMap<SmolStr, FieldId>,
    leaves: HashMap<FieldId, Vec<FieldId>>,
    /// For a schema without the built-in fields: those of their names that were defined, with their types.
    own: Option<HashMap<FieldId, Type>>,
    /// The value that replaces a null in a field.
    nulls: HashMap<FieldId, Value>,
    /// Fields that copy the values of another field, with their own types.
    copies: HashMap<FieldId, Vec<FieldId>>,
}

impl Schema {
    /// Maximum number of fields of a schema, with the built-in ones.
    pub const FIELDS_MAX: usize = u16::MAX as usize;
    /// Maximum number of fields in addition to the built-in ones.
    pub const DEFINED_MAX: usize = Self::FIELDS_MAX - FIELDS.len();

    /// A schema with the built-in fields.
    #[must_use]
    pub fn new() -> Self {
        let mut schema = Self::default();
        // The name in rules, recordings and documents of version 0.1.
        schema.alias("lapwing.judged_time", field!("lapwing.event.monotonic_time"));
        schema
    }

    /// A schema without fields; only defined fields are known. It is for data that is not ECS, in which a built-in name
    /// may have another type or be a mistake.
    #[must_use]
    pub fn empty() -> Self {
        Self { own: Some(HashMap::new()), ..Self::default() }
    }

    /// Adds a field, or finds an existing one, which keeps its type. `None` if the schema is full.
    pub fn define(&mut self, name: &str, ty: Type) -> Option<FieldId> {
        if let Some(id) = self.id(name) {
            return Some(id);
        }
        if let (Some(own), Some(index)) = (&mut self.own, position(name)) {
            // The built-in id is used, because parts of the engine read some fields by it.
            let id = FieldId(index as u16);
            own.insert(id, ty);
            return Some(id);
        }
        let index = FIELDS.len() + self.defined.len();
        let id = FieldId(u16::try_from(index).ok().filter(|_| index < Self::FIELDS_MAX)?);
        self.defined.push((name.into(), ty));
        self.by_name.insert(name.into(), id);
        if let Some(above) = self.flattened_above(name) {
            self.leaves.entry(above).or_default().push(id);
        }
        Some(id)
    }

    /// The fields that were defined as leaves of a flattened field.
    #[must_use]
    pub fn leaves(&self, flattened: FieldId) -> &[FieldId] {
        self.leaves.get(&flattened).map_or(&[], Vec::as_slice)
    }

    /// The id of the field with this name.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<FieldId> {
        let builtin = position(name).map(|index| FieldId(index as u16));
        let known = |id: &FieldId| self.own.as_ref().is_none_or(|own| own.contains_key(id));
        builtin.filter(known).or_else(|| self.by_name.get(name).copied())
    }

    /// Gives a field a second name, unless that name is taken.
    pub(super) fn alias(&mut self, name: &str, id: FieldId) {
        if self.id(name).is_none() {
            self.by_name.insert(name.into(), id);
        }
    }

    /// Sets the value that replaces a null in a field.
    pub(super) fn set_null(&mut self, id: FieldId, value: Value) {
        self.nulls.insert(id, value);
    }

    /// The value that replaces a null in a field.
    pub(super) fn null(&self, id: FieldId) -> Option<&Value> {
        self.nulls.get(&id)
    }

    /// Makes the field `to` copy the values of `from`.
    pub(super) fn copy(&mut self, from: FieldId, to: FieldId) {
        self.copies.entry(from).or_default().push(to);
    }

    /// The fields that copy the values of this field.
    pub(super) fn copies(&self, from: FieldId) -> &[FieldId] {
        self.copies.get(&from).map_or(&[], Vec::as_slice)
    }

    /// The flattened field that `name` would be a leaf of.
    #[must_use]
    pub fn flattened_above(&self, name: &str) -> Option<FieldId> {
        name.char_indices()
            .filter(|(_, c)| *c == '.')
            .filter_map(|(end, _)| self.id(&name[..end]))
            .find(|id| self.ty(*id) == Type::Flattened)
    }

    /// The dotted name of a field.
    #[must_use]
    pub fn name(&self, id: FieldId) -> &str {
        match FIELDS.get(id.index()) {
            Some(field) => field.name,
            None => &self.defined[id.index() - FIELDS.len()].0,
        }
    }

    /// The type of a field.
    #[must_use]
    pub fn ty(&self, id: FieldId) -> Type {
        if let Some(ty) = self.own.as_ref().and_then(|own| own.get(&id)) {
            return *ty;
        }
        match FIELDS.get(id.index()) {
            Some(field) => field.ty,
            None => self.defined[id.index() - FIELDS.len()].1,
        }
    }

    /// Whether ECS writes this field as an array, also with one value.
    #[must_use]
    pub fn is_list(&self, id: FieldId) -> bool {
        self.own.is_none() && FIELDS.get(id.index()).is_some_and(|field| field.list)
    }

    /// Whether the field is in the built-in table.
    #[must_use]
    pub fn is_built_in(&self, id: FieldId) -> bool {
        id.index() < FIELDS.len()
    }

    /// All names, built-in ones first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let known = |id| self.own.as_ref().is_none_or(|own| own.contains_key(&id));
        let builtin = FIELDS.iter().enumerate().filter(move |(index, _)| known(FieldId(*index as u16)));
        builtin.map(|(_, field)| field.name).chain(self.defined.iter().map(|(name, _)| name.as_str()))
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.own.as_ref().map_or(FIELDS.len(), HashMap::len) + self.defined.len()
    }

    /// Whether there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_without_doubles() {
        for pair in FIELDS.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} stands before {}", pair[0].name, pair[1].name);
        }
    }

    #[test]
    fn no_field_is_both_leaf_and_object() {
        for pair in FIELDS.windows(2) {
            let (outer, inner) = (pair[0], pair[1].name);
            let nested = inner.strip_prefix(outer.name).is_some_and(|rest| rest.starts_with('.'));
            assert!(!nested || outer.ty == Type::Flattened, "{inner} lies below the leaf {}", outer.name);
        }
    }

    #[test]
    fn the_name_of_0_1_stands_for_the_field() {
        let id = Schema::new().id("lapwing.judged_time");
        assert_eq!(id, Some(field!("lapwing.event.monotonic_time")));
    }

    #[test]
    fn defined_fields_follow_the_table() {
        let mut schema = Schema::new();
        let id = schema.define("okta.event_type", Type::Keyword).unwrap();
        assert_eq!(schema.id("okta.event_type"), Some(id));
        assert_eq!(schema.name(id), "okta.event_type");
        assert_eq!(schema.define("process.pid", Type::Keyword), Some(field!("process.pid")));
        assert_eq!(schema.ty(field!("process.pid")), Type::Long);
    }

    #[test]
    fn an_empty_schema_knows_what_was_defined_alone() {
        let mut schema = Schema::empty();
        assert!(schema.is_empty() && schema.id("process.pid").is_none());
        let pid = schema.define("process.pid", Type::Keyword);
        assert_eq!(pid, Some(field!("process.pid")));
        assert_eq!(schema.ty(field!("process.pid")), Type::Keyword);
        schema.define("tag", Type::Long);
        assert_eq!(schema.names().collect::<Vec<_>>(), ["process.pid", "tag"]);
        assert_eq!(schema.len(), 2);
    }

    #[test]
    fn leaves_of_flattened_fields_are_found() {
        let schema = Schema::new();
        let above = schema.flattened_above("aws.cloudtrail.flattened.request_parameters.instanceId");
        assert_eq!(above, schema.id("aws.cloudtrail.flattened.request_parameters"));
        assert_eq!(schema.flattened_above("process.name"), None);
        let mut schema = schema;
        let leaf = schema.define("labels.team", Type::Keyword).unwrap();
        assert_eq!(schema.leaves(field!("labels")), [leaf]);
        assert_eq!(schema.leaves(field!("process.name")), []);
    }
}

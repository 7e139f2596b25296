//! Lowers an AST to a typed query: looks up names, checks types, removes syntactic sugar. It is the same for both languages.

pub(super) mod eql;
pub(super) mod kql;

mod exclusion;
mod lineage;
mod lint;

use super::diagnostic::{Diagnostic, Span, code};
use super::query::{Condition, EventQuery};
use super::suggest::nearest;
use super::{DIAGNOSTICS_MAX, Level};
use crate::event::{FieldId, Schema, Type, Value};

/// The state of lowering one query.
struct Lowering<'a> {
    schema: &'a mut Schema,
    found: Vec<Diagnostic>,
    /// The bytes of the regular expressions so far.
    regex_bytes: usize,
    /// The names of earlier stages, with their indexes.
    aliases: Vec<(String, usize)>,
    /// The filters in the brackets of `descendant of […]`, and their conditions on other events.
    subqueries: Vec<(EventQuery, Option<Condition>)>,
    /// The conditions on other events of the event queries so far.
    related: Vec<Option<Condition>>,
}

impl<'a> Lowering<'a> {
    fn new(schema: &'a mut Schema) -> Self {
        Self {
            schema,
            found: Vec::new(),
            regex_bytes: 0,
            aliases: Vec::new(),
            subqueries: Vec::new(),
            related: Vec::new(),
        }
    }

    /// Adds a diagnostic. If there is no room, an error replaces a warning: a query with an error must not seem valid.
    fn report(&mut self, diagnostic: Diagnostic) {
        if self.found.contains(&diagnostic) {
            return;
        }
        if self.found.len() == DIAGNOSTICS_MAX {
            let warning = self.found.iter().rposition(|found| found.level() == Level::Warning);
            match warning.filter(|_| diagnostic.level() == Level::Error) {
                Some(warning) => drop(self.found.remove(warning)),
                None => return,
            }
        }
        self.found.push(diagnostic);
    }

    /// Whether further errors are dropped, so that no help is computed for them.
    fn is_full(&self) -> bool {
        self.found.len() == DIAGNOSTICS_MAX && self.found.iter().all(|found| found.level() == Level::Error)
    }

    /// The query with its warnings, or all diagnostics.
    fn finish<T>(mut self, query: Option<T>) -> Result<(T, Vec<Diagnostic>), Vec<Diagnostic>> {
        self.found.sort_by_key(|diagnostic| diagnostic.span.start);
        let failed = self.found.iter().any(|diagnostic| diagnostic.level() == Level::Error);
        match query {
            Some(query) if !failed => Ok((query, self.found)),
            _ => Err(self.found),
        }
    }

    /// Looks up a field. The use of a leaf of a flattened field defines it.
    fn lookup(&mut self, name: &str) -> Option<FieldId> {
        if let Some(id) = self.schema.id(name) {
            return Some(id);
        }
        self.schema.flattened_above(name)?;
        self.schema.define(name, Type::Keyword)
    }

    /// Looks up a field; an unknown one is an error.
    fn field(&mut self, name: &str, span: Span) -> Option<FieldId> {
        let found = self.lookup(name);
        if found.is_none() && !self.is_full() {
            let fault = Diagnostic::new(code::UNKNOWN_FIELD, span, format!("unknown field `{name}`"));
            let fault = fault.label("no event has this field");
            self.report(match (names_a_stage(name), nearest(name, self.schema.names())) {
                (true, _) => fault.help(
                    "an earlier stage of the sequence must be named: `[…] as event0`; only later ones can refer to it",
                ),
                (_, Some(near)) => fault.help(format!("did you mean `{near}`?")),
                (_, None) => fault,
            });
        }
        found
    }

    /// A constant as a value of a field's type; an error if no value of that type can equal it.
    fn constant(&mut self, field: &str, ty: Type, constant: &Value, span: Span) -> Option<Value> {
        let value = convert(ty, constant);
        if value.is_none() && ty == Type::Date && is_date_math(constant) {
            let fault = Diagnostic::new(code::DATE_MATH, span, "date math is not supported")
                .label("rules are evaluated when events come; there is no `now`")
                .help("write the time itself, as in \"2026-01-31T12:00:00Z\"");
            self.report(fault);
        } else if value.is_none() {
            let message = format!(
                "`{field}` is of type {} and can never equal {}",
                ty.name(),
                match constant {
                    Value::Text(text) => format!("{text:?}"),
                    other => other.to_text().into_owned(),
                }
            );
            self.report(
                Diagnostic::new(code::TYPES, span, message)
                    .label(format!("not a value of type {}", ty.name())),
            );
        }
        value
    }
}

/// Whether a constant is date math, such as `now-1d` and `2026-01-31||/M`.
fn is_date_math(constant: &Value) -> bool {
    constant.as_text().is_some_and(|text| text.starts_with("now") || text.contains("||"))
}

/// Whether a name looks like a field of a stage's event, such as `event0.file.path`.
fn names_a_stage(name: &str) -> bool {
    let number = name.strip_prefix("event").and_then(|rest| rest.split_once('.'));
    number.is_some_and(|(digits, _)| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

/// A constant as a value of this type; `None` if it cannot be converted.
fn convert(ty: Type, constant: &Value) -> Option<Value> {
    match (ty, constant) {
        (Type::Long, Value::Long(_))
        | (Type::Double, Value::Double(_))
        | (Type::Boolean, Value::Boolean(_)) => Some(constant.clone()),
        (Type::Double, Value::Long(number)) => Some(Value::Double(*number as f64)),
        // A whole number may be compared with a fraction.
        (Type::Long, Value::Double(_)) => Some(constant.clone()),
        (Type::Date, Value::Long(millis)) => Some(crate::Timestamp::from_millis(*millis).into()),
        (Type::Boolean, Value::Long(_)) => None,
        (ty, constant) => Value::parse(ty, &constant.to_text()),
    }
}

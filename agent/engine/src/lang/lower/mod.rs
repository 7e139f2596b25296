//! AST to typed query: names are looked up, types checked, sugar taken off. Both languages meet here.

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

/// What is found out about one query while it is lowered.
struct Lowering<'a> {
    schema: &'a mut Schema,
    found: Vec<Diagnostic>,
    /// What the regular expressions read so far take.
    regex_bytes: usize,
    /// What earlier stages are called, with their places.
    aliases: Vec<(String, usize)>,
    /// What stands in the brackets of `descendant of […]`, and what must hold besides for it.
    subqueries: Vec<(EventQuery, Option<Condition>)>,
    /// What must hold besides for the event queries so far.
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

    /// Keeps what was found. Where there is no room, an error takes the place of a warning: what has an error must not
    /// pass for a query that has none.
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

    /// Whether no more errors are kept, so that help for them need not be looked for.
    fn is_full(&self) -> bool {
        self.found.len() == DIAGNOSTICS_MAX && self.found.iter().all(|found| found.level() == Level::Error)
    }

    /// The query and its warnings, or everything that is wrong.
    fn finish<T>(mut self, query: Option<T>) -> Result<(T, Vec<Diagnostic>), Vec<Diagnostic>> {
        self.found.sort_by_key(|diagnostic| diagnostic.span.start);
        let failed = self.found.iter().any(|diagnostic| diagnostic.level() == Level::Error);
        match query {
            Some(query) if !failed => Ok((query, self.found)),
            _ => Err(self.found),
        }
    }

    /// Finds a field; a leaf of a flattened field becomes one by being named.
    fn lookup(&mut self, name: &str) -> Option<FieldId> {
        if let Some(id) = self.schema.id(name) {
            return Some(id);
        }
        self.schema.flattened_above(name)?;
        self.schema.define(name, Type::Keyword)
    }

    /// Finds a field that must be there.
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

    /// A constant as a value of a field's type; a fault where no value of that type can ever equal it.
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

/// Whether a constant is a time reckoned from another one, such as `now-1d` and `2026-01-31||/M`.
fn is_date_math(constant: &Value) -> bool {
    constant.as_text().is_some_and(|text| text.starts_with("now") || text.contains("||"))
}

/// Whether a name looks like a field of the event of a stage, such as `event0.file.path`.
fn names_a_stage(name: &str) -> bool {
    let number = name.strip_prefix("event").and_then(|rest| rest.split_once('.'));
    number.is_some_and(|(digits, _)| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

/// A constant as a value of this type, where it can be one.
fn convert(ty: Type, constant: &Value) -> Option<Value> {
    match (ty, constant) {
        (Type::Long, Value::Long(_))
        | (Type::Double, Value::Double(_))
        | (Type::Boolean, Value::Boolean(_)) => Some(constant.clone()),
        (Type::Double, Value::Long(number)) => Some(Value::Double(*number as f64)),
        // Ordering a whole number by a fraction is meant; both are numbers to what compares them.
        (Type::Long, Value::Double(_)) => Some(constant.clone()),
        (Type::Date, Value::Long(millis)) => Some(crate::Timestamp::from_millis(*millis).into()),
        (Type::Boolean, Value::Long(_)) => None,
        (ty, constant) => Value::parse(ty, &constant.to_text()),
    }
}

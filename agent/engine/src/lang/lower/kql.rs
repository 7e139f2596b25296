//! KQL's AST to the typed query.

use super::eql::network;
use super::lint::{Alternative, Clause, mixed_and_or};
use super::{Lowering, convert};
use crate::event::{FieldId, Schema, Type, Value};
use crate::lang::diagnostic::{Diagnostic, Span, code};
use crate::lang::operator::Comparison;
use crate::lang::query::{Condition, EventQuery, Expr, Test};
use crate::lang::syntax::kql::ast::{Literal, Query, QueryKind};
use crate::lang::wildcard::{Wildcard, WildcardPart};

/// The typed query and its warnings, or everything that is wrong with it.
pub(in crate::lang) fn lower(
    ast: &Query,
    schema: &mut Schema,
) -> Result<(EventQuery, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut lowering = Lowering::new(schema);
    let condition = lowering.kql(ast, "");
    if let Some(condition) = &condition {
        lowering.lint(&Clause::kql(ast, condition));
    }
    lowering.finish(condition.map(|condition| EventQuery { category: None, condition }.guarded()))
}

/// A test of a field.
#[derive(Clone, Copy)]
enum FieldTest<'a> {
    Is(&'a Literal),
    Order(Comparison, &'a Literal),
}

/// Why a field of some type cannot be tested so.
enum Misfit {
    /// The value is none of the type.
    Value,
    /// The type knows no wildcards.
    Wildcard,
    /// The type has no order.
    Order,
}

/// What is tested; nothing where the field must only be there.
type Tested = Result<Option<Test>, Misfit>;

impl Lowering<'_> {
    /// A condition; `above` are the names that groups around it put before the names of its fields.
    fn kql(&mut self, ast: &Query, above: &str) -> Option<Condition> {
        match &ast.kind {
            QueryKind::Wrong => None,
            QueryKind::Everything => Some(Condition::Always(true)),
            QueryKind::And(parts) => self.kql_parts(parts, above).map(Condition::All),
            QueryKind::Or(parts) => {
                let alternatives: Vec<_> = parts.iter().map(alternative).collect();
                mixed_and_or(&alternatives).into_iter().for_each(|warning| self.report(warning));
                self.kql_parts(parts, above).map(Condition::Any)
            }
            QueryKind::Not(inner) => self.kql(inner, above).map(|inner| Condition::Not(Box::new(inner))),
            QueryKind::Is(field, value) => self.on_field(field, above, FieldTest::Is(value)),
            QueryKind::Range(field, comparison, value) => {
                self.on_field(field, above, FieldTest::Order(*comparison, value))
            }
            QueryKind::Group(field, inner) => match field.text.as_text() {
                Some(name) => self.kql(inner, &format!("{above}{name}.")),
                None => {
                    let message = "the name of a group of fields has no wildcards";
                    self.report(Diagnostic::new(code::UNEXPECTED, field.span, message));
                    None
                }
            },
            QueryKind::Text(value) => self.free_text(value),
        }
    }

    fn kql_parts(&mut self, parts: &[Query], above: &str) -> Option<Vec<Condition>> {
        let parts: Vec<_> = parts.iter().map(|part| self.kql(part, above)).collect();
        parts.into_iter().collect()
    }

    /// A condition on the field, or, where its name has a wildcard, on any of the fields that the name matches.
    fn on_field(&mut self, name: &Literal, above: &str, wanted: FieldTest<'_>) -> Option<Condition> {
        let Some(text) = name.text.as_text().filter(|_| above.is_empty() || !name.text.0.is_empty()) else {
            let mut pattern = vec![WildcardPart::Text(above.into())];
            pattern.extend(name.text.0.iter().cloned());
            return self.on_any_field(&Wildcard(pattern), name.span, wanted);
        };
        let id = self.field(&format!("{above}{text}"), name.span)?;
        let (name, ty) = (self.schema.name(id).to_owned(), self.schema.ty(id));
        let (FieldTest::Is(value) | FieldTest::Order(_, value)) = wanted;
        match test(ty, wanted) {
            Ok(None) => Some(Condition::Exists(Expr::Field(id))),
            Ok(Some(test)) => Some(Condition::Test(Expr::Field(id), test)),
            Err(Misfit::Value) => {
                self.constant(&name, ty, &value.text.to_string().into(), value.span).and(None)
            }
            Err(Misfit::Order) => {
                let message = format!("`{name}` is of type {} and has no order", ty.name());
                self.report(Diagnostic::new(code::TYPES, value.span, message));
                None
            }
            Err(Misfit::Wildcard) => {
                let message = format!("`{name}` is of type {}, in which there are no wildcards", ty.name());
                self.report(
                    Diagnostic::new(code::TYPES, value.span, message)
                        .help("`*` alone asks whether the field is there; `<` and `>` ask for a range"),
                );
                None
            }
        }
    }

    /// A condition on any of the fields that a pattern matches, as far as their types can meet it.
    fn on_any_field(&mut self, pattern: &Wildcard, span: Span, wanted: FieldTest<'_>) -> Option<Condition> {
        let names = self.schema.names().filter(|name| pattern.matches(name));
        let mut fields: Vec<FieldId> = names.filter_map(|name| self.schema.id(name)).collect();
        fields.sort_unstable();
        if fields.is_empty() {
            let message = format!("no field's name matches `{pattern}`");
            let fault = Diagnostic::new(code::UNKNOWN_FIELD, span, message);
            self.report(fault.label("no event has such a field"));
            return None;
        }
        let mut groups: Vec<(Vec<FieldId>, Option<Test>)> = Vec::new();
        for field in fields {
            let Ok(test) = test(self.schema.ty(field), wanted) else { continue };
            match groups.iter_mut().find(|(_, known)| *known == test) {
                Some((fields, _)) => fields.push(field),
                None => groups.push((vec![field], test)),
            }
        }
        if groups.is_empty() {
            let message = format!("no field that `{pattern}` matches can have this value");
            self.report(Diagnostic::new(code::TYPES, span, message));
            return None;
        }
        Some(Condition::Anywhere(groups))
    }

    /// A value without a field: any field may have it.
    fn free_text(&mut self, value: &Literal) -> Option<Condition> {
        let name = value.text.as_text().filter(|text| !value.quoted && self.schema.id(text).is_some());
        if let Some(name) = name {
            let message = format!("`{name}` is looked for as a text in every field");
            self.report(
                Diagnostic::new(code::FIELD_AS_TEXT, value.span, message)
                    .label("this is the name of a field")
                    .help(format!("`{name}: *` asks whether it is there")),
            );
        }
        if !value.quoted && value.text.0 == [WildcardPart::Many] {
            return Some(Condition::Always(true));
        }
        self.on_any_field(&Wildcard(vec![WildcardPart::Many]), value.span, FieldTest::Is(value))
    }
}

/// What a field of this type is tested for.
fn test(ty: Type, wanted: FieldTest<'_>) -> Tested {
    let value = match wanted {
        FieldTest::Order(comparison, value) => {
            let constant = convert(ty, &value.text.to_string().into()).ok_or(Misfit::Value)?;
            return match ty {
                Type::Point | Type::Boolean => Err(Misfit::Order),
                _ => Ok(Some(Test::order(ty, comparison, constant))),
            };
        }
        FieldTest::Is(value) => value,
    };
    if !value.quoted && value.text.0 == [WildcardPart::Many] {
        return Ok(None);
    }
    let one_of = |value| Test::OneOf { values: vec![value], insensitive: false };
    match (ty, value.text.as_text()) {
        (Type::Keyword | Type::Version | Type::Flattened, None) => {
            Ok(Some(Test::Like { patterns: vec![value.text.clone()], insensitive: false }))
        }
        (Type::Text, Some(text)) => Ok(Some(words(&text, value.quoted))),
        (Type::Text, None) => Ok(Some(Test::WordsLike(word_patterns(&value.text)))),
        (Type::Ip, Some(text)) => {
            network(&text).map(|network| Some(Test::Within(vec![network]))).ok_or(Misfit::Value)
        }
        (ty, Some(text)) => {
            convert(ty, &Value::Text(text)).map(|value| Some(one_of(value))).ok_or(Misfit::Value)
        }
        (_, None) => Err(Misfit::Wildcard),
    }
}

fn alternative(ast: &Query) -> Alternative {
    let list = match &ast.kind {
        QueryKind::And(parts) if !ast.parenthesized => parts.as_slice(),
        _ => &[],
    };
    let negated = |part: &Query| matches!(part.kind, QueryKind::Not(_));
    Alternative { bare_ands: list.len(), excludes: list.iter().any(negated), span: ast.span }
}

/// The words of a text as Elasticsearch's standard analyzer would part them, near enough: letters and digits, in
/// lower case.
fn words(text: &str, phrase: bool) -> Test {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    Test::Words { words: words.map(|word| word.to_lowercase().into()).collect(), phrase }
}

/// The patterns that blanks part, in lower case.
fn word_patterns(text: &Wildcard) -> Vec<Wildcard> {
    let text = text.to_string().to_lowercase();
    text.split_whitespace().map(|word| Wildcard::parse(word, false)).collect()
}

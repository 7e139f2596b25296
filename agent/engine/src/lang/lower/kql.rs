//! KQL's AST to the typed query.

use super::Lowering;
use super::eql::network;
use super::lint::{Alternative, mixed_and_or};
use crate::event::{FieldId, Schema, Type, Value};
use crate::lang::diagnostic::{Diagnostic, code};
use crate::lang::kql::ast::{Literal, Query, QueryKind};
use crate::lang::query::{Condition, EventQuery, Expr, Test, WildcardPart};

/// The typed query and its warnings, or everything that is wrong with it.
pub(in crate::lang) fn lower(
    ast: &Query,
    schema: &mut Schema,
) -> Result<(EventQuery, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut lowering = Lowering::new(schema);
    let condition = lowering.kql(ast);
    lowering.finish(condition.map(|condition| EventQuery { category: None, condition }))
}

impl Lowering<'_> {
    fn kql(&mut self, ast: &Query) -> Option<Condition> {
        match &ast.kind {
            QueryKind::Everything => Some(Condition::Always(true)),
            QueryKind::And(parts) => self.kql_parts(parts).map(Condition::All),
            QueryKind::Or(parts) => {
                let alternatives: Vec<_> = parts.iter().map(alternative).collect();
                mixed_and_or(&alternatives).into_iter().for_each(|warning| self.report(warning));
                self.kql_parts(parts).map(Condition::Any)
            }
            QueryKind::Not(inner) => self.kql(inner).map(|inner| Condition::Not(Box::new(inner))),
            QueryKind::Is(field, value) => self.any_field(field, |lowering, id| lowering.is(id, value)),
            QueryKind::Range(field, comparison, value) => self.any_field(field, |lowering, id| {
                let (name, ty) = (lowering.schema.name(id).to_owned(), lowering.schema.ty(id));
                let constant = value.text.to_string().into();
                let value = lowering.constant(&name, ty, &constant, value.span)?;
                Some(Condition::Test(Expr::Field(id), Test::order(ty, *comparison, value)))
            }),
        }
    }

    fn kql_parts(&mut self, parts: &[Query]) -> Option<Vec<Condition>> {
        let parts: Vec<_> = parts.iter().map(|part| self.kql(part)).collect();
        parts.into_iter().collect()
    }

    /// A condition on the field, or, where its name has a wildcard, on any of the fields that the name matches.
    fn any_field(
        &mut self,
        name: &Literal,
        mut condition: impl FnMut(&mut Self, FieldId) -> Option<Condition>,
    ) -> Option<Condition> {
        let Some(text) = name.text.as_text() else {
            let message = "a wildcard in a field's name is not supported yet";
            self.report(Diagnostic::new(code::UNSUPPORTED, name.span, message));
            return None;
        };
        let id = self.field(&text, name.span)?;
        condition(self, id)
    }

    /// `field: value`
    fn is(&mut self, id: FieldId, value: &Literal) -> Option<Condition> {
        let expr = Expr::Field(id);
        if !value.quoted && value.text.0 == [WildcardPart::Many] {
            return Some(Condition::Exists(expr));
        }
        let (name, ty) = (self.schema.name(id).to_owned(), self.schema.ty(id));
        let plain = value.text.as_text();
        let test = match (ty, plain) {
            (Type::Keyword | Type::Version | Type::Flattened, None) => {
                Test::Like { patterns: vec![value.text.clone()], insensitive: false }
            }
            (Type::Text, Some(text)) => words(&text, value.quoted),
            (Type::Ip, Some(text)) => match network(&text) {
                Some(network) => Test::Within(vec![network]),
                None => return self.constant(&name, ty, &Value::Text(text), value.span).and(None),
            },
            (ty, Some(text)) => {
                let value = self.constant(&name, ty, &Value::Text(text), value.span)?;
                Test::OneOf { values: vec![value], insensitive: false }
            }
            (ty, None) => {
                let message = format!("wildcards in a value of type {} are not supported yet", ty.name());
                self.report(Diagnostic::new(code::UNSUPPORTED, value.span, message));
                return None;
            }
        };
        Some(Condition::Test(expr, test))
    }
}

fn alternative(ast: &Query) -> Alternative {
    let list = match &ast.kind {
        QueryKind::And(parts) if !ast.parenthesized => parts.as_slice(),
        _ => &[],
    };
    let negated = |part: &Query| matches!(part.kind, QueryKind::Not(_));
    Alternative { bare_and: !list.is_empty(), excludes: list.iter().any(negated), span: ast.span }
}

/// The words of a text as Elasticsearch's standard analyzer would part them, near enough: letters and digits, in
/// lower case.
fn words(text: &str, phrase: bool) -> Test {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    Test::Words { words: words.map(|word| word.to_lowercase().into()).collect(), phrase }
}

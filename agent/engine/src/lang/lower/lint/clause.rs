//! A condition with the places of its parts: what is written and what it means, side by side.

use crate::lang::Span;
use crate::lang::query::Condition;
use crate::lang::syntax::eql::ast::{Expr as EqlExpr, ExprKind};
use crate::lang::syntax::kql::ast::{Query as KqlQuery, QueryKind};

/// A part of a condition and where it stands.
pub(in crate::lang::lower) struct Clause<'a> {
    pub(super) kind: ClauseKind<'a>,
    pub(super) span: Span,
}

/// The kinds of part.
pub(super) enum ClauseKind<'a> {
    All(Vec<Clause<'a>>),
    Any(Vec<Clause<'a>>),
    Not(Box<Clause<'a>>),
    /// What is not made of others, and where its constants stand whose characters are meant as they are.
    Leaf(&'a Condition, Vec<Span>),
}

impl<'a> Clause<'a> {
    /// An EQL condition.
    pub(in crate::lang::lower) fn eql(ast: &EqlExpr, condition: &'a Condition) -> Self {
        let each = |asts: &[EqlExpr], parts: &'a [Condition]| {
            asts.iter().zip(parts).map(|(ast, part)| Self::eql(ast, part)).collect()
        };
        let kind = match (&ast.kind, condition) {
            (ExprKind::And(asts), Condition::All(parts)) => ClauseKind::All(each(asts, parts)),
            (ExprKind::Or(asts), Condition::Any(parts)) => ClauseKind::Any(each(asts, parts)),
            (ExprKind::Not(ast), Condition::Not(inner)) => ClauseKind::Not(Box::new(Self::eql(ast, inner))),
            (kind, Condition::Not(inner)) => ClauseKind::Not(Box::new(Self {
                kind: ClauseKind::Leaf(inner, constants(kind)),
                span: ast.span,
            })),
            (kind, condition) => ClauseKind::Leaf(condition, constants(kind)),
        };
        Self { kind, span: ast.span }
    }

    /// A KQL condition.
    pub(in crate::lang::lower) fn kql(ast: &KqlQuery, condition: &'a Condition) -> Self {
        let each = |asts: &[KqlQuery], parts: &'a [Condition]| {
            asts.iter().zip(parts).map(|(ast, part)| Self::kql(ast, part)).collect()
        };
        let kind = match (&ast.kind, condition) {
            (QueryKind::And(asts), Condition::All(parts)) => ClauseKind::All(each(asts, parts)),
            (QueryKind::Or(asts), Condition::Any(parts)) => ClauseKind::Any(each(asts, parts)),
            (QueryKind::Not(ast), Condition::Not(inner)) => ClauseKind::Not(Box::new(Self::kql(ast, inner))),
            (QueryKind::Group(_, ast), condition) => return Self::kql(ast, condition),
            // An escaped `*` outside quotation marks is meant as it is.
            (QueryKind::Is(_, value), condition) if value.quoted => {
                ClauseKind::Leaf(condition, vec![value.span])
            }
            (_, condition) => ClauseKind::Leaf(condition, Vec::new()),
        };
        Self { kind, span: ast.span }
    }
}

/// Where the constants of a comparison stand.
fn constants(kind: &ExprKind) -> Vec<Span> {
    match kind {
        ExprKind::Match { list, .. } => list.iter().map(|entry| entry.span).collect(),
        ExprKind::Compare(_, left, right) => {
            let literal = |side: &EqlExpr| matches!(side.kind, ExprKind::Literal(_));
            [left, right].into_iter().filter(|side| literal(side)).map(|side| side.span).collect()
        }
        _ => Vec::new(),
    }
}

//! Conditions on other events: of earlier stages (`event0.file.path`), and those that subqueries match
//! (`descendant of […]`). They are separated from the conditions on the event itself.

use super::Lowering;
use super::eql::{ValueKind, kind_name};
use super::lint::Clause;
use crate::event::Type;
use crate::lang::diagnostic::{Diagnostic, Span, code};
use crate::lang::operator::Comparison;
use crate::lang::operator::Relation;
use crate::lang::query::{Condition, EventQuery, Expr, Lineage, Query, Stage, Wanted};
use crate::lang::syntax::eql::ast::{Filter, Sequence as AstSequence, Stage as AstStage};

/// Maximum number of subqueries in a query.
const SUBQUERIES_MAX: usize = 64;

impl Lowering<'_> {
    /// An event query of the query itself, and its conditions on events of earlier stages.
    pub(super) fn event_query(&mut self, ast: &Filter) -> Option<(EventQuery, Option<Condition>)> {
        let (query, related, later) = self.parted(ast)?;
        self.related.push(related);
        Some((query, later))
    }

    /// `descendant of [filter]` and the like.
    pub(super) fn related(&mut self, relation: Relation, filter: &Filter) -> Option<Condition> {
        // A subquery is not a stage, so that it has no earlier stages.
        let aliases = std::mem::take(&mut self.aliases);
        let parted = self.parted(filter);
        self.aliases = aliases;
        let (query, related, _) = parted?;
        if self.subqueries.len() == SUBQUERIES_MAX {
            let message = format!("a query may ask about {SUBQUERIES_MAX} others");
            self.report(Diagnostic::new(code::TOO_LONG, filter.condition.span, message));
            return None;
        }
        self.subqueries.push((query, related));
        Some(Condition::Related(relation, self.subqueries.len() - 1))
    }

    /// An event query with the conditions on its event, its conditions on the ancestry of processes, and its conditions on
    /// events of earlier stages.
    fn parted(&mut self, ast: &Filter) -> Option<(EventQuery, Option<Condition>, Option<Condition>)> {
        let condition = self.condition(&ast.condition)?;
        self.lint(&Clause::eql(&ast.condition, &condition));
        if let Some(category) = &ast.category {
            self.lint_category(category, ast.category_span);
        }
        let category = ast.category.as_deref().map(Into::into);
        let has = |condition: &Condition, wanted| condition.has(&wanted);
        if !has(&condition, Wanted::Related) && !has(&condition, Wanted::Earlier) {
            return Some((EventQuery { category, condition }, None, None));
        }
        let (mut own, mut related, mut later) = (Vec::new(), Vec::new(), Vec::new());
        let mut parts = Vec::new();
        flatten(condition, &mut parts);
        for part in parts {
            match (has(&part, Wanted::Related), has(&part, Wanted::Earlier)) {
                (false, false) => own.push(part),
                (true, false) => related.push(part),
                (false, true) => later.push(part),
                (true, true) => {
                    let message = "an alternative asks about an earlier event, another one about ancestry";
                    self.report(Diagnostic::new(code::UNSUPPORTED, ast.condition.span, message));
                    return None;
                }
            }
        }
        let together = |parts: Vec<Condition>| (!parts.is_empty()).then_some(Condition::All(parts));
        let condition = together(own).unwrap_or(Condition::Always(true));
        Some((EventQuery { category, condition }, together(related), together(later)))
    }

    /// The query with its subqueries, if any.
    pub(super) fn with_subqueries(&mut self, query: Query) -> Query {
        if self.subqueries.is_empty() {
            return query;
        }
        let (subqueries, besides): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.subqueries).into_iter().unzip();
        let conditions = std::mem::take(&mut self.related).into_iter().chain(besides).collect();
        Query::Lineage(Lineage { query: Box::new(query), subqueries, conditions })
    }

    /// Adds the name of this stage for later stages.
    pub(super) fn name_stage(&mut self, stage: &AstStage, place: usize) {
        let Some((alias, span)) = &stage.alias else { return };
        let start = format!("{alias}.");
        let wrong = if stage.missing {
            Some("a missing event has no fields to refer to".to_owned())
        } else if self.aliases.iter().any(|(known, _)| known == alias) {
            Some(format!("two stages are called `{alias}`"))
        } else if self.schema.names().any(|name| name.starts_with(&start)) {
            Some(format!("there are fields whose names start with `{alias}`"))
        } else {
            None
        };
        match wrong {
            Some(wrong) => {
                let fault = Diagnostic::new(code::BAD_ALIAS, *span, wrong);
                self.report(fault.help("call it `event0` or the like"));
            }
            None => self.aliases.push((alias.clone(), place)),
        }
    }

    /// The stage and field of a name such as `event0.file.path`.
    pub(super) fn earlier(&self, name: &str) -> Option<(usize, String)> {
        let (alias, field) = name.split_once('.')?;
        let (_, stage) = self.aliases.iter().find(|(known, _)| known == alias)?;
        Some((*stage, field.to_owned()))
    }

    /// Refuses stages that refer to fields of earlier events.
    pub(super) fn refuse_later(
        &mut self,
        ast: &AstSequence,
        stages: &[Option<Stage>],
        until: Option<&Option<Stage>>,
    ) {
        let all = ast.stages.iter().chain(&ast.until).zip(stages.iter().chain(until));
        let count = ast.stages.len();
        for (index, (ast, stage)) in all.enumerate() {
            let refers = stage.as_ref().is_some_and(|stage| stage.later.is_some());
            if refers && (ast.missing || index == count) {
                let message = "neither a missing event nor `until` can refer to an earlier event";
                self.report(Diagnostic::new(code::BAD_ALIAS, ast.span, message));
            }
        }
    }

    /// A comparison with a field of an earlier event.
    pub(super) fn compare_earlier(
        &mut self,
        comparison: Comparison,
        (left, left_kind): (Expr, ValueKind),
        (right, right_kind): (Expr, ValueKind),
        span: Span,
    ) -> Option<Condition> {
        let ordered = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        let (left_family, right_family) = (kind_name(left_kind), kind_name(right_kind));
        if left_family != right_family || (ordered && left_kind == ValueKind::Of(Type::Boolean)) {
            let message = format!("{left_family} is compared with {right_family}");
            self.report(Diagnostic::new(code::TYPES, span, message));
            return None;
        }
        if comparison != Comparison::NotEqual {
            return Some(Condition::Compare(comparison, left, right));
        }
        Some(Condition::All(vec![
            Condition::Exists(left.clone()),
            Condition::Exists(right.clone()),
            Condition::Not(Box::new(Condition::Compare(Comparison::Equal, left, right))),
        ]))
    }
}

/// The parts of a conjunction.
fn flatten(condition: Condition, parts: &mut Vec<Condition>) {
    match condition {
        Condition::All(inner) => inner.into_iter().for_each(|part| flatten(part, parts)),
        part => parts.push(part),
    }
}

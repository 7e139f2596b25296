//! What is allowed and probably not meant. Each lint is a warning with a code of its own, and a rule can allow it.

mod clause;
mod literal;
mod precedence;
mod reach;

pub(super) use clause::Clause;
pub(super) use precedence::{Alternative, mixed_and_or};

use clause::ClauseKind;

use super::Lowering;
use crate::lang::Span;
use crate::lang::diagnostic::{Diagnostic, code};
use crate::lang::query::{Condition, Expr};

impl Lowering<'_> {
    /// Reports what is odd about a condition.
    pub(super) fn lint(&mut self, clause: &Clause<'_>) {
        let mut found = Vec::new();
        self.lint_constants(clause, &mut found);
        reach::unreachable(self.schema, clause, &[], &mut found);
        found.into_iter().for_each(|warning| self.report(warning));
    }

    fn lint_constants(&self, clause: &Clause<'_>, found: &mut Vec<Diagnostic>) {
        match &clause.kind {
            ClauseKind::All(parts) | ClauseKind::Any(parts) => {
                parts.iter().for_each(|part| self.lint_constants(part, found));
            }
            ClauseKind::Not(inner) => self.lint_constants(inner, found),
            ClauseKind::Leaf(Condition::Test(Expr::Field(field), test), places) => {
                literal::constants(self.schema.name(*field), test, clause.span, places, found);
            }
            ClauseKind::Leaf(..) => {}
        }
    }

    /// Reports a category that is probably mistyped.
    pub(super) fn lint_category(&mut self, category: &str, span: Span) {
        literal::category(category, span).into_iter().for_each(|warning| self.report(warning));
    }

    /// Reports a sequence that may wait for ever.
    pub(super) fn lint_span(&mut self, span: Span) {
        self.report(
            Diagnostic::new(code::UNBOUNDED, span, "the sequence has no `with maxspan`")
                .label("events of any distance make a sequence, and each that may start one is kept")
                .help("write `sequence … with maxspan=5m`"),
        );
    }
}

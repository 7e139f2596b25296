//! `and` and `or` beside each other without parentheses.

use crate::lang::diagnostic::{Diagnostic, Span, code};

/// An alternative of an `or`, as far as precedence goes.
pub(in crate::lang::lower) struct Alternative {
    /// It is an `and` list without parentheses around it.
    pub(in crate::lang::lower) bare_and: bool,
    /// It is such a list and something in it is negated.
    pub(in crate::lang::lower) excludes: bool,
    /// Where it stands.
    pub(in crate::lang::lower) span: Span,
}

/// Warns where the first alternative is an `and` list without parentheses, so that a guard at its start reads as if it
/// covered all of them, or the last is one with a `not`, so that an exclusion at its end does; and where others are no
/// such lists, so that it is no plain list of cases.
pub(in crate::lang::lower) fn mixed_and_or(alternatives: &[Alternative]) -> Option<Diagnostic> {
    let (first, last) = (alternatives.first()?, alternatives.last()?);
    let mixed = alternatives.iter().any(|alternative| !alternative.bare_and);
    if !mixed || !(first.bare_and || last.excludes) {
        return None;
    }
    Some(
        Diagnostic::new(
            code::MIXED_AND_OR,
            first.span.to(last.span),
            "`and` and `or` are mixed without parentheses",
        )
        .label("`and` binds tighter: conditions at the start and at the end belong to one alternative only")
        .help("put the alternatives into parentheses: `… and (a or b or c) and not …`"),
    )
}

//! `and` and `or` beside each other without parentheses.

use crate::lang::diagnostic::{Diagnostic, Span, code};

/// An alternative of an `or`, as far as precedence goes.
pub(in crate::lang::lower) struct Alternative {
    /// How many conditions stand in it where it is an `and` list without parentheses around it; else none.
    pub(in crate::lang::lower) bare_ands: usize,
    /// It is such a list and something in it is negated.
    pub(in crate::lang::lower) excludes: bool,
    /// Where it stands.
    pub(in crate::lang::lower) span: Span,
}

/// Warns where the first alternative is an `and` list without parentheses, so that a guard at its start reads as if it
/// covered all of them, or the last is one with a `not`, so that an exclusion at its end does; and where others are no
/// such lists, so that it is no plain list of cases. Where all are such lists, they are cases unless the first is longer
/// than the last, as with guards, and the last alone excludes something.
pub(in crate::lang::lower) fn mixed_and_or(alternatives: &[Alternative]) -> Option<Diagnostic> {
    let (first, last) = (alternatives.first()?, alternatives.last()?);
    let mixed = alternatives.iter().any(|alternative| alternative.bare_ands == 0);
    let trap = if mixed {
        first.bare_ands > 0 || last.excludes
    } else {
        let excluding = alternatives.iter().filter(|alternative| alternative.excludes).count();
        first.bare_ands > last.bare_ands && last.excludes && excluding == 1
    };
    if !trap {
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

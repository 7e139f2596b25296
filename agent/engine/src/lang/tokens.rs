//! A query's tokens and a place among them; both parsers walk with it, and neither goes deeper than it lets them.

use super::NESTING_MAX;
use super::diagnostic::{Diagnostic, Span, code};

/// The tokens of a query, of which the last one is its end.
pub(super) struct Tokens<T> {
    tokens: Vec<(T, Span)>,
    next: usize,
    depth: usize,
}

impl<T: Clone> Tokens<T> {
    pub(super) fn new(tokens: Vec<(T, Span)>) -> Self {
        Self { tokens, next: 0, depth: 0 }
    }

    pub(super) fn peek(&self) -> &T {
        &self.tokens[self.next].0
    }

    /// The token so many after the next one.
    pub(super) fn peek_at(&self, ahead: usize) -> Option<&T> {
        self.tokens.get(self.next + ahead).map(|(token, _)| token)
    }

    pub(super) fn span(&self) -> Span {
        self.tokens[self.next].1
    }

    /// The span of what was read last.
    pub(super) fn last_span(&self) -> Span {
        self.tokens[self.next.saturating_sub(1)].1
    }

    /// Takes the next token. The end stays the next one however often it is taken.
    pub(super) fn advance(&mut self) -> T {
        let token = self.peek().clone();
        if self.next + 1 < self.tokens.len() {
            self.next += 1;
        }
        token
    }

    /// Runs a production one level deeper.
    pub(super) fn deeper<R>(
        &mut self,
        production: impl FnOnce(&mut Self) -> Result<R, Diagnostic>,
    ) -> Result<R, Diagnostic> {
        if self.depth == NESTING_MAX {
            return Err(self.too_deep());
        }
        self.depth += 1;
        let result = production(self);
        self.depth -= 1;
        result
    }

    pub(super) fn too_deep(&self) -> Diagnostic {
        Diagnostic::new(code::TOO_DEEP, self.span(), format!("nested more than {NESTING_MAX} deep"))
    }

    /// Says that `wanted` should stand where `found` does.
    pub(super) fn expected(&self, wanted: &str, found: &str) -> Diagnostic {
        Diagnostic::new(code::UNEXPECTED, self.span(), format!("expected {wanted}, found {found}"))
            .label(format!("expected {wanted}"))
    }
}

//! A query's tokens and a place among them; both parsers walk with it, and neither goes deeper than it lets them.

use super::diagnostic::{Diagnostic, Span, code};
use super::{DIAGNOSTICS_MAX, Found, NESTING_MAX, QUERY_BYTES_MAX};

/// The tokens of a query, of which the last one is its end.
pub(super) struct Tokens<T> {
    tokens: Vec<(T, Span)>,
    next: usize,
    depth: usize,
    /// How many brackets are open before each token.
    open: Vec<i32>,
    /// Faults that were skipped, so that more can be reported.
    faults: Vec<Diagnostic>,
}

impl<T: Clone> Tokens<T> {
    /// Reads a query's text: `lex` makes its tokens, and `parse` reads all of them. `bracket` is that of [`new`](Self::new).
    ///
    /// # Errors
    /// Everything that is wrong with it where nothing could be understood; otherwise that is beside what could.
    pub(super) fn read<Q>(
        text: &str,
        lex: impl FnOnce(&str) -> (Vec<(T, Span)>, Vec<Diagnostic>),
        bracket: impl Fn(&T) -> i32,
        parse: impl FnOnce(&mut Self) -> Result<Q, Diagnostic>,
    ) -> Found<Q> {
        if text.len() > QUERY_BYTES_MAX {
            let message =
                format!("the query is {} bytes long; at most {QUERY_BYTES_MAX} are read", text.len());
            return Err(vec![Diagnostic::new(code::TOO_LONG, Span::first_of(text), message)]);
        }
        let (tokens, faults) = lex(text);
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut tokens = Self::new(tokens, bracket);
        let read = parse(&mut tokens);
        let mut faults = tokens.faults;
        match read {
            Ok(read) => Ok((read, faults)),
            Err(fault) => {
                faults.push(fault);
                Err(faults)
            }
        }
    }

    /// `bracket` returns by how much a token changes the number of open brackets: 1, -1 or 0.
    fn new(tokens: Vec<(T, Span)>, bracket: impl Fn(&T) -> i32) -> Self {
        let open = tokens.iter().scan(0, |open, (token, _)| {
            let before = *open;
            *open += bracket(token);
            Some(before)
        });
        Self { open: open.collect(), tokens, next: 0, depth: 0, faults: Vec::new() }
    }

    /// How many brackets are open here.
    pub(super) fn open(&self) -> i32 {
        self.open[self.next]
    }

    /// Remembers a fault and goes on to where reading can go on: a token that `stops`, or one that closes a bracket or
    /// ends the query, with no more than `open` brackets open.
    ///
    /// # Errors
    /// The fault, where nothing after it would be worth reporting.
    pub(super) fn recover(
        &mut self,
        fault: Diagnostic,
        open: i32,
        stops: impl Fn(&T) -> bool,
    ) -> Result<(), Diagnostic> {
        let is_limit = [code::TOO_DEEP, code::TOO_LONG].contains(&fault.code);
        if is_limit || self.faults.len() + 1 >= DIAGNOSTICS_MAX {
            return Err(fault);
        }
        self.faults.push(fault);
        while self.next + 1 < self.tokens.len() {
            let closes = self.open[self.next + 1] < self.open();
            if self.open() <= open && (closes || stops(self.peek())) {
                break;
            }
            self.advance();
        }
        Ok(())
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

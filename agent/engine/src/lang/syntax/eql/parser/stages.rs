//! Sequences and samples: their stages, keys and time limits.

use std::time::Duration;

use super::super::ast::{Expr, ExprKind, Filter, Key, Sample, Sequence, Stage};
use super::super::lexer::Token;
use super::{Parser, Result};
use crate::lang::diagnostic::{Diagnostic, Span, code};
use crate::lang::{QUERY_BYTES_MAX, SAMPLE_STAGES_MAX, STAGES_MAX};

impl Parser {
    /// `sequence = "sequence" ("by" keys)? ("with" "maxspan" "=" span)? stage+ ("until" stage)?`; `by` and `with` in
    /// any order.
    pub(super) fn sequence(&mut self) -> Result<Sequence> {
        let span = self.span();
        self.expect_word("sequence")?;
        let (mut by, mut maxspan) = (Vec::new(), None);
        loop {
            if by.is_empty() && self.eat_word("by") {
                by = self.keys()?;
            } else if maxspan.is_none() && self.eat_word("with") {
                maxspan = Some(self.maxspan()?);
            } else {
                break;
            }
        }
        let (mut stages, mut bytes) = (Vec::new(), 0);
        while self.at("[") || self.at("![") {
            let (stage, runs) = self.stage_or_wrong(Self::stage)?;
            if stages.len() + runs > STAGES_MAX {
                let message = format!("a sequence may have {STAGES_MAX} stages");
                return Err(Diagnostic::new(code::TOO_LONG, stage.span, message));
            }
            bytes += (stage.span.end - stage.span.start) * runs;
            if bytes > QUERY_BYTES_MAX {
                let message = format!("the stages, runs counted out, may be {QUERY_BYTES_MAX} bytes long");
                return Err(Diagnostic::new(code::TOO_LONG, stage.span, message));
            }
            stages.extend(std::iter::repeat_n(stage, runs));
        }
        if stages.is_empty() {
            return Err(self.unexpected("`[`"));
        }
        let until = if self.eat_word("until") { Some(self.stage_or_wrong(Self::stage)?.0) } else { None };
        Ok(Sequence { by, maxspan, stages, until, span })
    }

    /// `sample = "sample" ("by" keys)? ("[" filter "]" ("by" keys)?)+`
    pub(super) fn sample(&mut self) -> Result<Sample> {
        let span = self.span();
        self.expect_word("sample")?;
        let by = if self.eat_word("by") { self.keys()? } else { Vec::new() };
        let mut stages = Vec::new();
        while self.at("[") {
            if stages.len() == SAMPLE_STAGES_MAX {
                let message = format!("a sample may have {SAMPLE_STAGES_MAX} stages");
                return Err(Diagnostic::new(code::TOO_LONG, self.span(), message));
            }
            stages.push(self.stage_or_wrong(|parser| parser.bracketed().map(|stage| (stage, 1)))?.0);
        }
        match self.peek() {
            _ if stages.is_empty() => Err(self.unexpected("`[`")),
            Token::Symbol("![") => Err(self.unexpected("a stage").help("a sample has no missing events")),
            Token::Name { text, .. } if text == "until" || text == "with" => Err(self
                .unexpected("a stage or the end")
                .help("a sample has no order and so no `with` and no `until`")),
            _ => Ok(Sample { by, stages, span }),
        }
    }

    /// `keys = "?"? name ("," "?"? name)*`
    pub(super) fn keys(&mut self) -> Result<Vec<Key>> {
        let mut keys = vec![Key { field: self.field()? }];
        while self.eat(",") {
            keys.push(Key { field: self.field()? });
        }
        Ok(keys)
    }

    /// `maxspan = "maxspan" "=" integer unit`
    fn maxspan(&mut self) -> Result<Duration> {
        self.expect_word("maxspan")?;
        self.expect("=")?;
        let start = self.span();
        let negative = self.eat("-");
        let Token::Long(number) = self.advance() else {
            return Err(bad_maxspan(start, "expected a whole number and a unit"));
        };
        let after = self.span();
        let Token::Name { text: unit, tilde: false } = self.peek().clone() else {
            return Err(bad_maxspan(start.to(self.last_span()), "the unit is missing"));
        };
        self.advance();
        let span = start.to(after);
        let millis = match unit.as_str() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad_maxspan(span, &format!("unknown unit `{unit}`"))),
        };
        let millis = u64::try_from(number)
            .ok()
            .filter(|number| *number > 0 && !negative)
            .and_then(|n| n.checked_mul(millis));
        millis
            .map(Duration::from_millis)
            .ok_or_else(|| bad_maxspan(span, "the span must be longer than nothing"))
    }

    /// `stage = bracketed ("with" "runs" "=" integer)?`; the stage and its runs.
    pub(super) fn stage(&mut self) -> Result<(Stage, usize)> {
        let stage = self.bracketed()?;
        let runs = if self.eat_word("with") { self.runs()? } else { 1 };
        if let Some((_, span)) = stage.alias.as_ref().filter(|_| runs > 1) {
            let message = "a stage of several runs has no one event to name";
            return Err(Diagnostic::new(code::BAD_ALIAS, *span, message));
        }
        Ok((stage, runs))
    }

    /// `bracketed = ("[" | "![") filter "]" ("by" keys)? ("as" name)?`; `by` and `as` in any order.
    fn bracketed(&mut self) -> Result<Stage> {
        let start = self.span();
        let missing = self.at("![");
        if !missing && !self.at("[") {
            return Err(self.unexpected("`[`"));
        }
        self.advance();
        let filter = self.filter("`]`")?;
        self.expect("]")?;
        let span = start.to(self.last_span());
        let (mut by, mut alias) = (Vec::new(), None);
        loop {
            if by.is_empty() && self.eat_word("by") {
                by = self.keys()?;
            } else if alias.is_none() && self.eat_word("as") {
                alias = Some(self.alias()?);
            } else {
                break;
            }
        }
        Ok(Stage { missing, filter, by, alias, span })
    }

    fn alias(&mut self) -> Result<(String, Span)> {
        let span = self.span();
        let Token::Name { text, tilde: false } = self.peek().clone() else {
            return Err(self.unexpected("a name for the event, such as `event0`"));
        };
        self.advance();
        Ok((text, span))
    }

    fn runs(&mut self) -> Result<usize> {
        self.expect_word("runs")?;
        self.expect("=")?;
        let span = self.span();
        match self.advance() {
            Token::Long(runs) if (1..=STAGES_MAX as i64).contains(&runs) => Ok(runs as usize),
            _ => Err(Diagnostic::new(
                code::BAD_SEQUENCE,
                span,
                format!("runs must lie between 1 and {STAGES_MAX}"),
            )),
        }
    }

    /// A stage, or what could not be read of it, up to the next one.
    fn stage_or_wrong(
        &mut self,
        stage: impl FnOnce(&mut Self) -> Result<(Stage, usize)>,
    ) -> Result<(Stage, usize)> {
        let (open, start) = (self.open(), self.span());
        let fault = match stage(self) {
            Err(fault) => fault,
            read => return read,
        };
        self.recover(fault, open, |token| match token {
            Token::Symbol(symbol) => ["[", "![", "|"].contains(symbol),
            Token::Name { text, tilde: false } => text == "until",
            _ => false,
        })?;
        let span = start.to(self.last_span());
        let condition = Expr { kind: ExprKind::Wrong, span, parenthesized: false };
        let filter = Filter { category: None, category_span: span, condition };
        Ok((Stage { missing: false, filter, by: Vec::new(), alias: None, span }, 1))
    }
}

fn bad_maxspan(span: Span, message: &str) -> Diagnostic {
    Diagnostic::new(code::BAD_MAXSPAN, span, message)
        .help("write it like `maxspan=1m`; units are ms, s, m, h and d")
}

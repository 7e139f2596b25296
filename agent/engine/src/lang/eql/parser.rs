//! EQL tokens to AST: one function for each production, operators by one table.

use std::time::Duration;

use super::ast::{
    Arithmetic, Comparison, Expr, ExprKind, Filter, Key, Literal, Name, Operator, Pipe, Query, Sample,
    Sequence, Stage,
};
use super::lexer::Token;
use crate::lang::diagnostic::{Diagnostic, Span, code};
use crate::lang::query::Relation;
use crate::lang::tokens::Tokens;
use crate::lang::{NESTING_MAX, QUERY_BYTES_MAX, SAMPLE_STAGES_MAX, STAGES_MAX};

type Result<T> = std::result::Result<T, Diagnostic>;

/// Most entries of a list on the right of `in`, `:`, `like` and `regex`, and most arguments of a function.
const LIST_MAX: usize = 65_536;

/// A query and its pipes, and where each of these stands.
pub(super) type Read = (Query, Vec<(Pipe, Span)>);

/// Words that are no names of fields unless they stand in back quotes.
const KEYWORDS: &[&str] = &["and", "by", "in", "like", "not", "or", "regex", "until", "where", "with"];

/// Reads a whole query, as far as it could be understood, and what is wrong with it.
pub(super) fn parse(tokens: Vec<(Token, Span)>) -> (Option<Read>, Vec<Diagnostic>) {
    let mut parser = Parser::new(tokens, |token| match token {
        Token::Symbol("(" | "[" | "![") => 1,
        Token::Symbol(")" | "]") => -1,
        _ => 0,
    });
    let read = parser.whole();
    let mut faults = parser.into_faults();
    let read = read.map_err(|fault| faults.push(fault)).ok();
    (read, faults)
}

type Parser = Tokens<Token>;

/// How an infix operator binds: the higher, the tighter.
const OR: u8 = 1;
const AND: u8 = 2;
const PREDICATE: u8 = 4;
const SUM: u8 = 5;
const PRODUCT: u8 = 6;

enum Infix {
    Or,
    And,
    Compare(Comparison),
    Match(Operator),
    Arithmetic(Arithmetic),
}

impl Parser {
    fn at(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name { text, tilde: false } if text == word)
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let found = self.at(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, symbol: &'static str) -> Result<()> {
        if self.eat(symbol) { Ok(()) } else { Err(self.unexpected(&format!("`{symbol}`"))) }
    }

    fn expect_word(&mut self, word: &'static str) -> Result<()> {
        if self.eat_word(word) { Ok(()) } else { Err(self.unexpected(&format!("`{word}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> Diagnostic {
        let found = match self.peek() {
            Token::End => "the end of the query".to_owned(),
            Token::Name { text, tilde } => format!("`{text}{}`", if *tilde { "~" } else { "" }),
            Token::Quoted(text) => format!("`{text}`"),
            Token::Text(_) => "a string".to_owned(),
            Token::Long(_) | Token::Double(_) => "a number".to_owned(),
            Token::Symbol(symbol) => format!("`{symbol}`"),
        };
        self.expected(wanted, &found)
    }

    /// `whole = query pipe*`
    fn whole(&mut self) -> Result<Read> {
        let query = self.query()?;
        let mut pipes = Vec::new();
        while self.at("|") {
            pipes.push(self.pipe()?);
        }
        self.end()?;
        Ok((query, pipes))
    }

    /// `query = sequence | sample | filter`
    fn query(&mut self) -> Result<Query> {
        match self.peek() {
            Token::Name { text, tilde: false } if text == "sequence" => self.sequence().map(Query::Sequence),
            Token::Name { text, tilde: false } if text == "sample" => self.sample().map(Query::Sample),
            _ => self.filter("the end of the query").map(Query::Event),
        }
    }

    /// `pipe = "|" ("head" | "tail") integer`
    fn pipe(&mut self) -> Result<(Pipe, Span)> {
        let start = self.span();
        self.advance();
        let pipe = match self.peek() {
            Token::Name { text, tilde: false } if text == "head" => Pipe::Head,
            Token::Name { text, tilde: false } if text == "tail" => Pipe::Tail,
            _ => return Err(self.unexpected("`head` or `tail`").help("there are no other pipes")),
        };
        self.advance();
        let Token::Long(count) = self.peek() else { return Err(self.unexpected("a whole number")) };
        let count = u64::try_from(*count).unwrap_or(0);
        self.advance();
        Ok((pipe(count), start.to(self.last_span())))
    }

    fn end(&mut self) -> Result<()> {
        match self.peek() {
            Token::End => Ok(()),
            _ => Err(self.unexpected("an operator or the end of the query")),
        }
    }

    /// `sequence = "sequence" ("by" keys)? ("with" "maxspan" "=" span)? stage+ ("until" stage)?`; `by` and `with` in
    /// any order.
    fn sequence(&mut self) -> Result<Sequence> {
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
    fn sample(&mut self) -> Result<Sample> {
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
    fn keys(&mut self) -> Result<Vec<Key>> {
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
    fn stage(&mut self) -> Result<(Stage, usize)> {
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

    /// `filter = ("any" | name | string) "where" condition`, up to `end`.
    fn filter(&mut self, end: &str) -> Result<Filter> {
        let category = match self.peek().clone() {
            Token::Name { text, tilde: false } if text == "any" => None,
            Token::Name { text, tilde: false } | Token::Text(text) => Some(text),
            _ => return Err(self.unexpected("an event category or `any`")),
        };
        let category_span = self.span();
        self.advance();
        self.expect_word("where")?;
        Ok(Filter { category, category_span, condition: self.condition(end)? })
    }

    /// A condition up to `end`. Parts that cannot be parsed are reported and skipped.
    fn condition(&mut self, end: &str) -> Result<Expr> {
        let mut condition = self.part(0)?;
        while !matches!(self.peek(), Token::End | Token::Symbol("]" | ")" | "|")) {
            if !ends_part(self.peek()) {
                let fault = match self.peek() {
                    Token::Symbol("=") => self.unexpected("an operator").help("`==` compares"),
                    _ => self.unexpected(&format!("an operator or {end}")),
                };
                let open = self.open();
                self.advance();
                self.recover(fault, open, ends_part)?;
                // What goes on as no operator does is not understood, though it could be read up to there.
                spoil_last(&mut condition);
            }
            if ends_part(self.peek()) {
                self.advance();
                let more = self.part(0)?;
                condition = join(vec![condition, more], ExprKind::And);
            }
        }
        Ok(condition)
    }

    /// An expression, or what could not be read of it.
    fn part(&mut self, limit: u8) -> Result<Expr> {
        let (open, start) = (self.open(), self.span());
        self.expression(limit).or_else(|fault| {
            self.recover(fault, open, ends_part)?;
            Ok(Expr { kind: ExprKind::Wrong, span: start.to(self.last_span()), parenthesized: false })
        })
    }

    /// An expression of operators that bind tighter than `limit`.
    fn expression(&mut self, limit: u8) -> Result<Expr> {
        let mut left = self.prefix()?;
        let mut chained = 0;
        loop {
            let (negated, ahead) = (self.at_word("not"), usize::from(self.at_word("not")));
            let Some((infix, power)) = self.infix(ahead).filter(|(_, power)| *power > limit) else {
                return Ok(left);
            };
            if negated && !matches!(infix, Infix::Match(_)) {
                return Ok(left);
            }
            // `and` and `or` make lists; everything else nests to the left.
            chained += usize::from(!matches!(infix, Infix::And | Infix::Or));
            if chained > NESTING_MAX {
                return Err(self.too_deep());
            }
            for _ in 0..=ahead {
                self.advance();
            }
            left = match infix {
                Infix::Or => self.chain(left, OR)?,
                Infix::And => self.chain(left, AND)?,
                Infix::Match(operator) => self.matching(left, operator, negated)?,
                Infix::Compare(comparison) => {
                    let right = self.expression(PREDICATE)?;
                    if matches!(self.infix(0), Some((Infix::Compare(_), _))) {
                        return Err(self.unexpected("`and`, `or` or the end: comparisons do not chain"));
                    }
                    joined(left, right, |l, r| ExprKind::Compare(comparison, l, r))
                }
                Infix::Arithmetic(operator) => {
                    let right = self.deeper(|parser| parser.expression(power))?;
                    joined(left, right, |l, r| ExprKind::Arithmetic(operator, l, r))
                }
            };
        }
    }

    /// The infix operator that stands `ahead` tokens further, and how it binds.
    fn infix(&self, ahead: usize) -> Option<(Infix, u8)> {
        let compare = |comparison| (Infix::Compare(comparison), PREDICATE);
        let arithmetic = |operator, power| (Infix::Arithmetic(operator), power);
        Some(match self.peek_at(ahead)? {
            Token::Name { text, tilde } => match (text.as_str(), *tilde) {
                ("or", false) => (Infix::Or, OR),
                ("and", false) => (Infix::And, AND),
                ("in", insensitive) => (Infix::Match(Operator::In { insensitive }), PREDICATE),
                ("like", insensitive) => (Infix::Match(Operator::Like { insensitive }), PREDICATE),
                ("regex", insensitive) => (Infix::Match(Operator::Regex { insensitive }), PREDICATE),
                _ => return None,
            },
            Token::Symbol(symbol) => match *symbol {
                ":" => (Infix::Match(Operator::Like { insensitive: true }), PREDICATE),
                "==" => compare(Comparison::Equal),
                "!=" => compare(Comparison::NotEqual),
                "<" => compare(Comparison::Less),
                "<=" => compare(Comparison::LessOrEqual),
                ">" => compare(Comparison::Greater),
                ">=" => compare(Comparison::GreaterOrEqual),
                "+" => arithmetic(Arithmetic::Add, SUM),
                "-" => arithmetic(Arithmetic::Subtract, SUM),
                "*" => arithmetic(Arithmetic::Multiply, PRODUCT),
                "/" => arithmetic(Arithmetic::Divide, PRODUCT),
                "%" => arithmetic(Arithmetic::Modulo, PRODUCT),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The rest of `left and …` or `left or …`, its first operator having been read: however many there are, they
    /// are one list and not nested.
    fn chain(&mut self, left: Expr, power: u8) -> Result<Expr> {
        let word = if power == AND { "and" } else { "or" };
        let mut parts = vec![left, self.part(power)?];
        while self.eat_word(word) {
            parts.push(self.part(power)?);
        }
        Ok(join(parts, if power == AND { ExprKind::And } else { ExprKind::Or }))
    }

    /// The constants on the right of `in`, `:`, `like` and `regex`.
    fn matching(&mut self, value: Expr, operator: Operator, negated: bool) -> Result<Expr> {
        let list = if self.eat("(") {
            let list = self.list()?;
            self.expect(")")?;
            list
        } else if matches!(operator, Operator::In { .. }) {
            return Err(self.unexpected("`(`"));
        } else {
            vec![self.expression(PREDICATE)?]
        };
        let span = value.span.to(self.last_span());
        let kind = ExprKind::Match { operator, value: Box::new(value), list, negated };
        Ok(Expr { kind, span, parenthesized: false })
    }

    fn list(&mut self) -> Result<Vec<Expr>> {
        let mut list = vec![self.deeper(|parser| parser.expression(0))?];
        while self.eat(",") {
            if list.len() == LIST_MAX {
                let message = format!("a list may have {LIST_MAX} entries");
                return Err(Diagnostic::new(code::TOO_LONG, self.span(), message));
            }
            list.push(self.deeper(|parser| parser.expression(0))?);
        }
        Ok(list)
    }

    /// `prefix = "not" expression | ("-" | "+") prefix | primary`
    fn prefix(&mut self) -> Result<Expr> {
        let start = self.span();
        if self.eat_word("not") {
            let inner = self.deeper(|parser| parser.expression(AND))?;
            let span = start.to(self.last_span());
            return Ok(Expr { kind: ExprKind::Not(Box::new(inner)), span, parenthesized: false });
        }
        if self.eat("+") {
            return self.deeper(Self::prefix);
        }
        if self.eat("-") {
            let inner = self.deeper(Self::prefix)?;
            let span = start.to(self.last_span());
            let kind = match inner.kind {
                ExprKind::Literal(Literal::Long(number)) => ExprKind::Literal(Literal::Long(-number)),
                ExprKind::Literal(Literal::Double(number)) => ExprKind::Literal(Literal::Double(-number)),
                _ => ExprKind::Negative(Box::new(inner)),
            };
            return Ok(Expr { kind, span, parenthesized: false });
        }
        self.primary()
    }

    /// `primary = "(" expression ")" | constant | name "(" list? ")" | relation "of" "[" filter "]" | field`
    fn primary(&mut self) -> Result<Expr> {
        let start = self.span();
        if self.eat("(") {
            let mut inner = self.deeper(|parser| parser.condition("`)`"))?;
            self.expect(")")?;
            inner.parenthesized = true;
            return Ok(inner);
        }
        let kind = match self.peek().clone() {
            Token::Text(text) => ExprKind::Literal(Literal::Text(text)),
            Token::Long(number) => ExprKind::Literal(Literal::Long(number)),
            Token::Double(number) => ExprKind::Literal(Literal::Double(number)),
            Token::Name { text, tilde: false } if text == "null" => ExprKind::Literal(Literal::Null),
            Token::Name { text, tilde: false } if text == "true" => ExprKind::Literal(Literal::Boolean(true)),
            Token::Name { text, tilde: false } if text == "false" => {
                ExprKind::Literal(Literal::Boolean(false))
            }
            Token::Name { text, tilde } if tilde || self.follows("(") => return self.call(text, tilde),
            Token::Name { text, .. } if self.follows_word("of") => return self.related(&text),
            Token::Name { .. } | Token::Quoted(_) | Token::Symbol("?") => {
                let field = self.field()?;
                let span = field.span;
                return Ok(Expr { kind: ExprKind::Field(field), span, parenthesized: false });
            }
            _ => return Err(self.unexpected("a field, a constant or `(`")),
        };
        self.advance();
        Ok(Expr { kind, span: start, parenthesized: false })
    }

    fn related(&mut self, word: &str) -> Result<Expr> {
        let start = self.span();
        let Some((relation, _)) = Relation::ALL.into_iter().find(|(_, known)| *known == word) else {
            return Err(self.unexpected("`event of`, `child of` or `descendant of`"));
        };
        self.advance();
        self.advance();
        self.expect("[")?;
        let filter = self.deeper(|parser| parser.filter("`]`"))?;
        self.expect("]")?;
        let kind = ExprKind::Related(relation, Box::new(filter));
        Ok(Expr { kind, span: start.to(self.last_span()), parenthesized: false })
    }

    fn follows(&self, symbol: &str) -> bool {
        matches!(self.peek_at(1), Some(Token::Symbol(found)) if *found == symbol)
    }

    fn follows_word(&self, word: &str) -> bool {
        matches!(self.peek_at(1), Some(Token::Name { text, .. }) if text == word)
    }

    fn call(&mut self, name: String, insensitive: bool) -> Result<Expr> {
        let start = self.span();
        self.advance();
        self.expect("(")?;
        let arguments = if self.at(")") { Vec::new() } else { self.list()? };
        self.expect(")")?;
        let span = start.to(self.last_span());
        Ok(Expr { kind: ExprKind::Call { name, insensitive, arguments }, span, parenthesized: false })
    }

    /// `field = "?"? part ("." part)*`, a part being a name or a name in back quotes.
    fn field(&mut self) -> Result<Name> {
        let start = self.span();
        let optional = self.eat("?");
        let mut text = String::new();
        loop {
            match self.peek().clone() {
                Token::Name { text: part, tilde: false }
                    if text.is_empty() && KEYWORDS.contains(&part.as_str()) =>
                {
                    return Err(self
                        .unexpected("the name of a field")
                        .help("a field of this name stands in back quotes"));
                }
                Token::Name { text: part, tilde: false } | Token::Quoted(part) => text.push_str(&part),
                _ => return Err(self.unexpected("the name of a field")),
            }
            self.advance();
            if !self.eat(".") {
                break;
            }
            text.push('.');
        }
        Ok(Name { text, optional, span: start.to(self.last_span()) })
    }
}

/// Makes the last part of a condition one that could not be read.
fn spoil_last(condition: &mut Expr) {
    match &mut condition.kind {
        ExprKind::And(parts) | ExprKind::Or(parts) if !condition.parenthesized => {
            parts.last_mut().into_iter().for_each(spoil_last);
        }
        kind => *kind = ExprKind::Wrong,
    }
}

/// Whether a part of a condition ends before a token.
fn ends_part(token: &Token) -> bool {
    match token {
        Token::Name { text, tilde: false } => text == "and" || text == "or",
        Token::Symbol(symbol) => *symbol == "|",
        _ => false,
    }
}

/// A list of parts, which is not empty.
fn join(parts: Vec<Expr>, kind: fn(Vec<Expr>) -> ExprKind) -> Expr {
    let span = parts[0].span.to(parts[parts.len() - 1].span);
    Expr { kind: kind(parts), span, parenthesized: false }
}

fn bad_maxspan(span: Span, message: &str) -> Diagnostic {
    Diagnostic::new(code::BAD_MAXSPAN, span, message)
        .help("write it like `maxspan=1m`; units are ms, s, m, h and d")
}

fn joined(left: Expr, right: Expr, kind: impl FnOnce(Box<Expr>, Box<Expr>) -> ExprKind) -> Expr {
    let span = left.span.to(right.span);
    Expr { kind: kind(Box::new(left), Box::new(right)), span, parenthesized: false }
}

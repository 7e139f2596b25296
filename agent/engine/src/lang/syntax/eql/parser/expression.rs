//! Conditions and expressions, by the binding powers of their operators.

use super::super::ast::{Expr, ExprKind, Literal, Name, Operator};
use super::super::lexer::Token;
use super::{KEYWORDS, LIST_MAX, Parser, Result};
use crate::lang::NESTING_MAX;
use crate::lang::diagnostic::{Diagnostic, code};
use crate::lang::operator::{Arithmetic, Comparison, Relation};

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
    /// A condition up to `end`. Parts that cannot be parsed are reported and skipped.
    pub(super) fn condition(&mut self, end: &str) -> Result<Expr> {
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
    pub(super) fn expression(&mut self, limit: u8) -> Result<Expr> {
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
    pub(super) fn chain(&mut self, left: Expr, power: u8) -> Result<Expr> {
        let word = if power == AND { "and" } else { "or" };
        let mut parts = vec![left, self.part(power)?];
        while self.eat_word(word) {
            parts.push(self.part(power)?);
        }
        Ok(join(parts, if power == AND { ExprKind::And } else { ExprKind::Or }))
    }

    /// The constants on the right of `in`, `:`, `like` and `regex`.
    pub(super) fn matching(&mut self, value: Expr, operator: Operator, negated: bool) -> Result<Expr> {
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

    pub(super) fn related(&mut self, word: &str) -> Result<Expr> {
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

    pub(super) fn call(&mut self, name: String, insensitive: bool) -> Result<Expr> {
        let start = self.span();
        self.advance();
        self.expect("(")?;
        let arguments = if self.at(")") { Vec::new() } else { self.list()? };
        self.expect(")")?;
        let span = start.to(self.last_span());
        Ok(Expr { kind: ExprKind::Call { name, insensitive, arguments }, span, parenthesized: false })
    }

    /// `field = "?"? part ("." part)*`, a part being a name or a name in back quotes.
    pub(super) fn field(&mut self) -> Result<Name> {
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

fn joined(left: Expr, right: Expr, kind: impl FnOnce(Box<Expr>, Box<Expr>) -> ExprKind) -> Expr {
    let span = left.span.to(right.span);
    Expr { kind: kind(Box::new(left), Box::new(right)), span, parenthesized: false }
}

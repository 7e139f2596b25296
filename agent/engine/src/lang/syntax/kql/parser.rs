//! KQL tokens to AST: one function for each production of Kibana's grammar.

use super::ast::{Literal, Query, QueryKind};
use super::lexer::{Token, tokens};
use crate::lang::Found;
use crate::lang::diagnostic::Diagnostic;
use crate::lang::operator::Comparison;
use crate::lang::tokens::Tokens;
use crate::lang::wildcard::{Wildcard, WildcardPart};

type Result<T> = std::result::Result<T, Diagnostic>;

/// Reads a whole query, as far as it could be understood, and what is wrong with it.
pub(in crate::lang) fn read(text: &str) -> Found<Query> {
    let bracket = |token: &Token| match token {
        Token::Symbol("(" | "{") => 1,
        Token::Symbol(")" | "}") => -1,
        _ => 0,
    };
    Parser::read(text, tokens, bracket, Parser::whole)
}

type Parser = Tokens<Token>;

/// What a list of conditions is made of: clauses, or values of one field.
type Item<'a> = &'a mut dyn FnMut(&mut Parser) -> Result<Query>;

impl Parser {
    fn eat(&mut self, token: &Token) -> bool {
        let found = self.peek() == token;
        if found {
            self.advance();
        }
        found
    }

    fn unexpected(&self, wanted: &str) -> Diagnostic {
        let found = match self.peek() {
            Token::End => "the end of the query".to_owned(),
            Token::And => "`and`".to_owned(),
            Token::Or => "`or`".to_owned(),
            Token::Not => "`not`".to_owned(),
            Token::Word(_) | Token::Quoted(_) => "a value".to_owned(),
            Token::Symbol(symbol) => format!("`{symbol}`"),
        };
        self.expected(wanted, &found)
    }

    /// `whole = list?`
    fn whole(&mut self) -> Result<Query> {
        if *self.peek() == Token::End {
            return Ok(Query { kind: QueryKind::Everything, span: self.span(), parenthesized: false });
        }
        let mut query = self.list(&mut Self::clause)?;
        while *self.peek() != Token::End {
            let (fault, open) = (self.unexpected("`and`, `or` or the end of the query"), self.open());
            self.advance();
            self.recover(fault, open, ends_part)?;
            if ends_part(self.peek()) {
                self.advance();
                let more = self.list(&mut Self::clause)?;
                let span = query.span.to(more.span);
                query = Query { kind: QueryKind::And(vec![query, more]), span, parenthesized: false };
            }
        }
        Ok(query)
    }

    /// `list = conjunction ("or" conjunction)*`
    fn list(&mut self, item: Item<'_>) -> Result<Query> {
        self.joined(&Token::Or, QueryKind::Or, &mut |parser| parser.conjunction(item))
    }

    /// `conjunction = negation ("and" negation)*`
    fn conjunction(&mut self, item: Item<'_>) -> Result<Query> {
        self.joined(&Token::And, QueryKind::And, &mut |parser| parser.negation(item))
    }

    fn joined(&mut self, word: &Token, kind: fn(Vec<Query>) -> QueryKind, part: Item<'_>) -> Result<Query> {
        let first = part(self)?;
        if self.peek() != word {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.eat(word) {
            parts.push(part(self)?);
        }
        let span = parts[0].span.to(self.last_span());
        Ok(Query { kind: kind(parts), span, parenthesized: false })
    }

    /// `negation = "not" item | item`
    fn negation(&mut self, item: Item<'_>) -> Result<Query> {
        let start = self.span();
        if !self.eat(&Token::Not) {
            return self.part(item);
        }
        let inner = self.deeper(|parser| parser.part(item))?;
        let span = start.to(self.last_span());
        Ok(Query { kind: QueryKind::Not(Box::new(inner)), span, parenthesized: false })
    }

    /// An item, or what could not be read of it.
    fn part(&mut self, item: Item<'_>) -> Result<Query> {
        let (open, start) = (self.open(), self.span());
        item(self).or_else(|fault| {
            self.recover(fault, open, ends_part)?;
            Ok(Query { kind: QueryKind::Wrong, span: start.to(self.last_span()), parenthesized: false })
        })
    }

    fn in_parentheses(&mut self, item: Item<'_>) -> Result<Query> {
        let mut inner = self.deeper(|parser| parser.list(item))?;
        if !self.eat(&Token::Symbol(")")) {
            return Err(self.unexpected("`)`"));
        }
        inner.parenthesized = true;
        Ok(inner)
    }

    /// `clause = "(" list ")" | field ":" values | field ":" "{" list "}" | field range value | value`
    fn clause(&mut self) -> Result<Query> {
        if self.eat(&Token::Symbol("(")) {
            return self.in_parentheses(&mut Self::clause);
        }
        let field = self.literal("a field or `(`")?;
        let Token::Symbol(symbol) = *self.peek() else { return Ok(free_text(field)) };
        let comparison = match symbol {
            ":" => None,
            "<" => Some(Comparison::Less),
            "<=" => Some(Comparison::LessOrEqual),
            ">" => Some(Comparison::Greater),
            ">=" => Some(Comparison::GreaterOrEqual),
            _ => return Ok(free_text(field)),
        };
        self.advance();
        match comparison {
            None if self.eat(&Token::Symbol("{")) => {
                let inner = self.deeper(|parser| parser.list(&mut Self::clause))?;
                if !self.eat(&Token::Symbol("}")) {
                    return Err(self.unexpected("`}`"));
                }
                let span = field.span.to(self.last_span());
                let kind = QueryKind::Group(field, Box::new(inner));
                Ok(Query { kind, span, parenthesized: false })
            }
            None => {
                let mut values = self.values(&field)?;
                values.span = field.span.to(values.span);
                Ok(values)
            }
            Some(comparison) => {
                let value = self.literal("a value")?;
                let span = field.span.to(value.span);
                Ok(Query { kind: QueryKind::Range(field, comparison, value), span, parenthesized: false })
            }
        }
    }

    /// `values = "(" list of values ")" | value`
    fn values(&mut self, field: &Literal) -> Result<Query> {
        if self.eat(&Token::Symbol("(")) {
            return self.in_parentheses(&mut |parser| parser.values(field));
        }
        let value = self.literal("a value")?;
        let span = value.span;
        Ok(Query { kind: QueryKind::Is(field.clone(), value), span, parenthesized: false })
    }

    /// `literal = quoted | word+`: words up to a keyword or symbol are one text with its blanks.
    fn literal(&mut self, wanted: &str) -> Result<Literal> {
        let start = self.span();
        match self.peek().clone() {
            Token::Quoted(text) => {
                self.advance();
                return Ok(Literal { text, quoted: true, span: start });
            }
            Token::Word(_) => {}
            _ => return Err(self.unexpected(wanted)),
        }
        let mut parts: Vec<WildcardPart> = Vec::new();
        while let Token::Word(word) = self.peek().clone() {
            if !parts.is_empty() {
                let blanks = self.span().start - self.last_span().end;
                push(&mut parts, WildcardPart::Text(" ".repeat(blanks).into()));
            }
            word.0.into_iter().for_each(|part| push(&mut parts, part));
            self.advance();
        }
        Ok(Literal { text: Wildcard(parts), quoted: false, span: start.to(self.last_span()) })
    }
}

/// Whether a part of a query ends before a token.
fn ends_part(token: &Token) -> bool {
    matches!(token, Token::And | Token::Or)
}

/// Appends a part, texts next to each other becoming one.
fn push(parts: &mut Vec<WildcardPart>, part: WildcardPart) {
    if let (Some(WildcardPart::Text(before)), WildcardPart::Text(after)) = (parts.last_mut(), &part) {
        *before = smol_str::format_smolstr!("{before}{after}");
    } else {
        parts.push(part);
    }
}

fn free_text(literal: Literal) -> Query {
    let span = literal.span;
    Query { kind: QueryKind::Text(literal), span, parenthesized: false }
}

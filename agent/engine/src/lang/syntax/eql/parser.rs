//! EQL tokens to AST: one function for each production, operators by one table.

mod expression;
mod stages;

use super::ast::{Filter, Pipe, Query};
use super::lexer::{Token, tokens};
use crate::lang::Found;
use crate::lang::diagnostic::{Diagnostic, Span};
use crate::lang::tokens::Tokens;

type Result<T> = std::result::Result<T, Diagnostic>;

/// Most entries of a list on the right of `in`, `:`, `like` and `regex`, and most arguments of a function.
const LIST_MAX: usize = 65_536;

/// A query and its pipes, and where each of these stands.
pub(in crate::lang) type Read = (Query, Vec<(Pipe, Span)>);

/// Words that are no names of fields unless they stand in back quotes.
const KEYWORDS: &[&str] = &["and", "by", "in", "like", "not", "or", "regex", "until", "where", "with"];

/// Reads a whole query, as far as it could be understood, and what is wrong with it.
pub(in crate::lang) fn read(text: &str) -> Found<Read> {
    let bracket = |token: &Token| match token {
        Token::Symbol("(" | "[" | "![") => 1,
        Token::Symbol(")" | "]") => -1,
        _ => 0,
    };
    Parser::read(text, tokens, bracket, Parser::whole)
}

type Parser = Tokens<Token>;

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
}

//! Lucene's syntax: one function for each production of its grammar.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::RegexError;
use super::ast::Ast;
use super::interval::interval;
use crate::lang::NESTING_MAX;

type Result<T> = std::result::Result<T, RegexError>;

/// Most times that something may be repeated by a number.
const REPEAT_MAX: u32 = 1000;

/// The classes that have letters of their own; in upper case they stand for all other characters.
const SHORTHANDS: &[(char, &[(char, char)])] = &[
    ('d', &[('0', '9')]),
    ('s', &[('\t', '\n'), ('\r', '\r'), (' ', ' ')]),
    ('w', &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
];

/// Reads a whole expression.
pub(super) fn parse(pattern: &str, insensitive: bool) -> Result<Ast> {
    let mut parser = Parser { rest: pattern.chars().collect(), next: 0, depth: 0, insensitive };
    if parser.rest.is_empty() {
        return Ok(Ast::Empty);
    }
    let ast = parser.union()?;
    match parser.peek() {
        None => Ok(ast),
        Some(_) => Err(parser.wrong("`)` closes nothing; write `\\)` for the character")),
    }
}

struct Parser {
    rest: Vec<char>,
    next: usize,
    depth: usize,
    insensitive: bool,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.next).copied()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.next += usize::from(found);
        found
    }

    fn bump(&mut self, wanted: &str) -> Result<char> {
        let found = self.peek().ok_or_else(|| self.wrong(&format!("expected {wanted}, found the end")))?;
        self.next += 1;
        Ok(found)
    }

    fn wrong(&self, message: &str) -> RegexError {
        RegexError::Syntax { message: message.to_owned(), place: self.next.min(self.rest.len()) + 1 }
    }

    fn deeper(&mut self, production: impl FnOnce(&mut Self) -> Result<Ast>) -> Result<Ast> {
        if self.depth == NESTING_MAX {
            return Err(self.wrong(&format!("nested more than {NESTING_MAX} deep")));
        }
        self.depth += 1;
        let result = production(self);
        self.depth -= 1;
        result
    }

    /// `union = intersection ("|" intersection)*`
    fn union(&mut self) -> Result<Ast> {
        self.separated('|', Ast::Union, Self::intersection)
    }

    /// `intersection = concat ("&" concat)*`
    fn intersection(&mut self) -> Result<Ast> {
        self.separated('&', Ast::Intersection, Self::concat)
    }

    fn separated(
        &mut self,
        mark: char,
        kind: fn(Vec<Ast>) -> Ast,
        part: fn(&mut Self) -> Result<Ast>,
    ) -> Result<Ast> {
        let first = part(self)?;
        if self.peek() != Some(mark) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.eat(mark) {
            parts.push(part(self)?);
        }
        Ok(kind(parts))
    }

    /// `concat = repeat+`
    fn concat(&mut self) -> Result<Ast> {
        let mut parts = vec![self.repeat()?];
        while self.peek().is_some_and(|c| !matches!(c, '|' | '&' | ')')) {
            parts.push(self.repeat()?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Ast::Concat(parts) })
    }

    /// `repeat = complement ("?" | "*" | "+" | "{" n ("," m?)? "}")*`
    fn repeat(&mut self) -> Result<Ast> {
        let mut ast = self.complement()?;
        let mut count = 0;
        while let Some(mark @ ('?' | '*' | '+' | '{')) = self.peek() {
            count += 1;
            if count > NESTING_MAX {
                return Err(self.wrong(&format!("nested more than {NESTING_MAX} deep")));
            }
            self.next += 1;
            let (min, max) = match mark {
                '?' => (0, Some(1)),
                '*' => (0, None),
                '+' => (1, None),
                _ => self.counts()?,
            };
            ast = Ast::Repeat { inner: Box::new(ast), min, max };
        }
        Ok(ast)
    }

    /// `n ("," m?)? "}"`
    fn counts(&mut self) -> Result<(u32, Option<u32>)> {
        let min = self.count()?;
        let max = match self.eat(',') {
            false => Some(min),
            true if self.peek() == Some('}') => None,
            true => Some(self.count()?),
        };
        if !self.eat('}') {
            return Err(self.wrong("expected `}`"));
        }
        match max {
            Some(max) if max < min => Err(self.wrong("the counts of `{n,m}` are in the wrong order")),
            max => Ok((min, max)),
        }
    }

    fn count(&mut self) -> Result<u32> {
        let digits = self.digits();
        if digits.is_empty() {
            return Err(self.wrong("expected a number after `{`; write `\\{` for the character"));
        }
        match digits.parse() {
            Ok(count) if count <= REPEAT_MAX => Ok(count),
            _ => Err(self.wrong(&format!("at most {REPEAT_MAX} repetitions can be counted"))),
        }
    }

    fn digits(&mut self) -> String {
        let digits: String = self.rest[self.next..].iter().take_while(|c| c.is_ascii_digit()).collect();
        self.next += digits.len();
        digits
    }

    /// `complement = "~" complement | "[" "^"? class+ "]" | simple`
    fn complement(&mut self) -> Result<Ast> {
        if self.eat('~') {
            return self.deeper(Self::complement).map(|inner| Ast::Complement(Box::new(inner)));
        }
        if !self.eat('[') {
            return self.simple();
        }
        let negated = self.eat('^');
        let mut class = self.class()?;
        while self.peek().is_some_and(|c| c != ']') {
            class.union(&self.class()?);
        }
        if !self.eat(']') {
            return Err(self.wrong("the class `[…` never ends"));
        }
        self.fold(&mut class);
        if negated {
            class.negate();
        }
        Ok(Ast::Class(class))
    }

    /// `class = "\" shorthand | character ("-" character)?`
    fn class(&mut self) -> Result<ClassUnicode> {
        if let Some(class) = self.shorthand()? {
            return Ok(class);
        }
        let start = self.character("a character and `]`")?;
        let end = if self.eat('-') { self.character("the end of the range")? } else { start };
        if start > end {
            return Err(self.wrong(&format!("the range `{start}-{end}` runs backwards")));
        }
        Ok(ClassUnicode::new([ClassUnicodeRange::new(start, end)]))
    }

    /// A backslash and a letter: one of the classes with letters of their own. No other letter may be escaped.
    fn shorthand(&mut self) -> Result<Option<ClassUnicode>> {
        let letter = self.rest.get(self.next + 1).copied().filter(char::is_ascii_alphabetic);
        let (Some('\\'), Some(letter)) = (self.peek(), letter) else { return Ok(None) };
        let Some((_, ranges)) = SHORTHANDS.iter().find(|(known, _)| *known == letter.to_ascii_lowercase())
        else {
            return Err(self.wrong(&format!(
                "there is no class `\\{letter}`; classes are \\d, \\s, \\w and their upper case"
            )));
        };
        self.next += 2;
        let mut class =
            ClassUnicode::new(ranges.iter().map(|(start, end)| ClassUnicodeRange::new(*start, *end)));
        if letter.is_ascii_uppercase() {
            class.negate();
        }
        Ok(Some(class))
    }

    /// A character by itself or after a backslash.
    fn character(&mut self, wanted: &str) -> Result<char> {
        if self.eat('\\') {
            return self.bump("a character after the backslash");
        }
        self.bump(wanted)
    }

    /// `simple = "." | "#" | "@" | "(" union? ")" | '"' text '"' | "<" n "-" m ">" | shorthand | character`
    fn simple(&mut self) -> Result<Ast> {
        if let Some(class) = self.shorthand()? {
            return Ok(Ast::Class(class));
        }
        match self.peek() {
            Some(mark @ ('?' | '*' | '+' | '{')) => Err(self.wrong(&format!(
                "nothing stands before `{mark}` to repeat; write `\\{mark}` for the character"
            ))),
            Some('|' | '&' | ')') | None => Err(self.wrong("expected something to match")),
            Some('.') => self.taken(Ast::any()),
            Some('#') => self.taken(Ast::Nothing),
            Some('@') => self.taken(Ast::anything()),
            Some('(') => self.group(),
            Some('"') => self.text(),
            Some('<') => self.interval(),
            Some(_) => self.character("a character").map(|c| self.literal(c)),
        }
    }

    fn taken(&mut self, ast: Ast) -> Result<Ast> {
        self.next += 1;
        Ok(ast)
    }

    fn group(&mut self) -> Result<Ast> {
        let start = self.next;
        self.next += 1;
        if self.eat(')') {
            return Ok(Ast::Empty);
        }
        let inner = self.deeper(Self::union)?;
        if !self.eat(')') {
            self.next = start;
            return Err(self.wrong("`(` is never closed"));
        }
        Ok(inner)
    }

    fn text(&mut self) -> Result<Ast> {
        let start = self.next;
        self.next += 1;
        let mut parts = Vec::new();
        loop {
            match self.peek() {
                Some('"') => return self.taken(Ast::Concat(parts)),
                Some(c) => parts.push(self.literal(c)),
                None => {
                    self.next = start;
                    return Err(self.wrong("the quotation mark is never closed"));
                }
            }
            self.next += 1;
        }
    }

    fn interval(&mut self) -> Result<Ast> {
        let start = self.next;
        self.next += 1;
        let low = self.digits();
        let dash = self.eat('-');
        let high = self.digits();
        let found = interval(&low, &high).filter(|_| dash && self.eat('>'));
        found.ok_or_else(|| {
            self.next = start;
            self.wrong("expected an interval such as `<1-100>`; write `\\<` for the character")
        })
    }

    fn literal(&self, c: char) -> Ast {
        let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
        self.fold(&mut class);
        Ast::Class(class)
    }

    fn fold(&self, class: &mut ClassUnicode) {
        if self.insensitive {
            class.case_fold_simple();
        }
    }
}

//! Queries as words: the source tokens of either language, each with the space and the comments before it.

use crate::lang::diagnostic::Span;
use crate::lang::syntax::eql::lexer::{Token as Eql, tokens as eql_tokens};
use crate::lang::syntax::kql::lexer::{Token as Kql, tokens as kql_tokens};

/// A token in its source form.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) kind: WordKind,
    pub(super) text: String,
    /// Whether a blank separates it from the previous word on the same line.
    pub(super) apart: bool,
    /// The comments between the previous word and it.
    pub(super) comments: Vec<Comment>,
}

/// The role of a word in the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WordKind {
    /// Part of a condition or of a list's item.
    Plain,
    /// An operator between two operands.
    Join(Join),
    /// The end of a filter's head.
    Where,
    /// `until`.
    Until,
    /// `|`.
    Pipe,
    /// `(` or `{` before conditions. Many conditions are on lines of their own.
    Open,
    /// `(` before a list of constants. The list fills lines.
    OpenList,
    /// `[` or `![` before a filter.
    OpenFilter,
    /// `)`, `]` or `}`.
    Close,
    /// The end of the query.
    End,
}

/// The operators between operands, the loosest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Join {
    /// `,`
    Comma,
    /// `or`
    Or,
    /// `and`
    And,
}

/// A comment.
#[derive(Clone, Debug)]
pub(super) struct Comment {
    pub(super) text: String,
    /// Whether it is on the line of the previous word.
    pub(super) trails: bool,
    pub(super) span: Span,
}

/// Words of EQL before a list or a condition in parentheses. Every other name before `(` is a function.
const KEYWORDS: &[&str] = &["and", "by", "in", "like", "not", "or", "regex", "until", "where", "with"];

/// Units of a time span.
const UNITS: &[&str] = &["ms", "s", "m", "h", "d"];

/// The words of a valid EQL query. The last one is the end.
pub(super) fn eql(text: &str) -> Vec<Word> {
    let (tokens, _) = eql_tokens(text);
    let mut words: Vec<Word> = Vec::with_capacity(tokens.len());
    let mut before = 0;
    for (index, (token, span)) in tokens.iter().enumerate() {
        let previous = index.checked_sub(1).map(|index| &tokens[index].0);
        let earlier = index.checked_sub(2).map(|index| &tokens[index].0);
        words.push(Word {
            kind: eql_kind(previous, token),
            text: text[span.start..span.end].to_owned(),
            apart: previous.is_some_and(|previous| eql_apart(earlier, previous, token)),
            comments: comments(text, before, span.start),
        });
        before = span.end;
    }
    words
}

/// The words of a typed query. They are those of EQL, but its blanks are already normalized. `None` if a part of it is
/// not a word of EQL.
pub(super) fn typed(text: &str) -> Option<Vec<Word>> {
    let (tokens, faults) = eql_tokens(text);
    let mut words = eql(text);
    let mut before = 0;
    for (word, (_, span)) in words.iter_mut().zip(&tokens) {
        word.apart = span.start > before;
        before = span.end;
    }
    faults.is_empty().then_some(words)
}

fn eql_kind(previous: Option<&Eql>, token: &Eql) -> WordKind {
    // Next to a dot, the words of the language are names of fields.
    let is_name = previous == Some(&Eql::Symbol("."));
    match token {
        Eql::Name { text, tilde: false } if !is_name => match text.as_str() {
            "and" => WordKind::Join(Join::And),
            "or" => WordKind::Join(Join::Or),
            "where" => WordKind::Where,
            "until" => WordKind::Until,
            _ => WordKind::Plain,
        },
        Eql::Symbol(symbol) => match *symbol {
            "," => WordKind::Join(Join::Comma),
            "|" => WordKind::Pipe,
            "(" if eql_opens_list(previous) => WordKind::OpenList,
            "(" => WordKind::Open,
            "[" | "![" => WordKind::OpenFilter,
            ")" | "]" => WordKind::Close,
            _ => WordKind::Plain,
        },
        Eql::End => WordKind::End,
        _ => WordKind::Plain,
    }
}

fn eql_opens_list(previous: Option<&Eql>) -> bool {
    match previous {
        Some(Eql::Symbol(symbol)) => *symbol == ":",
        Some(Eql::Name { text, .. }) => {
            matches!(text.as_str(), "in" | "like" | "regex") || is_function(previous)
        }
        _ => false,
    }
}

fn is_function(token: Option<&Eql>) -> bool {
    matches!(token, Some(Eql::Name { text, .. }) if !KEYWORDS.contains(&text.as_str()))
}

fn eql_apart(earlier: Option<&Eql>, previous: &Eql, token: &Eql) -> bool {
    match (previous, token) {
        (_, Eql::Symbol("," | "." | ")" | "]" | "=") | Eql::End)
        | (Eql::Symbol("." | "?" | "(" | "[" | "![" | "="), _) => false,
        (previous, Eql::Symbol("(")) => !is_function(Some(previous)),
        // A sign and its number, a time span and its unit.
        (Eql::Symbol("-" | "+"), _) => !matches!(
            earlier,
            None | Some(Eql::Symbol(
                "(" | "," | "==" | "!=" | "<" | "<=" | ">" | ">=" | ":" | "+" | "-" | "*" | "/" | "%" | "="
            ))
        ),
        (Eql::Long(_), Eql::Name { text, .. }) => !UNITS.contains(&text.as_str()),
        _ => true,
    }
}

/// The comments in a text that has only comments and blanks.
fn comments(text: &str, start: usize, end: usize) -> Vec<Comment> {
    let mut found = Vec::new();
    // Comments before the first word have lines of their own.
    let mut trails = start > 0;
    let mut at = start;
    while at < end {
        let rest = &text[at..end];
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else {
            let blank = rest.chars().next().map_or(1, char::len_utf8);
            trails &= !rest.starts_with('\n');
            at += blank;
            continue;
        };
        found.push(Comment {
            text: rest[..length].trim_end().to_owned(),
            trails,
            span: Span::new(at, at + length),
        });
        at += length;
    }
    found
}

/// The words of a valid KQL query. The last one is the end.
pub(super) fn kql(text: &str) -> Vec<Word> {
    let (tokens, _) = kql_tokens(text);
    let mut words: Vec<Word> = Vec::with_capacity(tokens.len());
    let (mut before, mut previous): (_, Option<&Kql>) = (0, None);
    for (token, span) in &tokens {
        let written = &text[span.start..span.end];
        match (words.last_mut(), previous, token) {
            // Adjacent words are one value, and its blanks are significant.
            (Some(word), Some(Kql::Word(_)), Kql::Word(_)) => {
                word.text.push_str(&" ".repeat(span.start - before));
                word.text.push_str(written);
            }
            _ => words.push(Word {
                kind: kql_kind(previous, token),
                text: match token {
                    Kql::And | Kql::Or | Kql::Not => written.to_lowercase(),
                    _ => written.to_owned(),
                },
                apart: previous.is_some_and(|previous| kql_apart(previous, token)),
                comments: Vec::new(),
            }),
        }
        before = span.end;
        previous = Some(token);
    }
    words
}

fn kql_kind(previous: Option<&Kql>, token: &Kql) -> WordKind {
    match token {
        Kql::And => WordKind::Join(Join::And),
        Kql::Or => WordKind::Join(Join::Or),
        Kql::Symbol("(") if previous == Some(&Kql::Symbol(":")) => WordKind::OpenList,
        Kql::Symbol("(" | "{") => WordKind::Open,
        Kql::Symbol(")" | "}") => WordKind::Close,
        Kql::End => WordKind::End,
        _ => WordKind::Plain,
    }
}

fn kql_apart(previous: &Kql, token: &Kql) -> bool {
    let touches = matches!(token, Kql::Symbol(":" | ")" | "}") | Kql::End);
    !touches && !matches!(previous, Kql::Symbol("(" | "{"))
}

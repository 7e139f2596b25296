//! KQL text to tokens.

use crate::lang::DIAGNOSTICS_MAX;
use crate::lang::cursor::Cursor;
use crate::lang::diagnostic::{Diagnostic, Span, code};
use crate::lang::wildcard::{Wildcard, WildcardPart};

/// A word of the language.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::lang) enum Token {
    /// Text without quotation marks up to a blank or symbol.
    Word(Wildcard),
    Quoted(Wildcard),
    And,
    Or,
    Not,
    Symbol(&'static str),
    End,
}

/// Symbols; where one starts with another, the longer stands first.
const SYMBOLS: &[&str] = &["<=", ">=", "<", ">", "(", ")", "{", "}", ":"];

/// The tokens of a text, the last being [`Token::End`], and what could not be read.
pub(in crate::lang) fn tokens(text: &str) -> (Vec<(Token, Span)>, Vec<Diagnostic>) {
    let mut cursor = Cursor::new(text);
    let (mut tokens, mut faults) = (Vec::new(), Vec::new());
    loop {
        cursor.eat_while(char::is_whitespace);
        let start = cursor.place();
        let token = if cursor.peek().is_none() {
            Ok(Token::End)
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| cursor.eat(symbol)) {
            Ok(Token::Symbol(symbol))
        } else if cursor.eat("\"") {
            quoted(&mut cursor, start)
        } else {
            word(&mut cursor)
        };
        let end = token == Ok(Token::End);
        match token {
            Ok(token) => tokens.push((token, cursor.span(start))),
            Err(fault) => faults.push(fault),
        }
        if end || faults.len() >= DIAGNOSTICS_MAX {
            return (tokens, faults);
        }
    }
}

fn quoted(cursor: &mut Cursor<'_>, start: usize) -> Result<Token, Diagnostic> {
    let mut text = String::new();
    loop {
        text.push_str(cursor.eat_while(|c| !matches!(c, '"' | '\\')));
        match cursor.bump() {
            Some('"') => return Ok(Token::Quoted(literal(&text))),
            Some('\\') => text.push(quoted_escape(cursor)),
            _ => {
                return Err(Diagnostic::new(code::UNTERMINATED, cursor.span(start), "the string never ends")
                    .label("starts here")
                    .help("end it with `\"`"));
            }
        }
    }
}

/// The character that an escape in quotation marks stands for, the backslash having been read; a backslash before
/// anything else stands for itself, as in Kibana.
fn quoted_escape(cursor: &mut Cursor<'_>) -> char {
    let digits = cursor.rest().strip_prefix('u').and_then(|rest| rest.get(..4));
    if let Some(c) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32) {
        let code = cursor.rest()[..5].to_owned();
        cursor.eat(&code);
        return c;
    }
    let found = match cursor.peek() {
        Some('t') => '\t',
        Some('r') => '\r',
        Some('n') => '\n',
        Some(c @ ('"' | '\\')) => c,
        _ => return '\\',
    };
    cursor.bump();
    found
}

/// A word, or one of the keywords `and`, `or` and `not` in any case.
fn word(cursor: &mut Cursor<'_>) -> Result<Token, Diagnostic> {
    let start = cursor.place();
    let (mut parts, mut text) = (Vec::new(), String::new());
    loop {
        text.push_str(cursor.eat_while(|c| !is_special(c) && !c.is_whitespace()));
        let at = cursor.place();
        if cursor.eat("\\") {
            text.push_str(&escaped_word(cursor, at)?);
        } else if cursor.eat("*") {
            if !text.is_empty() {
                parts.push(WildcardPart::Text(std::mem::take(&mut text).into()));
            }
            if parts.last() != Some(&WildcardPart::Many) {
                parts.push(WildcardPart::Many);
            }
        } else {
            break;
        }
    }
    if !text.is_empty() {
        parts.push(WildcardPart::Text(text.into()));
    }
    Ok(match cursor.since(start).to_ascii_lowercase().as_str() {
        "and" => Token::And,
        "or" => Token::Or,
        "not" => Token::Not,
        _ => Token::Word(Wildcard(parts)),
    })
}

fn is_special(c: char) -> bool {
    matches!(c, '\\' | '(' | ')' | ':' | '<' | '>' | '"' | '*' | '{' | '}')
}

/// What follows a backslash outside quotation marks: a keyword made a word, or a character.
fn escaped_word(cursor: &mut Cursor<'_>, start: usize) -> Result<String, Diagnostic> {
    for keyword in ["and", "or", "not"] {
        if cursor.rest().get(..keyword.len()).is_some_and(|word| word.eq_ignore_ascii_case(keyword)) {
            let word = cursor.rest()[..keyword.len()].to_owned();
            cursor.eat(&word);
            return Ok(word);
        }
    }
    escape(cursor, start).map(String::from)
}

/// The character that an escape stands for, the backslash having been read.
fn escape(cursor: &mut Cursor<'_>, start: usize) -> Result<char, Diagnostic> {
    let at = cursor.place();
    let found = match cursor.bump() {
        Some('t') => Some('\t'),
        Some('r') => Some('\r'),
        Some('n') => Some('\n'),
        Some('u') => {
            let digits = cursor.rest().get(..4).unwrap_or_default().to_owned();
            let found = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
            if found.is_some() {
                cursor.eat(&digits);
            }
            found
        }
        Some(c) if is_special(c) || c.is_whitespace() => Some(c),
        _ => None,
    };
    found.ok_or_else(|| {
        let span = Span::new(at.saturating_sub(1), cursor.place());
        let message = format!("unknown escape `{}`", cursor.since(at.saturating_sub(1).max(start)));
        Diagnostic::new(code::BAD_ESCAPE, span, message).help("write a backslash as `\\\\`")
    })
}

fn literal(text: &str) -> Wildcard {
    Wildcard(if text.is_empty() { Vec::new() } else { vec![WildcardPart::Text(text.into())] })
}

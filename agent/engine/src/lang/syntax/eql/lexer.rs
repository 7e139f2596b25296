//! EQL text to tokens.

use crate::lang::DIAGNOSTICS_MAX;
use crate::lang::cursor::Cursor;
use crate::lang::diagnostic::{Diagnostic, Span, code};

/// A word of the language.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::lang) enum Token {
    /// A name or keyword; `tilde` where `~` follows it directly.
    Name {
        text: String,
        tilde: bool,
    },
    /// A name in back quotes, never a keyword.
    Quoted(String),
    Text(String),
    Long(i64),
    Double(f64),
    Symbol(&'static str),
    End,
}

/// Symbols; where one starts with another, the longer stands first.
const SYMBOLS: &[&str] = &[
    "![", "==", "!=", "<=", ">=", "(", ")", "[", "]", ",", ".", "=", "<", ">", ":", "+", "-", "*", "/", "%",
    "|", "?",
];

/// The tokens of a text, the last being [`Token::End`], and what could not be read.
pub(in crate::lang) fn tokens(text: &str) -> (Vec<(Token, Span)>, Vec<Diagnostic>) {
    let mut cursor = Cursor::new(text);
    let mut tokens = Vec::new();
    let mut faults = Vec::new();
    loop {
        if let Err(fault) = skip_blanks(&mut cursor) {
            faults.push(fault);
        }
        let start = cursor.place();
        match token(&mut cursor) {
            Ok(Token::End) => {
                tokens.push((Token::End, cursor.span(start)));
                return (tokens, faults);
            }
            Ok(token) => tokens.push((token, cursor.span(start))),
            Err(fault) => faults.push(fault),
        }
        if faults.len() >= DIAGNOSTICS_MAX {
            return (tokens, faults);
        }
    }
}

fn skip_blanks(cursor: &mut Cursor<'_>) -> Result<(), Diagnostic> {
    loop {
        cursor.eat_while(char::is_whitespace);
        let start = cursor.place();
        if cursor.eat("//") {
            cursor.eat_while(|c| c != '\n');
        } else if cursor.eat("/*") {
            if !cursor.eat_past("*/") {
                return Err(Diagnostic::new(
                    code::UNTERMINATED,
                    Span::new(start, start + 2),
                    "the comment never ends",
                )
                .label("starts here")
                .help("end it with `*/`"));
            }
        } else {
            return Ok(());
        }
    }
}

fn token(cursor: &mut Cursor<'_>) -> Result<Token, Diagnostic> {
    let start = cursor.place();
    let Some(first) = cursor.peek() else { return Ok(Token::End) };
    if cursor.eat("\"\"\"") {
        return raw_text(cursor, start);
    }
    if let Some(symbol) = SYMBOLS.iter().find(|symbol| cursor.eat(symbol)) {
        return Ok(Token::Symbol(symbol));
    }
    match first {
        '"' => text(cursor, start),
        '`' => quoted_name(cursor, start),
        '0'..='9' => number(cursor, start),
        c if c.is_alphabetic() || c == '_' || c == '@' => {
            let text = cursor.eat_while(|c| c.is_alphanumeric() || c == '_' || c == '@').to_owned();
            Ok(Token::Name { text, tilde: cursor.eat("~") })
        }
        '\'' => {
            cursor.bump();
            let closed =
                cursor.rest().find(['\'', '\n']).is_some_and(|at| cursor.rest()[at..].starts_with('\''));
            if closed {
                cursor.eat_past("'");
            }
            Err(Diagnostic::new(code::QUOTES, cursor.span(start), "strings stand in double quotation marks")
                .help("write \"…\" instead of '…'"))
        }
        c => {
            cursor.bump();
            Err(Diagnostic::new(
                code::UNKNOWN_CHARACTER,
                cursor.span(start),
                format!("unknown character {c:?}"),
            ))
        }
    }
}

fn unterminated(cursor: &Cursor<'_>, start: usize, mark: &str) -> Diagnostic {
    Diagnostic::new(code::UNTERMINATED, cursor.span(start), "the string never ends")
        .label("starts here")
        .help(format!("end it with `{mark}`"))
}

fn raw_text(cursor: &mut Cursor<'_>, start: usize) -> Result<Token, Diagnostic> {
    if !cursor.eat_past("\"\"\"") {
        return Err(unterminated(cursor, start, "\"\"\""));
    }
    // Quotation marks just before the closing ones belong to the string.
    while cursor.eat("\"") {}
    let inner = &cursor.since(start)[3..];
    Ok(Token::Text(inner[..inner.len() - 3].to_owned()))
}

fn quoted_name(cursor: &mut Cursor<'_>, start: usize) -> Result<Token, Diagnostic> {
    cursor.bump();
    let mut name = String::new();
    loop {
        name.push_str(cursor.eat_while(|c| c != '`' && c != '\n'));
        if !cursor.eat("`") {
            return Err(unterminated(cursor, start, "`"));
        }
        if !cursor.eat("`") {
            return Ok(Token::Quoted(name));
        }
        // A back quote is written twice inside the quotes.
        name.push('`');
    }
}

fn number(cursor: &mut Cursor<'_>, start: usize) -> Result<Token, Diagnostic> {
    cursor.eat_while(|c| c.is_ascii_digit());
    let mut whole = true;
    if cursor.rest().starts_with('.') && cursor.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) {
        whole = false;
        cursor.bump();
        cursor.eat_while(|c| c.is_ascii_digit());
    }
    let exponent = cursor.rest().strip_prefix(['e', 'E']).map(|rest| rest.trim_start_matches(['+', '-']));
    if exponent.is_some_and(|digits| digits.starts_with(|c: char| c.is_ascii_digit())) {
        whole = false;
        cursor.bump();
        cursor.eat_while(|c| matches!(c, '+' | '-'));
        cursor.eat_while(|c| c.is_ascii_digit());
    }
    let text = cursor.since(start);
    let token = if whole { text.parse().ok().map(Token::Long) } else { text.parse().ok().map(Token::Double) };
    token.ok_or_else(|| {
        Diagnostic::new(code::BAD_NUMBER, cursor.span(start), format!("{text} is out of range"))
    })
}

fn text(cursor: &mut Cursor<'_>, start: usize) -> Result<Token, Diagnostic> {
    cursor.bump();
    let mut text = String::new();
    let mut fault = None;
    loop {
        text.push_str(cursor.eat_while(|c| !matches!(c, '"' | '\\' | '\n' | '\r')));
        let at = cursor.place();
        match cursor.bump() {
            Some('"') => return fault.map_or(Ok(Token::Text(text)), Err),
            Some('\\') => match escape(cursor) {
                Some(c) => text.push(c),
                None => {
                    fault.get_or_insert_with(|| {
                        let escape = cursor.since(at).to_owned();
                        Diagnostic::new(
                            code::BAD_ESCAPE,
                            cursor.span(at),
                            format!("unknown escape `{escape}`"),
                        )
                        .help("write a backslash as `\\\\`, or use a \"\"\"raw string\"\"\"")
                    });
                }
            },
            _ => return Err(unterminated(cursor, start, "\"")),
        }
    }
}

/// The character that an escape stands for, the backslash having been read.
fn escape(cursor: &mut Cursor<'_>) -> Option<char> {
    match cursor.bump()? {
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        same @ ('\\' | '"' | '\'') => Some(same),
        'u' if cursor.eat("{") => {
            let digits = cursor.eat_while(|c| c.is_ascii_hexdigit());
            let closed = cursor.eat("}");
            u32::from_str_radix(digits, 16).ok().filter(|_| closed).and_then(char::from_u32)
        }
        _ => None,
    }
}

//! EQL's text: its tokens and its syntax tree.

pub mod ast;
pub(in crate::lang) mod lexer;
mod parser;

use self::parser::Read;
use crate::lang::diagnostic::{Diagnostic, code};
use crate::lang::{QUERY_BYTES_MAX, Span};

/// The query as far as it could be understood, and what is wrong with it; only that where nothing could be.
pub(in crate::lang) fn read(text: &str) -> Result<(Read, Vec<Diagnostic>), Vec<Diagnostic>> {
    if text.len() > QUERY_BYTES_MAX {
        let message = format!("the query is {} bytes long; at most {QUERY_BYTES_MAX} are read", text.len());
        return Err(vec![Diagnostic::new(code::TOO_LONG, Span::first_of(text), message)]);
    }
    let (tokens, faults) = lexer::tokens(text);
    if !faults.is_empty() {
        return Err(faults);
    }
    match parser::parse(tokens) {
        (Some(read), faults) => Ok((read, faults)),
        (None, faults) => Err(faults),
    }
}

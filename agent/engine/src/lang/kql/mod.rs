//! KQL, the Kibana Query Language (`language = "kuery"`).

pub(super) mod lexer;
mod parser;

pub mod ast;

use super::diagnostic::{Diagnostic, code};
use super::lower::kql::lower;
use super::{EventQuery, QUERY_BYTES_MAX, Span, together};
use crate::event::Schema;

/// Reads a query and checks it against the schema, to which leaves of flattened fields are added as they are named.
///
/// # Errors
/// Everything that is wrong with it, as far as it could be understood; a query that can run may have warnings.
pub fn parse(text: &str, schema: &mut Schema) -> Result<(EventQuery, Vec<Diagnostic>), Vec<Diagnostic>> {
    if text.len() > QUERY_BYTES_MAX {
        let message = format!("the query is {} bytes long; at most {QUERY_BYTES_MAX} are read", text.len());
        return Err(vec![Diagnostic::new(code::TOO_LONG, Span::first_of(text), message)]);
    }
    let (tokens, faults) = lexer::tokens(text);
    if !faults.is_empty() {
        return Err(faults);
    }
    match parser::parse(tokens) {
        (Some(ast), faults) => together(faults, lower(&ast, schema)),
        (None, faults) => Err(faults),
    }
}

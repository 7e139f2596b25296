//! EQL, the Event Query Language, in the dialect of Elasticsearch.

pub use super::syntax::eql::ast::Pipe;

use super::diagnostic::{Diagnostic, code};
use super::lower::eql::lower;
use super::syntax::eql::read;
use super::{Query, Span, together};
use crate::event::Schema;

/// Reads a query and checks it against the schema, to which leaves of flattened fields are added as they are named.
///
/// # Errors
/// Everything that is wrong with it, as far as it could be understood; a query that can run may have warnings.
pub fn parse(text: &str, schema: &mut Schema) -> Result<(Query, Vec<Diagnostic>), Vec<Diagnostic>> {
    let ((ast, pipes), mut faults) = read(text)?;
    let refused = |(_, span): &(Pipe, Span)| {
        Diagnostic::new(code::PIPE, *span, "a rule has no pipes")
            .label("events come without an end, so that there is no first and no last of them")
            .help("take it out; `max_signals` limits alerts, and `lapwing search` takes pipes")
    };
    faults.extend(pipes.iter().map(refused));
    together(faults, lower(&ast, schema))
}

/// A query over a recording, of which there is a first and a last result.
#[derive(Clone, Debug, PartialEq)]
pub struct PipedQuery {
    /// What to look for.
    pub query: Query,
    /// What to do with the results, one after the other.
    pub pipes: Vec<Pipe>,
}

/// As [`parse`], for a query that may end with pipes.
///
/// # Errors
/// As [`parse`].
pub fn parse_search(
    text: &str,
    schema: &mut Schema,
) -> Result<(PipedQuery, Vec<Diagnostic>), Vec<Diagnostic>> {
    let ((ast, pipes), faults) = read(text)?;
    let (query, mut warnings) = together(faults, lower(&ast, schema))?;
    // A recording has an end itself.
    warnings.retain(|warning| warning.code.id != code::UNBOUNDED.id);
    Ok((PipedQuery { query, pipes: pipes.into_iter().map(|(pipe, _)| pipe).collect() }, warnings))
}

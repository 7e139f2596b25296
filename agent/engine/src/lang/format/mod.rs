//! Queries in one layout. Their meaning and their comments stay.
//!
//! The words stay as they are written, constants and parentheses too. A query that fits stands on one line; else each
//! condition has a line of its own, a list fills lines, and each stage of a sequence begins one.

mod layout;
mod tree;
mod words;

use super::diagnostic::{Diagnostic, Span};
use super::{eql, kql};
use crate::event::Schema;

/// Longest line that is not broken where it can be, in characters.
pub const LINE_CHARACTERS_MAX: usize = 100;

/// Why a query stays as it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Unformatted {
    /// It cannot be read; these are its errors and warnings.
    Faults(Vec<Diagnostic>),
    /// A comment stands in the middle of a condition, where it would be torn from what it is about.
    Comment(Span),
    /// The layout would have changed the meaning, which is an error of the formatter.
    Changed,
}

/// The EQL query in the layout. The fields that it names are those of the schema.
///
/// # Errors
/// See [`Unformatted`].
pub fn eql(text: &str, schema: &mut Schema) -> Result<String, Unformatted> {
    laid_out(text, words::eql(text), |text| eql::parse(text, schema))
}

/// The same of a KQL query.
///
/// # Errors
/// See [`Unformatted`].
pub fn kql(text: &str, schema: &mut Schema) -> Result<String, Unformatted> {
    laid_out(text, words::kql(text), |text| kql::parse(text, schema))
}

/// The typed query, as it displays itself, in lines. It is for people and cannot be read again.
#[must_use]
pub fn typed(text: &str) -> String {
    let words = words::typed(text);
    let laid_out = words.and_then(|words| tree::FormatTree::new(words).query().ok());
    laid_out.map_or_else(|| text.to_owned(), |doc| layout::render(&doc, LINE_CHARACTERS_MAX))
}

/// Lays out a query that can be read, and makes sure that the result is read as the same typed query.
fn laid_out<T: PartialEq>(
    text: &str,
    words: Vec<words::Word>,
    mut parse: impl FnMut(&str) -> Result<(T, Vec<Diagnostic>), Vec<Diagnostic>>,
) -> Result<String, Unformatted> {
    let (before, _) = parse(text).map_err(Unformatted::Faults)?;
    let formatted = layout::render(&tree::FormatTree::new(words).query()?, LINE_CHARACTERS_MAX);
    let after = parse(&formatted);
    if after.is_ok_and(|(after, _)| after == before) { Ok(formatted) } else { Err(Unformatted::Changed) }
}

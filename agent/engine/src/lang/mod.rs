//! The two query languages and the one typed query that both become.
//!
//! Text becomes tokens, tokens an AST, and the AST, checked against the schema, a [`Query`]. No stage keeps sugar
//! of the one before: what runs rules never learns in which language a condition was written.

pub mod diagnostic;
pub mod eql;
pub mod example;
pub mod format;
pub mod kql;
pub mod operator;
pub mod query;
pub mod regex;
pub mod syntax;
pub mod wildcard;

mod cursor;
mod demand;
pub mod function;
mod lower;
pub(crate) mod suggest;
mod texts;
mod tokens;

pub use demand::Demand;
pub use diagnostic::{Code, Diagnostic, Level, Span};
pub use function::Function;
pub use query::{Condition, EventQuery, Query};
pub use suggest::nearest;

/// Longest query text that is read, in bytes.
pub const QUERY_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of parentheses, `not` and function calls that is read.
pub const NESTING_MAX: usize = 128;
/// Most stages a sequence may have, `with runs` counted out.
pub const STAGES_MAX: usize = 256;
/// Most stages a sample may have, as in Elasticsearch.
pub const SAMPLE_STAGES_MAX: usize = 5;
/// Most diagnostics that are reported for one query, and for one file; errors come before warnings where there are more.
pub const DIAGNOSTICS_MAX: usize = 20;

/// What is found in a query: itself and its warnings, or everything that is wrong with it.
type Found<T> = Result<(T, Vec<Diagnostic>), Vec<Diagnostic>>;

/// What is wrong with a query's text and what is wrong with its meaning, in the order of their places. Warnings about a
/// query that was not understood whole may be wrong themselves, and are left out.
fn together<T>(mut faults: Vec<Diagnostic>, found: Found<T>) -> Found<T> {
    if faults.is_empty() {
        return found;
    }
    let more = found.err().unwrap_or_default();
    faults.extend(more.into_iter().filter(|fault| fault.level() == Level::Error));
    faults.sort_by_key(|fault| fault.span.start);
    faults.truncate(DIAGNOSTICS_MAX);
    Err(faults)
}

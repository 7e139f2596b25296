//! The two query languages and the one typed query that both become.
//!
//! Text becomes tokens, tokens an AST, and the AST, checked against the schema, a [`Query`]. No stage keeps sugar
//! of the one before: what runs rules never learns in which language a condition was written.

pub mod diagnostic;
pub mod eql;
pub mod example;
pub mod format;
pub mod kql;
pub mod query;
pub mod regex;

mod cursor;
pub mod function;
mod lower;
pub(crate) mod suggest;
mod tokens;

pub use diagnostic::{Code, Diagnostic, Severity, Span};
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

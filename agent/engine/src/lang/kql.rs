//! KQL, the Kibana Query Language (`language = "kuery"`).

use super::diagnostic::Diagnostic;
use super::lower::kql::lower;
use super::syntax::kql::read;
use super::{EventQuery, together};
use crate::event::Schema;

/// Reads a query and checks it against the schema, to which leaves of flattened fields are added as they are named.
///
/// # Errors
/// Everything that is wrong with it, as far as it could be understood; a query that can run may have warnings.
pub fn parse(text: &str, schema: &mut Schema) -> Result<(EventQuery, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (ast, faults) = read(text)?;
    together(faults, lower(&ast, schema))
}

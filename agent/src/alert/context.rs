//! What a source adds to an event when an alert is built from it.

use lapwing_engine::Fields;

use crate::program::{Missing, Program};

/// What a source adds to an event, for the alert only: rules do not see it.
#[derive(Default)]
pub(crate) struct Context {
    /// Fields that complete the event: for example the arguments, parent and hash of a connecting process.
    pub(crate) fields: Fields,
    /// The process's ancestors from the parent up to init, each as `process.*` fields.
    pub(crate) ancestors: Vec<Fields>,
    /// The programs of the process and of each ancestor, in this order: what the evidence stage hashes.
    pub(crate) programs: Vec<Result<Program, Missing>>,
    /// The user that this work is charged to.
    pub(crate) user: u32,
}

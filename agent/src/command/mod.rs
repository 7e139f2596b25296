//! The verbs of the program, a file each.

pub(crate) mod alerts;

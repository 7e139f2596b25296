//! The texts of both languages: tokens and syntax trees. Nothing here depends on the schema.

pub mod eql;
pub mod kql;

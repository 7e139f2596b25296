//! Tests of the source as a whole; what tests one file stands at that file's end.

mod mapping;
mod support;

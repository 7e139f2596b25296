//! Detection rules over ECS events.
//!
//! Rules and events go in, alerts come out. The engine performs no I/O, reads no clock and spawns no thread: the
//! same rules and events give the same alerts, live, replayed and in a test.
#![forbid(unsafe_code)]

pub mod event;

pub use event::{Event, EventError, FieldId, Fields, Schema, Timestamp, Type, Value};

//! Detection rules over ECS events.
//!
//! Rules and events go in, alerts come out. The engine performs no I/O, reads no clock and spawns no thread: the
//! same rules and events give the same alerts, live, replayed and in a test. Each module imports only those before it:
//!
//! - [`event`]: events, as ECS fields with types;
//! - [`lang`]: parses EQL and KQL into one typed query, with diagnostics;
//! - [`rule`]: loads Elastic's rule files;
//! - [`detect`]: matchers, and detectors for sequences, new terms and rare values;
//! - [`Engine`]: evaluates rules on a stream of events. Start reading there; it has an example;
//! - [`Search`]: a query over a recording.
#![forbid(unsafe_code)]

pub mod detect;
pub mod event;
pub mod lang;
pub mod rule;

mod engine;

pub use engine::{
    Act, Alert, Cause, Counters, Dropped, Engine, HeldBack, Match, Options, Output, ResultPosition, Search,
    SearchOptions, SearchResults, StateChange, Suppressed,
};
pub use engine::{coverage, explain, interest};
pub use event::{Event, EventError, FieldId, Fields, Schema, Texts, Timestamp, Type, Value};
pub use rule::{Exception, Exceptions, Loaded, Report, Rule};

//! Detection rules over ECS events.
//!
//! Rules and events go in, alerts come out. The engine performs no I/O, reads no clock and spawns no thread: the
//! same rules and events give the same alerts, live, replayed and in a test. The pieces, each knowing only those before
//! it:
//!
//! - [`event`]: what happened, as ECS fields with types;
//! - [`lang`]: EQL and KQL, both to one typed query, with diagnostics;
//! - [`rule`]: Elastic's rule files to rules that can run;
//! - [`detect`]: matchers, and detectors for sequences, new terms and rare values;
//! - [`Engine`]: all of them together, on a stream of events. Start reading there; it has an example;
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

//! Tests of the source as a whole; what tests one file stands at that file's end.

/// Files in real folders, with restarts.
mod folder;
/// Places of addresses.
mod geo;
/// Golden: a record and its event.
mod mapping;
/// A real server of AWS's interfaces.
mod moto;
/// Queues and objects, against that server.
mod queue;
mod support;

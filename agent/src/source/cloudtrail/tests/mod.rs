//! Tests of the source as a whole; tests of one file are at its end.

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

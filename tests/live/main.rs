//! The sensor on this machine's kernel: things are done, and the events that come of them are looked at whole.
//!
//! `cargo xtask test` runs these as root with the kernel programs built in; a plain `cargo test` leaves them out. One
//! agent serves all of them. A test that hooks something new belongs into the module of its hook.
#![expect(
    clippy::unwrap_used,
    reason = "all of this is test code, and clippy takes only its test functions for such"
)]

/// Doing what is watched: processes and sockets by the system calls themselves.
mod act;
/// The agent under test and its events.
mod agent;

/// Row `accept`: connections from the other side.
mod accept;
/// Row `connect`: every way in which a process can open a TCP connection.
mod connect;
/// Row `connect`: how connections end.
mod disconnect;
/// Row `exec`: the environment that a program is started with.
mod environment;
/// Row `exec`: program, name, arguments, working directory.
mod exec;
/// Row `exit`: how processes end.
mod exit;
/// Row `fork`: the parent of each process.
mod fork;
/// Row `ids`: processes that become another user or group.
mod ids;
/// Row `session`: processes that begin a session.
mod session;
/// Row `udp`: the destinations of datagrams.
mod udp;

/// Row `bpf`: commands on what the sensor put into the kernel.
mod bpf;
/// Row `ptrace`: access to the sensor's memory.
mod ptrace;
/// Row `signal`: signals that stop or kill the sensor.
mod signal;
/// An agent of a test's own, for what is done to the agent itself.
mod touch;

/// The clock, set between two events.
mod clock;
/// Namespaces and control groups: the parts of a container.
mod container;
/// The documented fields of events.
mod fields;
/// What no rule can match and stays in the kernel.
mod filter;
/// Order, and what is reported over a restart.
mod order;
/// The account of records, and how the agent starts and stops.
mod run;

//! Evasion techniques, performed on this machine's kernel. Each test describes the technique and what must be detected.
//! `docs/evasions.md` lists all of them, with those that cannot be detected.
//!
//! The tests run with the live tests: `cargo xtask test` as root. One agent prints events, another raises alerts by the
//! packaged rules. Only tests that hold up an agent start one of their own. Techniques that a live test covers are not
//! here.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "all of this is test code, and clippy takes only its test functions for such"
)]

/// Performs watched actions by system calls.
#[path = "../live/act.rs"]
mod act;
/// The agent that prints events.
#[path = "../live/agent.rs"]
mod agent;
/// The agent that raises alerts, and the runs of the attacker's program.
mod alerts;
/// The attacker's program.
mod attacker;

/// Datagrams: sent in ways that hide the sender.
mod datagram;
/// Programs: started in ways that hide which they are.
mod exec;
/// Connections: opened in ways that hide the process.
mod network;

/// The agent itself: stopped, frozen, limited, flooded.
mod held_up;

/// What root does to the sensor.
mod deed;
/// System calls that another process is made to do.
mod inject;

/// The agent itself: ended by root.
mod next_run;

/// The agent itself: what root does to its files.
mod files;
/// The agent itself: what root does to it.
mod tampering;

/// Arguments: too many, odd, or other ones a moment later.
mod arguments;
/// Hashes of files that are put in another's place, changed, too large or many.
mod evidence;
/// Control groups: more than anyone keeps.
mod groups;
/// Relatives: parents that go, numbers that come again, leaders of one's own.
mod lineage;
/// A process whose program cannot be read.
mod locked;
/// Namespaces and roots.
mod namespaces;
/// Paths: too long, too deep, or beginning where no root is.
mod paths;

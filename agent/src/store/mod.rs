//! The SQLite store: state of rules and sources, the spool of alerts that are still to be delivered, and the sinks'
//! cursors. One file, one owner, one transaction for all that belongs together.
//!
//! It uses WAL with full sync: when a call has returned, its changes are on disk, and a responder can read them with
//! `sqlite3` while the agent runs. The store imports no rule and no network. If an alert does not fit, the store only
//! notes that the document is in the log.

mod change;
mod changes;
mod database;
mod error;
mod extent;
mod lock;
mod open;
mod reading;
mod schema;
mod spool;
mod trim;

use bytesize::ByteSize;
use serde::Deserialize;

pub(crate) use self::change::{Change, Checkpoint};
pub(crate) use self::changes::LogCursor;
pub(crate) use self::database::Store;
pub(crate) use self::error::is_damage;
pub(crate) use self::spool::{DocumentLocation, Spooled};

/// The store's file in the state directory.
pub(crate) const FILE: &str = "lapwing.db";

/// The `[spool]` section: alerts that wait to be delivered upstream.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// How much the waiting alerts may take. Further alerts are delivered later from the alert log, as long as the log
    /// keeps them. Default: `256 MiB`.
    pub(crate) size_max: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self { size_max: ByteSize::mib(256) }
    }
}

#[cfg(test)]
mod tests;

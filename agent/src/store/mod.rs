//! What must survive: state of rules and sources, the alerts that are still to be delivered, how far each
//! sink has come. One SQLite file, one owner, one transaction for all that belongs together.
//!
//! It is WAL with full sync: what a call returned from is on disk, and a responder can read it with `sqlite3`
//! while the agent runs. The store knows no rule and no network; where an alert does not fit any more it only
//! remembers that the document is in the log.

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
    /// How much the alerts that wait may take; what comes then is delivered from the alert log later, as long
    /// as the log keeps it. Default: `256 MiB`.
    pub(crate) size_max: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self { size_max: ByteSize::mib(256) }
    }
}

#[cfg(test)]
mod tests;

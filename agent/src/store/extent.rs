//! The size of the spool, and the free pages of the file.

use rusqlite::Connection;

/// How many free pages the file keeps; more are returned to the file system.
const FREE_PAGES_KEPT: i64 = 4096;

/// How many pages are returned per transaction.
const GIVEN_BACK_AT_ONCE: i64 = 1024;

/// How much is in the spool; kept in memory, so that no commit counts rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Extent {
    pub(super) bytes: u64,
    pub(super) bytes_max: u64,
    pub(super) count: u64,
    /// Alerts whose documents are in the log only.
    pub(super) waiting: u64,
    /// Alerts that were lost upstream because the log no longer had them.
    pub(super) missed: u64,
    /// Alerts of this run that are to be delivered, without those that were missed.
    pub(super) arrived: i64,
    /// How much was in the spool when something last did not fit.
    pub(super) refused: u64,
    pub(super) sinks: usize,
    /// Up to here every sink has delivered.
    pub(super) released: i64,
    pub(super) last: i64,
    pub(super) pruned: i64,
}

impl Extent {
    /// The number of the newest alert, delivered or not.
    pub(super) fn last(&self) -> i64 {
        self.last
    }
}

/// Returns some free pages, as after a long outage or a flood, to the file system. Returns whether there were any.
pub(super) fn give_back(connection: &Connection) -> rusqlite::Result<bool> {
    let free: i64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    if free <= 2 * FREE_PAGES_KEPT {
        return Ok(false);
    }
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({GIVEN_BACK_AT_ONCE})"))?;
    // Each step returns one page.
    let mut steps = vacuum.query([])?;
    while steps.next()?.is_some() {}
    Ok(true)
}

//! What the ledger reads of the spool: alerts, cursors and counts.

use bytes::Bytes;
use rusqlite::OptionalExtension as _;

use super::database::Store;
use super::extent::Extent;
use super::spool::Spooled;

impl Store {
    /// Whether the store has an alert with this id.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn knows(&self, id: &str) -> rusqlite::Result<bool> {
        self.connection.prepare_cached("SELECT 1 FROM alert WHERE id = ?1")?.exists([id])
    }

    /// The cursor of a sink: the last alert that it has delivered.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn cursor(&self, sink: &str) -> rusqlite::Result<i64> {
        let cursor = self
            .connection
            .prepare_cached("SELECT sequence FROM cursor WHERE sink = ?1")?
            .query_row([sink], |row| row.get(0))
            .optional()?;
        Ok(cursor.unwrap_or(0))
    }

    /// The alerts after number `after`, in order, as many as fit; always at least one where there is one. One
    /// whose document is in the log only ends the list.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn read(
        &self,
        after: i64,
        count_max: usize,
        bytes_max: usize,
    ) -> rusqlite::Result<Vec<Spooled>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sequence, id, document FROM alert WHERE place <> 0 AND sequence > ?1 ORDER BY sequence",
        )?;
        let mut rows = statement.query([after])?;
        let (mut alerts, mut bytes) = (Vec::new(), 0);
        while alerts.len() < count_max {
            let Some(row) = rows.next()? else { break };
            let Some(document) = row.get_ref(2)?.as_blob_or_null()? else { break };
            bytes += document.len();
            if bytes > bytes_max && !alerts.is_empty() {
                break;
            }
            let json = Bytes::copy_from_slice(document);
            alerts.push(Spooled { sequence: row.get(0)?, id: row.get(1)?, json });
        }
        Ok(alerts)
    }

    /// The number of the newest alert, delivered or not.
    pub(crate) fn last(&self) -> i64 {
        self.spool.last
    }

    /// How many alerts are in the spool, and their bytes.
    pub(crate) fn spooled(&self) -> (u64, u64) {
        (self.spool.count, self.spool.bytes)
    }

    /// How many alerts are to be delivered whose documents are in the log only.
    pub(crate) fn waiting(&self) -> u64 {
        self.spool.waiting
    }

    /// How many alerts of this run are to be delivered, without those that were missed.
    pub(crate) fn arrived(&self) -> i64 {
        self.spool.arrived
    }

    /// How many alerts after number `after` are to be delivered.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn undelivered(&self, after: i64) -> rusqlite::Result<i64> {
        let select = "SELECT count(*) FROM alert WHERE place <> 0 AND sequence > ?1";
        self.connection.prepare_cached(select)?.query_row([after], |row| row.get(0))
    }

    /// How many alerts of this run can no longer be delivered: the log was rotated away.
    pub(crate) fn missed(&self) -> u64 {
        self.spool.missed
    }

    /// Whether documents may be read from the log again: the spool must be half empty, so that the log is not read for
    /// every alert that leaves the spool.
    pub(crate) fn has_room(&self) -> bool {
        let Extent { bytes, bytes_max, refused, .. } = self.spool;
        bytes == 0 || (bytes <= bytes_max / 2 && bytes < refused)
    }
}

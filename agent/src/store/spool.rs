//! The alerts in the store: their ids, for deduplication, and the documents of those that are still to be delivered.
//!
//! Each alert has a sequence number that is never used again; a sink's cursor is the number up to which it has
//! delivered. When every sink is past an alert its document is dropped; its id is kept for a while.

use std::cell::Cell;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::changes::WriteBatch;
use super::extent::Extent;
use crate::alert::AlertDocument;

/// How many alerts are known by their ids, newest first; an older one that is raised again is a new one.
const ALERTS_KNOWN_MAX: i64 = 100_000;
/// How many alerts are added between two prunings of old ones.
const ALERTS_BETWEEN_PRUNES: i64 = 1024;
// Values of the column `place`.
const DONE: i64 = 0;
const SPOOLED: i64 = 1;
const LOGGED: i64 = 2;

/// An alert that is to be delivered.
#[derive(Clone, Debug)]
pub(crate) struct Spooled {
    /// Its number: a sink that has delivered it acknowledges this one.
    pub(crate) sequence: i64,
    /// Its stable id.
    pub(crate) id: String,
    /// The whole document, one line of JSON.
    pub(crate) json: Bytes,
}

/// Where the document of an alert is, for the sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocumentLocation {
    /// In the store, or nowhere because no sink needs it.
    Spool,
    /// In the alert log only.
    Log,
}

/// Opens the spool of a store for sinks of these names.
///
/// # Errors
/// The store cannot be read or written.
pub(super) fn open(
    connection: &mut Connection,
    bytes_max: u64,
    sinks: &[String],
) -> rusqlite::Result<Extent> {
    let transaction = connection.transaction()?;
    let last = transaction
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'alert'", [], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    // A sink may have delivered an alert from memory that never came here: its number is not reused.
    let delivered: Option<i64> =
        transaction.query_row("SELECT max(sequence) FROM cursor", [], |row| row.get(0))?;
    let last = last.max(delivered.unwrap_or(0));
    for sink in transaction
        .prepare("SELECT sink FROM cursor")?
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?
    {
        if !sinks.contains(&sink) {
            tracing::warn!("sink {sink} is no longer configured: its undelivered alerts are dropped");
            transaction.execute("DELETE FROM cursor WHERE sink = ?1", [sink])?;
        }
    }
    for sink in sinks {
        transaction
            .execute("INSERT OR IGNORE INTO cursor (sink, sequence) VALUES (?1, ?2)", params![sink, last])?;
    }
    let of = |place| extent(&transaction, place, 0, i64::MAX);
    let ((count, bytes), (waiting, _)) = (of(SPOOLED)?, of(LOGGED)?);
    let after = Extent {
        bytes,
        bytes_max,
        count,
        waiting,
        sinks: sinks.len(),
        last,
        refused: u64::MAX,
        ..Extent::default()
    };
    let mut spool = Extent::default();
    let mut changes = WriteBatch {
        transaction,
        spool: &mut spool,
        after,
        rows_dropped: &mut 0,
        rows_refused: Cell::new(0),
    };
    changes.release()?;
    changes.commit()?;
    Ok(spool)
}

impl WriteBatch<'_> {
    /// Takes an alert that is in the log, its document too if `place` is the spool and there is room, and
    /// says where the document is. An alert whose document is here already, or was delivered, changes
    /// nothing.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn alert(
        &mut self,
        alert: &AlertDocument,
        place: DocumentLocation,
    ) -> rusqlite::Result<DocumentLocation> {
        // Sinks may have delivered it from memory before it came here.
        let delivered = self.after.last < self.after.released;
        if self.after.sinks == 0 || alert.local || delivered {
            self.after.arrived += i64::from(self.after.sinks > 0 && !alert.local);
            self.recall(alert)?;
            return Ok(DocumentLocation::Spool);
        }
        let known = self
            .transaction
            .prepare_cached("SELECT sequence, place FROM alert WHERE id = ?1")?
            .query_row([&alert.id], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
            .optional()?;
        let bytes = alert.json.len() as u64;
        let full = self.after.bytes > 0 && self.after.bytes + bytes > self.after.bytes_max;
        if full {
            self.after.refused = self.after.bytes;
        }
        match known {
            Some((_, DONE | SPOOLED)) => return Ok(DocumentLocation::Spool),
            Some(_) if full || place == DocumentLocation::Log => return Ok(DocumentLocation::Log),
            Some((sequence, _)) => {
                self.transaction
                    .prepare_cached("UPDATE alert SET place = 1, document = ?2 WHERE sequence = ?1")?
                    .execute(params![sequence, &alert.json[..]])?;
                self.after.waiting -= 1;
            }
            None if full || place == DocumentLocation::Log => {
                self.insert(alert, LOGGED, None)?;
                self.after.waiting += 1;
                return Ok(DocumentLocation::Log);
            }
            None => self.insert(alert, SPOOLED, Some(&alert.json))?,
        }
        self.after.bytes += bytes;
        self.after.count += 1;
        Ok(DocumentLocation::Spool)
    }

    /// The next alert gets this number, or a later one.
    pub(crate) fn number_from(&mut self, number: i64) {
        self.after.last = self.after.last.max(number - 1);
    }

    /// Saves the id of an alert that is not to be delivered.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn recall(&mut self, alert: &AlertDocument) -> rusqlite::Result<()> {
        self.insert(alert, DONE, None)
    }

    /// A sink has delivered everything up to this number.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn acknowledge(&mut self, sink: &str, sequence: i64) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("UPDATE cursor SET sequence = max(sequence, ?2) WHERE sink = ?1")?
            .execute(params![sink, sequence])?;
        self.release()
    }

    /// The end of the log was reached: documents that are still only there are not there any more. Says how
    /// many.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn miss(&mut self) -> rusqlite::Result<u64> {
        let missed = self.transaction.execute("UPDATE alert SET place = 0 WHERE place = 2", [])? as u64;
        self.after.waiting = 0;
        self.miss_counted(missed);
        Ok(missed)
    }

    fn insert(&mut self, alert: &AlertDocument, place: i64, document: Option<&[u8]>) -> rusqlite::Result<()> {
        let inserted = self
            .transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO alert (sequence, id, time, place, document) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![self.after.last + 1, alert.id, alert.time.as_nanos(), place, document])?;
        if inserted > 0 {
            self.after.last += 1;
            self.after.arrived += i64::from(place != DONE);
        }
        if self.after.last - self.after.pruned >= ALERTS_BETWEEN_PRUNES {
            self.prune()?;
        }
        Ok(())
    }

    /// Removes the oldest alerts, except those whose document is here.
    fn prune(&mut self) -> rusqlite::Result<()> {
        let oldest = self.after.last - ALERTS_KNOWN_MAX;
        let missed =
            self.transaction.execute("DELETE FROM alert WHERE sequence <= ?1 AND place = 2", [oldest])?
                as u64;
        self.transaction.execute("DELETE FROM alert WHERE sequence <= ?1 AND place = 0", [oldest])?;
        self.after.pruned = self.after.last;
        self.after.waiting -= missed;
        self.miss_counted(missed);
        Ok(())
    }

    fn miss_counted(&mut self, missed: u64) {
        self.after.missed += missed;
        self.after.arrived -= i64::try_from(missed).unwrap_or(i64::MAX);
    }

    /// Drops the documents that every sink has delivered.
    fn release(&mut self) -> rusqlite::Result<()> {
        let all = self.transaction.query_row("SELECT min(sequence) FROM cursor", [], |row| row.get(0));
        let released = all.map(|cursor: Option<i64>| cursor.unwrap_or(i64::MAX))?;
        if released <= self.after.released {
            return Ok(());
        }
        let before = self.after.released;
        let of = |place| extent(&self.transaction, place, before, released);
        let ((count, bytes), (waiting, _)) = (of(SPOOLED)?, of(LOGGED)?);
        self.transaction
            .prepare_cached(
                "UPDATE alert SET place = 0, document = NULL
                 WHERE place <> 0 AND sequence > ?1 AND sequence <= ?2",
            )?
            .execute([before, released])?;
        self.after.released = released;
        self.after.count = self.after.count.saturating_sub(count);
        self.after.bytes = self.after.bytes.saturating_sub(bytes);
        self.after.waiting = self.after.waiting.saturating_sub(waiting);
        Ok(())
    }
}

/// How many alerts after one number and up to another have this place, and their documents' bytes.
fn extent(connection: &Connection, place: i64, after: i64, to: i64) -> rusqlite::Result<(u64, u64)> {
    connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(length(document)), 0) FROM alert
             WHERE place = ?1 AND sequence > ?2 AND sequence <= ?3",
        )?
        .query_row([place, after, to], |row| {
            Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
        })
}

//! A transaction of the store.

use std::cell::Cell;

use rusqlite::{Transaction, params};

use super::change::Change;
use super::extent::{self, Extent};
use super::trim;
use crate::alert_log::Position;

/// The store's positions in the alert log. The two differ while the spool is full.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LogCursor {
    /// The store has the ids of all alerts up to here.
    Known,
    /// The store has taken the documents of all alerts up to here.
    Taken,
}

impl LogCursor {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Taken => "taken",
        }
    }
}

/// Changes that are made together, or not at all.
pub(crate) struct WriteBatch<'a> {
    pub(super) transaction: Transaction<'a>,
    pub(super) spool: &'a mut Extent,
    /// What `spool` becomes if the changes are made.
    pub(super) after: Extent,
    pub(super) rows_dropped: &'a mut u64,
    /// Rows that exceed the store's limit.
    pub(super) rows_refused: Cell<u64>,
}

impl WriteBatch<'_> {
    /// Sets or deletes a row of the state.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn state(&self, change: &Change) -> rusqlite::Result<()> {
        let Change { scope, key, value } = change;
        match value {
            Some(value) if key.len() + value.len() > trim::ROW_BYTES_MAX => {
                self.rows_refused.set(self.rows_refused.get() + 1);
                tracing::error!("a row of {scope} exceeds the store's limit and is not saved");
                0
            }
            Some(value) => self
                .transaction
                .prepare_cached("REPLACE INTO state (scope, key, value) VALUES (?1, ?2, ?3)")?
                .execute(params![scope, key, value])?,
            None => self
                .transaction
                .prepare_cached("DELETE FROM state WHERE scope = ?1 AND key = ?2")?
                .execute(params![scope, key])?,
        };
        Ok(())
    }

    /// Saves the store's position in the alert log.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn position(&self, reach: LogCursor, position: &Position) -> rusqlite::Result<()> {
        let offset = i64::try_from(position.offset).unwrap_or(i64::MAX);
        self.transaction
            .prepare_cached("REPLACE INTO log_position (reach, file, offset) VALUES (?1, ?2, ?3)")?
            .execute(params![reach.name(), position.file, offset])?;
        Ok(())
    }

    /// Commits the changes and waits until they are on disk.
    ///
    /// # Errors
    /// The store cannot be written; nothing was changed.
    pub(crate) fn commit(self) -> rusqlite::Result<()> {
        extent::give_back(&self.transaction)?;
        self.transaction.commit()?;
        *self.spool = self.after;
        *self.rows_dropped += self.rows_refused.get();
        Ok(())
    }
}

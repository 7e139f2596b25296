//! The store, open: its transactions, its rows of state, and its place in the alert log.

use std::cell::Cell;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytesize::ByteSize;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::changes::{LogCursor, WriteBatch};
use super::error::hint;
use super::extent::{self, Extent};
use super::lock::lock;
use super::open::{Home, Opened, connect, connect_as_can_be, put_away};
use super::{Config, FILE, trim};
use crate::alert_log::Position;
use crate::trace::{KnownFile, Trace};

/// About how many bytes of rows are read at once.
const ROWS_BYTES_READ: usize = 1 << 20;

/// The store, open and locked.
pub(crate) struct Store {
    path: PathBuf,
    config: Config,
    sinks: Vec<String>,
    pub(super) connection: Connection,
    pub(super) spool: Extent,
    /// That the store is not the one that was there, and why: a damaged one was put away, or the disk has no room.
    quarantined: Option<String>,
    /// Whether rows were left behind that are still to be deleted.
    has_left_behind: bool,
    /// Rows that were left behind or rejected because they, or all rows of their owner, are too large.
    rows_dropped: u64,
    trace: Arc<Trace>,
    _lock: File,
}

impl Store {
    /// Opens the store in a state directory, creating both, for sinks of these names. A new sink begins with the next
    /// alert; one that is no longer configured is removed.
    ///
    /// # Errors
    /// Another agent uses the directory; the file cannot be used, or is of a newer version. A damaged file is
    /// quarantined and replaced by a new one.
    pub(crate) fn open(directory: &Path, config: &Config, sinks: &[String]) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(|| {
            format!(
                "cannot create the state directory {}: check `state_dir` and who may write there",
                directory.display()
            )
        })?;
        let lock = lock(directory)?;
        let path = directory.join(FILE);
        let mut quarantined = None;
        let opened = connect_as_can_be(&path, config, sinks, &mut quarantined);
        let Opened { connection, spool, trimmed, has_left_behind } = opened
            .with_context(|| format!("cannot use the store {}", path.display()))
            .map_err(|error| match error.downcast_ref().and_then(|cause| hint(cause, &path)) {
                Some(hint) => error.context(hint),
                None => error,
            })?;
        if trimmed.rows > 0 {
            tracing::warn!(
                "the rules' state exceeds its limit in the store: the {} largest rows ({}) are dropped",
                trimmed.rows,
                ByteSize::b(trimmed.bytes).display().iec()
            );
        }
        let (config, sinks) = (config.clone(), sinks.to_vec());
        let trace = Trace::new();
        trace.set(place(&connection, &path));
        Ok(Self {
            trace,
            path,
            config,
            sinks,
            connection,
            spool,
            quarantined,
            has_left_behind,
            rows_dropped: trimmed.rows,
            _lock: lock,
        })
    }

    /// That the store is not the one that was there, and why.
    pub(crate) fn quarantined(&self) -> Option<String> {
        self.quarantined.clone()
    }

    /// Quarantines the damaged store and begins a new one, in which sinks have these cursors and no number up to `last`
    /// is reused.
    ///
    /// # Errors
    /// The old one cannot be renamed, or no new one can be created.
    pub(crate) fn renew<'a>(
        &mut self,
        cursors: impl Iterator<Item = (&'a String, &'a i64)>,
        last: i64,
    ) -> Result<()> {
        let last = last.max(self.spool.last());
        self.trace.set(None);
        self.connection = Connection::open_in_memory()?;
        self.quarantined = Some(put_away(&self.path)?);
        let opened = connect(&self.path, &self.config, &self.sinks, Home::Shared)?;
        (self.connection, self.spool, self.has_left_behind) = (opened.connection, opened.spool, false);
        self.trace.set(place(&self.connection, &self.path));
        let mut changes = self.change()?;
        changes.number_from(last + 1);
        for (sink, number) in cursors {
            changes.acknowledge(sink, *number)?;
        }
        Ok(changes.commit()?)
    }

    /// Where its file must be.
    pub(crate) fn trace(&self) -> Arc<Trace> {
        self.trace.clone()
    }

    /// Whether there are rows to delete by [`delete_some`](Self::delete_some).
    pub(crate) fn has_left_behind(&self) -> bool {
        self.has_left_behind
    }

    /// Deletes some of the rows that were left behind when the store was opened, and returns their space to the file
    /// system.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn delete_some(&mut self) -> rusqlite::Result<()> {
        let has_more = trim::delete_some(&self.connection)?;
        let has_given_back = extent::give_back(&self.connection)?;
        self.has_left_behind = has_more || has_given_back;
        Ok(())
    }

    /// Rows of the state that were left behind or rejected because they are too large.
    pub(crate) fn rows_dropped(&self) -> u64 {
        self.rows_dropped
    }

    /// Begins changes that are made together by [`WriteBatch::commit`].
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn change(&mut self) -> rusqlite::Result<WriteBatch<'_>> {
        let transaction = self.connection.transaction()?;
        Ok(WriteBatch {
            transaction,
            after: self.spool.clone(),
            spool: &mut self.spool,
            rows_dropped: &mut self.rows_dropped,
            rows_refused: Cell::new(0),
        })
    }

    /// The store's position in the alert log; `None` in a new store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn position(&self, reach: LogCursor) -> rusqlite::Result<Option<Position>> {
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Position { file: row.get(0)?, offset: row.get::<_, i64>(1)?.unsigned_abs() })
        };
        let select = "SELECT file, offset FROM log_position WHERE reach = ?1";
        self.connection.query_row(select, [reach.name()], read).optional()
    }

    /// Up to `count_max` rows of a scope whose keys come after `after`, in the order of their keys, and about
    /// [`ROWS_BYTES_READ`] bytes at most.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn rows(
        &self,
        scope: &str,
        after: Option<&str>,
        count_max: usize,
    ) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT key, value FROM state WHERE scope = ?1 AND (?2 IS NULL OR key > ?2) ORDER BY key LIMIT ?3",
        )?;
        let count_max = i64::try_from(count_max).unwrap_or(i64::MAX);
        let mut found = statement.query(params![scope, after, count_max])?;
        let (mut rows, mut bytes): (Vec<(String, Vec<u8>)>, _) = (Vec::new(), 0);
        while bytes < ROWS_BYTES_READ
            && let Some(row) = found.next()?
        {
            let (key, value) = (row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?);
            bytes += key.len() + value.len();
            rows.push((key, value));
        }
        Ok(rows)
    }

    /// Explains an error of the store, with a hint.
    pub(crate) fn explain(&self, error: &rusqlite::Error) -> String {
        match hint(error, &self.path) {
            Some(hint) => format!("{hint} ({error})"),
            None => format!("the store {} cannot be used: {error}", self.path.display()),
        }
    }
}

/// Where the file of a store is; none where it is in memory. How long it is changes.
fn place(connection: &Connection, path: &Path) -> Option<KnownFile> {
    connection.path().filter(|path| !path.is_empty())?;
    Some(KnownFile::new(&std::fs::metadata(path).ok()?, 0))
}

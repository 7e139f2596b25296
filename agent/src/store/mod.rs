//! What must survive: state of rules and sources, the alerts that are still to be delivered, how far each
//! sink has come. One SQLite file, one owner, one transaction for all that belongs together.
//!
//! It is WAL with full sync: what a call returned from is on disk, and a responder can read it with `sqlite3`
//! while the agent runs. The store knows no rule and no network; where an alert does not fit any more it only
//! remembers that the document is in the log.

mod schema;
mod spool;
mod trim;

pub(crate) use spool::{DocumentLocation, Spooled};

use std::cell::Cell;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use bytesize::ByteSize;
use lapwing_engine::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};
use serde::Deserialize;

use crate::alert_log::Position;
use crate::trace::{KnownFile, Trace};

/// The store's file in the state directory.
pub(crate) const FILE: &str = "lapwing.db";
/// What the name of a damaged store gets behind it.
const DAMAGED: &str = ".damaged";
/// Held by the agent that uses the state directory.
const LOCK: &str = "lapwing.lock";
/// Most bytes of the number in it that are read.
const HOLDER_BYTES_MAX: u64 = 32;
/// How long an agent that is just ending may still hold the lock.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Largest store of which every page is looked at when it is opened.
const CHECKED_BYTES_MAX: i64 = 64 << 20;
/// About how many bytes of rows are read at once.
const ROWS_BYTES_READ: usize = 1 << 20;
/// How long a responder's `sqlite3` may hold us up.
const BUSY_WAIT: Duration = Duration::from_secs(5);

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

/// An alert as it is written and delivered.
#[derive(Clone, Debug)]
pub(crate) struct AlertDocument {
    /// The stable id: the same cause gives the same id, so that a second delivery can be detected.
    pub(crate) id: String,
    /// When the last event of the match happened.
    pub(crate) time: Timestamp,
    /// One JSON object without line breaks, as in the log and as sent upstream.
    pub(crate) json: Bytes,
    /// Whether it stays on this host: a building block's, which is there for other rules and searches.
    pub(crate) local: bool,
}

/// A change of what must survive a restart: a row of the store's one key-value table.
pub(crate) struct Change {
    /// Whose row it is, such as `rule/<uuid>` or `cloudtrail/files`.
    pub(crate) scope: String,
    /// The row's key within the scope.
    pub(crate) key: String,
    /// The new value; `None` deletes the row.
    pub(crate) value: Option<Vec<u8>>,
}

impl Change {
    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.scope.len() + self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

impl AlertDocument {
    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.id.len() + self.json.len()
    }
}

/// How far the store has come in the alert log. The two differ while the spool is full.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LogCursor {
    /// The ids of all alerts up to there are known.
    Known,
    /// The documents of all alerts up to there were taken over.
    Taken,
}

impl LogCursor {
    fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Taken => "taken",
        }
    }
}

/// The store, open and locked.
pub(crate) struct Store {
    path: PathBuf,
    config: Config,
    sinks: Vec<String>,
    connection: Connection,
    spool: spool::Extent,
    /// That the store is not the one that was there, and why: a damaged one was put away, or the disk has no room.
    quarantined: Option<String>,
    /// Whether rows were left behind that are still to be deleted.
    has_left_behind: bool,
    /// Rows that were left behind or refused because they, or all of their owner's, take too much.
    rows_dropped: u64,
    trace: Arc<Trace>,
    _lock: File,
}

/// Changes that are made together, or not at all.
pub(crate) struct Changes<'a> {
    transaction: Transaction<'a>,
    spool: &'a mut spool::Extent,
    /// What `spool` becomes if the changes are made.
    after: spool::Extent,
    rows_dropped: &'a mut u64,
    /// Rows that are larger than the store takes.
    rows_refused: Cell<u64>,
}

impl Store {
    /// Opens the store in a state directory, creating both, for sinks of these names. A sink that is new
    /// begins with the next alert; one that is no longer named is forgotten.
    ///
    /// # Errors
    /// Another agent uses the directory; the file cannot be used, or is of a newer version. One that is damaged is put
    /// away, and a new one takes its place.
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
            .map_err(|error| match error.downcast_ref().and_then(|cause| cure(cause, &path)) {
                Some(cure) => error.context(cure),
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

    /// Puts the store away, for it is damaged, and begins a new one, in which sinks have these places and no number up to
    /// `last` is given again.
    ///
    /// # Errors
    /// The old one cannot be put away, or no new one can be made.
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

    /// Deletes some of the rows that were left behind when the store was opened, and gives the file system back what they
    /// took.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn delete_some(&mut self) -> rusqlite::Result<()> {
        let has_more = trim::delete_some(&self.connection)?;
        let has_given_back = spool::give_back(&self.connection)?;
        self.has_left_behind = has_more || has_given_back;
        Ok(())
    }

    /// Rows of the state that were left behind or refused because they take too much.
    pub(crate) fn rows_dropped(&self) -> u64 {
        self.rows_dropped
    }

    /// Begins changes that are made together by [`Changes::commit`].
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn change(&mut self) -> rusqlite::Result<Changes<'_>> {
        let transaction = self.connection.transaction()?;
        Ok(Changes {
            transaction,
            after: self.spool.clone(),
            spool: &mut self.spool,
            rows_dropped: &mut self.rows_dropped,
            rows_refused: Cell::new(0),
        })
    }

    /// How far the store has come in the alert log; `None` in a new store.
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

    /// Up to `count_max` rows of a scope whose keys come after `after`, in the order of their keys, and not many more bytes
    /// than [`ROWS_BYTES_READ`].
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

    /// Says what an error of the store means and what cures it.
    pub(crate) fn explain(&self, error: &rusqlite::Error) -> String {
        match cure(error, &self.path) {
            Some(cure) => format!("{cure} ({error})"),
            None => format!("the store {} cannot be used: {error}", self.path.display()),
        }
    }
}

impl Changes<'_> {
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

    /// Remembers how far the store has come in the alert log.
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

    /// Makes the changes and waits until they are on disk.
    ///
    /// # Errors
    /// The store cannot be written; nothing was changed.
    pub(crate) fn commit(self) -> rusqlite::Result<()> {
        spool::give_back(&self.transaction)?;
        self.transaction.commit()?;
        *self.spool = self.after;
        *self.rows_dropped += self.rows_refused.get();
        Ok(())
    }
}

/// Where the file of a store is; none where it is in memory. How long it is changes.
fn place(connection: &Connection, path: &Path) -> Option<KnownFile> {
    connection.path().filter(|path| !path.is_empty())?;
    Some(KnownFile::new(&std::fs::metadata(path).ok()?, 0))
}

/// One agent a state directory: two would deliver each other's alerts.
fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| {
            format!("cannot write {}: check `state_dir` and who may write there", path.display())
        })?;
    let deadline = Instant::now() + LOCK_WAIT;
    while file.try_lock().is_err() {
        if Instant::now() < deadline {
            std::thread::sleep(LOCK_WAIT / 20);
            continue;
        }
        let mut holder = String::new();
        // The number is a courtesy; the lock says all that counts.
        let _ = (&mut file).take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
        bail!(
            "another lapwing (process {}) uses the state directory {}: stop it, or give this one a `state_dir` of \
             its own",
            holder.trim(),
            directory.display()
        );
    }
    // The number is a courtesy: a full disk is no reason not to start.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// A store's file as it was opened.
struct Opened {
    connection: Connection,
    spool: spool::Extent,
    trimmed: trim::Trimmed,
    has_left_behind: bool,
}

/// Opens a store, whatever the disk has for it: a sensor that did not start because its disk is full could be kept down
/// by an unprivileged user who fills it. Says in `note` where it is not the store that was there.
fn connect_as_can_be(
    path: &Path,
    config: &Config,
    sinks: &[String],
    note: &mut Option<String>,
) -> Result<Opened> {
    let is =
        |error: &anyhow::Error, what: fn(&rusqlite::Error) -> bool| error.downcast_ref().is_some_and(what);
    let error = match connect(path, config, sinks, Home::Shared) {
        Err(error) if is(&error, is_damage) => {
            *note = Some(put_away(path)?);
            match connect(path, config, sinks, Home::Shared) {
                Err(error) => error,
                opened => return opened,
            }
        }
        Err(error) => error,
        opened => return opened,
    };
    if !is(&error, is_full) {
        return Err(error);
    }
    connect(path, config, sinks, Home::Exclusive).or_else(|_| {
        *note = Some(format!(
            "its disk has no room ({error:#}): free space and start the agent again; until then what it remembers is \
             in memory, and alerts are delivered from the alert log"
        ));
        connect(path, config, sinks, Home::Memory)
    })
}

/// Where a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// In its file, which others may read meanwhile.
    Shared,
    /// In its file, without the file beside it that readers share: it is there before it has any room on its disk.
    Exclusive,
    /// In memory, while the disk has no room at all.
    Memory,
}

fn connect(path: &Path, config: &Config, sinks: &[String], home: Home) -> Result<Opened> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = if home == Home::Memory {
        Connection::open_in_memory()?
    } else {
        // SQLite would make it readable to others; the files beside it get the mode of this one.
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Connection::open_with_flags(path, flags)?
    };
    if home == Home::Exclusive {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    connection.busy_timeout(BUSY_WAIT)?;
    // Before anything is set, which would change a file that is not ours.
    schema::format(&connection, schema::STEPS)?;
    // Damage that shows only where a page is read would show when it is needed.
    check(&connection, CHECKED_BYTES_MAX)?;
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA journal_size_limit = 8388608;
         PRAGMA cache_size = -1024;
         PRAGMA cell_size_check = ON;
         PRAGMA trusted_schema = OFF;",
    )?;
    schema::migrate(&mut connection, schema::STEPS)?;
    let spool = spool::Extent::open(&mut connection, config.size_max.as_u64(), sinks)?;
    // What is too much stays where the disk has no room for less: rules read no more of it than they may.
    let trimmed = trim::trim(&mut connection, trim::Limits::default())
        .or_else(|error| if is_full(&error) { Ok(trim::Trimmed::default()) } else { Err(error) })?;
    let has_left_behind = trim::has_left_behind(&connection)?;
    Ok(Opened { connection, spool, trimmed, has_left_behind })
}

/// Looks for damage, in a large file but in alerts that wait there: to read hundreds of megabytes takes longer than a start
/// may. Damage in these shows when they are read, and a new store takes the place of this one then.
fn check(connection: &Connection, bytes_max: i64) -> rusqlite::Result<()> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let is_large = pragma("page_count")?.saturating_mul(pragma("page_size")?) > bytes_max;
    let mut tables =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'alert' AND name NOT GLOB 'state_left_*'")?;
    let tables = tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for checked in if is_large { tables } else { vec!["1".to_owned()] } {
        let check = format!("PRAGMA quick_check({checked})");
        let found: String = connection.query_row(&check, [], |row| row.get(0))?;
        if found != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(code, Some(found)));
        }
    }
    Ok(())
}

/// Whether an error says that the file is damaged.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether an error says that the disk takes nothing.
fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}

/// Renames a damaged store, with what SQLite has beside it. An earlier one gives way: it is kept to be looked at, not for
/// ever. Says what was done.
fn put_away(path: &Path) -> Result<String> {
    let with = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = with(path, DAMAGED);
    for end in ["-wal", "-shm", ""] {
        let (from, to) = (with(path, end), with(&aside, end));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot rename {}", from.display()));
            }
            Err(_) => drop(std::fs::remove_file(to)),
            Ok(()) => {}
        }
    }
    Ok(format!(
        "it was damaged and is put away as {}; a new one was begun: rules learn anew, and alerts of the last day are \
         sent again",
        aside.display()
    ))
}

/// What an operator can do about an error, where something can be said.
fn cure(error: &rusqlite::Error, path: &Path) -> Option<String> {
    let path = path.display();
    Some(match error.sqlite_error_code()? {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => format!(
            "the store {path} is damaged: it is put away, and a new one takes its place; alerts of the last day are \
             then sent from the alert log, and rules learn anew"
        ),
        ErrorCode::DiskFull => format!("the store {path} cannot grow: free space on its file system"),
        ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
            format!(
                "the store {path} cannot be written: check who may write there, and whether its file system is \
                 mounted read-only"
            )
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            format!("the store {path} is locked by another program: end what else has it open")
        }
        ErrorCode::SystemIoFailure => format!("the store {path} cannot be read or written: check its disk"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;

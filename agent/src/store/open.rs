//! Opens the store's file, checks it for damage, and quarantines a damaged file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OpenFlags};

use super::error::{is_damage, is_full};
use super::extent::Extent;
use super::{Config, schema, spool, trim};

/// The suffix of a damaged store's name.
const DAMAGED: &str = ".damaged";
/// Largest store that is checked completely when it is opened.
const CHECKED_BYTES_MAX: i64 = 64 << 20;
/// How long to wait for a lock that another process, such as `sqlite3`, holds.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// A store's file as it was opened.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) spool: Extent,
    pub(super) trimmed: trim::Trimmed,
    pub(super) has_left_behind: bool,
}

/// Opens a store even on a full disk: otherwise an unprivileged user who fills the disk could prevent the agent's
/// start. If it is not the previous store, `note` says why.
pub(super) fn connect_as_can_be(
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
            "its disk has no room ({error:#}): free space and restart the agent; until then its state is \
             in memory, and alerts are delivered from the alert log"
        ));
        connect(path, config, sinks, Home::Memory)
    })
}

/// Where a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// In its file, which others may read meanwhile.
    Shared,
    /// In its file, without the shared-memory file that other readers need, which needs room on the disk.
    Exclusive,
    /// In memory, while the disk has no room at all.
    Memory,
}

pub(super) fn connect(path: &Path, config: &Config, sinks: &[String], home: Home) -> Result<Opened> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = if home == Home::Memory {
        Connection::open_in_memory()?
    } else {
        // SQLite would create it readable for others; its WAL files get the same mode.
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Connection::open_with_flags(path, flags)?
    };
    if home == Home::Exclusive {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    connection.busy_timeout(BUSY_WAIT)?;
    // Before any pragma, which would change a file of another program.
    schema::format(&connection, schema::STEPS)?;
    // Otherwise damage would appear only when the page is read.
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
    let spool = spool::open(&mut connection, config.size_max.as_u64(), sinks)?;
    // Trimming needs room. On a full disk the rows stay: rules read no more of them than their limits.
    let trimmed = trim::trim(&mut connection, trim::Limits::default())
        .or_else(|error| if is_full(&error) { Ok(trim::Trimmed::default()) } else { Err(error) })?;
    let has_left_behind = trim::has_left_behind(&connection)?;
    Ok(Opened { connection, spool, trimmed, has_left_behind })
}

/// Checks for damage. In a large file the waiting alerts are left out, because reading hundreds of megabytes would
/// delay the start. Damage in them appears when they are read; then the store is replaced.
pub(super) fn check(connection: &Connection, bytes_max: i64) -> rusqlite::Result<()> {
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

/// Renames a damaged store and its WAL files, over those of an earlier one, which is kept only for inspection. Returns
/// a description.
pub(super) fn put_away(path: &Path) -> Result<String> {
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
